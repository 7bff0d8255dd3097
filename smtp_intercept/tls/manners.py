"""Who is asked to speak TLS with the box, and who is left alone: one decision about each STARTTLS.

Pure. A server without an identity, a client that has refused once, whoever has an anchor of its own: these are not
touched. What a client says, a name or octets that are no ClientHello, is never a reason by itself but for an exemption.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import TypeAlias

from smtp_intercept.direction import Direction, Servers
from smtp_intercept.tls.left_alone import LeftAlone
from smtp_intercept.tls.names import Constraints, any_matches


class Way(StrEnum):
    """What happens to STARTTLS."""

    PASS = "pass"
    STRIP = "strip"
    TERMINATE = "terminate"


class Why(StrEnum):
    """Why a session was left alone."""

    EXEMPT = "exempt"
    NO_IDENTITY = "no_identity"
    NO_AUTHORITY = "no_authority"
    CONSTRAINED = "not_the_authoritys_name"
    TLSA = "tlsa"
    MTA_STS = "mta_sts"
    CLIENT_CERTIFICATE = "client_certificate_asked_for"
    REFUSED = "client_refused"
    NO_HANDSHAKE = "no_handshake_with_server"


@dataclass(frozen=True, slots=True)
class Ways:
    """The table. A protected server's own word comes first, then the port of arrival's, then the direction's."""

    default: Mapping[Direction, Way]
    by_port: Mapping[str, Way] = field(default_factory=dict)
    by_domain: Mapping[str, Way] = field(default_factory=dict)

    def choose(self, port: str, direction: Direction, served: tuple[str, ...] = ()) -> Way:
        """For a connection that arrived on ``port`` (a link's name). ``served`` are the protected domains whose server
        was dialled."""
        if direction is Direction.INCOMING:
            for domain, way in self.by_domain.items():
                if domain in served:
                    return way
        return self.by_port.get(port, self.default[direction])

    @property
    def all(self) -> frozenset[Way]:
        """Every one that some connection can get."""
        return frozenset([*self.default.values(), *self.by_port.values(), *self.by_domain.values()])


@dataclass(frozen=True, slots=True)
class Identity:
    """A protected server's own: ``servers`` without any are all that are protected, ``names`` those of its
    certificate."""

    number: int
    servers: Servers | None
    names: tuple[str, ...]

    def serves(self, server: bytes) -> bool:
        """By its packed address."""
        return self.servers is None or self.servers.holds(server)


@dataclass(frozen=True, slots=True)
class Mint:
    """A leaf of the authority's is made."""


MINT = Mint()
Decision: TypeAlias = Why | Identity | Mint


@dataclass(frozen=True, slots=True)
class Means:
    """What a box has. ``constraints`` are its authority's; None: it has no authority."""

    identities: tuple[Identity, ...] = ()
    constraints: Constraints | None = None
    exempt_hosts: Servers | None = None
    exempt_names: tuple[str, ...] = ()

    def identity(self, server: bytes, name: str) -> Identity | None:
        """Its own by name, else the first: as servers answer a name that they do not know. Whoever asks for a strange
        one is inspected like everybody."""
        own = [each for each in self.identities if each.serves(server)]
        return next((each for each in own if any_matches(each.names, name)), own[0] if own else None)

    def exempts(self, client: bytes, server: bytes, name: str) -> bool:
        """By either's address, or the server's name (``.example.com``: all below it)."""
        hosts = self.exempt_hosts
        if hosts is not None and (hosts.holds(client) or hosts.holds(server)):
            return True
        return any(name == each or (each.startswith(".") and name.endswith(each)) for each in self.exempt_names)


@dataclass(frozen=True, slots=True)
class Asked:
    """One STARTTLS: packed addresses, the client's network, the server's port, the name that the client asked for.
    ``anchored`` is `Why.TLSA` or `Why.MTA_STS` where the DNS says so."""

    direction: Direction
    client: bytes
    client_network: str
    server: bytes
    port: int
    name: str
    anchored: Why | None = None

    @property
    def of_server(self) -> tuple[bytes, int]:
        """Whom `LeftAlone` knows the server by."""
        return self.server, self.port

    @property
    def of_name(self) -> tuple[bytes, int, str]:
        """And under this name alone: a client must not choose one that is refused, and have all others passed."""
        return self.server, self.port, self.name

    @property
    def of_both(self) -> tuple[bytes, int, str, None]:
        """And both peers together: the retry may come from the client's neighbour."""
        return self.server, self.port, self.client_network, None


def decide(asked: Asked, means: Means, left: LeftAlone, now: float) -> Decision:
    """Why it is left alone, or whose certificate is shown."""
    if means.exempts(asked.client, asked.server, asked.name):
        return Why.EXEMPT
    if remembered := next((why for key in _keys(asked) if (why := left.why(key, now))), None):
        return Why(remembered)
    if identity := _identity(asked, means):
        return identity
    return _why_not_mint(asked, means) or MINT


def _keys(asked: Asked) -> tuple[Hashable, ...]:
    return asked.of_server, asked.of_name, asked.of_both


def _identity(asked: Asked, means: Means) -> Identity | None:
    found = means.identity(asked.server, asked.name)
    if found is None or (found.servers is None and asked.direction is not Direction.INCOMING):
        return None
    return found


def _why_not_mint(asked: Asked, means: Means) -> Why | None:
    if asked.direction is Direction.INCOMING:
        return Why.NO_IDENTITY
    if means.constraints is None:
        return Why.NO_AUTHORITY
    if asked.name and not means.constraints.allow(asked.name):
        return Why.CONSTRAINED
    return asked.anchored


class Failure(Enum):
    """Where taking part ended before it had begun."""

    CERTIFICATE_ASKED = auto()  # the server's wish, of the client
    SERVER = auto()  # no handshake with it
    CLIENT = auto()  # broke off, or went away, at our certificate


def lesson(failure: Failure, asked: Asked, *, own: bool) -> tuple[Hashable, Why] | None:
    """Who is left alone from now on, and why. ``own``: the certificate shown was the server's own, octet by octet. A
    client that dislikes that one does not dislike us, and would be passed for the asking."""
    match failure:
        case Failure.CERTIFICATE_ASKED:
            return asked.of_server, Why.CLIENT_CERTIFICATE
        case Failure.SERVER:
            return asked.of_name, Why.NO_HANDSHAKE
        case Failure.CLIENT:
            return None if own else (asked.of_both, Why.REFUSED)
