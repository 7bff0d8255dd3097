"""Next hops: what frames teach of their peers' MACs, and how our own frames are dressed with them. Pure.

Both MACs of a frame of ours are copied from the peer's own latest frame (to within `lane.FRESH_S`), never deduced where
there is one: ways out and back may differ. Entries end with their connection: docs/architecture.md has the rate and the
lifetime of every table.
"""

from __future__ import annotations

from bridge import flow, stages
from bridge import lane as at
from bridge.client import CLIENT_BITS, NETWORK_BITS, mask
from bridge.lane import LANE_MAC, NEXT_HOP_MAC, Lane
from bridge.rules import FAMILIES, LEARN, LIMIT, SYN, Rules, chain, counters

# A connection, by who sends the frame: the hash of both addresses (`_hash_of`) and the client's port.
_KEY = {"client": "meta priority . tcp sport", "server": "meta priority . tcp dport"}
_PAIR = "meta priority"
_DIALLED = "meta priority . tcp sport . tcp sequence"
# A pair of hosts, and the MAC that one of them has for the other.
_SILENT = {"client": f"{_PAIR} . ether daddr", "server": f"{_PAIR} . ether saddr"}
_ENDS = ("src", "dst")
_NAKED = f"ether saddr {LANE_MAC}"  # a frame of ours that no map has dressed yet
_LAST = "tcp flags & (fin | rst) != 0"
_END = "meta priority set 0"
_OUT = (f"{_END} accept",)
_OTHER = {"client": "server", "server": "client"}
_MAPS_BY_SYN = frozenset({"pair", "heard"})  # the client's side is their source


def declared(rules: Rules) -> list[str]:
    """Counters, sets and maps of all lanes; and those of one."""
    limits, learned = rules.limits, f"timeout {rules.learned_s}s;"
    key, kind = f"typeof {_KEY['client']}", "flags dynamic,timeout;"
    taught, hops, kept = limits.taught(rules.learned_s), limits.hops(rules.learned_s), limits.kept
    sizes = {"client": hops, "server": kept}
    lines = counters(
        "rate_client",
        "rate_network",
        "rate",
        "networks_full",
        "sent",
        "no_next_hop",
        "hushed",
        "not_kept",
        "came_round",
    )
    lines += counters("silent", "silent_answers")
    for end in _ENDS:
        lines += [
            *(
                f"map {who}_{end} {{ {key} : ether saddr; {kind} size {size}; {learned} }}"
                for who, size in sizes.items()
            ),
            f"map pair_{end} {{ typeof {_PAIR} : ether saddr; {kind} size {taught}; {learned} }}",
            f"map heard_{end} {{ {key} : ether saddr; {kind} size {at.HEARD}; timeout {at.HEARD_S}s; }}",
        ]
    lines += [
        f"set kept {{ {key}; {kind} size {kept}; timeout {at.NEXT_HOP_S}s; }}",
        f"set ended {{ {key}; {kind} size {kept}; timeout {at.REST_S}s; }}",
        f"set dialled {{ typeof {_DIALLED}; {kind} size {limits.dialled}; timeout {at.DIALLED_S}s; }}",
        f"set unanswered {{ typeof {_DIALLED}; {kind} size {limits.dialled}; timeout {at.DIALLED_S}s; }}",
        f"set answering {{ typeof {_SILENT['client']}; {kind} size {limits.dialled}; timeout {at.ANSWERING_S}s; }}",
        f"set asking {{ {key}; {kind} size {at.SILENT}; timeout {at.SILENT_S}s; }}",
        f"set silent {{ typeof {_SILENT['client']}; {kind} size {at.SILENT}; timeout {at.SILENT_S}s; }}",
        f"set round {{ {key}; {kind} size {at.ROUND}; timeout {at.NEXT_HOP_S}s; }}",
        f"set again {{ typeof {_KEY['client']} . meta mark; {kind} size {at.ROUND}; timeout {at.NEXT_HOP_S}s; }}",
        *(f"set fresh_{who} {{ {key}; {kind} size {kept}; timeout {at.FRESH_S}s; }}" for who in _KEY),
        f"limit pace {{ rate over {limits.new_connections_per_s}/second "
        f"burst {limits.new_connections_per_s} packets; }}",
        f"limit unmeasured {{ rate over {limits.new_connections_per_s_per_network}/second "
        f"burst {limits.new_connections_per_s_per_network} packets; }}",
    ]
    for lane in rules.lanes:
        for v, network in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            lines += [
                f"set {name}{v}{lane.suffix} {{ type {network}; {kind} timeout {at.RATE_S}s; size {at.NETWORKS}; }}"
                for name in ("rate", "own_rate")
            ]
    return lines


# --- from the wire -------------------------------------------------------------------------------------------------


