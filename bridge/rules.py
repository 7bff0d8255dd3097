"""What all the rules are made from: the wish, and the words that more than one table says. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bridge import flow
from bridge import lane as at
from bridge.lane import LANE, Lane, Limits, PortLegs

SYN = "tcp flags & (fin | syn | rst | ack) == syn"
NOT_SYN = "tcp flags & (fin | syn | rst | ack) != syn"
LIMIT = f"meta mark set meta mark | {flow.LIMITED:#x}"
LIMITED = f"meta mark & {flow.LIMITED:#x} == {flow.LIMITED:#x}"
ROUND = f"meta mark & {flow.ROUND:#x} == {flow.ROUND:#x}"
LEARN = f"meta mark set meta mark | {flow.LEARNED:#x}"
UNLEARNED = f"meta mark & {flow.LEARNED:#x} == 0"
# What no host makes that means to be understood, and what only looks as if it had to cross: counter → words for people.
DROPPED = {
    "odd_flags": "a SYN with FIN or RST",
    "tiny_fragments": "TCP in fragments that part its flags from its ports (RFC 1858, RFC 3128)",
    "late_header": "an IPv6 fragment whose TCP header is in a later one (RFC 7112)",
    "lane_macs": "sent to a MAC that is the lane's own",
    "neighbours": "a SYN between two hosts behind the same port",
}
FAMILIES = ((4, "ip"), (6, "ip6"))


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything the text depends on. ``bridge_mac`` is the plain bridge's own address; ``silent`` that it has no
    business of its own on the wire (no management address); ``is_wire`` that no bridge of ours learns; ``seed`` 32
    secret bits, the same at every rendering; ``nft_queue`` that the kernel has the queue expression; ``queues`` the
    number of diverters, each with its own; ``vlans`` are the VIDs whose mail has a lane."""

    bridge: str
    bridge_mac: str
    legs: tuple[PortLegs, ...]
    mail_ports: tuple[int, ...]
    limits: Limits
    seed: int = 0
    vlans: tuple[int, ...] = ()
    learned_s: int = at.LEARNED_S
    closed: frozenset[str] = frozenset()
    block: bool = False
    stp: bool = False
    is_wire: bool = False
    adopted: bool = False
    silent: bool = False
    nft_queue: bool = False
    queues: int = 1

    @property
    def mail(self) -> str:
        return "{ " + ", ".join(map(str, self.mail_ports)) + " }"

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Untagged mail's first."""
        return (Lane(), *map(Lane, self.vlans))

    def legs_of(self, lane: Lane) -> tuple[PortLegs, ...]:
        """Each port's legs into this lane."""
        return tuple(PortLegs(legs.port, legs.index, lane.vlan) for legs in self.legs)

    @property
    def any_lane(self) -> str:
        """The names of all lanes, for one match of a link's name."""
        return f'"{LANE}*"' if self.vlans else f'"{LANE}"'

    @property
    def magic(self) -> tuple[int, int]:
        """What the marks of every lane have in common, and the mask of it."""
        return (flow.ANY_MAGIC, flow.ANY_MAGIC_MASK) if self.vlans else (flow.MAGIC, flow.MAGIC_MASK)

    @property
    def ours(self) -> str:
        """Matches what is, or comes from, an intercepted connection."""
        magic, mask = self.magic
        return f"meta mark & {mask | flow.DIVERT:#010x} == {magic | flow.DIVERT:#010x}"

    @property
    def otherwise(self) -> str:
        """What becomes of a SYN that cannot be inspected."""
        return "drop" if self.block else "return"


def chain(name: str, hook: str, rules: Iterable[str]) -> list[str]:
    head = [f"chain {name} {{"] + ([f"\ttype filter hook {hook}; policy accept;"] if hook else [])
    return [*head, *(f"\t{rule}" for rule in rules), "}"]


def counters(*names: str) -> list[str]:
    return [f"counter {name} {{ }}" for name in names]
