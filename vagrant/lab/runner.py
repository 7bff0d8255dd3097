"""What runs the machines: the one interface of QEMU alone and of Vagrant, and the note of which of them does now."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from vagrant.lab import places, plan
from vagrant.lab.access import Access
from vagrant.lab.doing import Progress
from vagrant.lab.plan import Machine, Suite


class Way(StrEnum):
    """How machines are run."""

    QEMU = "qemu"
    VAGRANT = "vagrant"


class Acceleration(StrEnum):
    KVM = "kvm"
    TCG = "tcg"  # no hardware virtualization: QEMU emulates the processor


@dataclass(frozen=True, slots=True)
class Choice:
    """What the lab that is up was asked to be. ``box`` is the directory of its own box; empty: a public one."""

    suite: Suite
    way: Way
    acceleration: Acceleration
    box: str = ""

    @property
    def own(self) -> bool:
        """The lab's own box; Vagrant takes a public one where the hardware helps."""
        return self.way is Way.QEMU or self.acceleration is Acceleration.TCG


class Runner(Protocol):
    """Machines of one choice. Every method may be repeated."""

    @property
    def machines(self) -> tuple[Machine, ...]: ...

    @property
    def access(self) -> Access: ...

    @property
    def serial(self) -> Mapping[str, str]:
        """Machine → the file with what it said on its console."""

    def boot(self, stage: Path, progress: Progress) -> None:
        """All machines have power, new ones from their box, and are provisioned with ``stage``: scripts and package."""

    def power(self, name: str, *, on: bool) -> None:
        """Cut a machine's power, or give it back."""

    def set_link(self, machine: str, card: str, *, up: bool) -> None:
        """Pull a cable, or put it back."""

    def remove(self) -> None:
        """The machines and all that they had here, but no logs and no box."""


def planned() -> tuple[Machine, ...]:
    return plan.machines((places.VAGRANT / "machines.json").read_text())


def noted() -> Choice | None:
    """The lab that is up, or None."""
    try:
        note = json.loads((places.RUN / "lab.json").read_text())
    except FileNotFoundError:
        return None
    return Choice(Suite(note["suite"]), Way(note["way"]), Acceleration(note["acceleration"]), note["box"])


def note(choice: Choice | None) -> None:
    """Write down which lab is up, for the next command; None: none is."""
    path = places.RUN / "lab.json"
    if choice is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(json.dumps(asdict(choice)))


def acceleration() -> Acceleration:
    """KVM where it is this machine's own. Inside another virtual machine it often starts and then fails: ask for it."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    own = bool(flags & {"vmx", "svm"}) and "hypervisor" not in flags and os.access("/dev/kvm", os.R_OK | os.W_OK)
    return Acceleration.KVM if own else Acceleration.TCG


def way(acceleration: Acceleration) -> Way:
    """Vagrant where it has something to run machines with, else QEMU alone."""
    provider = shutil.which("VBoxManage") or Path("/run/libvirt/libvirt-sock").exists()
    return Way.VAGRANT if shutil.which("vagrant") and provider and acceleration is Acceleration.KVM else Way.QEMU
