"""Where sysfs has a port, its queues and its interrupts. Reads only.

A mount of sysfs shows the network namespace that it was made in: for a port of another one there is nothing here.
"""

from __future__ import annotations

import fcntl
import re
import socket
import struct
from pathlib import Path

NET = Path("/sys/class/net")
IRQ = Path("/proc/irq")
_PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# The vector of a queue, as drivers name it: enp1s0-TxRx-3, virtio2-input.0, mlx5_comp3@pci:…; others serve no queue.
_QUEUE = re.compile(r"^[^@]*[-.](\d+)$|comp(\d+)@")
_SIOCGIFHWADDR = 0x8927


def place(port: str) -> Path | None:
    """The port's directory; None if this sysfs is another namespace's."""
    path = NET / port
    try:
        same = int((path / "ifindex").read_text()) == socket.if_nametoindex(port)
        return path if same and (path / "address").read_text().strip() == _mac(port) else None
    except (OSError, ValueError):
        return None


def _mac(port: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, struct.pack("256s", port.encode()))
    return answer[18:24].hex(":")


def text(path: Path) -> str:
    """What the file says, "" if there is none or it has nothing to say."""
    try:
        return path.read_text(errors="replace").strip().strip("\0")
    except OSError:
        return ""


def device(port: Path) -> Path | None:
    """The device that is the port: of the PCI bus if there is one above it (virtio), else as it is."""
    try:
        exact = (port / "device").resolve(strict=True)
    except OSError:
        return None
    return next((path for path in (exact, *exact.parents) if _PCI.fullmatch(path.name)), exact)


def queues(port: Path, kind: str) -> list[Path]:
    """The directories of the rx or tx queues, by number."""
    return sorted((port / "queues").glob(f"{kind}-*"), key=lambda path: int(path.name.partition("-")[2]))


def interrupts(port: Path) -> list[tuple[Path, int]]:
    """Those in use by the port's queues: the directory in /proc/irq, the number of the queue."""
    found = []
    numbers = sorted(int(path.name) for path in ((device(port) or port) / "msi_irqs").glob("*"))
    for directory in (IRQ / str(number) for number in numbers):
        queues_of = (queue_of(path.name) for path in directory.glob("*") if path.is_dir())
        if (queue := next((number for number in queues_of if number is not None), None)) is not None:
            found.append((directory, queue))
    return found


def queue_of(action: str) -> int | None:
    """The queue that an interrupt of this name serves."""
    matched = _QUEUE.search(action)
    return int(matched[1] or matched[2]) if matched else None
