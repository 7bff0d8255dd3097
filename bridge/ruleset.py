"""The two lanes as one nft transaction, rendered as text from `Rules`. Pure.

In the order in which a frame meets it: port → lane → gate → queue → verdict → inwards, and out by `disguise`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from bridge import flow
from bridge import lane as at
from bridge.lane import LANE, LANE_MAC, NEXT_HOP_MAC, Limits, PortLegs

TABLES = ("netdev", "inet", "bridge")
NAME = "tollbridge"
_SYN = "tcp flags & (fin | syn | rst | ack) == syn"
_NOT_SYN = "tcp flags & (fin | syn | rst | ack) != syn"
_OURS = f"meta mark & {flow.MAGIC_MASK | flow.DIVERT:#010x} == {flow.MAGIC | flow.DIVERT:#010x}"
_QUEUE = f"{flow.MAGIC | flow.QUEUE:#010x}"
_LEARNED = f"{flow.MAGIC | flow.LEARNED:#010x}"
_TUPLE = "{ip} saddr . tcp sport . {ip} daddr . tcp dport"
_REVERSE = "{ip} daddr . tcp dport . {ip} saddr . tcp sport"

_HOPS = "{ip} saddr . ether saddr . {ip} daddr . ether daddr"

_WHEREABOUTS = "ether type { 0x0806, 0x8035 }"  # ARP and RARP: what hosts say when they have moved
_NEIGHBOURS = "{ nd-neighbor-solicit, nd-neighbor-advert }"

# Why a SYN to a mail port was not inspected: counter → words for people. `status` prints them.
NOT_INSPECTED = {
    "tagged": "VLAN-tagged",
    "rate_network": "its client network opens more connections per second than new_connections_per_s_per_network",
    "rate": "more connections per second than new_connections_per_s",
    "not_learned": "the table of next hops is full",
    "not_live": "the gateway is not alive (no heart-beat)",
    "no_listener": "no interceptor listens",
    "not_forwarding": "its port does not forward (STP), or the daemon has not said that it does",
}
COUNTERS = (*NOT_INSPECTED, "queued", "turned_inwards", "sent", "no_next_hop", "hushed", "local", "local_dropped")


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything the text depends on. ``bridge_mac`` is the plain bridge's own address; ``silent`` that it has no
    business of its own on the wire (no management address); ``nft_queue`` that the kernel has the queue expression."""

    bridge: str
    bridge_mac: str
    legs: tuple[PortLegs, ...]
    mail_ports: tuple[int, ...]
    limits: Limits
    learned_s: int = at.LEARNED_S
    closed: frozenset[str] = frozenset()
    block: bool = False
    stp: bool = False
    silent: bool = False
    nft_queue: bool = False

    @property
    def mail(self) -> str:
        return "{ " + ", ".join(map(str, self.mail_ports)) + " }"

    @property
    def otherwise(self) -> str:
        """What becomes of a SYN that cannot be inspected."""
        return "drop" if self.block else "return"


def render(rules: Rules) -> str:
    """The whole transaction: own tables replaced, nobody else's touched; a digest is the inet table's comment."""
    body = "".join(_table(family, lines) for family, lines in _tables(rules))
    return _stamp(body)


def digest(text: str) -> str:
    """The mark of a rendered text, as `nft list table` gives it back in the table's comment."""
    return text.rsplit('comment "', 1)[1].split('"', 1)[0]


def unload() -> str:
    """The transaction that removes every table, whether it is there or not."""
    return "".join(f"add table {family} {NAME}\ndelete table {family} {NAME}\n" for family in TABLES)


def _stamp(body: str) -> str:
    mark = hashlib.sha256(body.encode()).hexdigest()[:16]
    # First: a table that is already there keeps the comment it has.
    return f'{unload()}table inet {NAME} {{ comment "{mark}"; }}\n{body}'


def _tables(rules: Rules) -> Iterable[tuple[str, list[str]]]:
    yield "netdev", [*_netdev_sets(rules), *_ports(rules), *_legs(rules), *_learn(rules), *_disguise(), *_hush(rules)]
    yield "inet", [*_inet_sets(rules), *_beat(), *_sockets(), *_gate(rules), *_verdict(), *_untracked()]
    yield "bridge", _inwards(rules)


