"""Frames as the wires carried them: read from a sniffer's pcapng file, with host, interface and direction.

Dissects no more than the lab's own checks need; `Frame.packet` hands the rest to scapy.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import Any

from smtp_intercept.app.lab.host import Host, LabError, Process, patient

SETTLE_S = 0.05  # frames under way on veth wires arrive well within this


class Way(Enum):
    """Direction of a frame as the host that captured it saw it; the values are pcapng's epb_flags."""

    IN = 1
    OUT = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One Ethernet frame. ``at`` is in seconds since the epoch."""

    host: str
    interface: str
    way: Way
    at: float
    data: bytes

    @property
    def destination(self) -> str:
        """Destination MAC."""
        return self.data[:6].hex(":")

    @property
    def source(self) -> str:
        """Source MAC."""
        return self.data[6:12].hex(":")

    @property
    def ethertype(self) -> int:
        return int.from_bytes(self.data[12:14], "big")

    @property
    def addresses(self) -> tuple[str, str] | None:
        """Source and destination IP address, of ARP too (sender, target); None in any other frame."""
        match self.ethertype, self.data[14:]:
            case 0x0800, packet if len(packet) >= 20:
                pair = packet[12:16], packet[16:20]
            case 0x0806, packet if len(packet) >= 28:
                pair = packet[14:18], packet[24:28]
            case 0x86DD, packet if len(packet) >= 40:
                pair = packet[8:24], packet[24:40]
            case _:
                return None
        return str(ip_address(pair[0])), str(ip_address(pair[1]))

    @property
    def ttl(self) -> int | None:
        """IPv4 time to live or IPv6 hop limit."""
        offset = {0x0800: 22, 0x86DD: 21}.get(self.ethertype)
        return self.data[offset] if offset is not None and len(self.data) > offset else None

    @property
    def packet(self) -> Any:
        """The frame as scapy sees it (slow: for the frames a test is about)."""
        from scapy.layers import inet, inet6, l2  # noqa: F401 (they teach Ether what it may carry)

        return l2.Ether(self.data)


def read_frames(data: bytes, host: str = "") -> Iterator[Frame]:
    """The frames of a pcapng file as `sniffer` writes it, in order."""
    offset, names = 0, list[str]()
    while offset + 12 <= len(data):
        kind, length = struct.unpack_from("<II", data, offset)
        body = data[offset + 8 : offset + length - 4]
        if kind == 1:
            size = struct.unpack_from("<H", body, 10)[0]
            names.append(body[12 : 12 + size].decode())
        elif kind == 6:
            interface, high, low, size = struct.unpack_from("<IIII", body)
            flags = struct.unpack_from("<I", body, 20 + size + (-size % 4) + 4)[0]
            at = ((high << 32) + low) / 1e9
            yield Frame(host, names[interface], Way(flags & 3), at, body[20 : 20 + size])
        offset += length


class Sniffer:
    """The sniffer program at work on some interfaces of one host."""

    def __init__(self, host: Host, interfaces: Sequence[str]) -> None:
        self._host, self.path = host, host.new_file("-capture.pcapng")
        self._process: Process = host.spawn(host.program("sniffer", "--out", str(self.path), *interfaces))

    def wait_ready(self) -> None:
        """Return when every frame from now on will be recorded."""
        self._process.wait_for("ready")

    def frames(self) -> list[Frame]:
        """End the recording. `LabError` if a frame was lost: such a capture would prove nothing."""
        ending = self._process.end(grace_s=30).check()
        self._host.processes.remove(self._process)
        if lost := json.loads(ending.stdout.splitlines()[-1])["lost"]:
            raise LabError(f"the capture on {self._host.name} lost {lost} frames")
        return list(read_frames(self._host.fetch(self.path), self._host.name))


@contextmanager
def recorded(ends: Iterable[tuple[Host, str]]) -> Iterator[list[Frame]]:
    """Record these (host, interface) while the context lasts.

    The list is empty until the context ends; then it holds all frames: each interface's in the order in which it saw
    them, and those of different ones merged by the hosts' clocks, so that one may come before its cause elsewhere.
    """
    interfaces: dict[str, tuple[Host, list[str]]] = {}
    for host, interface in ends:
        interfaces.setdefault(host.name, (host, []))[1].append(interface)
    sniffers = [Sniffer(host, names) for host, names in interfaces.values()]
    for sniffer in sniffers:
        sniffer.wait_ready()
    frames: list[Frame] = []
    try:
        yield frames
    finally:
        time.sleep(patient(SETTLE_S))
        seen = [frame for sniffer in sniffers for frame in sniffer.frames()]
        frames.extend(merged(seen))


def merged(seen: Iterable[Frame]) -> list[Frame]:
    """By time, but never against the order in which an interface saw its frames: a stamp may be its sender's."""
    latest: dict[tuple[str, str], float] = {}
    timed = []
    for frame in seen:
        place = (frame.host, frame.interface)
        latest[place] = max(frame.at, latest.get(place, frame.at))
        timed.append((latest[place], frame))
    return [frame for _, frame in sorted(timed, key=lambda each: each[0])]
