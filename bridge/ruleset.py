"""The two lanes as one nft transaction, rendered as text from `Rules`. Pure.

In the order in which a frame meets it: `wires` (netdev); sockets → gate → queue → verdict (inet); inwards (bridge).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from bridge import flow, stages
from bridge import lane as at
from bridge.lane import LANE_MAC, Lane
from bridge.rules import DROPPED, FAMILIES, LIMITED, NOT_SYN, ROUND, SYN, UNLEARNED, Rules, chain, counters
from bridge.tunnels import INSIDE
from bridge.wires import netdev

__all__ = [
    "COUNTERS",
    "DROPPED",
    "FULL",
    "NAME",
    "NOT_INSPECTED",
    "PUT_OFF",
    "TABLES",
    "Rules",
    "digest",
    "render",
    "unload",
]

TABLES = ("netdev", "inet", "bridge")
NAME = "tollbridge"
_TUPLE = "{ip} saddr . tcp sport . {ip} daddr . tcp dport"
_REVERSE = "{ip} daddr . tcp dport . {ip} saddr . tcp sport"
_LANE_OF = "meta iif . "  # where there are several lanes: one tuple may be at home in each of them

# Why a SYN to a mail port was not inspected: counter → words for people. `status` prints them.
NOT_INSPECTED = {
    "tagged": "VLAN-tagged, and not in bridge.vlans",
    "past": "the adopted bridge has sent it from one of bridge.ports to another: its host was not known",
    "elsewhere": "from or to a port of the adopted bridge that is not in bridge.ports",
    "no_station": "sent to a MAC that is no host's (broadcast, multicast)",
    "rate": "more connections per second than new_connections_per_s",
    "not_learned": "the table of next hops is full",
    "not_live": "the gateway is not alive (no heart-beat)",
    "no_listener": "no interceptor listens",
    **INSIDE,
    "not_forwarding": "its port does not forward (STP), or the daemon has not said that it does",
}
# What costs whoever brings it about, and nobody's inspection: its SYN is dropped, and comes again a second later.
PUT_OFF = {
    "rate_client": "its client opens more than half as many connections per second",
    "rate_network": "its client network opens more connections per second than new_connections_per_s_per_network",
}
# A table that has no place left, and what that costs: counter → words for people. `status` has them in its headline.
FULL = {
    "not_learned": "the table of next hops is full: connections are not inspected",
    "not_kept": "the table of running connections is full: they hold only while both ends speak",
    "networks_full": "the table of client networks is full: those without a place share one network's rate",
    "stations_full": "the table of hosts behind a port is full: mail between neighbours may be inspected",
    "fragments_full": "the table of mail in fragments is full: it is lost",
    "not_spared": "the table of connections bridged in spite of an old socket is full: their SYNs are dropped",
}
_OTHERS = (
    "came_round",  # connections that cross twice, and are inspected where they cross first
    "silent",  # SYNs to a server that does not answer at the MAC that its client has for it: they cross, to ask
    "silent_answers",  # what such a server says to them: dropped, and the client's next SYN is inspected
    *("queued", "turned_inwards", "sent", "no_next_hop", "hushed", "local", "local_dropped"),
    *("changed", "changed_again"),  # another verdict for the same addresses; and SYNs of those that do it all the time
)
COUNTERS = tuple(dict.fromkeys((*NOT_INSPECTED, *PUT_OFF, *DROPPED, *FULL, *_OTHERS)))


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
    yield "netdev", netdev(rules)
    yield (
        "inet",
        [
            *_inet_sets(rules),
            *stages.inet(rules),
            *_beat(rules),
            *_sockets(rules),
            *_gate(rules),
            *_verdict(rules),
            *_untracked(rules),
        ],
    )
    yield "bridge", [*counters("past", "elsewhere"), *_inwards(rules), *_past(rules)]


def _tuples(rules: Rules) -> Iterable[tuple[int, str, str]]:
    """Of each family: its version, a packet's connection, and the same as its answers have it."""
    lane = _LANE_OF if rules.vlans else ""
    return [(v, lane + _TUPLE.format(ip=ip), lane + _REVERSE.format(ip=ip)) for v, ip in FAMILIES]


def _table(family: str, lines: Iterable[str]) -> str:
    return f"table {family} {NAME} {{\n" + "".join(f"\t{line}\n" for line in lines) + "}\n"


# --- inet: the hooks that br_netfilter runs for the lane alone ---


