"""The RST that answers a rejected SYN, in the dialled server's name. Pure: bytes in, bytes out."""

from __future__ import annotations

import struct

from bridge.flow import TCP, Syn

_RST_ACK = 0x14
_TTL = 64


def reset(syn: Syn) -> bytes:
    """A whole IP packet that refuses the SYN: sequence 0, everything it carried acknowledged (RFC 9293 §3.5.2)."""
    acknowledged = (syn.sequence + 1 + syn.payload) & 0xFFFF_FFFF
    tcp = struct.pack("!HHIIBBHHH", syn.server_port, syn.client_port, 0, acknowledged, 5 << 4, _RST_ACK, 0, 0, 0)
    tcp = tcp[:16] + struct.pack("!H", checksum(_pseudo_header(syn) + tcp)) + tcp[18:]
    return _ip_header(syn) + syn.server + syn.client + tcp


def checksum(data: bytes) -> int:
    """The internet checksum of an even number of octets (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _pseudo_header(syn: Syn) -> bytes:
    ends = syn.server + syn.client
    return ends + (struct.pack("!BBH", 0, TCP, 20) if len(syn.client) == 4 else struct.pack("!IHBB", 20, 0, 0, TCP))


def _ip_header(syn: Syn) -> bytes:
    """Up to the addresses. IPv4: the kernel fills in the checksum of a raw packet (raw(7))."""
    if len(syn.client) == 4:
        return struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0x4000, _TTL, TCP, 0)
    return struct.pack("!IHBB", 6 << 28, 20, TCP, _TTL)