def _table(family: str, lines: Iterable[str]) -> str:
    return f"table {family} {NAME} {{\n" + "".join(f"\t{line}\n" for line in lines) + "}\n"


def _chain(name: str, hook: str, rules: Iterable[str]) -> list[str]:
    head = [f"chain {name} {{"] + ([f"\ttype filter hook {hook}; policy accept;"] if hook else [])
    return [*head, *(f"\t{rule}" for rule in rules), "}"]


def _counters(*names: str) -> list[str]:
    return [f"counter {name} {{ }}" for name in names]


# --- netdev: between the wires and the lane ---------------------------------------------------------------------


def _netdev_sets(rules: Rules) -> list[str]:
    size = rules.limits.next_hops
    lines = _counters(
        "tagged", "not_forwarding", "rate_network", "rate", "sent", "no_next_hop", "hushed", "local", "local_dropped"
    )
    for v, ip, network in ((4, "ip", "ipv4_addr"), (6, "ip6", "ipv6_addr")):
        kind = f"typeof {ip} saddr : ether saddr; flags dynamic,timeout"
        lines += [
            f"map learned{v} {{ {kind}; timeout {rules.learned_s}s; size {size}; }}",
            f"map next_hop{v} {{ {kind}; timeout {at.NEXT_HOP_S}s; size {size}; }}",
            f"set via{v} {{ typeof {ip} saddr . ether saddr; flags dynamic,timeout; "
            f"timeout {at.NEXT_HOP_S}s; size {size}; }}",
            f"set fresh{v} {{ typeof {_HOPS.format(ip=ip)}; flags dynamic,timeout; "
            f"timeout {at.FRESH_S}s; size {size}; }}",
            f"set rate{v} {{ type {network}; flags dynamic,timeout; timeout 10s; size {at.NETWORKS}; }}",
        ]
    if rules.stp:
        lines.append("set forwarding { type ifname; flags timeout; }")
    return lines


def _ports(rules: Rules) -> list[str]:
    return [line for legs in rules.legs for line in _port(rules, legs)]


def _port(rules: Rules, legs: PortLegs) -> list[str]:
    """From the wire: mail, what may belong to it, and nothing else, goes to the lane. Every frame of the bridge pays
    for the first chains, so they ask what it is before they ask anything else of it."""
    name, stp = f"port{legs.index}", _not_forwarding(rules) if rules.stp else []
    mine = f"ether daddr {rules.bridge_mac}"
    return [
        *_mail(rules, legs, name, mine, stp),
        # The lane's bridge hears who lives where, so that it never sends to a port that a host has left.
        *_chain(f"{name}_where", "", [f"{mine} accept", *stp, f'dup to "{legs.wire}"']),
        *_chain(
            f"{name}_icmp",
            "",
            [
                f"icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} goto {name}_mail",
                f"icmpv6 type {_NEIGHBOURS} jump {name}_where",
                f"icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }} "
                f"goto {name}_mail",
            ],
        ),
        *_chain(
            f"{name}_tcp",
            "",
            [
                f"tcp dport {rules.mail} goto {name}_mail",
                f"tcp sport {rules.mail} goto {name}_mail",
                # Later fragments carry no ports: all of TCP's go the same way, so that none overtakes its first.
                f"ip frag-off & 0x3fff != 0 goto {name}_mail",
                f"frag nexthdr tcp goto {name}_mail",
            ],
        ),
        *_chain(
            name,
            f'ingress device "{legs.port}" priority 0',
            [
                f"meta l4proto tcp goto {name}_tcp",
                f"meta l4proto {{ icmp, icmpv6 }} goto {name}_icmp",
                f"{_WHEREABOUTS} jump {name}_where",
            ],
        ),
    ]


def _mail(rules: Rules, legs: PortLegs, name: str, mine: str, stp: list[str]) -> list[str]:
    """To the lane, but for the box's own frames, tagged ones, and those of a port that does not forward."""
    local = "counter name local_dropped drop" if legs.port in rules.closed else "counter name local"
    tagged = "counter name tagged " + ("drop" if rules.block else "accept")
    syn = f"tcp dport {rules.mail} {_SYN}"
    return [
        *_chain(f"{name}_mine", "", [f"{syn} {local}", "accept"]),
        *_chain(f"{name}_tagged", "", [f"{syn} {tagged}", "accept"]),
        *_chain(
            f"{name}_mail",
            "",
            [
                f"{mine} goto {name}_mine",
                *stp,
                f"vlan id 0-4095 goto {name}_tagged",
                f'fwd to "{legs.wire}"',
            ],
        ),
    ]


