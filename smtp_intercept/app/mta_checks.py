"""What does not go together in the tables of the MTA (mistakes), and what will surprise its author (warnings).

Reads data only, as `checks` does, which takes these in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address

from bridge.flow import Action
from smtp_intercept.app.fields import FROM_PROFILE, OnDoubt, Queue, Source
from smtp_intercept.app.mistakes import Mistake
from smtp_intercept.app.schema import Bridge, Config, Intercept, Mta, Protected, Relay
from smtp_intercept.app.tables import domain_route, handling, handling_of, uses_mta
from smtp_intercept.direction import Direction
from smtp_intercept.handling import Handler
from smtp_intercept.mta.nexthop import Protocol, Security
from smtp_intercept.tls.manners import Way

SMTP_PORT = 25


def _port_names(bridge: Bridge, intercept: Intercept, mta: Mta) -> Iterator[Mistake]:
    remedy = f"name one of bridge.ports: {', '.join(bridge.ports)}"
    if bridge.ports == FROM_PROFILE:  # asked again when the profile has been
        return
    for port in intercept.port:
        if port not in bridge.ports:
            yield Mistake(("intercept", "port", port), "is not a port of the bridge", remedy)
    for index, port in enumerate(mta.relay_from_ports):
        if port not in bridge.ports:
            yield Mistake(("mta", "relay_from_ports", index), f"{port!r} is not a port of the bridge", remedy)


def _relay_from(mta: Mta, bridge: Bridge) -> Iterator[Mistake]:
    if mta.relay_from and not mta.relay_from_ports:
        reason = "says who may send to everybody, but not where they arrive: any neighbour can claim an address"
        remedy = f"add relay_from_ports = […], those of bridge.ports behind which these clients are: {_listed(bridge)}"
        yield Mistake(("mta", "relay_from"), reason, remedy)


def _listed(bridge: Bridge) -> str:
    return bridge.ports if isinstance(bridge.ports, str) else ", ".join(bridge.ports)


def _certificate(mta: Mta) -> Iterator[Mistake]:
    for given, missing in (("certificate", "key"), ("key", "certificate")):
        if getattr(mta, given) is not None and getattr(mta, missing) is None:
            yield Mistake(("mta", given), f"needs mta.{missing}", f"add {missing} = …, or remove {given}")


def _figures(mta: Mta) -> Iterator[Mistake]:
    if mta.retry_most_s < mta.retry_s:
        yield Mistake(
            ("mta", "retry_most_s"), f"is less than retry_s, {mta.retry_s}", "waits grow: give as much or more"
        )
    if mta.connections_per_host > mta.connections:
        reason = f"is more than connections, {mta.connections}"
        yield Mistake(("mta", "connections_per_host"), reason, "give as much or less")


def _queue(mta: Mta, relay: Relay | None) -> Iterator[Mistake]:
    if mta.queue is Queue.RELAY and relay is None:
        yield Mistake(("mta", "queue"), "'relay' needs the host that queues", 'add [relay], or use "own"')


def _relay(relay: Relay | None) -> Iterator[Mistake]:
    if relay is None:
        return
    for given, missing in (("username", "password_file"), ("password_file", "username")):
        if getattr(relay, given) is not None and getattr(relay, missing) is None:
            yield Mistake(("relay", given), f"needs relay.{missing}", f"add {missing} = …, or remove {given}")
    if relay.username is not None and relay.tls is Security.NONE:
        yield Mistake(("relay", "tls"), "'none' shows the password to everybody", 'use "verified"')
    if relay.protocol is Protocol.LMTP and relay.port == SMTP_PORT:  # RFC 2033 §5
        yield Mistake(("relay", "protocol"), "'lmtp' is never spoken on port 25", "give relay.port")


def _nowhere(intercept: Intercept, protected: tuple[Protected, ...], mta: Mta) -> Iterator[Mistake]:
    """An incoming connection brings its server's address along; an outgoing one does not."""
    possible = handling_of(intercept, protected).possible(Direction.OUTGOING)
    if mta.queue is Queue.RELAY or Handler.MTA not in possible:
        return
    for index, entry in enumerate(protected):
        if entry.domain is not None and not domain_route(entry).reachable:
            reason = f"is needed: outgoing mail for {entry.domain} has no server that is an address or a name to go to"
            yield Mistake(("protected", index, "deliver_to"), reason, 'add deliver_to = ["192.0.2.20"], or ["mx"]')


def _deliver_to(protected: tuple[Protected, ...]) -> Iterator[Mistake]:
    for index, entry in enumerate(protected):
        for number, item in enumerate(entry.deliver_to):
            at = ("protected", index, "deliver_to", number)
            if item in entry.deliver_to[:number]:
                yield Mistake(at, f"{item!r} is named twice", "name each once, in the order in which to try them")
            elif item == "mx" and number < len(entry.deliver_to) - 1:
                yield Mistake(at, "'mx' stands before other hosts", "put it last: nothing is tried after it")


def _without_domain(protected: tuple[Protected, ...]) -> Iterator[Mistake]:
    for index, entry in enumerate(protected):
        if entry.domain is None and entry.deliver_to:
            reason = "says nothing without a domain: mail to an address goes to that address"
            yield Mistake(("protected", index, "deliver_to"), reason, "remove it, or add domain")


