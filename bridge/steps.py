"""The things that can be done to a host, each as data: what it is, what undoes it, how it reads.

Pure. A plan is a list of steps; the ledger is a list of their inverses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from bridge.moves import MakeRoom, MoveLink, RemoveRoom, ReturnLink

Value = bool | int | str


@dataclass(frozen=True, slots=True)
class CreateLink:
    """A bridge, a veth pair (``peer`` is its other end, in the network namespace ``peer_room`` if that is named), or a
    VLAN link (``vlan`` is the VID that it takes from ``parent``)."""

    link: str
    kind: str
    peer: str = ""
    parent: str = ""
    vlan: int = 0
    peer_room: str = ""

    def __str__(self) -> str:
        room = f" in {self.peer_room}" if self.peer_room else ""
        peer = f" with peer {self.peer}{room}" if self.peer else ""
        return f"link    create {self.kind} {self.link}{peer}" + (f" of {self.parent}" if self.parent else "")


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """``peer`` is the other end of a veth pair, which goes along."""

    link: str
    peer: str = ""

    def __str__(self) -> str:
        return f"link    delete {self.link}"


@dataclass(frozen=True, slots=True)
class SetLink:
    """One attribute of a link; `bridge.links` has the table of them."""

    link: str
    attribute: str
    value: Value

    def __str__(self) -> str:
        return f"link    {self.link}: {self.attribute} = {self.value}"


@dataclass(frozen=True, slots=True)
class AddStation:
    """A MAC that lives behind this port of a bridge, whatever frames say; it stays ours to take away."""

    port: str
    mac: str

    def __str__(self) -> str:
        return f"station add {self.mac} behind {self.port}"


@dataclass(frozen=True, slots=True)
class RemoveStation:
    port: str
    mac: str

    def __str__(self) -> str:
        return f"station remove {self.mac} from behind {self.port}"


@dataclass(frozen=True, slots=True)
class SetNic:
    """One setting of a port's hardware, by the names of `hwprofiles.tuning`; the one step that a host may refuse."""

    link: str
    setting: str
    value: str

    def __str__(self) -> str:
        return f"nic     {self.link}: {self.setting} = {self.value}"


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """``name`` as sysctl(8) writes it, with / for dots inside a link's name."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"sysctl  {self.name} = {self.value}"


@dataclass(frozen=True, slots=True)
class LoadModule:
    module: str

    def __str__(self) -> str:
        return f"module  load {self.module}"


@dataclass(frozen=True, slots=True)
class UnloadModule:
    module: str

    def __str__(self) -> str:
        return f"module  unload {self.module}"


@dataclass(frozen=True, slots=True)
class AddAddress:
    """``address`` with its prefix length: 198.51.100.2/24."""

    link: str
    address: str
    broadcast: str = ""

    def __str__(self) -> str:
        return f"address add {self.address} on {self.link}"


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    link: str
    address: str

    def __str__(self) -> str:
        return f"address remove {self.address} from {self.link}"


@dataclass(frozen=True, slots=True)
class Route:
    """``destination`` with prefix length; ``kind`` unicast or local; numbers as in rtnetlink(7)."""

    destination: str
    link: str
    table: int = 254
    gateway: str = ""
    source: str = ""
    metric: int = 0
    protocol: int = 4
    scope: int = 0
    kind: str = "unicast"
    onlink: bool = False

    def __str__(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        metric = f" metric {self.metric}" if self.metric else ""
        return f"{self.kind} {self.destination}{via} dev {self.link} table {self.table}{metric}"


@dataclass(frozen=True, slots=True)
class AddRoute:
    route: Route

    def __str__(self) -> str:
        return f"route   add {self.route}"


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    route: Route

    def __str__(self) -> str:
        return f"route   remove {self.route}"


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """Packets of one family that came in by ``incoming`` with ``mark``/``mask`` look up ``table``."""

    family: int
    incoming: str
    mark: int
    mask: int
    table: int

    def __str__(self) -> str:
        return f"IPv{self.family} iif {self.incoming} fwmark {self.mark:#x}/{self.mask:#x} lookup {self.table}"


@dataclass(frozen=True, slots=True)
class AddRule:
    rule: PolicyRule

    def __str__(self) -> str:
        return f"rule    add {self.rule}"


@dataclass(frozen=True, slots=True)
class RemoveRule:
    rule: PolicyRule

    def __str__(self) -> str:
        return f"rule    remove {self.rule}"


@dataclass(frozen=True, slots=True)
class AddNeighbour:
    """A permanent neighbour."""

    link: str
    address: str
    mac: str

    def __str__(self) -> str:
        return f"neigh   add {self.address} at {self.mac} on {self.link}"


@dataclass(frozen=True, slots=True)
class RemoveNeighbour:
    link: str
    address: str
    mac: str = ""

    def __str__(self) -> str:
        return f"neigh   remove {self.address} from {self.link}"


@dataclass(frozen=True, slots=True)
class LoadRuleset:
    """The nft transaction of `bridge.ruleset.render`."""

    text: str

    def __str__(self) -> str:
        return "nft     load tables netdev, inet and bridge tollbridge"


@dataclass(frozen=True, slots=True)
class UnloadRuleset:
    def __str__(self) -> str:
        return "nft     remove tables netdev, inet and bridge tollbridge"


@dataclass(frozen=True, slots=True)
class AddQueueRule:
    """The queue rule by iptables, where the kernel lacks nft's queue expression."""

    family: int
    link: str
    mark: int
    queue: int
    bypass: bool

    def __str__(self) -> str:
        bypass = " --queue-bypass" if self.bypass else ""
        return (
            f"queue   {'iptables' if self.family == 4 else 'ip6tables'} -t raw -A PREROUTING -i {self.link} "
            f"-m mark --mark {self.mark:#x} -j NFQUEUE --queue-num {self.queue}{bypass}"
        )


