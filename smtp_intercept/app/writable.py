"""Whether a file could be appended to or a directory used, found out without leaving anything behind."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def why_not_appended(path: Path) -> str:
    """Why the log cannot be opened; "" if it can. One that is not there yet, and its directory, would be made."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):  # to open a pipe would wait for a reader
            return "is a directory" if stat.S_ISDIR(mode) else "is not a file"
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY))
    except FileNotFoundError:
        return why_not_made(path)
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    return ""


def torn(path: Path) -> bool:
    """Whether the last line of a log has no end, as after a power cut: the next record must not be a part of it."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as written:
        written.seek(-1, os.SEEK_END)
        return written.read() != b"\n"


def why_not_made(path: Path) -> str:
    """Why nothing can be made below the nearest directory that is there. Not even root writes to a kernel's own."""
    try:
        above = next(parent for parent in path.parents if parent.exists())
        if not above.is_dir():
            return f"cannot be made: {above} is not a directory"
        if above.stat().st_dev in {Path(own).stat().st_dev for own in ("/proc", "/sys") if Path(own).exists()}:
            return f"cannot be made: {above} is the kernel's own"
    except OSError as error:
        return f"cannot be made: {error.strerror}"
    # The flags of its mount too (EROFS, chattr +i).
    return "" if os.access(above, os.W_OK | os.X_OK, effective_ids=True) else f"cannot be made: {above} is not writable"


def why_no_spool(directory: Path, uid: int, gid: int, holds: str = "mail", who: str = "MTA") -> str:
    """Why that user cannot keep mail there, or what it ``holds``; root makes the directory, but nothing above it."""
    try:
        if not directory.exists():
            if not directory.parent.is_dir():
                return f"cannot be made: there is no directory {directory.parent}"
            return why_not_made(directory) or _why_not_entered(directory.parent, os.X_OK, uid, gid)
        if not directory.is_dir():
            return "is not a directory"
        owner = directory.stat().st_uid
        if owner != uid and any(directory.iterdir()):
            return f"belongs to user {owner}, and the {holds} in it to whom it belongs; the {who} runs as user {uid}"
        return _why_not_entered(directory.parent, os.X_OK, uid, gid) or (
            _why_not_entered(directory, os.R_OK | os.W_OK | os.X_OK, uid, gid) if owner == uid else ""
        )
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"


def _why_not_entered(directory: Path, how: int, uid: int, gid: int) -> str:
    with as_user(uid, gid):
        may = os.access(directory, how, effective_ids=True)
    return "" if may else f"user {uid} may not enter {directory}"


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """For a while, in which nobody else runs in this process. Without root as whoever asks."""
    if os.geteuid():
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