def _not_forwarding(rules: Rules) -> list[str]:
    """The plain bridge knows what to do with the frames of a port that it blocks; the lane would loop them."""
    out, closed = f"tcp dport {rules.mail} {_SYN} counter name not_forwarding", " drop" if rules.block else ""
    return [f"iifname != @forwarding {out}{closed}", "iifname != @forwarding accept"]


def _legs(rules: Rules) -> list[str]:
    """From the lane: to the wire, by the port this leg belongs to."""
    return [line for legs in rules.legs for line in _leg(rules, legs)]


def _leg(rules: Rules, legs: PortLegs) -> list[str]:
    """A bridge floods what it does not know the port of. A flooded frame with a host's own MAC must not come out where
    that host lives: a switch there would believe it had moved."""
    ours, away = flow.MAGIC | flow.DIVERT, flow.MAGIC | flow.DIVERT | flow.AWAY
    sides = flow.MAGIC_MASK | flow.DIVERT | flow.AWAY
    port, here = flow.MAX_PORTS - 1 << flow.PORT_SHIFT, legs.index << flow.PORT_SHIFT
    tagged = f"meta mark & {(1 << flow.TAG_BITS) - 1 << flow.TAG_SHIFT:#x} != 0"  # of a connection, not a mere RST
    gate = "iifname @forwarding " if rules.stp else ""
    out = _chain(
        f"leg{legs.index}_out",
        "",
        [
            f"meta mark & {sides | port:#010x} == {away | here:#010x} drop",
            f"meta mark & {sides:#010x} == {ours:#010x} {tagged} meta mark & {port:#x} != {here:#x} drop",
            f'{gate}fwd to "{legs.port}"',
            "drop",
        ],
    )
    name = f"leg{legs.index}"
    return [
        *out,
        *_chain(
            name,
            f'ingress device "{legs.wire}" priority 0',
            [
                f"meta l4proto tcp goto {name}_out",
                f"{_WHEREABOUTS} drop",
                f"icmpv6 type {_NEIGHBOURS} drop",
                f"goto {name}_out",
            ],
        ),
    ]


def _learn(rules: Rules) -> list[str]:
    """One SYN teaches both next hops. What a flood could fill is limited before it is touched."""
    limits = rules.limits
    devices = ", ".join(f'"{legs.lane}"' for legs in rules.legs)
    slow = f"limit rate over {limits.new_connections_per_s}/second burst {limits.new_connections_per_s} packets"
    per = limits.new_connections_per_s_per_network
    lines = _chain(
        "learn", f"ingress devices = {{ {devices} }} priority 0", [f"tcp dport {rules.mail} {_SYN} jump teach"]
    )
    teach = []
    for v, ip, mask in ((4, "ip", "255.255.255.0"), (6, "ip6", "ffff:ffff:ffff:ffff::")):
        over = f"limit rate over {per}/second burst {per} packets"
        teach.append(
            f"meta protocol {ip} update @rate{v} {{ {ip} saddr & {mask} timeout 10s {over} }} "
            "counter name rate_network return"
        )
    teach.append(f"{slow} counter name rate return")
    for v, ip in ((4, "ip"), (6, "ip6")):
        # Added, never refreshed: a router that moved is followed when the entry has run out. Not deleted and added
        # anew either: deleted elements of one key pile up in one bucket until they are collected.
        teach += [
            f"meta protocol {ip} add @learned{v} {{ {ip} saddr timeout {rules.learned_s}s : ether saddr }} "
            f"add @learned{v} {{ {ip} daddr timeout {rules.learned_s}s : ether daddr }} meta mark set {_LEARNED}",
        ]
    return [*lines, *_chain("teach", "", teach)]