@dataclass(frozen=True, slots=True)
class RemoveQueueRule:
    """``drop_table``: the table raw was not there before and goes too, once it is empty."""

    family: int
    link: str
    mark: int
    queue: int
    bypass: bool
    drop_table: bool

    def __str__(self) -> str:
        return f"queue   remove the IPv{self.family} rule to queue {self.queue}"


@dataclass(frozen=True, slots=True)
class Unmanage:
    """Tell a network manager, by the names of `bridge.managers`, to keep its hands off the ``links``, with a space
    between them."""

    manager: str
    links: str

    def __str__(self) -> str:
        return f"manager {self.manager}: does not manage {self.links}"


@dataclass(frozen=True, slots=True)
class Manage:
    """The reverse: it does with its links what it did before; ``links`` it was made to let go of."""

    manager: str
    links: str = ""

    def __str__(self) -> str:
        return f"manager {self.manager}: manages its links again"


@dataclass(frozen=True, slots=True)
class Inside:
    """A step that is taken in the room."""

    room: str
    step: Step

    def __str__(self) -> str:
        return str(self.step)


Step = (
    CreateLink
    | DeleteLink
    | SetLink
    | SetNic
    | SetSysctl
    | LoadModule
    | UnloadModule
    | AddAddress
    | RemoveAddress
    | AddRoute
    | RemoveRoute
    | AddRule
    | RemoveRule
    | AddNeighbour
    | RemoveNeighbour
    | LoadRuleset
    | UnloadRuleset
    | AddQueueRule
    | RemoveQueueRule
    | Unmanage
    | Manage
    | AddStation
    | RemoveStation
    | MakeRoom
    | RemoveRoom
    | MoveLink
    | ReturnLink
    | Inside
)

_STEPS = {kind.__name__: kind for kind in get_args(Step)}
_PARTS = {"route": Route, "rule": PolicyRule}
# What tells two steps of one kind apart; all other fields are what the step wants there.
_VALUES = frozenset(
    {"value", "text", "kind", "peer", "peer_room", "parent", "vlan", "mac", "broadcast", "links", "up", "sysctls"}
)


def key(step: Step) -> str:
    """Names what the step changes, so that a second `up` finds the ledger's entry of the first."""
    if isinstance(step, Inside):
        return f"Inside {step.room} {key(step.step)}"
    parts = [str(getattr(step, f.name)) for f in fields(step) if f.name not in _VALUES]
    return " ".join([type(step).__name__, *parts])


def to_json(step: Step) -> dict[str, Any]:
    """The step as JSON data; `from_json` is the reverse."""
    if isinstance(step, Inside):
        return {"step": "Inside", "room": step.room, "inside": to_json(step.step)}
    return {"step": type(step).__name__, **asdict(step)}


def from_json(data: Mapping[str, Any]) -> Step:
    """Raises KeyError or TypeError if the data is not what `to_json` made."""
    if data["step"] == "Inside":
        return Inside(data["room"], from_json(data["inside"]))
    values = {
        name: _PARTS[name](**value) if name in _PARTS else value for name, value in data.items() if name != "step"
    }
    step: Step = _STEPS[data["step"]](**values)
    return step


def plain(step: Step) -> Step:
    """The step itself, wherever it is taken."""
    return step.step if isinstance(step, Inside) else step