def _inet_sets(rules: Rules) -> list[str]:
    lines = [
        *counters("queued", "turned_inwards", "not_learned", "not_live", "no_listener", "not_spared"),
        *counters("changed", "changed_again"),
        f"set live {{ type inet_service . mark; flags dynamic,timeout; timeout {at.LIVE_TIMEOUT_S}s; "
        f"size {_live(rules)}; }}",
    ]
    for v, ends, _ in _tuples(rules):
        kind = f"typeof {ends}; flags dynamic,timeout"
        lines += [
            f"set admitted{v} {{ {kind}; timeout {at.ADMITTED_S}s; size {rules.limits.admitted}; }}",
            f"set bridged{v} {{ {kind}; timeout {at.BRIDGED_S}s; size {at.BRIDGED}; }}",
            f"set changed{v} {{ {kind}; timeout {at.CHANGED_S}s; size {at.BRIDGED}; }}",
        ]
    return lines


def _live(rules: Rules) -> int:
    """Each port of each queue, in each lane and IP version; twice, for what has expired has its place a while yet."""
    return 2 * len(rules.mail_ports) * rules.queues * len(rules.lanes) * len(FAMILIES)


def _beat(rules: Rules) -> list[str]:
    """The dead-man's switch: a datagram with the mark of a queue, a lane and an IP version to a mail port of the
    loopback keeps them live for that port."""
    magic, mask = rules.magic
    update = f"update @live {{ udp dport . meta mark timeout {at.LIVE_TIMEOUT_S}s }}"
    beat = f"meta mark & {mask | flow.CANARY | flow.QUEUE:#010x} == {magic | flow.QUEUE:#010x}"
    return chain("beat", "output priority -400", [f"{beat} meta l4proto udp {update} drop"])


def _marks(rules: Rules) -> list[str]:
    return [f"{flow.queue_mark(queue):#010x}" for queue in range(rules.queues)]


def _sockets(rules: Rules) -> list[str]:
    """Packets of intercepted connections, found by the kernel's own socket table. SYNs are the gate's business."""
    turn = f"meta mark set meta mark | {flow.DIVERT:#x} counter name turned_inwards"
    listener = []
    inwards = []
    for v, ends, _ in _tuples(rules):
        # The ACK of a SYN-cookie handshake finds only the listener; the ACK of a bridged connection finds it too.
        listener.append(f"{ends} @admitted{v} {turn} return")
        inwards.append(f"{ends} @bridged{v} update @bridged{v} {{ {ends} timeout {at.BRIDGED_S}s }} return")
    return [
        *chain("listener", "", listener),
        *chain("inwards", "", [*inwards, turn]),
        *chain(
            "sockets",
            "prerouting priority -310",
            [
                f"iifname != {rules.any_lane} return",
                "notrack",
                f"{ROUND} return",
                # Never matches; a tproxy expression makes the kernel put fragments together before these hooks.
                "ip daddr 0.0.0.0 meta l4proto tcp tproxy ip to :9 return",
                "ip6 daddr :: meta l4proto tcp tproxy ip6 to :9 return",
                f"{SYN} return",
                *stages.turns(rules),
                "socket wildcard 1 goto listener",
                "meta l4proto { tcp, icmp, icmpv6 } socket transparent 1 jump inwards",
            ],
        ),
    ]


def _gate(rules: Rules) -> list[str]:
    """Which SYNs the diverter is asked about. What it is not asked about is bridged, or dropped, and counted."""
    bypass = "" if rules.block else " bypass"
    numbers = enumerate(_marks(rules), at.QUEUE_NUMBER) if rules.nft_queue else ()
    queue = [f"meta mark {mark} queue num {number}{bypass}" for number, mark in numbers]
    mail = f"tcp dport {rules.mail} {SYN}"
    ways = ", ".join(f'"{lane.link}" : jump syn{lane.suffix}' for lane in rules.lanes)
    way = f"{mail} iifname vmap {{ {ways} }}" if rules.vlans else f'iifname "{Lane().link}" {mail} jump syn'
    return [
        *(line for lane in rules.lanes for line in chain(f"syn{lane.suffix}", "", _syn(rules, lane))),
        *chain("gate", "prerouting priority -305", [way]),
        *(chain("ask", "prerouting priority -300", queue) if queue else []),
    ]


def _syn(rules: Rules, lane: Lane) -> list[str]:
    out = rules.otherwise
    # The part of the switch: queue, lane and IP version.
    parts = [
        f"meta nfproto ipv{v} meta mark set meta mark ^ {flow.live_mark(0, lane.vlan, v) ^ flow.queue_mark(0):#x}"
        for v, _ in FAMILIES
        if flow.live_mark(0, lane.vlan, v) != flow.queue_mark(0)
    ]
    return [
        stages.asks(rules),
        f"{ROUND} return",
        f"{LIMITED} meta mark set 0 {out}",
        f"{UNLEARNED} counter name not_learned {out}",
        *_share(rules),
        *parts,
        f"tcp dport . meta mark != @live meta mark set 0 counter name not_live {out}",
        stages.canonical(),
        # A listener, a half-open handshake, a TIME_WAIT socket: a repeated SYN must meet the fate of the first.
        "socket transparent 1 counter name queued return",
        f"meta mark set 0 counter name no_listener {out}",
    ]


