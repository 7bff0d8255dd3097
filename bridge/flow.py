"""A SYN read from its bytes, the verdict on it, and the bits of the packet mark that carry the verdict.

Pure. Reads IP and TCP headers and nothing else; knows ports and packets, not mail.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

TCP = 6
# IPv6 extension headers that may stand before TCP and whose length is in units of 8 octets (RFC 8200 §4).
_EXTENSIONS = frozenset({0, 43, 60})
_FRAGMENT, _AUTHENTICATION = 44, 51
# What no single host may have: this network, loopback, multicast and above; in IPv6 unspecified, loopback and an IPv4
# address in disguise (RFC 1122 §3.2.1.3, RFC 4291 §2.5 and §2.7, RFC 4942 §2.2).
_NOBODY4 = frozenset({0, 127, *range(224, 256)})
_NOBODY6 = frozenset({bytes(15), bytes(10) + b"\xff\xff"})
MAX_EXTENSIONS = 8  # a chain longer than any real sender's; the attack is a parser kept busy

# The mark. The upper half says "this mark is Tollbridge's", so that marks of other software never match.
MAGIC = 0x7B25_0000
MAGIC_MASK = 0xFFFF_0000
DIVERT = 0x1  # turn the frame inwards; on a socket: leave by the lane
QUEUE = 0x2  # the gate lets this SYN into the queue
LEARNED = 0x4  # both next hops of this SYN are known
AWAY = 0x8  # sent towards the server: by any port but the one of arrival
TAG_SHIFT, TAG_BITS = 4, 4
PORT_SHIFT, PORT_BITS = 8, 6
ROUND = 0x80  # our own connection's, that has left the box and comes by again: bridged
LIMITED = 0x4000  # this SYN is more than the rate lets in
CANARY = 0x8000  # no connection: it proves that the lane would take one (`bridge.canary`)
IPV6 = 0x10  # in a beat's mark: the part of the switch that is IPv6's
MAX_PORTS = 1 << PORT_BITS  # ports of one bridge; more than any appliance has
MAX_QUEUES = 1 << PORT_BITS  # of diverters
# The VID of tagged mail is laid over the lower 12 bits of the magic, so that untagged mail's mark stays as it is.
VLAN_SHIFT, MAX_VLAN = 16, 4094
ANY_MAGIC, ANY_MAGIC_MASK = MAGIC & 0xF000_0000, 0xF000_0000


def queue_mark(queue: int) -> int:
    """Of a SYN that goes to that queue; the number stands where the port will."""
    return MAGIC | QUEUE | queue << PORT_SHIFT


def live_mark(queue: int, vlan: int, version: int) -> int:
    """Of a beat: which queue, of which lane's mail, of which IP version it keeps live."""
    return magic(vlan) | QUEUE | queue << PORT_SHIFT | (IPV6 if version == 6 else 0)


def queue_of(mark: int) -> int:
    """The reverse of `queue_mark` and `live_mark`."""
    return mark >> PORT_SHIFT & MAX_QUEUES - 1


class Action(Enum):
    """What happens to a connection."""

    INTERCEPT = "intercept"
    PASS = "pass"
    DROP = "drop"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one SYN. ``tag`` (0-15) travels to the interceptor in the mark; the bridge does not read it."""

    action: Action
    tag: int = 0


@dataclass(frozen=True, slots=True)
class Syn:
    """One SYN. Addresses are packed (4 or 16 octets), ``sequence`` is the client's initial sequence number,
    ``payload`` the number of octets that the SYN itself carries (TCP Fast Open, or an oddity)."""

    client: bytes
    server: bytes
    client_port: int
    server_port: int
    sequence: int
    payload: int = 0


class MalformedPacketError(ValueError):
    """The bytes are not a SYN that can be read. A peer's fault, never ours."""


class AuthenticatedError(ValueError):
    """Readable, and not to be answered by anybody else: IPsec's AH (RFC 4302)."""


