"""A TCP segment without payload, as a whole IP packet. Pure: numbers in, octets out."""

from __future__ import annotations

import struct

from bridge.flow import TCP

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
TTL = 64
_TCP_OCTETS = 20


def segment(
    ends: tuple[bytes, bytes], ports: tuple[int, int], flags: int, sequence: int, acknowledged: int = 0, window: int = 0
) -> bytes:
    """``ends`` are the packed addresses of source and destination, ``ports`` theirs (RFC 9293 §3.1)."""
    tcp = struct.pack("!HHIIBBHHH", *ports, sequence, acknowledged, 5 << 4, flags, window, 0, 0)
    tcp = tcp[:16] + struct.pack("!H", checksum(_pseudo_header(ends) + tcp)) + tcp[18:]
    return _ip_header(ends) + tcp


def checksum(data: bytes) -> int:
    """The internet checksum of an even number of octets (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _pseudo_header(ends: tuple[bytes, bytes]) -> bytes:
    if len(ends[0]) == 4:
        return b"".join(ends) + struct.pack("!BBH", 0, TCP, _TCP_OCTETS)
    return b"".join(ends) + struct.pack("!IHBB", _TCP_OCTETS, 0, 0, TCP)


def _ip_header(ends: tuple[bytes, bytes]) -> bytes:
    """RFC 791 §3.1, RFC 8200 §3."""
    if len(ends[0]) != 4:
        return struct.pack("!IHBB", 6 << 28, _TCP_OCTETS, TCP, TTL) + b"".join(ends)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + _TCP_OCTETS, 0, 0x4000, TTL, TCP, 0) + b"".join(ends)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:]
