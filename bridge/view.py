"""A process's own view of the files: nothing to write but what it keeps, and empty places where others' things lie.

For who has CAP_SYS_ADMIN still. Nobody else's view changes. Raises OSError.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from bridge.libc import BIND, NEW_MOUNTS, PRIVATE, QUIET, REC, fail, libc, mount

# linux/mount.h
_READ_ONLY, _NO_SUID = 0x1, 0x2  # MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID
_MOUNT_SETATTR = 442  # the same on every architecture that Debian has; Linux 5.12
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
EMPTY_OCTETS = 65536  # of a place that is left empty: for the mount points in it


class _Attributes(ctypes.Structure):
    """struct mount_attr"""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def narrow(hidden: Iterable[Path], seen: Iterable[Path] = (), written: Iterable[Path] = ()) -> list[str]:
    """``hidden`` are empty from now on, but for what of ``seen`` and ``written`` lies below one of them; of all else
    only ``written`` can be written. What is not there is passed over. Returns what of it the kernel would not do."""
    if libc.unshare(NEW_MOUNTS):
        fail("unshare")
    mount(None, Path("/"), None, REC | PRIVATE)
    kept = dict.fromkeys([*_real(written), *_real(seen)])
    with ExitStack() as stack:
        # Held by descriptors: their paths lead nowhere once a place above them is empty.
        opened = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in kept}
        for fd in opened.values():
            stack.callback(os.close, fd)
        for path, shown in changes([path for path in _real(hidden) if path.is_dir()], kept):
            if shown:
                _show(path, opened[path])
            else:
                mount("none", path, "tmpfs", QUIET, f"size={EMPTY_OCTETS},mode=755")
        refused = _read_only(Path("/"))
        for path in _real(written):
            _writable(path, opened[path])
    return refused


def changes(hidden: Iterable[Path], kept: Iterable[Path]) -> list[tuple[Path, bool]]:
    """Each path whose visibility is another than of what it lies in, from the root downwards, and whether it is seen.
    What is to be both is seen."""
    wanted = dict.fromkeys(hidden, False) | dict.fromkeys(kept, True)
    found = list[tuple[Path, bool]]()
    for path in sorted(wanted, key=lambda path: len(path.parts)):
        around = next((wanted[above] for above in path.parents if above in wanted), True)
        if wanted[path] is not around:
            found.append((path, wanted[path]))
    return found


def _real(paths: Iterable[Path]) -> list[Path]:
    return [path.resolve() for path in paths if path.exists()]


def _show(path: Path, fd: int) -> None:
    """In the empty place, as it was."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112 - what a descriptor is
        path.mkdir(mode=0o755, exist_ok=True)
    else:
        path.touch()
    mount(f"/proc/self/fd/{fd}", path, None, BIND | REC)


def _writable(path: Path, fd: int) -> None:
    """A mount of its own, if it has none yet."""
    if not path.is_mount():
        mount(f"/proc/self/fd/{fd}", path, None, BIND | REC)
    _set_attributes(path, clear=_READ_ONLY, flags=0)


def _read_only(path: Path) -> list[str]:
    try:
        _set_attributes(path, set_=_READ_ONLY | _NO_SUID)
    except OSError as error:
        return [f"the files are not read-only to it: {error.strerror}"]
    return []


def _set_attributes(path: Path, *, set_: int = 0, clear: int = 0, flags: int = _AT_RECURSIVE) -> None:
    attributes = _Attributes(set_, clear, 0, 0)
    words = (ctypes.c_long(_MOUNT_SETATTR), _AT_FDCWD, os.fsencode(path), ctypes.c_uint(flags))
    if libc.syscall(*words, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes))):
        fail(f"mount_setattr {path}")