def _share(rules: Rules) -> list[str]:
    """Which queue. Ours to say and not the kernel's own balance: whether it lives is asked before. All connections of
    a pair of hosts go to one, for its diverter remembers what it has seen of them; which one, nobody can aim at."""
    first, *others = _marks(rules)
    if not others:
        return [f"meta mark set {first}"]
    by_hash = ", ".join(f"{number} : {mark}" for number, mark in enumerate([first, *others]))
    return [
        f"meta nfproto ipv{v} meta mark set jhash {ip} saddr . {ip} daddr mod {rules.queues} seed {rules.seed:#x} "
        f"map {{ {by_hash} }}"
        for v, ip in FAMILIES
    ]


def _verdict(rules: Rules) -> list[str]:
    """After the queue. An accepted packet goes on at the next hook, so this is a chain of its own."""
    tuples = list(_tuples(rules))
    # These addresses again, and this time inspected: what was spared for the last connection would strand this one.
    admit = _took_back("bridged", tuples)
    admit += [f"update @admitted{v} {{ {ends} timeout {at.ADMITTED_S}s }}" for v, ends, _ in tuples]
    # Bridged, though an old socket of ours has the same addresses: its packets must not be turned inwards.
    spare = [
        " ".join(f"update @bridged{v} {{ {ends} timeout {at.BRIDGED_S}s }}" for ends in both) + " return"
        for v, *both in tuples
    ]
    return [
        *chain("admit", "", admit),
        *chain("spare", "", [*spare, "counter name not_spared drop"]),
        *chain(
            "verdict",
            "prerouting priority -290",
            [
                f"iifname != {rules.any_lane} return",
                f"{NOT_SYN} return",
                f"{stages.is_canary(rules)} return",
                f"{rules.ours} goto admit",
                f"{ROUND} return",
                # And bridged: the client's answer to the server must not be taken for one to us.
                *_took_back("admitted", tuples),
                "socket wildcard 1 return",
                "socket transparent 1 jump spare",
            ],
        ),
    ]


def _took_back(name: str, tuples: Iterable[tuple[int, str, str]]) -> list[str]:
    """What an earlier SYN of these addresses has left is deleted, once in `lane.CHANGED_S`: deleted elements of one key
    pile up. More often than that no client changes its mind, and its SYN can wait."""
    lines = []
    for v, ends, answers in tuples:
        both = [ends, answers] if name == "bridged" else [ends]
        lines += [
            f"{ends} @{name}{v} {ends} @changed{v} counter name changed_again drop",
            f"{ends} @{name}{v} add @changed{v} {{ {ends} timeout {at.CHANGED_S}s }} "
            + " ".join(f"delete @{name}{v} {{ {each} }}" for each in both)
            + " counter name changed",
            f"{ends} @{name}{v} counter name changed_again drop",  # the table of changes is full
        ]
    return lines


def _untracked(rules: Rules) -> list[str]:
    """Both legs have mirrored addresses; conntrack would merge them into one connection."""
    return chain("untracked", "output priority -300", [f"{rules.ours} notrack"])


# --- bridge: after br_netfilter ---


def _inwards(rules: Rules) -> list[str]:
    legs = ", ".join(f'"{legs.lane}"' for lane in rules.lanes for legs in rules.legs_of(lane))
    # The mark first: this is asked of every frame of every bridge, and a comparison costs a tenth of a set's look-up.
    turn = f"{rules.ours} iifname {{ {legs} }} meta pkttype set host ether daddr set {LANE_MAC}"
    return chain("inwards", "prerouting priority 10", [turn])


def _past(rules: Rules) -> list[str]:
    """What an adopted bridge does with mail that is not the lane's."""
    if not rules.adopted:
        return []
    ports, syn = ", ".join(f'"{legs.port}"' for legs in rules.legs), f"tcp dport {rules.mail} {SYN}"
    sides = f"iifname {{ {ports} }}", f"oifname {{ {ports} }}"
    fate = "drop" if rules.block else "accept"
    each = [f"{syn} {side} counter name elsewhere accept" for side in sides]
    rules_ = [f"{syn} {' '.join(sides)} counter name past {fate}", *each]
    return chain("past", "forward priority 10", rules_)
