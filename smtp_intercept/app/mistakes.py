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
    """One mistake: ``key`` is "" for the file as a whole, ``line`` counts from 1, None if there is none to show."""

    key: str
    reason: str
    remedy: str
    line: int | None
    path: Path

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else str(self.path)
        key = f"{self.key}: " if self.key else ""
        return f"{where}: {key}{self.reason}; {self.remedy}"


class ConfigErrors(ValueError):  # noqa: N818 it holds them
    """Every mistake of a file, in the order of their lines; one line of text each."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))
