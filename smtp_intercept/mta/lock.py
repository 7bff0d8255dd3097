"""The spool's lock: one process has it, and whoever comes second is told which."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from smtp_intercept.mta import faults
from smtp_intercept.mta.faults import SpoolLockedError


def locked(path: Path) -> int:
    """A descriptor; the lock goes when it is closed, so with the process, however it ends. `SpoolLockedError`."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise faults.of_system(error, path) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        raise SpoolLockedError(f"{path}: {_process(holder)} has this spool; stop that one first") from None
    except OSError as error:
        os.close(fd)
        raise faults.of_system(error, path) from error
    return fd


def _process(pid: str) -> str:
    program = ""
    with suppress(OSError):
        program = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return f"process {pid or '?'}" + (f" ({program})" if program else "")
