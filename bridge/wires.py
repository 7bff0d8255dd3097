"""The netdev table: from the wires to the lane, and from the lane to the wires. Pure.

In the order in which a frame meets it: port → mail → arrive (`hops`), and out again by disguise (`hops`) → leg. What is
tagged goes by `entry`.
"""

from __future__ import annotations

from bridge import flow, hops, stages
from bridge import lane as at
from bridge.entry import behind, opened, seen, stacked, tagged, tagged_mail, tagged_where, to_lane
from bridge.fragments import NOTED, fragments, late_header, later, mail_fragments, noted
from bridge.lane import Lane, PortLegs
from bridge.rules import DROPPED, SYN, Rules, chain, counters
from bridge.tunnels import INSIDE, tunnelled, tunnels

_WHEREABOUTS = "meta protocol { 0x0806, 0x8035 }"  # ARP and RARP, tagged or not: what hosts say when they have moved
_NEIGHBOURS = "{ nd-neighbor-solicit, nd-neighbor-advert }"
# The first octet behind the IP header, where the protocol is known to be ICMP: errors, which may be about mail (RFC
# 792: destination unreachable, time exceeded, parameter problem; RFC 4443 has packet too big), neighbours (RFC 4861).
_ICMP_TYPE, _ERRORS4, _ERRORS6, _SOLICITS = "@th,0,8", ("3", "11-12"), "1-4", "135-136"


def netdev(rules: Rules) -> list[str]:
    """The lines of the table."""
    lanes = [line for lane in rules.lanes for line in (*hops.arrive(rules, lane), *hops.disguise(rules, lane))]
    return [
        *_sets(rules),
        *hops.declared(rules),
        *stages.netdev(rules),
        *_ports(rules),
        *_legs(rules),
        *hops.known(),
        *lanes,
        *_hush(rules),
    ]


def _sets(rules: Rules) -> list[str]:
    lines = counters(
        "tagged",
        "no_station",
        "not_forwarding",
        "local",
        "local_dropped",
        *DROPPED,
        *INSIDE,
        "stations_full",
        "fragments_full",
    )
    lines += [
        f"set {behind(legs)} {{ typeof ether saddr; flags dynamic,timeout; "
        f"timeout {at.BEHIND_S}s; size {at.STATIONS}; }}"
        for lane in rules.lanes
        for legs in rules.legs_of(lane)
    ]
    lines += mail_fragments()
    if rules.stp:
        lines.append("set forwarding { type ifname; flags timeout; }")
    return lines


def _ports(rules: Rules) -> list[str]:
    return [
        *(line for lane in rules.lanes for legs in rules.legs_of(lane) for line in _seen(rules, lane, legs)),
        *noted(),
        *(line for legs in rules.legs for line in (*tagged(rules, legs), *_port(rules, legs))),
    ]


def _seen(rules: Rules, lane: Lane, legs: PortLegs) -> list[str]:
    """The source of this frame lives behind this port; what is known of another port is not taken back: a frame may
    teach where hosts are, never that mail to them is not inspected."""
    return chain(
        seen(legs),
        "",
        [
            f"update @{behind(legs)} {{ ether saddr timeout {at.BEHIND_S}s }}",
            f"ether saddr != @{behind(legs)} counter name stations_full",
        ],
    )