def known() -> list[str]:
    """The chains of all lanes, for the frames of connections that our own stack has part in."""
    lines = [line for who in _KEY for line in _ended(who)]
    lines += [
        line for who in _KEY for line in (*_retaught(who, "rest", at.REST_S), *_retaught(who, "on", at.NEXT_HOP_S))
    ]
    for who in _KEY:
        lines += [*_round(who), *_heard(who), *_keep(who), *_lost(who)]
    return [*lines, *_dressed(), *_came_round(), *_silent()]


def _macs(who: str, verb: str, seconds: int, map_of: str) -> str:
    """Both MACs of a frame that ``who`` sent, into the maps of one side of its connection."""
    ends = ("saddr", "daddr") if who == map_of else ("daddr", "saddr")
    key = f"{_KEY[who]} timeout {seconds}s"
    return " ".join(f"{verb} @{map_of}_{end} {{ {key} : ether {mac} }}" for end, mac in zip(_ENDS, ends, strict=True))


def _ended(who: str) -> list[str]:
    """The last frames of a connection: both sides' entries go to rest. Where a side has said nothing yet, the other's
    reversed is what it would be dressed with anyway."""
    other, key = _OTHER[who], f"{_KEY[who]} timeout {at.REST_S}s"
    return chain(
        f"end_{who}",
        "",
        [
            f"update @ended {{ {key} }} update @kept {{ {key} }}",
            _macs(who, "update", at.REST_S, who),
            _macs(who, "update", at.REST_S, other),
        ],
    )


def _retaught(who: str, name: str, seconds: int) -> list[str]:
    """`update` would keep the old MAC (nft_dynset.c): deleted, and added anew."""
    key = _KEY[who]
    return chain(
        f"{name}_{who}",
        "",
        [_forgotten(who), _macs(who, "add", seconds, who), f"update @kept {{ {key} timeout {seconds}s }}", *_OUT],
    )


def _ticked(who: str) -> str:
    """Matches once a second: nobody is to fill a bucket with deleted elements of one key."""
    return f"{_KEY[who]} != @fresh_{who} add @fresh_{who} {{ {_KEY[who]} timeout {at.FRESH_S}s }}"


def _forgotten(who: str) -> str:
    ends = zip(_ENDS, ("saddr", "daddr"), strict=True)
    return " ".join(f"delete @{who}_{end} {{ {_KEY[who]} : ether {mac} }}" for end, mac in ends)


def _heard(who: str) -> list[str]:
    """What it says of its peer is taken once a second."""
    key = _KEY[who]
    # What comes by once more tells nothing: of the client's where our own SYN came in, of the server's elsewhere.
    where = "" if who == "client" else "!= "
    return chain(
        f"heard_{who}",
        "",
        [
            f"{key} @round {key} . meta mark {where}@again goto round_{who}",
            f"{_LAST} jump end_{who}",
            f"{key} @fresh_{who} {_OUT[0]}",
            f"add @fresh_{who} {{ {key} timeout {at.FRESH_S}s }} {key} @ended goto rest_{who}",
            f"{key} @fresh_{who} goto on_{who}",
            *_OUT,
        ],
    )


# --- our own, once more --------------------------------------------------------------------------------------------

_ROUND = f"meta mark set meta mark | {flow.ROUND:#x}"


def _came_round() -> list[str]:
    """A SYN with a sequence number that our own stack has chosen: it left the box, a router on a stick sent it back,
    and it crosses now for the second time. The connection is inspected where it crossed first."""
    key, age = _KEY["client"], f"timeout {at.NEXT_HOP_S}s"
    noted = f"update @round {{ {key} {age} }} update @again {{ {key} . meta mark {age} }}"
    return chain("came_round", "", [f"{noted} counter name came_round {_ROUND} {_OUT[0]}"])


def _round(who: str) -> list[str]:
    """The frames that go with it: bridged, as long as the connection lives."""
    key = _KEY[who]

    def noted(seconds: int) -> str:
        again = f" update @again {{ {key} . meta mark timeout {seconds}s }}" if who == "client" else ""
        return f"update @round {{ {key} timeout {seconds}s }}{again}"

    rest, on = f"{_LAST} {noted(at.REST_S)}", f"{key} != @ended {noted(at.NEXT_HOP_S)}"
    return chain(f"round_{who}", "", [on, rest, f"{_ROUND} {_OUT[0]}"])


