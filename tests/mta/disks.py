"""Small file systems, which take root: a tmpfs, and an ext4 whose image can be copied as after a power cut."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tools import as_installed
from tests.unshown import NOT_ROOT

COMMAND_S = 120.0
IMAGE_BYTES = 64 << 20


def command(*words: str | Path, check: bool = True) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if check and done.returncode:
        pytest.fail(f"{' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


@contextmanager
def mounted(where: Path, *words: str | Path) -> Iterator[Path]:
    """Mount as ``words`` say, which takes root."""
    NOT_ROOT.skip()
    where.mkdir(exist_ok=True)
    command("mount", *words, where)
    try:
        yield where
    finally:
        if subprocess.run(["umount", str(where)], capture_output=True, timeout=COMMAND_S, check=False).returncode:
            command("umount", "--lazy", where)


@contextmanager
def small_disk(where: Path, options: str) -> Iterator[Path]:
    """A tmpfs, which can be full."""
    with mounted(where, "-t", "tmpfs", "-o", options, "tmpfs"):
        yield where


def image(path: Path) -> Path:
    """An empty ext4."""
    with path.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    command(*as_installed("mkfs.ext4", "-q", "-F", str(path)))
    return path


@contextmanager
def disk_of(path: Path, where: Path, options: str = "") -> Iterator[Path]:
    """An image, mounted; nothing is written back to it by the kernel's clock, only by fsync."""
    with mounted(where, "-o", f"loop,commit=300{options}", path):
        yield where


def loop_device(where: Path) -> str:
    """The device's name below /sys."""
    return Path(command("findmnt", "-n", "-o", "SOURCE", where).strip()).name
