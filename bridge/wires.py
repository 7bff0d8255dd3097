"""The netdev table: from the wires to the lane, what a SYN teaches, and from our own stack to the wires. Pure.

In the order in which a frame meets it: port → mail → arrive → teach, and out again by disguise → leg. What is tagged
goes by `entry`.
"""

from __future__ import annotations

from bridge import flow
from bridge import lane as at
from bridge.entry import behind, seen, stacked, tagged, tagged_mail, tagged_where, to_lane
from bridge.lane import LANE_MAC, NEXT_HOP_MAC, Lane, PortLegs
from bridge.rules import FAMILIES, LEARN, LIMIT, SYN, Rules, chain, counters

# A connection, by who sends the frame: the hash of both addresses (`_hash_of`) and the client's port.
_KEY = {"client": "meta priority . tcp sport", "server": "meta priority . tcp dport"}
_WHEREABOUTS = "meta protocol { 0x0806, 0x8035 }"  # ARP and RARP, tagged or not: what hosts say when they have moved
_NEIGHBOURS = "{ nd-neighbor-solicit, nd-neighbor-advert }"
# The first octet behind the IP header, where the protocol is known to be ICMP: errors, which may be about mail (RFC
# 792: destination unreachable, time exceeded, parameter problem; RFC 4443 has packet too big), neighbours (RFC 4861).
_ICMP_TYPE, _ERRORS4, _ERRORS6, _SOLICITS = "@th,0,8", ("3", "11-12"), "1-4", "135-136"


def netdev(rules: Rules) -> list[str]:
    """The lines of the table."""
    lanes = [line for lane in rules.lanes for line in (*_learn(rules, lane), *_disguise(rules, lane))]
    return [*_sets(rules), *_ports(rules), *_legs(rules), *_dressed(), *lanes, *_hush(rules)]


def _sets(rules: Rules) -> list[str]:
    lines = counters(
        "tagged",
        "no_station",
        "not_forwarding",
        "rate_network",
        "rate",
        "sent",
        "no_next_hop",
        "hushed",
        "local",
        "local_dropped",
    )
    kind = f"flags dynamic,timeout; size {rules.limits.next_hops};"
    by_flow = f"typeof {_KEY['client']} : ether saddr; {kind}"
    lines += [f"map {who} {{ {by_flow} timeout {rules.learned_s}s; }}" for who in _KEY]
    lines += [f"map fresh_{who} {{ {by_flow} timeout {at.FRESH_S}s; }}" for who in _KEY]
    # A map that is only asked whether it has a key: not before Linux 6.5. Both maps have the same keys.
    lines.append(f"set known {{ typeof {_KEY['client']}; {kind} timeout {rules.learned_s}s; }}")
    lines += [line for lane in rules.lanes for line in _sets_of(rules, lane, kind)]
    pace = rules.limits.new_connections_per_s
    lines.append(f"limit pace {{ rate over {pace}/second burst {pace} packets; }}")
    if rules.stp:
        lines.append("set forwarding { type ifname; flags timeout; }")
    return lines


def _sets_of(rules: Rules, lane: Lane, kind: str) -> list[str]:
    """Addresses, networks and MACs are at home in one VLAN: another may have the same."""
    lines = []
    for v, ip, network in ((4, "ip", "ipv4_addr"), (6, "ip6", "ipv6_addr")):
        lines += [
            f"map learned{v}{lane.suffix} {{ typeof {ip} saddr : ether saddr; {kind} timeout {rules.learned_s}s; }}",
            f"set rate{v}{lane.suffix} {{ type {network}; flags dynamic,timeout; timeout 10s; size {at.NETWORKS}; }}",
        ]
    return lines + [
        f"set {behind(legs)} {{ typeof ether saddr; flags dynamic,timeout; "
        f"timeout {at.BEHIND_S}s; size {at.STATIONS}; }}"
        for legs in rules.legs_of(lane)
    ]


def _ports(rules: Rules) -> list[str]:
    return [
        *(line for lane in rules.lanes for legs in rules.legs_of(lane) for line in _seen(rules, lane, legs)),
        *(line for legs in rules.legs for line in (*tagged(rules, legs), *_port(rules, legs))),
    ]


