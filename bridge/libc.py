"""The C library's calls that Python has no name for: `libc` itself, its errors, and mount(2)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import NoReturn

NEW_MOUNTS, NEW_NET = 0x0002_0000, 0x4000_0000  # CLONE_NEWNS, CLONE_NEWNET (linux/sched.h)
# linux/mount.h
BIND, REC, PRIVATE, SLAVE, SHARED = 0x1000, 0x4000, 0x4_0000, 0x8_0000, 0x10_0000
QUIET = 0x2 | 0x4 | 0x8  # nosuid, nodev, noexec
libc = ctypes.CDLL(None, use_errno=True)


def fail(what: str) -> NoReturn:
    """OSError for the call that has just failed."""
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str | None, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
    """OSError names the target."""
    source_, kind_, options_ = (None if word is None else os.fsencode(word) for word in (source, kind, options))
    if libc.mount(source_, os.fsencode(target), kind_, ctypes.c_ulong(flags), options_):
        fail(f"mount {target}")
