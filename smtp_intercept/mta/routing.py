"""The next hop of one recipient: the table R1-R8 as a function of the connection, the recipient's domain and the
configuration.

Pure. It asks neither the DNS nor who the sender is; whether the recipient may be reached at all is `relaying`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from smtp_intercept.direction import MAX_DOMAIN, Direction, Protection, Servers, literal_address, recipient_domain
from smtp_intercept.mta.envelope import Origin
from smtp_intercept.mta.nexthop import NextHop, Place, Security, place_of


@dataclass(frozen=True, slots=True)
class DomainRoute:
    """Where mail for one protected domain goes: to ``deliver_to`` or, if that is silent, to its ``servers``; then to
    its mail exchangers if ``by_mx``. ``via_server``: what its servers' clients send elsewhere goes by them too (R2)."""

    name: str
    subdomains: bool = False
    servers: tuple[Place, ...] = ()
    deliver_to: tuple[Place, ...] = ()
    by_mx: bool = False
    via_server: bool = False

    @property
    def places(self) -> tuple[Place, ...]:
        """In the order in which to try them, each once."""
        return tuple(dict.fromkeys(self.deliver_to or self.servers))

    @property
    def reachable(self) -> bool:
        """Whether the configuration says where to go."""
        return bool(self.places or self.by_mx)


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All that `route` needs. ``domains`` by their names in normal spelling; ``servers``: the protected ones that are
    given as addresses and networks. ``relay``: the relay host, of which everything but ``row`` counts; with
    ``relay_only`` it is the next hop of everything. ``security`` towards all others, unless the recipient's domain has
    its own in ``security_for``; ``from_client`` likewise not for the relay, which knows the box."""

    domains: Mapping[str, DomainRoute] = field(default_factory=dict)
    servers: Servers = field(default_factory=Servers)
    relay: NextHop | None = None
    relay_only: bool = False
    security: Security = Security.OPPORTUNISTIC
    security_for: Mapping[str, Security] = field(default_factory=dict)
    from_client: bool = False

    def protected(self, domain: str) -> DomainRoute | None:
        """The protected domain that ``domain`` (in normal spelling) is, or the nearest one that it is below of."""
        if len(domain) > MAX_DOMAIN or domain.startswith("["):
            return None
        if domain in self.domains:
            return self.domains[domain]
        while parent := domain.partition(".")[2]:
            if (found := self.domains.get(parent)) and found.subdomains:
                return found
            domain = parent
        return None

    def named_by_address(self, domain: str, origin: Origin) -> Place | None:
        """The protected server whose address literal ``domain`` is: on the port that a deliver_to has for it, else on
        the one dialled if it was dialled."""
        address = literal_address(domain)
        protection = Protection(servers=self.servers).on(origin.server[0], origin.direction)
        if address is None or not protection.holds(domain):
            return None
        host, dialled = str(address), address.packed == protection.dialled
        said = (place for entry in self.domains.values() for place in entry.deliver_to if place.host == host)
        return next(said, Place(*origin.server) if dialled else Place(host))


def route(origin: Origin, recipient: str, table: RouteTable, alternate: str = "") -> NextHop:
    """The next hop of ``recipient`` (a mailbox) of a message that came by ``origin`` and is the MTA's. ``alternate`` is
    a host that overrides the table, as `place_of` reads it; ValueError if it cannot."""
    domain = recipient_domain(recipient) or ""
    if alternate:
        return _ours(NextHop("alternate", (place_of(alternate),)), domain, origin, table)
    if table.relay and table.relay_only:
        return replace(table.relay, row="relay")
    incoming = origin.direction is Direction.INCOMING
    if place := table.named_by_address(domain, origin):
        return _ours(NextHop("R1" if incoming else "R6", (place,)), domain, origin, table)
    if entry := table.protected(domain):
        hop = _by_dialled(origin, entry) if incoming else _by_domain(entry)
        return _ours(hop, domain, origin, table)
    # A mailbox without a domain (postmaster, RFC 5321 §4.5.1) is one at the server that the client spoke to.
    if origin.server[0] and not domain:
        return _ours(NextHop("R1" if incoming else "R8", (Place(*origin.server),)), domain, origin, table)
    return _elsewhere(origin, domain, table)


def _elsewhere(origin: Origin, domain: str, table: RouteTable) -> NextHop:
    """R2-R4 and R7, R8: the recipient's domain is not protected."""
    incoming = origin.direction is Direction.INCOMING
    if incoming and any(table.domains[name].via_server for name in origin.served if name in table.domains):
        return _ours(NextHop("R2", (Place(*origin.server),)), domain, origin, table)
    if table.relay:
        return replace(table.relay, row="R3" if incoming else "R7")
    row = "R4" if incoming else "R8"
    if not domain.startswith("["):
        return _ours(NextHop(row, domain=domain), domain, origin, table)
    address = literal_address(domain)
    return _ours(NextHop(row, (Place(str(address)),) if address else ()), domain, origin, table)


def _ours(hop: NextHop, domain: str, origin: Origin, table: RouteTable) -> NextHop:
    """With what holds for every hop but the relay host."""
    from_client = table.from_client and bool(origin.client[0])  # a DSN has no client
    return replace(hop, security=table.security_for.get(domain, table.security), from_client=from_client)


def _by_dialled(origin: Origin, entry: DomainRoute) -> NextHop:
    """R1: the server dialled, if it is one of the domain's, then the domain's others. A domain whose servers are all in
    networks has no others, and the server dialled is protected whosever it is."""
    dialled = Place(*origin.server)
    if entry.name not in origin.served:
        return replace(_by_domain(entry), row="R1") if entry.reachable else NextHop("R1", (dialled,))
    # What deliver_to says of the dialled host's port is more than what the client happened to dial.
    first = next((place for place in entry.deliver_to if place.host == dialled.host), dialled)
    others = tuple(place for place in entry.places if place.host != first.host)
    return NextHop("R1", (first, *others), entry.name if entry.by_mx else "")


def _by_domain(entry: DomainRoute) -> NextHop:
    """R6: the domain's places, its mail exchangers if it says so or says nothing at all."""
    return NextHop("R6", entry.places, entry.name if entry.by_mx or not entry.reachable else "")


def straight(origin: Origin) -> NextHop:
    """The proxy's, whoever the recipient is: the server that the client dialled (R5); no queue, no retry."""
    row = "R5" if origin.direction is Direction.OUTGOING else "proxy"
    return NextHop(row, (Place(*origin.server),), security=Security.NONE, from_client=True)
