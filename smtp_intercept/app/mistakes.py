"""Operators' mistakes in the configuration, and how they are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smtp_intercept.app.located import KeyPath, spelled

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake, before its line is known."""

    at: KeyPath
    reason: str
    remedy: str

    @property
    def key(self) -> str:
        """The key as people write it."""
        return spelled(self.at)


class MistakeError(ValueError):
    """Mistakes that were found where the file, and so the line, is not known. Their text is for who knows no more."""

    def __init__(self, *mistakes: Mistake) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(f"{m.key}: {m.reason}; {m.remedy}" for m in mistakes))


@dataclass(eq=False)
class ConfigError(ValueError):
    """One mistake: ``key`` is "" for the file as a whole, ``line`` counts from 1, None if there is none to show,
    and no ``path`` if it is of the host and of no file."""

    key: str
    reason: str
    remedy: str
    line: int | None
    path: Path | None

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}: " if self.line else f"{self.path}: " if self.path else ""
        key, remedy = (f"{self.key}: " if self.key else "", f"; {self.remedy}" if self.remedy else "")
        return f"{where}{key}{self.reason}{remedy}"


class ManyError(ValueError):
    """Every mistake, in the order of their lines; one line of text each. ``count`` has also those that are not told."""

    def __init__(self, errors: Iterable[ConfigError], count: int = 0) -> None:
        self.errors = tuple(errors)
        self.count = count or len(self.errors)
        super().__init__("\n".join(map(str, self.errors)))


class ConfigErrors(ManyError):  # noqa: N818 it holds them
    """Those of the file's text."""


class RefusedError(ManyError):
    """Those that the file and this host make together: what is named is not there, or cannot be had."""
