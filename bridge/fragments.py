"""Fragments of TCP on their way from a port: mail's go to the lane, which puts them together, others' cross. Pure.

Later fragments carry no ports: they go the way of the first one of their packet. Who floods the lane with mail that is
never whole harms fragmented mail, and nobody else.
"""

from __future__ import annotations

from bridge import lane as at
from bridge.lane import PortLegs
from bridge.rules import Rules, chain

_ID = {4: "ip saddr . ip daddr . ip id", 6: "ip6 saddr . ip6 daddr . frag id"}
_FIRST = {4: "ip frag-off & 0x3fff == 0x2000", 6: "frag frag-off 0 frag more-fragments 1"}
# Offset 1, in units of 8 octets: the first one ends before the flags.
_TINY = {4: "ip frag-off & 0x1fff == 1", 6: "frag frag-off 1"}


def mail_fragments() -> list[str]:
    """The sets of packets whose first fragment was mail's."""
    return [
        f"set fragments{v} {{ typeof {ends}; flags dynamic,timeout; timeout {at.FRAGMENTS_S}s; size {at.FRAGMENTS}; }}"
        for v, ends in _ID.items()
    ]


# A frame that ends before it has no value at all: both halves of the range, for nft leaves out what is always true.
_HAS_PORTS = ("tcp dport < 32768", "tcp dport >= 32768")
_HAS_FLAGS = ("@th,104,8 < 128", "@th,104,8 >= 128")
# Rules for mail on its way: the first fragment of a packet is remembered.
NOTED = ("ip frag-off & 0x3fff != 0 jump noted4", "ip6 nexthdr != 6 jump noted6")


def noted() -> list[str]:
    """The chains of all ports that remember it."""
    return [
        line
        for v in (4, 6)
        for line in chain(
            f"noted{v}",
            "",
            [
                f"{_FIRST[v]} add @fragments{v} {{ {_ID[v]} timeout {at.FRAGMENTS_S}s }}",
                f"{_FIRST[v]} {_ID[v]} != @fragments{v} counter name fragments_full",
                *(f"{_FIRST[v]} {some} return" for some in _HAS_FLAGS),
                f"{_FIRST[v]} drop",  # counted when the flags come
            ],
        )
    ]


def late_header(legs: PortLegs) -> str:
    """The rule for IPv6 packets in which something stands before what they carry, and that is not TCP as far as one
    sees."""
    return f"ip6 nexthdr {{ 0, 43, 44, 60 }} goto port{legs.index}_late"


def later(legs: PortLegs) -> list[str]:
    """The rules for mail that is no first fragment: the kernel may have read its ports in the middle of a text."""
    return [f"ip frag-off & 0x1fff != 0 goto port{legs.index}_later4", f"ip6 nexthdr != 6 jump port{legs.index}_later6"]


def fragments(rules: Rules, legs: PortLegs) -> list[str]:
    """The chains of one port for what has no ports of its own."""
    name = f"port{legs.index}"
    chains = [
        line
        for v in (4, 6)
        for line in chain(
            f"{name}_frag{v}",
            "",
            [
                f"{_TINY[v]} counter name tiny_fragments drop",
                f"{_ID[v]} @fragments{v} goto {name}_mail",
                *(f"{some} accept" for some in _HAS_PORTS),
                f"{_FIRST[v]} counter name late_header drop",
            ],
        )
    ]
    others = {
        "later4": [f'{_ID[4]} @fragments4 fwd to "{legs.wire}"', "accept"],
        "later6": [f'frag frag-off != 0 {_ID[6]} @fragments6 fwd to "{legs.wire}"', "frag frag-off != 0 accept"],
    }
    late = [
        f"{_ID[6]} @fragments6 goto {name}_mail",
        "meta l4proto != 255 accept",  # what it is has been found
        f"{_FIRST[6]} counter name late_header drop",
    ]
    chains += [line for kind, lines in others.items() for line in chain(f"{name}_{kind}", "", lines)]
    return [*chains, *chain(f"{name}_late", "", late)]