def _disguise() -> list[str]:
    """What our own stack sends gets both MACs of the conversation, before the bridge looks the destination up."""
    lines = _chain(
        "disguise",
        f'egress device "{LANE}" priority 0',
        [
            f"ether daddr != {NEXT_HOP_MAC} counter name hushed drop",
            "meta protocol ip jump disguise4",
            "meta protocol ip6 jump disguise6",
            f"ether saddr {LANE_MAC} counter name no_next_hop drop",
            f"ether daddr {NEXT_HOP_MAC} counter name no_next_hop drop",
            "counter name sent",
            # A server is dialled for a client that has completed a handshake, and data is sent only after one:
            # a spoofed SYN never gets this far.
            f"meta mark & {flow.MAGIC_MASK | flow.AWAY:#010x} == {flow.MAGIC | flow.AWAY:#010x} "
            "tcp flags & syn == syn goto confirm",
            "tcp flags & psh == psh goto refresh",
        ],
    )
    for goal in ("confirm", "refresh"):
        lines += _chain(goal, "", [f"meta protocol {ip} goto {goal}{v}" for v, ip in ((4, "ip"), (6, "ip6"))])
    for v, ip in ((4, "ip"), (6, "ip6")):
        rules = []
        for end, unset in (("saddr", LANE_MAC), ("daddr", NEXT_HOP_MAC)):
            # What a SYN has just said counts more than what is confirmed, which is asked only if no SYN said anything.
            rules += [
                f"ether {end} set {ip} {end} map @learned{v}",
                f"ether {end} {unset} ether {end} set {ip} {end} map @next_hop{v}",
            ]
        confirm = [line for end in ("saddr", "daddr") for line in _confirm(v, ip, end)]
        for end in ("saddr", "daddr"):
            lines += _chain(f"moved{v}_{end}", "", _moved(v, ip, end))
        hops = _HOPS.format(ip=ip)
        confirm.append(f"add @fresh{v} {{ {hops} timeout {at.FRESH_S}s }}")
        lines += _chain(f"confirm{v}", "", confirm)
        lines += _chain(f"refresh{v}", "", [f"{hops} @fresh{v} return", f"goto confirm{v}"])
        lines += _chain(f"disguise{v}", "", rules)
    return lines


def _confirm(v: int, ip: str, end: str) -> list[str]:
    """Keep the next hop that the frame carries by now. Only where it has changed is the old one deleted; the frame's
    own field is the place to look the old one up in."""
    hop, via = f"{ip} {end} timeout {at.NEXT_HOP_S}s : ether {end}", f"{ip} {end} . ether {end}"
    known = f"{via} @via{v}"
    return [
        f"{known} update @next_hop{v} {{ {hop} }} update @via{v} {{ {via} timeout {at.NEXT_HOP_S}s }}",
        f"{via} != @via{v} jump moved{v}_{end}",
    ]


def _moved(v: int, ip: str, end: str) -> list[str]:
    hop, via = f"{ip} {end} timeout {at.NEXT_HOP_S}s : ether {end}", f"{ip} {end} . ether {end}"
    return [
        f"ether {end} set {ip} {end} map @next_hop{v}",
        f"delete @fresh{v} {{ {_HOPS.format(ip=ip)} }}",
        f"delete @via{v} {{ {via} }} delete @next_hop{v} {{ {ip} {end} : ether {end} }}",
        f"ether {end} set {ip} {end} map @learned{v}",
        f"add @next_hop{v} {{ {hop} }} add @via{v} {{ {via} timeout {at.NEXT_HOP_S}s }}",
    ]


def _hush(rules: Rules) -> list[str]:
    """A bridge without an address has nothing to say: not one frame of the box's own leaves by it."""
    if not rules.silent:
        return []
    return _chain("hush", f'egress device "{rules.bridge}" priority 0', ["counter name hushed drop"])


# --- inet: the hooks that br_netfilter runs for the lane alone ---------------------------------------------------


def _inet_sets(rules: Rules) -> list[str]:
    lines = [
        *_counters("queued", "turned_inwards", "not_learned", "not_live", "no_listener"),
        f"set live {{ type inet_service; flags dynamic,timeout; timeout {at.LIVE_TIMEOUT_S}s; size 64; }}",
    ]
    for v, ip in ((4, "ip"), (6, "ip6")):
        kind = f"typeof {_TUPLE.format(ip=ip)}; flags dynamic,timeout"
        lines += [
            f"set admitted{v} {{ {kind}; timeout {at.ADMITTED_S}s; size {rules.limits.admitted}; }}",
            f"set bridged{v} {{ {kind}; timeout {at.BRIDGED_S}s; size {at.BRIDGED}; }}",
        ]
    return lines


