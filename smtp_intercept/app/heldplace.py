"""The directory that content is held in until rules have decided: opened while there is privilege, one's own."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})


def held_place(directory: Path, uid: int, gid: int) -> Callable[[], int]:
    """What opens files there. OSError: there is no such place."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not os.geteuid():
        os.fchown(at, uid, gid)
    os.fchmod(at, 0o700)
    return lambda: unnamed(at)


def unnamed(directory: int) -> int:
    """A file in an open directory that has no name, and goes with its process."""
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    name = secrets.token_hex(16)
    file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    os.unlink(name, dir_fd=directory)
    return file
