"""The lab's own box: built by box/build.sh, and kept by a hash of what it is built from."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from vagrant.lab import places
from vagrant.lab.doing import Progress, run

BUILD_S = 1800.0  # one and a half minutes on a quiet machine, with the mirror near
KNOBS = ("DEBIAN_MIRROR", "LAB_KERNEL")  # of build.sh, from the environment


@dataclass(frozen=True, slots=True)
class Box:
    """``directory`` is what build.sh made."""

    directory: Path

    @property
    def image(self) -> Path:
        return self.directory / "box.img"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def key(self) -> Path:
        return self.directory / "key"

    @property
    def cmdline(self) -> str:
        return (self.directory / "cmdline").read_text().strip()


def kept(suite: str) -> Box:
    """Where the box of this suite is, or is to be."""
    return Box(places.KEPT / "boxes" / f"{suite}-{_digest()[:16]}")


def _digest() -> str:
    sources = [places.VAGRANT / "provision/packages.txt", *sorted((places.VAGRANT / "box").rglob("*"))]
    digest = hashlib.sha256(repr([os.environ.get(knob) for knob in KNOBS]).encode())
    for path in sources:
        if path.is_file():
            digest.update(f"{path.relative_to(places.VAGRANT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def ensure(suite: str, progress: Progress) -> Box:
    """The box of this suite, built if it is not there; older ones of the suite go. `LabError` if it cannot be built."""
    box = kept(suite)
    if box.image.exists():
        progress.say(f"box: {box.directory.relative_to(places.ROOT)}")
        return box
    for old in box.directory.parent.glob(f"{suite}-*"):
        shutil.rmtree(old)
    work = box.directory.with_name(f"{suite}.new")
    with progress.step(f"box: Debian {suite} built"):
        run([places.VAGRANT / "box/build.sh", suite, work], timeout_s=BUILD_S)
    work.rename(box.directory)
    return box
