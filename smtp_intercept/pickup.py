"""Pick-up: what happens to a connection, decided once, on its SYN.

Pure, and on the hot path: no DNS, no log, no clock. Rules first, in their order; then the table of the port of
arrival; then the default table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bridge.flow import Action
from smtp_intercept.direction import Direction, Network, Servers, connection_direction


@dataclass(frozen=True, slots=True)
class PickUp:
    """One table: an action per class. ``overrides`` are the classes that a port's own table sets."""

    incoming: Action = Action.INTERCEPT
    outgoing: Action = Action.PASS
    local: Action = Action.PASS
    overrides: frozenset[Direction] = frozenset()

    def overridden(self, by: Mapping[Direction, Action]) -> PickUp:
        """This default, changed by what a port's own table sets."""
        changes = {direction.value: action for direction, action in by.items()}
        return replace(self, overrides=frozenset(by), **changes)


@dataclass(frozen=True, slots=True)
class Rule:
    """A narrower answer. What is None matches everything, but no rule speaks of the local class unless it names it:
    mail to the box itself never crosses the lane, so a rule for "all" cannot mean it."""

    name: str
    client: Network | None
    server: Network | None
    port: str | None
    direction: Direction | None
    action: Action
    vlan: int | None = None

    def matches(self, client: bytes, server: bytes, port: str, direction: Direction, vlan: int = 0) -> bool:
        """Whether every criterion that is given says yes. Packed addresses; VID 0 is untagged."""
        return (
            (direction is self.direction or (self.direction is None and direction is not Direction.LOCAL))
            and (self.port is None or self.port == port)
            and (self.vlan is None or self.vlan == vlan)
            and (self.client is None or self.client.holds(client))
            and (self.server is None or self.server.holds(server))
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and the key of the configuration that gave it, e.g. ``pickup.port.enp2s0.outgoing``."""

    direction: Direction
    action: Action
    decided_by: str


@dataclass(frozen=True, slots=True)
class Policy:
    """All that `decide` needs. ``own`` are the box's packed addresses; ``by_port`` holds whole tables, already merged
    with ``default``."""

    own: frozenset[bytes]
    servers: Servers
    default: PickUp = PickUp()
    by_port: Mapping[str, PickUp] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    _default: Mapping[Direction, Decision] = field(init=False, repr=False, compare=False)
    _by_port: Mapping[str, Mapping[Direction, Decision]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Made once: 200,000 SYNs a second shall not build names.
        object.__setattr__(self, "_default", _decisions(self.default, ""))
        object.__setattr__(self, "_by_port", {port: _decisions(table, port) for port, table in self.by_port.items()})

    def by_table(self, direction: Direction, port: str) -> Decision:
        """The answer of the table of the port of arrival, or of the default table."""
        return self._by_port.get(port, self._default)[direction]


def _decisions(table: PickUp, port: str) -> Mapping[Direction, Decision]:
    actions = {
        Direction.INCOMING: table.incoming,
        Direction.OUTGOING: table.outgoing,
        Direction.LOCAL: table.local,
    }
    return {
        direction: Decision(
            direction,
            action,
            f"pickup.port.{port}.{direction.value}" if direction in table.overrides else f"pickup.{direction.value}",
        )
        for direction, action in actions.items()
    }


def decide(policy: Policy, client: bytes, server: bytes, port: str, vlan: int = 0) -> Decision:
    """The decision on one SYN: packed addresses, the name of the port it arrived on, its VID (0: untagged)."""
    direction = connection_direction(server, policy.own, policy.servers)
    for rule in policy.rules:
        if rule.matches(client, server, port, direction, vlan):
            return Decision(direction, rule.action, rule.name)
    return policy.by_table(direction, port)
