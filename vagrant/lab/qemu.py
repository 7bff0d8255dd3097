"""The machines by QEMU alone. They, their cables and the way in live in one network namespace that leads nowhere.

A wire is a bridge in it; a cable is a TAP device, without the offers by which QEMU would carry frames longer than 1500
octets. SSH comes in by a user-mode card of each machine, which reaches nothing from inside.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from smtp_intercept.app.lab import namespaces, network
from smtp_intercept.app.lab.host import LabError
from vagrant.lab import monitor, places, plan
from vagrant.lab.box import Box
from vagrant.lab.doing import run
from vagrant.lab.plan import Card, Machine

NAMESPACE = "tollbridge-vms"
INSIDE = ("ip", "netns", "exec", NAMESPACE)
PORTS_FROM = 2201  # of SSH, on the namespace's own 127.0.0.1
ENDED_S = 20.0
# QEMU 7.2 loses the processor's flags around cmpxchg16b, and Linux 6.12 then double-faults: no cx16.
TCG = ("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64,-cx16,-svm")
ACCELERATION = {"kvm": ("-accel", "kvm", "-cpu", "host"), "tcg": TCG}


def tap(machine: str, card: str) -> str:
    """The name of a cable's end here, which is also that of the device in the machine."""
    return f"{machine}-{card}"


def command(machine: Machine, box: Box, disk: Path, acceleration: str, ssh_port: int) -> list[str]:
    """The command line of one machine."""
    where = places.RUN / machine.name
    management = f"user,id=management,restrict=on,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"
    return [
        *("qemu-system-x86_64", "-name", machine.name, *ACCELERATION[acceleration], "-smp", str(machine.cpus)),
        *("-m", str(machine.memory_mib), "-nodefaults", "-display", "none"),
        *("-chardev", f"file,id=console,path={console(machine.name)},append=on", "-serial", "chardev:console"),
        *("-kernel", str(box.kernel), "-initrd", str(box.initrd), "-append", box.cmdline),
        *("-drive", f"file={disk},if=virtio,cache=unsafe", "-device", "virtio-rng-pci"),
        *("-netdev", management, "-device", "virtio-net-pci,netdev=management,romfile="),
        *(word for card in machine.cards for word in _card(machine.name, card)),
        *("-qmp", f"unix:{where}.qmp,server=on,wait=off", "-pidfile", f"{where}.pid", "-daemonize"),
    ]


def _card(machine: str, card: Card) -> list[str]:
    end = tap(machine, card.name)
    device = f"virtio-net-pci,netdev={end},mac={card.mac},romfile="
    return ["-netdev", f"tap,id={end},ifname={end},script=no,downscript=no,vnet_hdr=off", "-device", device]


def console(name: str) -> Path:
    return places.KEPT / "consoles" / f"{name}.log"


def lay_wires(machines: Sequence[Machine]) -> None:
    """The namespace, and in it a bridge for every wire and a TAP device for every end."""
    namespaces.make(NAMESPACE, network.SWITCH)
    for wire, ends in plan.wires(machines).items():
        taps = [tap(*end) for end in ends]
        for name in taps:
            run([*INSIDE, "ip", "tuntap", "add", "dev", name, "mode", "tap"])
        namespaces.add_switch(NAMESPACE, wire, taps)
    namespaces.unfilter_bridges(NAMESPACE)


def disk(name: str) -> Path:
    return places.KEPT / "disks" / f"{name}.qcow2"


def start(machine: Machine, box: Box, acceleration: str, ssh_port: int) -> None:
    """Power. A new machine starts from the box, one that was there before from what it has written."""
    path = disk(machine.name)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        console(machine.name).parent.mkdir(exist_ok=True)
        console(machine.name).unlink(missing_ok=True)
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", box.image, "-F", "qcow2", path])
    run([*INSIDE, *command(machine, box, path, acceleration, ssh_port)])


def pid(name: str) -> int | None:
    """Of a machine that has power."""
    try:
        number = int((places.RUN / f"{name}.pid").read_text())
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return number if str(disk(name)).encode() in b"".join(words) else None


def power_off(name: str) -> None:
    """At once: what the machine has not written is lost. Safe to repeat."""
    number = pid(name)
    if number is None:
        return
    os.kill(number, signal.SIGKILL)
    deadline_at = time.monotonic() + ENDED_S
    while pid(name) is not None:
        if time.monotonic() > deadline_at:
            raise LabError(f"{name}: QEMU (pid {number}) does not end")
        time.sleep(0.05)


def set_link(machine: str, card: str, *, up: bool) -> None:
    """The cable of one card: out, or in again; the machine's kernel sees its carrier go or come."""
    monitor.say(places.RUN / f"{machine}.qmp", "set_link", name=tap(machine, card), up=up)


def remove(machines: Sequence[Machine]) -> None:
    """Everything but logs. Safe to repeat."""
    for machine in machines:
        power_off(machine.name)
        disk(machine.name).unlink(missing_ok=True)
    if (namespaces.NAMESPACES / NAMESPACE).exists():
        run(["ip", "netns", "delete", NAMESPACE])
