"""Puts a filter of system calls before this process, for good, by libseccomp, which has their numbers; or OSError.

What it refuses fails with an error, and is in the kernel's audit log where that is on.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from contextlib import suppress

from bridge.denied import Denial

LIBRARY = "libseccomp.so.2"
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000  # seccomp.h
_CTL_NO_NEW_PRIVS, _CTL_ALL_THREADS, _CTL_LOG = 3, 4, 6
_UNKNOWN = -1  # __NR_SCMP_ERROR


class _Compared(ctypes.Structure):
    """struct scmp_arg_cmp; of a masked comparison the first datum is the mask."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


def deny(denials: Iterable[Denial]) -> None:
    """All else stays allowed; every thread of this process, and whatever comes of it. A call that this machine or
    library does not know is left out."""
    library = _library()
    context = library.seccomp_init(_ALLOW)
    if not context:
        raise OSError(errno.ENOMEM, "seccomp_init")
    try:
        _check(library.seccomp_attr_set(context, _CTL_ALL_THREADS, 1), "the filter for all threads")
        with suppress(OSError):  # Linux before 4.14
            _check(library.seccomp_attr_set(context, _CTL_LOG, 1), "the log")
        for denial in denials:
            _add(library, context, denial)
        _check(library.seccomp_load(context), "loading the filter of system calls")
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, denial: Denial) -> None:
    number = library.seccomp_syscall_resolve_name(denial.call.encode())
    if number == _UNKNOWN:
        return
    compared = [
        _Compared(each.index, each.operator.value, *((each.mask, each.value) if each.mask else (each.value, 0)))
        for each in denial.when
    ]
    array = (_Compared * len(compared))(*compared)
    words = (context, _ERRNO | denial.error, number, len(compared), array)
    said = library.seccomp_rule_add_array(*words)
    # One that this architecture does not have, which the library knows by a number below 0.
    if said and not (number < 0 and said in (-errno.EDOM, -errno.EINVAL)):
        _check(said, denial.call)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        raise OSError(errno.ENOENT, f"there is no {LIBRARY} (apt-get install libseccomp2)") from None
    library.seccomp_init.argtypes, library.seccomp_init.restype = (ctypes.c_uint32,), ctypes.c_void_p
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Compared),
    )
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    for name in ("seccomp_load", "seccomp_release"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
    library.seccomp_release.restype = None
    return library


def _check(said: int, what: str) -> None:
    """The library returns an error's number below 0."""
    if said:
        raise OSError(-said, f"{what}: {os.strerror(-said)}")
