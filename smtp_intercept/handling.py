"""Who speaks to the client of an intercepted connection: a table, and one answer from it.

Pure. A protected domain's own word comes first, then the port of arrival's, then the default of the direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from smtp_intercept.direction import Direction


class Handler(StrEnum):
    """Who speaks to the client of an intercepted connection."""

    PROXY = "proxy"
    MTA = "mta"


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer, and the key of the configuration that gave it, e.g. ``intercept.port.enp2s0.outgoing``."""

    handler: Handler
    decided_by: str


@dataclass(frozen=True, slots=True)
class Handling:
    """The table. ``by_domain`` has the protected domains that have a word of their own, in the configuration's order:
    of a server that several of them share, the first one's counts."""

    default: Mapping[Direction, Choice]
    by_port: Mapping[tuple[str, Direction], Choice] = field(default_factory=dict)
    by_domain: Mapping[str, Choice] = field(default_factory=dict)

    def choose(self, port: str, direction: Direction, served: tuple[str, ...] = ()) -> Choice:
        """For a connection that arrived on ``port`` (a link's name) and is incoming or outgoing. ``served`` are the
        protected domains whose server was dialled."""
        if direction is Direction.INCOMING and served:
            for domain, choice in self.by_domain.items():
                if domain in served:
                    return choice
        return self.by_port.get((port, direction), self.default[direction])

    def possible(self, direction: Direction) -> frozenset[Handler]:
        """Every handler that a connection of this direction can get."""
        choices = [self.default[direction], *(choice for (_, way), choice in self.by_port.items() if way is direction)]
        if direction is Direction.INCOMING:
            choices += self.by_domain.values()
        return frozenset(choice.handler for choice in choices)
