"""What of the ruleset is the canary's: how it is told from mail, where it leaves a trace, where it ends. Pure.

Each stage writes the canary's sequence number into a set of its own, so that of one that was lost it is known where.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge import canary, flow
from bridge.rules import SYN, Rules, chain

KEPT_S, KEPT = 10, 8192  # a trace: longer than a flight and than who asks takes; all that fly meanwhile


@dataclass(frozen=True, slots=True)
class Stage:
    """``family`` of the table that has the trace, or "" for what only the diverter knows; ``lost``: what it means if
    this is the first that is missing; ``hook``: where the rules of others are that may have taken it."""

    name: str
    family: str
    lost: str
    hook: str = ""


SYN_STAGES = (
    Stage("arrived", "netdev", "it does not get from its leg into the lane (netdev or tc, a link that is down)"),
    Stage("met", "inet", "it is lost before the gate (others' rules, or a lane that is not filtered)", "prerouting"),
    Stage("asked", "inet", "no interceptor listens"),
    Stage("judged", "", "it is lost before its queue (a queue's rule that is missing, others' rules)", "prerouting"),
    Stage("delivered", "inet", "it is lost on its way in (a firewall, routing, rp_filter)", "input"),
    Stage("answered", "inet", "the listener does not answer"),
    Stage("left", "netdev", "its answer is lost on its way out (a firewall, routing)", "output"),
    Stage("back", "", "its answer does not get from the lane to its leg"),
)
DIAL_STAGES = (
    Stage("dialled", "inet", "servers cannot be dialled: nothing gets as far as the output chain"),
    Stage("sent", "netdev", "servers cannot be dialled: it is lost on its way out (a firewall, routing)", "output"),
    Stage("crossed", "", "servers cannot be dialled: nothing gets from the lane to the other legs"),
)
# Of one that is judged as mail that passes is.
PASSING = Stage("passed", "", "mail that is not inspected does not cross the lane (a firewall)", "forward prerouting")
_SETS = {"netdev": ("arrived", "left", "sent"), "inet": ("met", "asked", "delivered", "answered", "dialled")}
_ANSWERS = frozenset({"answered", "left"})  # by the number that they acknowledge, one more than the canary's


def trace(name: str) -> str:
    """The set of a stage."""
    return f"canary_{name}"


def number(name: str, sequence: int) -> int:
    """What the canary of that sequence number leaves in that set."""
    if name in _ANSWERS:
        return sequence + 1 & 0xFFFF_FFFF
    return sequence ^ canary.DIAL if name in ("dialled", "sent") else sequence


def declared(family: str) -> list[str]:
    """The sets of one table."""
    return [
        f"set {trace(name)} {{ typeof tcp {_field(name)}; flags dynamic,timeout; timeout {KEPT_S}s; size {KEPT}; }}"
        for name in _SETS[family]
    ]


def _field(name: str) -> str:
    return "ackseq" if name in _ANSWERS else "sequence"


def _note(name: str) -> str:
    return f"update @{trace(name)} {{ tcp {_field(name)} timeout {KEPT_S}s }}"


def is_canary(rules: Rules) -> str:
    magic, mask = rules.magic
    return f"meta mark & {mask | flow.CANARY:#010x} == {magic | flow.CANARY:#010x}"


_AWAY = f"meta mark & {flow.AWAY:#x} == {flow.AWAY:#x}"


def canonical() -> str:
    """Of all that the gate has written into a mark, what a queue's rule asks for."""
    kept = flow.QUEUE | flow.MAX_QUEUES - 1 << flow.PORT_SHIFT
    return f"meta mark set meta mark & {kept:#x} | {flow.MAGIC:#010x}"


# --- netdev ----------------------------------------------------------------------------------------------------


def arrives(rules: Rules) -> str:
    """The first rule of each leg into a lane: its mark is its own, for none travels on a wire."""
    return f"{is_canary(rules)} goto canary_arrives"


def leaves(rules: Rules) -> str:
    """A rule of each lane's egress."""
    return f"{is_canary(rules)} goto canary_leaves"


def ends(rules: Rules) -> str:
    """The first rule of each leg out: whatever has become of it, here it ends."""
    client, _ = canary.macs(rules.seed)
    return f"ether saddr & ff:ff:ff:ff:ff:fe == {client} drop"


def netdev(rules: Rules) -> list[str]:
    client, server = canary.macs(rules.seed)
    return [
        *declared("netdev"),
        *chain("canary_arrives", "", [f"{SYN} {_note('arrived')}", "accept"]),
        *chain("canary_dials", "", [_note("sent"), f"ether saddr set {client} ether daddr set {server} accept"]),
        *chain(
            "canary_leaves",
            "",
            [
                f"{_AWAY} goto canary_dials",
                _note("left"),
                f"ether saddr set {server} ether daddr set {client} accept",
            ],
        ),
    ]


# --- inet ------------------------------------------------------------------------------------------------------


def asks(rules: Rules) -> str:
    """The gate's first rule. The switch is not asked, or what is open would never be closed again."""
    return f"{is_canary(rules)} goto canary_asks"


def turns(rules: Rules) -> list[str]:
    """Its RST, among the packets of intercepted connections."""
    return [
        f"{is_canary(rules)} socket transparent 1 meta mark set meta mark | {flow.DIVERT:#x} return",
        f"{is_canary(rules)} return",
    ]


def inet(rules: Rules) -> list[str]:
    mine = is_canary(rules)
    return [
        *declared("inet"),
        *chain(
            "canary_asks",
            "",
            [_note("met"), f"socket transparent 1 {_note('asked')} {canonical()} return", "drop"],
        ),
        # After whatever others have put into these hooks, and before.
        *chain("delivered", "input priority 1000", [f"{mine} {SYN} {_note('delivered')}"]),
        *chain(
            "answered",
            "output priority -400",
            [f"{mine} {_AWAY} {_note('dialled')} accept", f"{mine} {_note('answered')}"],
        ),
    ]
