"""From the configuration to the tables by which the MTA's pure functions decide.

Asks nothing: neither the DNS nor the file that holds the relay host's password.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from smtp_intercept.app.fields import DNS_PORT, Queue, Source
from smtp_intercept.app.schema import Config, Intercept, Protected, Relay
from smtp_intercept.direction import Direction, Domains, Protection, Servers
from smtp_intercept.handling import Choice, Handler, Handling
from smtp_intercept.mta.nexthop import NextHop, Place, place_of
from smtp_intercept.mta.relaying import RelayRule
from smtp_intercept.mta.routing import DomainRoute, RouteTable
from smtp_intercept.names import Question, read_server, split
from smtp_intercept.tls.manners import Way, Ways

_BOTH = (Direction.INCOMING, Direction.OUTGOING)


def protection(config: Config) -> Protection:
    """The protected domains, and the servers that need no DNS."""
    known = [(protected.domain, protected.subdomains) for protected in config.protected if protected.domain]
    addresses, _ = split(protected_servers(config))
    return Protection(Domains.of(known), Servers.of(addresses))


def protected_servers(config: Config) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What `ProtectedServers` keeps fresh: pairs of an entry's name and its servers as configured."""
    return tuple((protected.name, protected.servers) for protected in config.protected)


def handling(config: Config, links: Mapping[str, str] | None = None) -> Handling:
    """Which handler a connection gets. ``links`` as in `config.policy`."""
    return handling_of(config.intercept, config.protected, links)


def handling_of(
    intercept: Intercept, protected: Iterable[Protected], links: Mapping[str, str] | None = None
) -> Handling:
    """As `handling`, from the two tables that say it."""
    names = links or {}
    by_port = {
        (names.get(port, port), direction): Choice(handler, f"intercept.port.{port}.{direction.value}")
        for port, table in intercept.port.items()
        for direction in _BOTH
        if (handler := _handler(table, direction)) is not None
    }
    return Handling(
        default={
            direction: Choice(_handler(intercept, direction) or Handler.PROXY, f"intercept.{direction.value}")
            for direction in _BOTH
        },
        by_port=by_port,
        by_domain={
            entry.name: Choice(entry.handler, f"protected[{index}].handler")
            for index, entry in enumerate(protected)
            if entry.handler is not None
        },
    )


def _handler(table: object, direction: Direction) -> Handler | None:
    handler: Handler | None = getattr(table, direction.value)
    return handler


def ways(config: Config, links: Mapping[str, str] | None = None) -> Ways:
    """What becomes of STARTTLS. ``links`` as in `config.policy`."""
    names, given = links or {}, config.intercept.starttls
    return Ways(
        default={way: given if isinstance(given, Way) else getattr(given, way.value) for way in _BOTH},
        by_port={
            names.get(port, port): table.starttls
            for port, table in config.intercept.port.items()
            if table.starttls is not None
        },
        by_domain={entry.name: entry.starttls for entry in config.protected if entry.starttls is not None},
    )


def uses_mta(config: Config) -> bool:
    """Whether any connection can get the MTA."""
    table = handling(config)
    return any(Handler.MTA in table.possible(direction) for direction in _BOTH)


def routes(config: Config) -> RouteTable:
    """The next-hop table."""
    mta = config.mta
    return RouteTable(
        domains={entry.name: domain_route(entry) for entry in config.protected},
        servers=protection(config).servers,
        relay=None if config.relay is None else _relay(config.relay),
        relay_only=mta.queue is Queue.RELAY,
        security=mta.tls,
        security_for=mta.tls_for,
        from_client=mta.source is Source.CLIENT,
    )


def _relay(relay: Relay) -> NextHop:
    return NextHop(
        "relay",
        (Place(relay.host, relay.port),),
        security=relay.tls,
        protocol=relay.protocol,
        authenticate=relay.username is not None,
    )


def domain_route(entry: Protected) -> DomainRoute:
    """Where mail for one entry's domain goes. A network is no place: nobody knows which of its hosts takes mail."""
    deliver_to = tuple(place_of(item) for item in entry.deliver_to if item != "mx")
    return DomainRoute(
        name=entry.name,
        subdomains=entry.subdomains,
        servers=tuple(place for item in entry.servers if (place := _place(item)) is not None),
        deliver_to=deliver_to,
        by_mx="mx" in (entry.deliver_to or entry.servers),
        via_server=entry.deliver_via_server,
    )


def _place(server: str) -> Place | None:
    if server == "mx":
        return None
    if isinstance(read_server(server, ""), Question):
        return Place(server)
    network = ip_network(server)
    return Place(str(network.network_address)) if network.num_addresses == 1 else None


def relay_rule(config: Config, links: Mapping[str, str] | None = None) -> RelayRule:
    """Who may reach whom through the MTA. ``links`` as in `config.policy`."""
    names = links or {}
    return RelayRule(
        protection(config),
        Servers.of(config.mta.relay_from),
        frozenset(names.get(port, port) for port in config.mta.relay_from_ports),
    )


def resolvers(config: Config) -> tuple[Place, ...]:
    """The resolvers to ask; none are those of /etc/resolv.conf."""
    return tuple(place_of(item, DNS_PORT) for item in config.dns.resolvers)
