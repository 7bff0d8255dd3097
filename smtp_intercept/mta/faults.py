"""What can go wrong with the spool, each in a line that names the file and the remedy."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}


class SpoolError(Exception):
    """The spool cannot do what was asked now. ``temporary``: nothing is lost, and asking again later may succeed."""

    def __init__(self, text: str, *, temporary: bool = False) -> None:
        super().__init__(text)
        self.temporary = temporary


class SpoolFullError(SpoolError):
    """No room: nothing was kept of what was asked; the room comes back as mail leaves."""

    def __init__(self, text: str) -> None:
        super().__init__(text, temporary=True)


class SpoolLockedError(SpoolError):
    """Another process has the spool."""


class NoSuchMessageError(SpoolError):
    """No message with this id, or not any more."""


def of_system(error: OSError, path: Path) -> SpoolError:
    """An error of the file system."""
    text = f"{path}: {error.strerror or error}"
    if error.errno in _FULL:
        return SpoolFullError(f"{text}; make room on its disk")
    if error.errno == errno.EROFS:
        return SpoolError(f"{text}; see why the disk went read-only (dmesg), then remount it", temporary=True)
    return SpoolError(f"{text}; see the disk and the owner of the file", temporary=True)


def of_database(error: sqlite3.Error, path: Path) -> SpoolError:
    """An error of SQLite's."""
    raise NotImplementedError