def _port(rules: Rules, legs: PortLegs) -> list[str]:
    """From the wire: mail, what may belong to it, and nothing else, goes to the lane. Every frame of the bridge pays
    for the first chain, so it asks what a frame is before anything else of it."""
    name, mail, own = f"port{legs.index}", rules.mail, f"ether daddr {rules.bridge_mac}"
    stp = _not_forwarding(rules) if rules.stp else []
    first = [
        f"meta l4proto tcp goto {name}_tcp",
        f"meta l4proto icmp goto {name}_icmp4",
        f"meta l4proto icmpv6 goto {name}_icmp6",
        f"{_WHEREABOUTS} goto {name}_where",
    ]
    tcp = [
        f"tcp dport {mail} goto {name}_mail",
        f"tcp sport {mail} goto {name}_mail",
        f"ip frag-off & 0x1fff != 0 goto {name}_frag4",
        f"ip6 nexthdr != 6 goto {name}_frag6",
    ]
    # An echo is to cross as fast as by a bare bridge: no `icmp type`, with which nft asks for the protocol again, and
    # no set, which costs as much as ten comparisons.
    icmp4 = [f"{_ICMP_TYPE} {errors} goto {name}_mail" for errors in _ERRORS4]
    icmp6 = [f"{_ICMP_TYPE} {_ERRORS6} goto {name}_mail", f"{_ICMP_TYPE} {_SOLICITS} goto {name}_where"]
    # The lane's bridge hears who lives where, so that it never sends to a port that a host has left.
    copy = [] if rules.is_wire else [f'dup to "{legs.wire}"']
    where = [f"{own} accept", *stp, *tagged_where(rules, legs), *copy, f"goto {seen(legs)}"]
    return [
        *_mail(rules, legs, own, stp),
        *fragments(rules, legs),
        *chain(f"{name}_where", "", where),
        *chain(f"{name}_icmp6", "", icmp6),
        *chain(f"{name}_icmp4", "", icmp4),
        *chain(f"{name}_tcp", "", tcp),
        *tunnelled(rules, legs),
        *chain(
            name,
            f'ingress device "{legs.port}" priority 0',
            [*first, late_header(legs), *stacked(rules, legs), *tunnels(legs)],
        ),
    ]


def _mail(rules: Rules, legs: PortLegs, own: str, stp: list[str]) -> list[str]:
    """To the lane, but for what is the box's own or nobody's, tagged, or of a port that is blocked."""
    local = "counter name local_dropped drop" if legs.port in rules.closed else "counter name local"
    syn = f"tcp dport {rules.mail} {SYN}"
    rules_ = [
        f"{own} {syn} {local}",
        f"{own} accept",
        *stp,
        *NOTED,
        *tagged_mail(legs),
        *later(legs),
        *to_lane(rules, legs),
    ]
    return [*opened(rules, legs), *chain(f"port{legs.index}_mail", "", rules_)]


def _not_forwarding(rules: Rules) -> list[str]:
    """The plain bridge knows what to do with the frames of a port that it blocks; the lane would loop them."""
    out, closed = f"tcp dport {rules.mail} {SYN} counter name not_forwarding", " drop" if rules.block else ""
    return [f"iifname != @forwarding {out}{closed}", "iifname != @forwarding accept"]


def _legs(rules: Rules) -> list[str]:
    """From the lane: to the wire, by the port this leg belongs to."""
    trunks = rules.legs_of(Lane(rules.vlans[0])) if rules.vlans else ()
    return [
        *(line for legs in rules.legs for line in _leg(rules, legs, f"leg{legs.index}")),
        *(line for legs in trunks for line in _leg(rules, legs, f"leg{legs.index}_tagged")),
    ]


def _leg(rules: Rules, legs: PortLegs, name: str) -> list[str]:
    """A bridge floods what it does not know the port of. A flooded frame with a host's own MAC must not come out where
    that host lives: a switch there would believe it had moved."""
    magic, mask = rules.magic
    ours, away, sides = magic | flow.DIVERT, magic | flow.DIVERT | flow.AWAY, mask | flow.DIVERT | flow.AWAY
    port, here = flow.MAX_PORTS - 1 << flow.PORT_SHIFT, legs.index << flow.PORT_SHIFT
    gate = "iifname @forwarding " if rules.stp else ""
    # What was only to be heard in the lane; everything else in it is TCP, or an error about it.
    heard = [] if rules.is_wire else [f"{_WHEREABOUTS} drop", f"icmpv6 type {_NEIGHBOURS} drop"]
    return chain(
        name,
        f'ingress device "{legs.wire}" priority 0',
        [
            stages.ends(rules),
            *heard,
            f"meta mark & {sides | port:#010x} == {away | here:#010x} drop",
            f"meta mark & {sides:#010x} == {ours:#010x} meta mark & {port:#x} != {here:#x} drop",
            f'{gate}fwd to "{legs.port}"',
            "drop",
        ],
    )


def _hush(rules: Rules) -> list[str]:
    """A bridge without an address has nothing to say: not one frame of the box's own leaves by it."""
    if not rules.silent:
        return []
    return chain("hush", f'egress device "{rules.bridge}" priority 0', ["counter name hushed drop"])
