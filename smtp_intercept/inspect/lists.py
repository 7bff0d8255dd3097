"""Lists of entries in files of their own, read again when they change.

One kind of I/O: reads files. A list that cannot be read, or has a mistake, stays as it last was, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smtp_intercept.inspect.criteria import Kind

# Read by processes that strangers keep waiting: half a second's work at most.
MAX_LIST_BYTES = 8 << 20
MAX_ENTRIES = 200_000
COMMENT = "#"


class ListError(ValueError):
    """A list that cannot be used: the file and, if there is one, the line."""

    def __init__(self, path: str, line: int, reason: str, remedy: str) -> None:
        self.place, self.reason, self.remedy = f"{path}{f':{line}' * bool(line)}", reason, remedy
        super().__init__(f"{self.place}: {reason}; {remedy}")


def read_list(path: str, kind: Kind) -> tuple[Any, ...]:
    """One entry a line; empty lines and what stands behind ``#`` do not count. `ListError` is the first mistake."""
    try:
        text = _text(path)
    except OSError as error:
        raise ListError(path, 0, error.strerror or "cannot be read", "make it, readable for everybody") from None
    except ValueError as error:
        raise ListError(path, 0, str(error), "write one entry a line, in UTF-8") from None
    return parse_list(text, kind, path)


def parse_list(text: str, kind: Kind, path: str) -> tuple[Any, ...]:
    """As `read_list`, from its text."""
    entries: dict[Any, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not (word := line.partition(COMMENT)[0].strip()):
            continue
        try:
            entries[kind.read(word)] = None
        except ValueError as error:
            raise ListError(path, number, str(error), f"write it like {kind.example}") from None
        if len(entries) > MAX_ENTRIES:
            raise ListError(path, number, f"has more than {MAX_ENTRIES} entries", "name networks or domains")
    return tuple(entries)


def _text(path: str) -> str:
    """Of a plain file: a named pipe would be waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not Path(f"/proc/self/fd/{descriptor}").is_file():
            raise ValueError("is not a file")
        octets = file.read(MAX_LIST_BYTES + 1)
    if len(octets) > MAX_LIST_BYTES:
        raise ValueError(f"has more than {MAX_LIST_BYTES} octets")
    return octets.decode("utf-8-sig")


@dataclass(slots=True)
class _Kept:
    entries: tuple[Any, ...] = ()
    stamp: tuple[int, ...] = ()
    error: str = ""


@dataclass(slots=True)
class Lists:
    """The lists that rules name, by path and kind. `refresh` is to be asked now and then."""

    wanted: Iterable[tuple[str, Kind]]
    tell: Callable[[str], None] = lambda text: None
    _kept: dict[tuple[str, Kind], _Kept] = field(default_factory=dict)

    def load(self) -> None:
        """All of them; `ListError` for the first that cannot be used."""
        for path, kind in dict.fromkeys(self.wanted):
            stamp = _stamp(path)  # before: what is written meanwhile is read next time
            self._kept[path, kind] = _Kept(read_list(path, kind), stamp)

    def refresh(self) -> bool:
        """Look whether files have changed: whether any entries have."""
        return any(self._look(path, kind, kept) for (path, kind), kept in self._kept.items())

    def _look(self, path: str, kind: Kind, kept: _Kept) -> bool:
        stamp = _stamp(path)
        if stamp == kept.stamp:
            return False
        kept.stamp = stamp
        try:
            entries = read_list(path, kind)
        except ListError as error:
            kept.error = str(error)
            self.tell(f"{error}; as it was before; entries: {len(kept.entries)}")
            return False
        changed, kept.entries, kept.error = entries != kept.entries, entries, ""
        if changed:
            self.tell(f"{path}: read again; entries: {len(entries)}")
        return changed

    def entries(self, path: str, kind: Kind) -> tuple[Any, ...]:
        """Of one list, as it was last well."""
        return self._kept[path, kind].entries

    def errors(self) -> list[str]:
        """Of files that are not as they are used."""
        return [kept.error for kept in self._kept.values() if kept.error]


def _stamp(path: str) -> tuple[int, ...]:
    """Another one when the file is: written, or another in its place."""
    try:
        now = Path(path).stat()
    except OSError as error:
        return (-(error.errno or 1),)
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns
