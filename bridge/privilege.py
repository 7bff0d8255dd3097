"""Gives up privilege for good: another user, named capabilities and no way to more. Raises OSError."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
from collections.abc import Iterable
from enum import IntEnum

from bridge.libc import fail, libc

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 28, 38, 47, 4
# NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE on, KEEP_CAPS off, all four locked (linux/securebits.h): a change
# of user leaves the capabilities alone, and user 0 means nothing any more.
_SECUREBITS = 0xEF
_VERSION_3 = 0x2008_0522  # linux/capability.h


class Capability(IntEnum):
    """linux/capability.h"""

    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def confine(uid: int, gid: int, keep: Iterable[Capability] = ()) -> None:
    """Become that user with only the capabilities ``keep``; nothing, exec included, can bring another one back."""
    keep = tuple(keep)
    _drop_bounding_set()
    _prctl(_PR_SET_SECUREBITS, _SECUREBITS)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    _set_capabilities(keep)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)  # no core file and no debugger sees somebody's mail
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def restrict(keep: Iterable[Capability]) -> None:
    """Only these capabilities, for this process and what it executes; the user stays. Where it may not take others out
    of reach, somebody else has (a unit's CapabilityBoundingSet)."""
    keep = tuple(keep)
    with contextlib.suppress(PermissionError):
        _drop_bounding_set(keep)
    _set_capabilities(keep)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send this signal when the parent is gone, however it went; now, if it has gone already."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_number)


def allow_files(count: int) -> int:
    """Raise the limit of open files as far towards ``count`` as allowed; returns what it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _drop_bounding_set(keep: Iterable[int] = ()) -> None:
    """All of it but ``keep``: every number up to the first that this kernel does not know."""
    for number in (number for number in range(64) if number not in tuple(keep)):
        try:
            _prctl(_PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno == errno.EINVAL and number:
                return
            raise


def _set_capabilities(keep: Iterable[Capability]) -> None:
    bits = sum(1 << capability for capability in keep)
    sets = (_Sets * 2)(_Sets(bits, bits, 0), _Sets(0, 0, 0))
    if libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), sets):
        fail("capset")


def _prctl(option: int, value: int) -> None:
    if libc.prctl(option, *(ctypes.c_ulong(argument) for argument in (value, 0, 0, 0))):
        fail(f"prctl({option}, {value})")
