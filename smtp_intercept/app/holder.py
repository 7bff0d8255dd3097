"""TCP sockets of this host and their processes: who listens on a port, what connections a process has. From
/proc/net/tcp* and /proc/PID/fd; reads only."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_ESTABLISHED, _LISTEN = "01", "0A"  # include/net/tcp_states.h
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket: its address and port, and the inode that names it in /proc/PID/fd."""

    address: IPv4Address | IPv6Address
    port: int
    inode: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Connection:
    """An established connection; an IPv4 address that an IPv6 socket has is shown as the IPv4 address."""

    local: IPv4Address | IPv6Address
    local_port: int
    remote: IPv4Address | IPv6Address
    remote_port: int
    inode: int


@dataclass(frozen=True, slots=True)
class Holder:
    """``pid`` is 0 and ``program`` "" where no process of this host shows the socket (another container's, say)."""

    listener: Listener
    pid: int = 0
    program: str = ""

    def __str__(self) -> str:
        who = f"{self.program} (process {self.pid})" if self.pid else "a process that is not to be seen from here"
        return f"{who} listens on {self.listener}"


def listeners(table: str, ports: Collection[int]) -> Iterator[Listener]:
    """From the text of /proc/net/tcp or tcp6. Pure."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if fields[3] == _LISTEN and int(port, 16) in ports:
            yield Listener(_address(address), int(port, 16), int(fields[9]))


def established(table: str) -> Iterator[Connection]:
    """From the text of /proc/net/tcp or tcp6. Pure."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == _ESTABLISHED:
            ends = [end.partition(":") for end in fields[1:3]]
            (local, local_port), (remote, remote_port) = [(_plain(end[0]), int(end[2], 16)) for end in ends]
            yield Connection(local, local_port, remote, remote_port, int(fields[9]))


def connections(process: Path) -> list[Connection]:
    """The established connections that the process (/proc/PID) holds, in its own network namespace."""
    sockets = _descriptors(process)
    tables = (_read(process / "net" / name) for name in ("tcp", "tcp6"))
    return [found for table in tables for found in established(table) if f"socket:[{found.inode}]" in sockets]


def _plain(text: str) -> IPv4Address | IPv6Address:
    address = _address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _address(text: str) -> IPv4Address | IPv6Address:
    """Words of 32 bits in the machine's own order, which hides the network's."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return IPv4Address(packed) if len(words) == 1 else IPv6Address(packed)


def holders(ports: Collection[int], proc: Path = _PROC) -> list[Holder]:
    """Every listener on one of the ports, of this network namespace, with its process."""
    found = [found for name in ("tcp", "tcp6") for found in listeners(_read(proc / "self/net" / name), ports)]
    owners = _owners({f"socket:[{listener.inode}]": listener.inode for listener in found}, proc)
    return [Holder(listener, *owners.get(listener.inode, (0, ""))) for listener in found]


def _owners(sockets: Mapping[str, int], proc: Path) -> dict[int, tuple[int, str]]:
    """inode → (pid, program), by what the links in /proc/PID/fd point at."""
    owners = {}
    for process in proc.glob("[0-9]*"):
        for inode in filter(None, map(sockets.get, _descriptors(process))):
            owners[inode] = int(process.name), _read(process / "comm").strip()
    return owners


def _descriptors(process: Path) -> set[str]:
    """What the process has open, as far as it is still there while it is looked at; ``socket:[inode]`` for a socket."""
    found = set()
    with suppress(OSError), os.scandir(process / "fd") as links:
        for link in links:
            with suppress(OSError):  # closed meanwhile
                found.add(str(Path(link).readlink()))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # a kernel without IPv6, a process that has ended
        return ""