def _beat() -> list[str]:
    """The dead-man's switch: a marked datagram to a mail port of the loopback keeps that port live."""
    update = f"update @live {{ udp dport timeout {at.LIVE_TIMEOUT_S}s }}"
    return _chain("beat", "output priority -400", [f"meta mark {at.BEAT_MARK:#010x} meta l4proto udp {update} drop"])


def _sockets() -> list[str]:
    """Packets of intercepted connections, found by the kernel's own socket table. SYNs are the gate's business."""
    turn = f"meta mark set {flow.MAGIC | flow.DIVERT:#010x} counter name turned_inwards"
    listener = []
    inwards = []
    for v, ip in ((4, "ip"), (6, "ip6")):
        # The ACK of a SYN-cookie handshake finds only the listener; the ACK of a bridged connection finds it too.
        listener.append(f"{_TUPLE.format(ip=ip)} @admitted{v} {turn} return")
        inwards.append(f"{_TUPLE.format(ip=ip)} @bridged{v} return")
    # Never matches; a tproxy expression makes the kernel put fragments together before these hooks.
    together = [
        "ip daddr 0.0.0.0 meta l4proto tcp tproxy ip to :9",
        "ip6 daddr :: meta l4proto tcp tproxy ip6 to :9",
    ]
    return [
        *_chain("together", "", together),
        *_chain("listener", "", listener),
        *_chain("inwards", "", [*inwards, turn]),
        *_chain(
            "sockets",
            "prerouting priority -310",
            [
                f'iifname != "{LANE}" return',
                "notrack",
                f"{_SYN} goto together",
                "socket wildcard 1 goto listener",
                "meta l4proto { tcp, icmp, icmpv6 } socket transparent 1 jump inwards",
            ],
        ),
    ]


def _gate(rules: Rules) -> list[str]:
    """Which SYNs the diverter is asked about. What it is not asked about is bridged, or dropped, and counted."""
    out = rules.otherwise
    syn = [
        f"meta mark != {_LEARNED} counter name not_learned {out}",
        "meta mark set 0",
        f"tcp dport != @live counter name not_live {out}",
        # A listener, a half-open handshake, a TIME_WAIT socket: a repeated SYN must meet the fate of the first.
        f"socket transparent 1 meta mark set {_QUEUE} counter name queued return",
        f"counter name no_listener {out}",
    ]
    bypass = "" if rules.block else " bypass"
    queue = [f"meta mark {_QUEUE} queue num {at.QUEUE_NUMBER}{bypass}"] if rules.nft_queue else []
    return [
        *_chain("syn", "", syn),
        *_chain("gate", "prerouting priority -305", [f'iifname "{LANE}" tcp dport {rules.mail} {_SYN} jump syn']),
        *(_chain("queue", "prerouting priority -300", queue) if queue else []),
    ]


def _verdict() -> list[str]:
    """After the queue. An accepted packet goes on at the next hook, so this is a chain of its own."""
    admit = [
        f"update @admitted{v} {{ {_TUPLE.format(ip=ip)} timeout {at.ADMITTED_S}s }}"
        for v, ip in ((4, "ip"), (6, "ip6"))
    ]
    # Bridged, though an old socket of ours has the same addresses: its packets must not be turned inwards.
    spare = [
        f"update @bridged{v} {{ {ends.format(ip=ip)} timeout {at.BRIDGED_S}s }}"
        for v, ip in ((4, "ip"), (6, "ip6"))
        for ends in (_TUPLE, _REVERSE)
    ]
    return [
        *_chain("admit", "", admit),
        *_chain("spare", "", spare),
        *_chain(
            "verdict",
            "prerouting priority -290",
            [
                f'iifname != "{LANE}" return',
                f"{_NOT_SYN} return",
                f"{_OURS} goto admit",
                "socket wildcard 1 return",
                "socket transparent 1 jump spare",
            ],
        ),
    ]


def _untracked() -> list[str]:
    """Both legs have mirrored addresses; conntrack would merge them into one connection."""
    return _chain("untracked", "output priority -300", [f"{_OURS} notrack"])


# --- bridge: after br_netfilter -----------------------------------------------------------------------------------


def _inwards(rules: Rules) -> list[str]:
    legs = ", ".join(f'"{legs.lane}"' for legs in rules.legs)
    turn = f"{_OURS} iifname {{ {legs} }} meta pkttype set host ether daddr set {LANE_MAC}"
    return _chain("inwards", "prerouting priority 10", [turn])
