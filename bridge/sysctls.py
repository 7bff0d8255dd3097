"""Sysctls of the network namespace that the thread is in: /proc/sys, read and written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc/sys")


def sysctl_path(name: str) -> Path:
    """Dots separate, and / stands for a dot inside a link's name (sysctl(8))."""
    return _PROC / name.translate(str.maketrans("./", "/."))


def read_sysctl(name: str) -> str | None:
    """The value, or None where this kernel does not have it."""
    try:
        return sysctl_path(name).read_text().strip()
    except OSError:
        return None


def write_sysctl(name: str, value: str) -> None:
    sysctl_path(name).write_text(value)


def read_sysctls(names: Iterable[str]) -> dict[str, str]:
    """Those of the names that this kernel has."""
    return {name: value for name in names if (value := read_sysctl(name)) is not None}


def writable_sysctls(names: Iterable[str]) -> dict[str, str]:
    """Those of them that this network namespace may set: some are the whole machine's."""
    return read_sysctls(name for name in names if os.access(sysctl_path(name), os.W_OK))