def parse_syn(packet: bytes) -> Syn:
    """Read a SYN from an IP packet (no link-layer header); `MalformedPacketError` says what is wrong.

    RFC 791 §3.1, RFC 8200 §3, RFC 9293 §3.1. Truncated payload is no error: the queue copies headers only.
    """
    if not packet:
        raise MalformedPacketError("empty packet")
    match packet[0] >> 4:
        case 4:
            client, server, offset, total = _ipv4(packet)
        case 6:
            client, server, offset, total = _ipv6(packet)
        case version:
            raise MalformedPacketError(f"IP version {version}")
    _check_ends(client, server)
    if len(packet) < offset + 20:
        raise MalformedPacketError("truncated TCP header")
    client_port, server_port, sequence, _, data_offset, flags = struct.unpack_from("!HHIIBB", packet, offset)
    header = (data_offset >> 4) * 4
    if header < 20 or offset + header > total:
        raise MalformedPacketError(f"TCP data offset {header}")
    if flags & 0x17 != 0x02:
        raise MalformedPacketError(f"TCP flags {flags:#04x} are not a SYN's")
    return Syn(client, server, client_port, server_port, sequence, total - offset - header)


def _check_ends(client: bytes, server: bytes) -> None:
    """The attack: answers that the box gives in the name of nobody, or to the very host that it speaks for (LAND)."""
    if client == server:
        raise MalformedPacketError("from a host to itself")
    if _nobody(client) or _nobody(server):
        raise MalformedPacketError("an address that no host has")


def _nobody(address: bytes) -> bool:
    if len(address) == 4:
        return address[0] in _NOBODY4
    return address[0] == 0xFF or address[:15] in _NOBODY6 or address[:12] in _NOBODY6


def _ipv4(packet: bytes) -> tuple[bytes, bytes, int, int]:
    header = (packet[0] & 15) * 4
    if header < 20 or len(packet) < header:
        raise MalformedPacketError(f"IPv4 header length {header}")
    total, _, fragment = struct.unpack_from("!HHH", packet, 2)
    if fragment & 0x1FFF:
        raise MalformedPacketError("later fragment")
    if packet[9] != TCP:
        raise MalformedPacketError(f"IPv4 protocol {packet[9]}")
    return packet[12:16], packet[16:20], header, total


def _ipv6(packet: bytes) -> tuple[bytes, bytes, int, int]:
    if len(packet) < 40:
        raise MalformedPacketError("truncated IPv6 header")
    total = 40 + struct.unpack_from("!H", packet, 4)[0]
    following, offset = packet[6], 40
    for _ in range(MAX_EXTENSIONS):
        if following == TCP:
            return packet[8:24], packet[24:40], offset, total
        if len(packet) < offset + 8:
            raise MalformedPacketError("truncated IPv6 extension header")
        if following == _FRAGMENT:
            if struct.unpack_from("!H", packet, offset + 2)[0] & 0xFFF8:
                raise MalformedPacketError("later fragment")
            following, offset = packet[offset], offset + 8
        elif following in _EXTENSIONS:
            following, offset = packet[offset], offset + 8 * (packet[offset + 1] + 1)
        elif following == _AUTHENTICATION:
            raise AuthenticatedError
        else:
            raise MalformedPacketError(f"IPv6 next header {following}")
    raise MalformedPacketError("more IPv6 extension headers than any sender's")


def magic(vlan: int) -> int:
    """The upper half of the marks of one VLAN's mail; 0 is untagged."""
    return MAGIC ^ vlan << VLAN_SHIFT


def vlan_of(mark: int) -> int:
    """The reverse of `magic`: the VID that a mark of ours names."""
    return (mark ^ MAGIC) >> VLAN_SHIFT


@dataclass(frozen=True, slots=True)
class Mark:
    """What rides with an intercepted connection: the caller's tag, the index of the port of arrival and the VID, 0 for
    untagged."""

    tag: int
    port: int
    vlan: int = 0

    def encode(self) -> int:
        """The 32-bit packet mark, which becomes SO_MARK of the accepted socket."""
        return magic(self.vlan) | DIVERT | self.tag << TAG_SHIFT | self.port << PORT_SHIFT

    def away(self) -> int:
        """SO_MARK of the socket that dials the server of this connection."""
        return self.encode() | AWAY

    @classmethod
    def decode(cls, mark: int) -> Mark | None:
        """The reverse of `encode`; None if the mark is not one that `encode` makes."""
        if mark & ANY_MAGIC_MASK != ANY_MAGIC or vlan_of(mark) > MAX_VLAN or not mark & DIVERT:
            return None
        return cls(mark >> TAG_SHIFT & (1 << TAG_BITS) - 1, mark >> PORT_SHIFT & MAX_PORTS - 1, vlan_of(mark))