def _seen(rules: Rules, lane: Lane, legs: PortLegs) -> list[str]:
    """The source of this frame lives behind this port, and no longer behind another."""
    others = [other for other in rules.legs_of(lane) if other != legs]
    return chain(
        seen(legs),
        "",
        [
            f"update @{behind(legs)} {{ ether saddr timeout {at.BEHIND_S}s }}",
            *(f"delete @{behind(other)} {{ ether saddr }}" for other in others),
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
        # Later fragments carry no ports: all of TCP's go the same way, so that none overtakes its first.
        f"ip frag-off & 0x3fff != 0 goto {name}_mail",
        f"frag nexthdr tcp goto {name}_mail",
    ]
    # An echo is to cross as fast as by a bare bridge: no `icmp type`, with which nft asks for the protocol again, and
    # no set, which costs as much as ten comparisons.
    icmp4 = [f"{_ICMP_TYPE} {errors} goto {name}_mail" for errors in _ERRORS4]
    icmp6 = [f"{_ICMP_TYPE} {_ERRORS6} goto {name}_mail", f"{_ICMP_TYPE} {_SOLICITS} goto {name}_where"]
    # The lane's bridge hears who lives where, so that it never sends to a port that a host has left.
    where = [f"{own} accept", *stp, *tagged_where(legs), f'dup to "{legs.wire}"', f"goto {seen(legs)}"]
    return [
        *_mail(rules, legs, own, stp),
        *chain(f"{name}_where", "", where),
        *chain(f"{name}_icmp6", "", icmp6),
        *chain(f"{name}_icmp4", "", icmp4),
        *chain(f"{name}_tcp", "", tcp),
        *chain(name, f'ingress device "{legs.port}" priority 0', [*first, *stacked(rules, legs)]),
    ]


def _mail(rules: Rules, legs: PortLegs, own: str, stp: list[str]) -> list[str]:
    """To the lane, but for what is the box's own or nobody's, tagged, a neighbour's, or of a port that is blocked."""
    local = "counter name local_dropped drop" if legs.port in rules.closed else "counter name local"
    syn = f"tcp dport {rules.mail} {SYN}"
    return chain(
        f"port{legs.index}_mail",
        "",
        [f"{own} {syn} {local}", f"{own} accept", *stp, *tagged_mail(legs), *to_lane(rules, legs)],
    )


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
    return chain(
        name,
        f'ingress device "{legs.wire}" priority 0',
        [
            # What was only to be heard in the lane; everything else in it is TCP, or an error about it.
            f"{_WHEREABOUTS} drop",
            f"icmpv6 type {_NEIGHBOURS} drop",
            f"meta mark & {sides | port:#010x} == {away | here:#010x} drop",
            f"meta mark & {sides:#010x} == {ours:#010x} meta mark & {port:#x} != {here:#x} drop",
            f'{gate}fwd to "{legs.port}"',
            "drop",
        ],
    )


def _learn(rules: Rules, lane: Lane) -> list[str]:
    """One SYN teaches both next hops. What a flood could fill is limited before it is touched."""
    per = rules.limits.new_connections_per_s_per_network
    lines = [
        line
        for legs in rules.legs_of(lane)
        for line in chain(
            f"arrive{legs.index}{lane.suffix}",
            f'ingress device "{legs.lane}" priority 0',
            [
                # The port of arrival goes along, so that whatever answers this frame leaves by it.
                f"meta mark set {flow.magic(lane.vlan) | legs.index << flow.PORT_SHIFT:#010x}",
                *_hash_of(rules, lane, "client", f"tcp dport {rules.mail} "),
                *_hash_of(rules, lane, "server", f"tcp sport {rules.mail} "),
                f"tcp dport {rules.mail} {SYN} jump teach{lane.suffix}",
                # What a known connection's own frames say now: a router that takes over is followed.
                f"tcp dport {rules.mail} {_refresh('client')}",
                f"tcp sport {rules.mail} {_refresh('server')}",
                "meta priority set 0",
            ],
        )
    ]
    teach = []
    for v, ip, mask in ((4, "ip", "255.255.255.0"), (6, "ip6", "ffff:ffff:ffff:ffff::")):
        over = f"limit rate over {per}/second burst {per} packets"
        teach.append(
            f"meta protocol {ip} update @rate{v}{lane.suffix} {{ {ip} saddr & {mask} timeout 10s {over} }} "
            f"counter name rate_network {LIMIT} return"
        )
    teach.append(f"limit name pace counter name rate {LIMIT} return")
    age = f"timeout {rules.learned_s}s"
    # Added, never deleted and added anew: deleted elements of one key pile up in one bucket until they are collected.
    teach += [
        f"meta protocol {ip} add @learned{v}{lane.suffix} {{ {ip} saddr {age} : ether saddr }} "
        f"add @learned{v}{lane.suffix} {{ {ip} daddr {age} : ether daddr }}"
        for v, ip in FAMILIES
    ]
    key = _KEY["client"]
    teach.append(
        f"add @client {{ {key} {age} : ether saddr }} add @server {{ {key} {age} : ether daddr }} "
        f"add @known {{ {key} {age} }} {LEARN}"
    )
    return [*lines, *chain(f"teach{lane.suffix}", "", teach)]


def _hash_of(rules: Rules, lane: Lane, sender: str, match: str = "") -> list[str]:
    """Both addresses, client's first, as 32 bits in the frame's priority: with the client's port a key that the
    registers of every nft hold, for IPv6 too. Secret, so that nobody can aim at another's entry; 0 before the frame
    goes on."""
    first, second = ("saddr", "daddr") if sender == "client" else ("daddr", "saddr")
    how = f"mod 4294967295 seed {lane.seed(rules.seed):#x}"
    return [
        f"meta protocol {ip} {match}meta priority set jhash {ip} {first} . {ip} {second} {how}" for _, ip in FAMILIES
    ]


def _refresh(sender: str) -> str:
    key = _KEY[sender]
    return f"{key} @known add @fresh_{sender} {{ {key} timeout {at.FRESH_S}s : ether saddr }}"


def _dressed() -> list[str]:
    dressed = [
        f"ether saddr {LANE_MAC} counter name no_next_hop drop",
        f"ether daddr {NEXT_HOP_MAC} counter name no_next_hop drop",
        "counter name sent",
    ]
    return chain("dressed", "", dressed)


def _disguise(rules: Rules, lane: Lane) -> list[str]:
    """What our own stack sends gets both MACs of the conversation, before the bridge looks the destination up."""
    away = f"meta mark & {flow.MAGIC_MASK | flow.AWAY:#010x} == {flow.magic(lane.vlan) | flow.AWAY:#010x}"
    to_server, to_client = f"to_server{lane.suffix}", f"to_client{lane.suffix}"
    entry = [f"ether daddr != {NEXT_HOP_MAC} counter name hushed drop", f"{away} goto {to_server}", f"goto {to_client}"]
    return [
        *chain(f"disguise{lane.suffix}", f'egress device "{lane.link}" priority 0', entry),
        # A server is dialled for a client that has completed a handshake, and data is sent only after one: what a
        # spoofed SYN taught is never kept.
        *chain(
            to_server,
            "",
            [*_dress(rules, lane, "client", "server"), f"tcp flags & (syn | psh) != 0 {_keep('client')}", _END],
        ),
        *chain(
            to_client,
            "",
            [*_dress(rules, lane, "server", "client"), f"tcp flags & psh == psh {_keep('server')}", _END],
        ),
    ]


_END = "meta priority set 0"


def _dress(rules: Rules, lane: Lane, sender: str, receiver: str) -> list[str]:
    """By address first (a dial from a fresh source port), the connection's own over it, its latest over that."""
    key, lines = _KEY[sender], _hash_of(rules, lane, sender)
    for end, who in (("saddr", sender), ("daddr", receiver)):
        lines += [f"meta protocol {ip} ether {end} set {ip} {end} map @learned{v}{lane.suffix}" for v, ip in FAMILIES]
        lines += [f"ether {end} set {key} map @{who}", f"ether {end} set {key} map @fresh_{who}"]
    return [*lines, "jump dressed"]


def _keep(sender: str) -> str:
    """Both next hops of the connection, as the frame carries them, for as long as it may live."""
    key, receiver = f"{_KEY[sender]} timeout {at.NEXT_HOP_S}s", "server" if sender == "client" else "client"
    hops = f"update @{sender} {{ {key} : ether saddr }} update @{receiver} {{ {key} : ether daddr }}"
    return f"{hops} update @known {{ {key} }}"


def _hush(rules: Rules) -> list[str]:
    """A bridge without an address has nothing to say: not one frame of the box's own leaves by it."""
    if not rules.silent:
        return []
    return chain("hush", f'egress device "{rules.bridge}" priority 0', ["counter name hushed drop"])
