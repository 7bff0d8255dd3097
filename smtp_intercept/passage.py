"""One connection through the gateway, as the mail log tells it.

Pure. Addresses, MACs, the port of arrival and the times; what was said comes from `session`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from smtp_intercept.direction import Direction
from smtp_intercept.transaction import Message


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a connection came: the name of the port ("" if unknown), its direction and its VID, 0 for untagged. ``away``
    is the SO_MARK of the socket that dials its server; None: the dialler's own."""

    port: str
    direction: Direction
    away: int | None = None
    vlan: int = 0


class Spoken(Protocol):
    """What was said on a connection."""

    def fields(self) -> dict[str, object]:
        """The fields of the session's log record that the dialogue knows."""


@dataclass(slots=True, eq=False)
class Passage:
    """What the log tells about one connection besides what was said on it. ``client`` and ``server`` are (address,
    port), ``macs`` theirs as the client's SYN had them; None is what was never known. ``handler`` is "proxy" or
    "mta". ``balancer`` is who opened the connection for the client, by its own word."""

    name: str
    began_at: float
    client: tuple[str, int]
    server: tuple[str, int]
    arrival: Arrival
    hidden: bool | None = None
    source_port_kept: bool | None = None
    macs: tuple[str, str | None] | None = None
    handler: str = "proxy"
    balancer: tuple[str, int] | None = None

    def announce(self, client: tuple[str, int]) -> None:
        """A balancer has named the client."""
        self.balancer, self.client = self.client, client

    def message(self, message: Message, at: str) -> dict[str, Any]:
        """The log record of one message."""
        return {
            "type": "message",
            "time": at,
            "session": self.name,
            "number": message.number,
            "direction": self.arrival.direction.value,
            "handler": self.handler,
            **message.fields(),
        }

    def session(self, session: Spoken, seconds: float, outcome: str, reason: str, at: str) -> dict[str, Any]:
        """The log record of the session."""
        client_mac, server_mac = self.macs or (None, None)
        return {
            "type": "session",
            "time": at,
            "session": self.name,
            "port": self.arrival.port,
            "vlan": self.arrival.vlan or None,
            "client": {"address": self.client[0], "port": self.client[1], "mac": client_mac},
            "balancer": self.balancer and {"address": self.balancer[0], "port": self.balancer[1]},
            "server": {"address": self.server[0], "port": self.server[1], "mac": server_mac},
            "direction": self.arrival.direction.value,
            "handler": self.handler,
            "hidden": self.hidden,
            "source_port_kept": self.source_port_kept,
            **session.fields(),
            "seconds": round(seconds, 3),
            "outcome": outcome,
            "reason": reason,
        }
