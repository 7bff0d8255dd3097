"""What can go wrong with the spool, each in a line that names the file and the remedy."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from smtp_intercept.answers import Answer

FULL = {errno.ENOSPC, errno.EDQUOT}
FULL_NAMES = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")  # the latter: no room for the log's index
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")


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


class NoQueueError(SpoolError):
    """The spool's directory holds no queue, or is not there: no MTA has ever run there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path}: no queue there (yet); the MTA makes it at its first start, see mta.spool")


class NotTakenError(SpoolError):
    """The relay that is asked in the spool's place took the message for no recipient: the client hears ``answer``, and
    keeps it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.code} {answer.text}", temporary=answer.code < 500)
        self.answer = answer


class NoSuchMessageError(SpoolError):
    """No message with this id, or not any more."""

    def __init__(self, queue_id: str) -> None:
        super().__init__(f"{queue_id}: no such message in the queue (any more); see `tollbridge queue list`")


def of_system(error: OSError, path: Path) -> SpoolError:
    """An error of the file system."""
    reason = f"{path}: {error.strerror or error}"
    if error.errno in FULL:
        return SpoolFullError(f"{reason}; make room on its disk")
    if error.errno == errno.EROFS:
        return _read_only(reason)
    return SpoolError(f"{reason}; see its disk (dmesg) and who owns it", temporary=True)


def of_database(error: sqlite3.Error, path: Path) -> SpoolError:
    """An error of SQLite's."""
    name, reason = getattr(error, "sqlite_errorname", None) or "", f"{path}: {error}"
    if name in FULL_NAMES:
        return SpoolFullError(f"{reason}; make room on its disk")
    if name.startswith("SQLITE_READONLY"):
        return _read_only(reason)
    if name.startswith(_DAMAGED):
        return damaged(path, str(error))
    if name.startswith(_BUSY):
        return SpoolError(f"{reason}; another process changes the queue, try again", temporary=True)
    return SpoolError(f"{reason} ({name}); see its disk (dmesg) and who owns it", temporary=True)


def damaged(path: Path, reason: str) -> SpoolError:
    """Nothing is deleted: what can be read of it is still mail."""
    fresh = path.with_suffix(".new")
    return SpoolError(
        f"{path}: damaged ({reason}); nothing was deleted. Stop Tollbridge, copy {path.parent}, then "
        f"`sqlite3 {path} .recover | sqlite3 {fresh}`, and put {fresh} in its place"
    )


def _read_only(reason: str) -> SpoolError:
    return SpoolError(f"{reason}; see why its disk went read-only (dmesg), then mount it read-write", temporary=True)
