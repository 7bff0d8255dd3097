"""Tells the neighbours that an address is now behind another MAC: who knew it by the old one would talk to nobody.

Gratuitous ARP (RFC 5227 section 3) and unsolicited neighbour advertisements (RFC 4861 section 7.2.6). Answers nobody.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_interface

from bridge.lane import ROOM_LEG
from bridge.links import Links

CARRIER_S = 5.0  # a NIC that has been moved finds its partner again in 1 to 4 s
POLL_S = 0.05
TIMES, BETWEEN_S = 2, 0.2  # one may be lost
_ARP, _IPV6 = 0x0806, 0x86DD
_EVERYBODY, _ALL_NODES = b"\xff" * 6, IPv6Address("ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")  # RFC 2464 section 7
_ADVERTISEMENT, _OVERRIDE, _TARGET_MAC = 136, 0x20000000, b"\x02\x01"


def announcement(address: str, mac: str) -> bytes:
    """The frame. ``address`` may have a prefix length. Pure."""
    ip, own = ip_interface(address).ip, bytes.fromhex(mac.replace(":", ""))
    if isinstance(ip, IPv4Address):
        body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, own, ip.packed, bytes(6), ip.packed)
        return _EVERYBODY + own + struct.pack("!H", _ARP) + body
    message = struct.pack("!BBHI16s", _ADVERTISEMENT, 0, 0, _OVERRIDE, ip.packed) + _TARGET_MAC + own
    summed = ip.packed + _ALL_NODES.packed + struct.pack("!II", len(message), socket.IPPROTO_ICMPV6) + message
    message = message[:2] + struct.pack("!H", _checksum(summed)) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), socket.IPPROTO_ICMPV6, 255)
    return _ALL_NODES_MAC + own + struct.pack("!H", _IPV6) + header + ip.packed + _ALL_NODES.packed + message


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def announce(link: str, addresses: Iterable[str]) -> None:
    """As soon as the link, of this network namespace, has a carrier. Nobody is told where it gets none."""
    with Links() as links, suppress(OSError):
        _until(lambda: links.forwards(link))
        mac = str(links.attribute(link, "address"))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((link, 0))
            frames = [announcement(address, mac) for address in addresses]
            for turn in range(TIMES):
                time.sleep(BETWEEN_S * bool(turn))
                for frame in frames:
                    raw.send(frame)


def await_way_out(links: Links, ports: Collection[str]) -> None:
    """From the leg by one of these ports of its bridge; not for ever."""
    _until(lambda: links.forwards(ROOM_LEG) and any(map(links.forwards, ports)))


def _until(holds: Callable[[], bool]) -> None:
    deadline_at = time.monotonic() + CARRIER_S
    while not holds() and time.monotonic() < deadline_at:
        time.sleep(POLL_S)
