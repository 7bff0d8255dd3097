"""Where a message goes next. Pure: words that routing, delivery and the queue share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Security(Enum):
    """TLS towards a next hop: never, if it is offered, or the mail waits; verified: its certificate names the host."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    VERIFIED = "verified"


class Protocol(Enum):
    SMTP = "smtp"
    LMTP = "lmtp"  # RFC 2033: a reply for each recipient after the data


@dataclass(frozen=True, slots=True)
class Place:
    """A host to dial: an address, or a name whose A and AAAA records are looked up."""

    host: str
    port: int = 25

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NextHop:
    """Either ``places``, tried in order, or the mail exchangers of ``domain``. ``row`` is the line of the table that
    chose it ("R1" … "R8", "alternate"); equal next hops share connections. ``authenticate``: with the relay's
    credentials. ``from_client``: dialled from the client's address as far as the lane can."""

    row: str
    places: tuple[Place, ...] = ()
    domain: str = ""
    security: Security = Security.OPPORTUNISTIC
    protocol: Protocol = Protocol.SMTP
    authenticate: bool = False
    from_client: bool = False

    def __str__(self) -> str:
        return f"MX of {self.domain}" if self.domain else ", ".join(map(str, self.places))