def _shared(protected: tuple[Protected, ...]) -> Iterator[Mistake]:
    """A connection is handled before its recipients are known."""
    first: dict[str, Protected] = {}
    for index, entry in enumerate(protected):
        if entry.handler is None:
            continue
        for server in entry.servers:
            other = first.setdefault(server, entry)
            if server != "mx" and other.handler is not entry.handler:
                reason = f"{entry.handler.value!r} differs from that of {other.name}, whose server {server} is too"
                yield Mistake(("protected", index, "handler"), reason, "give both the same")
                break


# Each check with the tables that it takes.
CHECKS: tuple[tuple[tuple[str, ...], Callable[..., Iterable[Mistake]]], ...] = (
    (("bridge", "intercept", "mta"), _port_names),
    (("mta", "bridge"), _relay_from),
    (("mta",), _certificate),
    (("mta",), _figures),
    (("mta", "relay"), _queue),
    (("relay",), _relay),
    (("intercept", "protected", "mta"), _nowhere),
    (("protected",), _deliver_to),
    (("protected",), _without_domain),
    (("protected",), _shared),
)


def _warn_open_relay(config: Config) -> Iterator[str]:
    if not set(config.mta.relay_from_ports) >= set(config.bridge.ports):
        return
    if not config.mta.relay_from:
        yield "mta.relay_from_ports: open relay: whatever port clients arrive on, they may send to everybody"
    for network in _whole(config.mta.relay_from):
        if network.prefixlen == 0:
            yield f"mta.relay_from: open relay: {network} lets every IPv{network.version} client send to everybody"


def _whole(networks: Iterable[IPv4Network | IPv6Network]) -> Iterator[IPv4Network | IPv6Network]:
    """Halves that lie side by side are one."""
    yield from collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
    yield from collapse_addresses(network for network in networks if isinstance(network, IPv6Network))


def _warn_no_mta(config: Config) -> Iterator[str]:
    if uses_mta(config):
        return
    if config.relay is not None:
        yield "relay: nothing goes there: no connection is the MTA's"
    for index, entry in enumerate(config.protected):
        for key in ("deliver_via_server", "deliver_to"):
            if getattr(entry, key):
                yield f"protected[{index}].{key}: says nothing: no connection is the MTA's"


def _warn_only_mta(config: Config) -> Iterator[str]:
    intercept = config.intercept
    table = handling(config)
    if any(Handler.PROXY in table.possible(direction) for direction in (Direction.INCOMING, Direction.OUTGOING)):
        return
    for key, silent, instead in (
        ("hidden", intercept.hidden, "mta.source does"),
        ("starttls", intercept.starttls is Way.PASS, "mta.certificate does"),
        ("on_doubt", intercept.on_doubt is None, "it follows no dialogue but its own"),
        ("on_client_doubt", intercept.on_client_doubt is OnDoubt.CLOSE, "it follows no dialogue but its own"),
    ):
        if not silent:
            yield f"intercept.{key}: says nothing of connections that are the MTA's, and all are: {instead}"


def _warn_source(config: Config) -> Iterator[str]:
    if not uses_mta(config) or config.bridge.adopt or config.bridge.management:
        return
    who = "mail" if config.mta.source is Source.BOX else "what the MTA asks the DNS"
    yield f"bridge.management: the box has no address there, so {who} leaves by whatever other port the host has"


def _warn_password(config: Config) -> Iterator[str]:
    relay = config.relay
    if relay is not None and relay.username is not None and relay.tls is not Security.VERIFIED:
        yield f'relay.tls: "{relay.tls.value}" gives the password to whoever answers there; "verified" does not'


def _warn_relay_only(config: Config) -> Iterator[str]:
    if config.mta.queue is not Queue.RELAY:
        return
    for index, entry in enumerate(config.protected):
        for key in ("deliver_via_server", "deliver_to"):
            if getattr(entry, key):
                yield f'protected[{index}].{key}: says nothing: mta.queue = "relay" sends all mail to the relay host'


def _warn_relay_behind(config: Config) -> Iterator[str]:
    """Whether the relay host's mail crosses the box cannot be known, but what would happen then."""
    relay, table = config.relay, handling(config)
    if relay is None or not _is_address(relay.host) or Handler.MTA not in table.possible(Direction.OUTGOING):
        return
    host = ip_address(relay.host)
    exempt = (rule.client for rule in config.pickup.rule if rule.action is not Action.INTERCEPT)
    if not any(network is not None and network.version == host.version and host in network for network in exempt):
        yield f"relay.host: if {host} sends its mail on through this box, it comes back to it: add a pickup.rule"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _warn_times(config: Config) -> Iterator[str]:
    mta = config.mta
    if mta.queue is Queue.OWN and mta.delay_notice_s >= mta.give_up_s:
        yield "mta.delay_notice_s: no sender hears of a delay: mail is given up before"
    if mta.queue is Queue.OWN and mta.give_up_s < mta.retry_s:
        yield "mta.give_up_s: mail is tried once only: it is given up before the first retry"


WARNINGS: tuple[Callable[[Config], Iterable[str]], ...] = (
    _warn_open_relay,
    _warn_no_mta,
    _warn_only_mta,
    _warn_source,
    _warn_password,
    _warn_relay_only,
    _warn_relay_behind,
    _warn_times,
)