def arrive(rules: Rules, lane: Lane) -> list[str]:
    """What a frame teaches when it comes into this lane. Both of its ports may be mail's: then who sent it is told by
    the connection that there is."""
    lines = [line for who in _KEY for line in _from(rules, lane, who)] + _teach(rules, lane)
    for legs in rules.legs_of(lane):
        lines += chain(
            f"arrive{legs.index}{lane.suffix}",
            f'ingress device "{legs.lane}" priority 0',
            [
                stages.arrives(rules),
                # The port of arrival goes along, so that whatever answers this frame leaves by it.
                f"meta mark set {flow.magic(lane.vlan) | legs.index << flow.PORT_SHIFT:#010x}",
                f"tcp dport {rules.mail} {SYN} goto opening{lane.suffix}",
                f"tcp sport {rules.mail} jump from_server{lane.suffix}",
                f"tcp dport {rules.mail} jump from_client{lane.suffix}",
            ],
        )
    return lines


def _from(rules: Rules, lane: Lane, who: str) -> list[str]:
    """Of a connection that is not known it is remembered for a moment: if our own stack answers, it was forgotten."""
    key = f"{_KEY[who]} timeout {at.HEARD_S}s"
    ends = ("saddr", "daddr") if who == "client" else ("daddr", "saddr")
    adds = " ".join(f"add @heard_{end} {{ {key} : ether {mac} }}" for end, mac in zip(_ENDS, ends, strict=True))
    answers = [f"{_ANSWERS} jump answers"] if who == "server" else []
    return chain(
        f"from_{who}{lane.suffix}",
        "",
        [*_hash_of(rules, lane, who), *answers, f"{_KEY[who]} @kept goto heard_{who}", adds, _END],
    )


def _teach(rules: Rules, lane: Lane) -> list[str]:
    """One SYN teaches both next hops. What a flood could fill is limited before it is touched."""
    per, key = rules.limits.new_connections_per_s_per_network, _KEY["client"]
    per_client = rules.limits.new_connections_per_s_per_client
    teach = []
    for v, ip in FAMILIES:
        client, network = (f"{ip} saddr & {mask(bits[v], v)}" for bits in (CLIENT_BITS, NETWORK_BITS))
        # Dropped, not bridged: whoever comes faster comes again a second later, and nobody presses inspection out.
        teach += [
            f"meta protocol {ip} update @own_rate{v}{lane.suffix} {{ {client} {_over(per_client)} }} "
            "counter name rate_client drop",
            f"meta protocol {ip} update @rate{v}{lane.suffix} {{ {network} {_over(per)} }} "
            "counter name rate_network drop",
            # Those that found no place have one network's rate together.
            f"meta protocol {ip} {network} != @rate{v}{lane.suffix} counter name networks_full "
            f"limit name unmeasured counter name rate {LIMIT} return",
        ]
    age = f"timeout {rules.learned_s}s"
    # The latest SYN of a connection that is none yet: one that was spoofed before it harms it for a second.
    teach += [
        f"limit name pace counter name rate {LIMIT} return",
        f"add @pair_src {{ {_PAIR} {age} : ether saddr }} add @pair_dst {{ {_PAIR} {age} : ether daddr }}",
        f"{key} != @kept {_ticked('client')} {_forgotten('client')}",
        f"add @client_src {{ {key} {age} : ether saddr }} add @client_dst {{ {key} {age} : ether daddr }} {LEARN}",
    ]
    own = f"{_DIALLED} @dialled goto came_round"
    asking = f"update @asking {{ {key} timeout {at.SILENT_S}s }}"
    silent = f"{_SILENT['client']} @silent {asking} counter name silent {_ROUND} {_OUT[0]}"
    ours = f"{_SILENT['client']} @silent {key} @kept counter name silent drop"  # an answer could be ours, and is heard
    opening = [*_hash_of(rules, lane, "client"), own, ours, silent, f"jump teach{lane.suffix}", _END]
    return [*chain(f"teach{lane.suffix}", "", teach), *chain(f"opening{lane.suffix}", "", opening)]


def _over(per_s: int) -> str:
    """Matches what is above the rate of its element."""
    return f"timeout {at.RATE_S}s limit rate over {per_s}/second burst {per_s} packets"


def _hash_of(rules: Rules, lane: Lane, sender: str) -> list[str]:
    """Both addresses, client's first, as 32 bits in the frame's priority: with the client's port a key that the
    registers of every nft hold, for IPv6 too. Secret, so that nobody can aim at another's entry; 0 before the frame
    goes on."""
    first, second = ("saddr", "daddr") if sender == "client" else ("daddr", "saddr")
    how = f"mod 4294967295 seed {lane.seed(rules.seed):#x}"
    return [f"meta protocol {ip} meta priority set jhash {ip} {first} . {ip} {second} {how}" for _, ip in FAMILIES]


# --- from our own stack --------------------------------------------------------------------------------------------


