"""From a port into a lane: what all mail meets last, and how tagged mail gets there. Pure.

A listed VLAN's mail goes to that VLAN's lane, where a link of the kernel's has taken the tag off. What has two tags,
802.1ad's or VID 0 stays on the plain bridge.
"""

from __future__ import annotations

from collections.abc import Iterable

from bridge.lane import LANE_MAC, NEXT_HOP_MAC, Lane, PortLegs
from bridge.rules import SYN, Rules, chain

_TAGS = ("8021q", "8021ad")  # each compared: a set's look-up costs as much as ten comparisons
_OPENS = "tcp flags & syn == syn"
_LANES_OWN = f"ether daddr & ff:ff:ff:ff:ff:fc == {LANE_MAC[:-2]}00"  # one comparison for both
assert LANE_MAC[:-1] == NEXT_HOP_MAC[:-1]
_NO_STATION = "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00"
# nft reads one tag. Of a frame with two it has taken off the outer one: offsets are from behind that, in bits, and an
# IPv4 header has no options.
_INNER_TYPE, _TCP = "@nh,16,16", 6
_INNER = (("0x0800 @nh,32,8 0x45 @nh,104,8", 192), ("0x86dd @nh,80,8", 352))


def behind(legs: PortLegs) -> str:
    """The set of MACs that live behind this port, in this lane's VLAN."""
    return f"behind{legs.index}{Lane(legs.vlan).suffix}"


def seen(legs: PortLegs) -> str:
    """The chain that says so of a frame's source."""
    return f"seen{legs.index}{Lane(legs.vlan).suffix}"


def astray(rules: Rules) -> str:
    """What becomes of mail that has no lane."""
    return "drop" if rules.block else "accept"


def to_lane(rules: Rules, legs: PortLegs) -> list[str]:
    """All but what is nobody's. What opens a connection is looked at more closely, in a chain of its own."""
    seen_first = [f"jump {seen(legs)}"] if rules.adopted else []
    return [
        f"{_OPENS} goto {_opened(legs)}",
        f"{_NO_STATION} accept",
        f"{_LANES_OWN} counter name lane_macs drop",
        *seen_first,
        *_forward(rules, legs),
    ]


def _forward(rules: Rules, legs: PortLegs) -> list[str]:
    """Into the lane. An adopted bridge has ports that the lane does not have: what is for a host that has not been
    heard of behind another of ours is the bridge's."""
    if not rules.adopted:
        return [f'fwd to "{legs.wire}"']
    return [*(f'ether daddr @{behind(other)} fwd to "{legs.wire}"' for other in _others(rules, legs)), "accept"]


def _others(rules: Rules, legs: PortLegs) -> list[PortLegs]:
    return [PortLegs(other.port, other.index, legs.vlan) for other in rules.legs if other.index != legs.index]


def _opened(legs: PortLegs) -> str:
    return f"opened{legs.index}{Lane(legs.vlan).suffix}"


def opened(rules: Rules, legs: PortLegs) -> list[str]:
    """The chain of SYN and SYN-ACK."""
    syn = f"tcp dport {rules.mail} {SYN}"
    elsewhere = " ".join(f"ether daddr != @{behind(other)}" for other in _others(rules, legs))
    return chain(
        _opened(legs),
        "",
        [
            # On later fragments the kernel reads flags where there are none (nft_payload_fast_eval).
            f'ip frag-off & 0x1fff != 0 fwd to "{legs.wire}"',
            f'frag frag-off != 0 fwd to "{legs.wire}"',
            # What the lane would learn from these, it would send from; and its own two MACs are not on any wire.
            f"{_NO_STATION} {syn} counter name no_station {astray(rules)}",
            f"{_NO_STATION} accept",
            f"{_LANES_OWN} counter name lane_macs drop",
            "tcp flags & (syn | fin) == (syn | fin) counter name odd_flags drop",
            "tcp flags & (syn | rst) == (syn | rst) counter name odd_flags drop",
            f"jump {seen(legs)}",
            # Between neighbours on this wire, whose switch has flooded it: theirs alone, as any bridge knows. Who seems
            # to live behind two ports is none: one frame with his MAC must not keep his mail from being inspected.
            f"{syn} ether daddr @{behind(legs)} {elsewhere} counter name neighbours drop",
            *_forward(rules, legs),
        ],
    )


def tagged_mail(legs: PortLegs) -> list[str]:
    """The rules that send tagged mail its own way."""
    return [f"ether type {tag} goto port{legs.index}_tagged" for tag in _TAGS]


def tagged_where(rules: Rules, legs: PortLegs) -> list[str]:
    """The same of what tells where hosts live."""
    return [f"ether type {tag} goto port{legs.index}_tagged_where" for tag in _TAGS]


def tagged(rules: Rules, legs: PortLegs) -> list[str]:
    """The chains of tagged frames of one port: each listed VLAN's lane, or the plain bridge."""
    name = f"port{legs.index}_tagged"
    each = [PortLegs(legs.port, legs.index, vlan) for vlan in rules.vlans]
    count = f"tcp dport {rules.mail} {SYN} counter name tagged {astray(rules)}"
    return [
        *(line for own in each for line in opened(rules, own)),
        *(line for own in each for line in chain(f"{name}{Lane(own.vlan).suffix}", "", to_lane(rules, own))),
        *(line for own in each for line in _where(rules, f"{name}_where", own)),
        *chain(name, "", [*_by_vlan(name, each), count]),
        *chain(f"{name}_where", "", [*_by_vlan(f"{name}_where", each), "accept"]),
        *_stacked_chain(rules, legs),
    ]


def _where(rules: Rules, name: str, legs: PortLegs) -> list[str]:
    copy = [] if rules.is_wire else [f'dup to "{legs.wire}"']
    return chain(f"{name}{Lane(legs.vlan).suffix}", "", [*copy, f"goto {seen(legs)}"])


def _by_vlan(name: str, each: Iterable[PortLegs]) -> list[str]:
    ways = ", ".join(f"{legs.vlan} : goto {name}{Lane(legs.vlan).suffix}" for legs in each)
    return [f"ether type 8021q vlan id vmap {{ {ways} }}"] if ways else []


def stacked(rules: Rules, legs: PortLegs) -> list[str]:
    """The rules that look into frames with two tags: all frames but TCP's and ICMP's pay for them, so they are there
    where somebody wants to know."""
    if not (rules.vlans or rules.block):
        return []
    return [f"meta protocol {tag} goto port{legs.index}_stacked" for tag in _TAGS]


def _stacked_chain(rules: Rules, legs: PortLegs) -> list[str]:
    if not stacked(rules, legs):
        return []
    flags = 13 * 8
    return chain(
        f"port{legs.index}_stacked",
        "",
        [
            f"{_INNER_TYPE} {ip} {_TCP} @nh,{at + 16},16 {rules.mail} @nh,{at + flags},8 & 0x17 == 0x02 "
            f"counter name tagged {astray(rules)}"
            for ip, at in _INNER
        ],
    )
