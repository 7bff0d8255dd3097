"""Where a message goes next. Pure: words that routing, delivery and the queue share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from smtp_intercept.names import read_host

MAX_PORT = 65_535


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


def place_of(text: str, port: int = 25) -> Place:
    """From "name", "address", "name:port", "192.0.2.1:port", "[address]:port"; ``port`` is what silence means.
    ValueError for anything else, and for names that are not full ones."""
    host, colon, number = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "")
    if colon:
        port = int(number) if number.isascii() and number.isdigit() and len(number) <= len("65535") else 0
        if not 1 <= port <= MAX_PORT:
            raise ValueError(f"{number!r} is not a port, 1 to {MAX_PORT}")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if bare == host and not re.fullmatch(r"[0-9.]*|.*:.*", host):  # no host is called that (RFC 3696 §2)
        return Place(read_host(host), port)
    address = ip_address(bare)
    if address.version == 6 and address.scope_id is not None:
        raise ValueError(f"{text!r} has a zone")
    return Place(str(address), port)


@dataclass(frozen=True, slots=True)
class NextHop:
    """``places``, tried in order, and after them the mail exchangers of ``domain`` unless it is "". Neither: the
    recipient has no domain, and cannot be delivered to. ``row`` is the line of the table that chose it ("R1" … "R8",
    "alternate", "relay"); equal next hops share connections. ``authenticate``: with the relay's credentials.
    ``from_client``: dialled from the client's address as far as the lane can."""

    row: str
    places: tuple[Place, ...] = ()
    domain: str = ""
    security: Security = Security.OPPORTUNISTIC
    protocol: Protocol = Protocol.SMTP
    authenticate: bool = False
    from_client: bool = False

    def __str__(self) -> str:
        exchangers = [f"MX of {self.domain}"] if self.domain else []
        return ", ".join([*map(str, self.places), *exchangers]) or "nowhere"