def disguise(rules: Rules, lane: Lane) -> list[str]:
    """What our own stack sends gets both MACs of the conversation, before the bridge looks the destination up."""
    away = f"meta mark & {flow.MAGIC_MASK | flow.AWAY:#010x} == {flow.magic(lane.vlan) | flow.AWAY:#010x}"
    to_server, to_client = f"to_server{lane.suffix}", f"to_client{lane.suffix}"
    hushed = f"ether daddr != {NEXT_HOP_MAC} counter name hushed drop"
    entry = [hushed, stages.leaves(rules), f"{away} goto {to_server}", f"goto {to_client}"]
    return [
        *chain(f"disguise{lane.suffix}", f'egress device "{lane.link}" priority 0', entry),
        *chain(to_server, "", [*_hash_of(rules, lane, "client"), *_as_client()]),
        *chain(to_client, "", [*_hash_of(rules, lane, "server"), *_as_server()]),
    ]


def _copied(who: str, map_of: str) -> str:
    """Our frame in the name of ``who`` gets what a side's maps hold."""
    key = _KEY[who] if map_of != "pair" else _PAIR
    src, dst = (
        ("saddr", "daddr") if who == map_of or (who == "client" and map_of in _MAPS_BY_SYN) else ("daddr", "saddr")
    )
    return f"ether {src} set {key} map @{map_of}_src ether {dst} set {key} map @{map_of}_dst"


# A server is dialled for a client that has completed a handshake, and data is sent only after one: what a spoofed SYN
# taught is never kept. An ACK proves nothing: half-open sockets send it to a second SYN, and those in TIME_WAIT.
_DIALS = "tcp flags & (syn | ack) == syn"
_ANSWERS = "tcp flags & (syn | ack) == syn | ack"
_SPEAKS = "tcp flags & (syn | rst | psh) == psh"


def _as_client() -> list[str]:
    key = _KEY["client"]
    return [
        _copied("client", "client"),
        f"{_NAKED} jump lost_client",
        "jump dressed",
        *_repeated(),
        f"{_DIALS} update @dialled {{ {_DIALLED} timeout {at.DIALLED_S}s }}",
        *(f"{what} {key} != @kept jump keep_client" for what in (_DIALS, _SPEAKS)),
        f"{_LAST} {key} @kept jump end_client",
        _END,
    ]


def _repeated() -> list[str]:
    """Our SYN for the third time, two seconds or more after the first, and the server has answered none of this pair's
    meanwhile: it is not at the MAC that its client has."""
    silent = f"{_SILENT['client']} != @answering update @silent {{ {_SILENT['client']} timeout {at.SILENT_S}s }}"
    return [
        f"{_DIALS} {_DIALLED} @unanswered {silent}",
        f"{_DIALS} {_DIALLED} @dialled update @unanswered {{ {_DIALLED} timeout {at.DIALLED_S}s }}",
    ]


def _silent() -> list[str]:
    """The client's own SYNs ask meanwhile, so that it finds out as without us. A server that answers one is silent no
    more; but the handshake is not theirs, however often it answers: the client's SYN comes again, and is ours."""
    answering = f"update @answering {{ {_SILENT['server']} timeout {at.ANSWERING_S}s }}"
    no_more = f"{_SILENT['server']} @silent delete @silent {{ {_SILENT['server']} }}"
    theirs = f"{_KEY['server']} @asking {_KEY['server']} != @kept counter name silent_answers drop"
    return chain("answers", "", [answering, no_more, theirs])


def _as_server() -> list[str]:
    """Until the server has said something itself, the client's own frames reversed are the guess."""
    key = _KEY["server"]
    return [
        _copied("server", "client"),
        f"ether saddr != {LANE_MAC} {_SPEAKS} {key} != @kept jump keep_server",
        _copied("server", "server"),
        f"{_NAKED} jump lost_server",
        "jump dressed",
        f"{_LAST} {key} @kept jump end_server",
        _END,
    ]


def _keep(who: str) -> list[str]:
    """The client's side, as the frame carries it, for as long as the connection may live."""
    key = _KEY[who]
    return chain(
        f"keep_{who}",
        "",
        [
            f"{_macs(who, 'update', at.NEXT_HOP_S, 'client')} update @kept {{ {key} timeout {at.NEXT_HOP_S}s }}",
            f"{key} != @kept counter name not_kept",
        ],
    )


def _lost(who: str) -> list[str]:
    """A dial from a fresh source port, or a connection that was forgotten: as the pair's last SYN went, or as its own
    peer's frame of this moment."""
    again = [f"ether saddr != {LANE_MAC} {_SPEAKS} {_KEY[who]} != @kept jump keep_{who}"] if who == "server" else []
    return chain(f"lost_{who}", "", [_copied(who, "pair"), _copied(who, "heard"), *again])


def _dressed() -> list[str]:
    dressed = [
        f"{_NAKED} counter name no_next_hop drop",
        f"ether daddr {NEXT_HOP_MAC} counter name no_next_hop drop",
        "counter name sent",
    ]
    return chain("dressed", "", dressed)
