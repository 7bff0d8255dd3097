"""A libvirtd for the lab alone, in a network namespace that leads nowhere: for a machine without one, or no way out.

This machine's own libvirt configuration stays as it is: `ip netns exec` shows what is in /etc/netns/NAME in its place.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.host import LabError
from vagrant.lab import places
from vagrant.lab.doing import run

NAMESPACE = "tollbridge-vagrant"
INSIDE = ("ip", "netns", "exec", NAMESPACE)
READY_S = 30.0
HERE = Path("/etc/netns") / NAMESPACE / "libvirt"
PID = places.RUN / "libvirtd.pid"
DAEMON = """\
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""
# No systemd, no cgroups, no AppArmor and no virtlogd are asked for: none of them need be there.
QEMU = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""


def start() -> None:
    """Safe to repeat. `LabError` if this machine has another libvirtd, whose sockets it would take."""
    if running() is not None:
        return
    if Path("/run/libvirt/libvirt-sock").exists() and _answers(()):
        raise LabError("a libvirtd runs here already: choose --accelerate kvm, or --runner qemu")
    if not (namespaces.NAMESPACES / NAMESPACE).exists():
        namespaces.make(NAMESPACE, {})
    shutil.rmtree(HERE, ignore_errors=True)
    shutil.copytree("/etc/libvirt", HERE)
    (HERE / "libvirtd.conf").write_text(f'{DAEMON}log_outputs = "3:file:{places.KEPT}/libvirtd.log"\n')
    (HERE / "qemu.conf").write_text(QEMU)
    run([*INSIDE, "libvirtd", "--daemon", "--pid-file", PID])
    deadline_at = time.monotonic() + READY_S
    while not _answers(INSIDE):
        if time.monotonic() > deadline_at:
            raise LabError(f"libvirtd does not answer: {places.KEPT}/libvirtd.log")
        time.sleep(0.2)


def _answers(enter: tuple[str, ...]) -> bool:
    return bool(run([*enter, "virsh", "-q", "-c", "qemu:///system", "version"], check=False))


def running() -> int | None:
    """The pid of the one that `start` started."""
    return _alive(PID, "libvirtd")


def _alive(path: Path, program: str) -> int | None:
    try:
        number = int(path.read_text())
        name = Path(f"/proc/{number}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return number if name == program else None


def stop() -> None:
    """It, the DHCP servers that it started, and the namespace. Safe to repeat."""
    if (number := running()) is None:
        return
    for network in run([*INSIDE, "virsh", "-q", "-c", "qemu:///system", "net-list", "--name"], check=False).split():
        run([*INSIDE, "virsh", "-q", "-c", "qemu:///system", "net-destroy", network], check=False)
    os.kill(number, signal.SIGTERM)
    deadline_at = time.monotonic() + READY_S
    while running() is not None and time.monotonic() < deadline_at:
        time.sleep(0.1)
    run(["ip", "netns", "delete", NAMESPACE], check=False)
    shutil.rmtree(HERE.parent)
