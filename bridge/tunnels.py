"""Mail inside of something else: it crosses, is not inspected, and is counted by the name of what it is in. Pure.

Looks where the inner headers are when nobody has added options. All frames but TCP's, ICMP's and ARP's pay a look-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bridge.entry import astray
from bridge.lane import PortLegs
from bridge.rules import Rules, chain

# Counter → words for people. Without "in_" some are words of newer nft's own.
INSIDE = {
    "in_pppoe": "inside PPPoE",
    "in_mpls": "inside MPLS",
    "in_gre": "inside GRE",
    "in_ip": "inside IPv4 or IPv6 of a tunnel (6in4, IP in IP)",
    "in_vxlan": "inside VXLAN",
}
_TYPES = {0x8864: "in_pppoe", 0x8847: "in_mpls", 0x8848: "in_mpls"}
_PROTOCOLS = {47: "in_gre", 4: "in_ip", 41: "in_ip"}
_VXLAN = 4789  # RFC 7348


@dataclass(frozen=True, slots=True)
class _Inner:
    """Where the inner IP header begins: behind the network or the transport header, in octets; and what says that it
    is IPv4 or IPv6, as (offset, bits, value of 4, of 6)."""

    name: str
    base: str
    at: int
    told: tuple[int, int, int, int] | None = None


_INNER = (
    _Inner("in_pppoe", "nh", 8, (6, 16, 0x0021, 0x0057)),
    *(_Inner("in_mpls", "nh", 4 * labels, None) for labels in (1, 2)),
    _Inner("in_gre", "th", 4, (2, 16, 0x0800, 0x86DD)),
    _Inner("in_gre", "th", 8, (2, 16, 0x0800, 0x86DD)),  # with a key, or a checksum
    _Inner("in_ip", "th", 0),
    _Inner("in_vxlan", "th", 30, (28, 16, 0x0800, 0x86DD)),
)


def tunnels(legs: PortLegs) -> list[str]:
    """The rules that look for them, at the end of a port's chain."""
    name = f"port{legs.index}"
    types = ", ".join(f"{kind:#06x} : goto {name}_{inside}" for kind, inside in _TYPES.items())
    protocols = ", ".join(f"{number} : goto {name}_{inside}" for number, inside in _PROTOCOLS.items())
    return [
        f"udp dport {_VXLAN} goto {name}_in_vxlan",
        f"meta protocol vmap {{ {types} }}",
        f"meta l4proto vmap {{ {protocols} }}",
    ]


def tunnelled(rules: Rules, legs: PortLegs) -> list[str]:
    """The chains that they go to."""
    return [
        line
        for inside in INSIDE
        for line in chain(
            f"port{legs.index}_{inside}",
            "",
            [rule for inner in _INNER if inner.name == inside for rule in _syns(rules, inner)],
        )
    ]


def _syns(rules: Rules, inner: _Inner) -> Iterator[str]:
    def octets(offset: int, bits: int) -> str:
        return f"@{inner.base},{offset * 8},{bits}"

    for six, (first, protocol, tcp) in enumerate(((0x45, 9, 20), (0x60, 6, 40))):
        told = f"{octets(inner.told[0], inner.told[1])} {inner.told[2 + six]:#06x} " if inner.told else ""
        version = f"{octets(inner.at, 8)} & 0xf0 == {first:#04x} " if six else f"{octets(inner.at, 8)} {first:#04x} "
        yield (
            f"{told}{version}{octets(inner.at + protocol, 8)} 6 {octets(inner.at + tcp + 2, 16)} {rules.mail} "
            f"{octets(inner.at + tcp + 13, 8)} & 0x17 == 0x02 counter name {inner.name} {astray(rules)}"
        )
