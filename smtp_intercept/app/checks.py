"""What does not go together in a configuration (mistakes), and what will surprise its author (warnings).

Reads data only. Each check looks at the tables that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_network

from bridge.flow import MAX_PORTS, Action
from bridge.lane import MAX_VLANS
from hwprofiles.shelf import profiles
from hwprofiles.shown import shown
from smtp_intercept.app import mta_checks, rule_checks, tls_checks
from smtp_intercept.app.fields import (
    FROM_PROFILE,
    BareNewline,
    BypassWhen,
    Home,
    LinkLoss,
    LocalAction,
    OnDoubt,
    OnFailure,
    RelayKind,
)
from smtp_intercept.app.mistakes import Mistake
from smtp_intercept.app.schema import Bridge, Bypass, Config, Intercept, PickUp, Protected
from smtp_intercept.app.tables import protected_servers, ways
from smtp_intercept.direction import Direction
from smtp_intercept.names import Question, read_server, split
from smtp_intercept.tls.manners import Way

MIN_PORTS = 2  # a bridge has two sides
MAX_MAIL_PORTS = 16  # 25, 587 and a few of one's own; each is one more entry of a set that every frame is looked up in


def _ports(bridge: Bridge) -> Iterator[Mistake]:
    at, ports = ("bridge", "ports"), bridge.ports
    if ports == FROM_PROFILE:
        return
    for index, port in enumerate(ports):
        if port in ports[:index]:
            yield Mistake((*at, index), f"{port!r} is named twice", "name each port once")
        if port == bridge.name:
            yield Mistake((*at, index), f"{port!r} is the bridge itself", "give the bridge another name")
        if port == "lo":
            yield Mistake((*at, index), "'lo' is the loopback", "name an Ethernet port")
    if len(set(ports)) < MIN_PORTS:
        yield Mistake(at, f"has {len(set(ports))} of at least {MIN_PORTS} ports", "a bridge joins two or more")
    if len(ports) > MAX_PORTS:
        yield Mistake(at, f"has {len(ports)} ports, more than {MAX_PORTS}", "a mark has no room for more")


def _vlans(bridge: Bridge) -> Iterator[Mistake]:
    at, vlans = ("bridge", "vlans"), bridge.vlans
    for index, vlan in enumerate(vlans):
        if vlan in vlans[:index]:
            yield Mistake((*at, index), f"{vlan} is given twice", "give each VLAN once")
    if len(vlans) > MAX_VLANS:
        reason = f"has {len(vlans)} VLANs, more than {MAX_VLANS}"
        yield Mistake(at, reason, "each costs a bridge and its rules; list only those whose mail is to be inspected")


def _profile(bridge: Bridge) -> Iterator[Mistake]:
    if bridge.profile == "auto":
        return  # no file need be read for it
    known = ["auto", *(profile.name for profile in profiles())]
    if bridge.profile not in known:
        yield Mistake(("bridge", "profile"), f"{shown(bridge.profile)} is not one of {', '.join(known)}", 'use "auto"')


def _link_loss(bridge: Bridge) -> Iterator[Mistake]:
    at = ("bridge", "link_loss")
    if bridge.link_loss is LinkLoss.PROPAGATE and len(bridge.ports) != MIN_PORTS and bridge.ports != FROM_PROFILE:
        yield Mistake(at, f'"propagate" makes a cable of two ports, not of {len(bridge.ports)}', 'set it to "keep"')
    if bridge.link_loss is LinkLoss.PROPAGATE and bridge.stp:
        yield Mistake(at, '"propagate" takes ports from a switch that has its own remedy', "choose it or bridge.stp")


def _bypass(bridge: Bridge, bypass: tuple[Bypass, ...]) -> Iterator[Mistake]:
    if bridge.bypass is BypassWhen.GATEWAY and bridge.on_failure is OnFailure.BLOCK:
        reason = '"gateway" lets mail cross uninspected, which on_failure = "block" forbids'
        yield Mistake(("bridge", "bypass"), reason, 'choose "box" or "off"')
    for index, relay in enumerate(bypass):
        at = ("bypass", index)
        if len(set(relay.ports)) != MIN_PORTS or len(relay.ports) != MIN_PORTS:
            yield Mistake((*at, "ports"), f"has {len(relay.ports)} ports", "a relay joins two")
        for port in relay.ports if bridge.ports != FROM_PROFILE else ():
            if port not in bridge.ports:
                remedy = f"name one of bridge.ports: {', '.join(bridge.ports)}"
                yield Mistake((*at, "ports"), f"{port!r} is not a port of the bridge", remedy)
        if relay.kind is RelayKind.GPIO and relay.driven_by is None:
            example = 'driven_by = "/sys/class/gpio/gpio17/value"'
            yield Mistake(at, "needs the file of its line", f"add {example}")
        if set(relay.ports) & {port for other in bypass[:index] for port in other.ports}:
            yield Mistake((*at, "ports"), "names a port of another relay", "give each relay its own two")


def _management(bridge: Bridge) -> Iterator[Mistake]:
    at = ("bridge", "management")
    ips = [interface.ip for interface in bridge.management]
    for index, interface in enumerate(bridge.management):
        if interface.ip in ips[:index]:
            yield Mistake((*at, index), f"{interface.ip} is given twice", "give each address once")
    if bridge.adopt and bridge.management:
        yield Mistake(
            at, "cannot be given with adopt = true", "remove it: the addresses of an adopted bridge stay its owner's"
        )


def _gateway(bridge: Bridge) -> Iterator[Mistake]:
    at = ("bridge", "gateway")
    if bridge.gateway and bridge.adopt:
        yield Mistake(at, "cannot be given with adopt = true", "remove it: the routes of the host stay its owner's")
    elif bridge.gateway and not bridge.management:
        yield Mistake(at, "needs management", "add management = […], or remove gateway")
    else:
        yield from (mistake for gateway in bridge.gateway for mistake in _router(bridge, gateway))
    versions = [gateway.version for gateway in bridge.gateway]
    for version in {version for version in versions if versions.count(version) > 1}:
        yield Mistake(at, f"has several for IPv{version}", "give one default route of each family")


def _router(bridge: Bridge, gateway: IPv4Address | IPv6Address) -> Iterator[Mistake]:
    """A link-local one, as fe80::1 is, can be reached from any address of its family."""
    at = ("bridge", "gateway")
    networks = [interface.network for interface in bridge.management if interface.version == gateway.version]
    if any(gateway == interface.ip for interface in bridge.management):
        yield Mistake(at, f"{gateway} is the box itself", "name the router")
    elif not any(gateway in network for network in networks) and not (networks and gateway.is_link_local):
        every = ", ".join(str(interface.network) for interface in bridge.management)
        yield Mistake(at, f"{gateway} is not in {every}", "name a router that a management address can reach")


def _namespace(bridge: Bridge) -> Iterator[Mistake]:
    if bridge.namespace is Home.OWN and bridge.adopt:
        reason = "an adopted bridge stays in the network namespace of the host"
        yield Mistake(("bridge", "adopt"), reason, 'set bridge.namespace = "host"')


def _not_hidden(bridge: Bridge, intercept: Intercept) -> Iterator[Mistake]:
    if not intercept.hidden and not bridge.management and not bridge.adopt:
        yield Mistake(
            ("intercept", "hidden"),
            "false needs an address of the box to speak from",
            "add bridge.management, or set hidden = true",
        )


def _mail_ports(intercept: Intercept) -> Iterator[Mistake]:
    at, ports = ("intercept", "ports"), intercept.ports
    if not 1 <= len(ports) <= MAX_MAIL_PORTS:
        yield Mistake(at, f"has {len(ports)} ports", f"give 1 to {MAX_MAIL_PORTS}")
    for index, port in enumerate(ports):
        if port in ports[:index]:
            yield Mistake((*at, index), f"{port} is given twice", "give each port once")
    for index, port in enumerate(intercept.tls_ports):
        if port not in ports:
            reason = f"{port} is not one of intercept.ports, so its connections are not looked at"
            yield Mistake(("intercept", "tls_ports", index), reason, f"add {port} to intercept.ports too")


def _pickup_ports(bridge: Bridge, pickup: PickUp) -> Iterator[Mistake]:
    remedy = f"name one of bridge.ports: {', '.join(bridge.ports)}"
    if bridge.ports == FROM_PROFILE:  # asked again when the profile has been
        return
    for port in pickup.port:
        if port not in bridge.ports:
            yield Mistake(("pickup", "port", port), "is not a port of the bridge", remedy)
    for index, rule in enumerate(pickup.rule):
        if rule.port is not None and rule.port not in bridge.ports:
            yield Mistake(("pickup", "rule", index, "port"), f"{rule.port!r} is not a port of the bridge", remedy)


def _pickup_vlans(bridge: Bridge, pickup: PickUp) -> Iterator[Mistake]:
    for index, rule in enumerate(pickup.rule):
        if rule.vlan and rule.vlan not in bridge.vlans:
            reason = f"{rule.vlan} is not in bridge.vlans, so its mail is never picked up"
            yield Mistake(("pickup", "rule", index, "vlan"), reason, "add it there, or remove the rule")


def _rules(pickup: PickUp) -> Iterator[Mistake]:
    for index, rule in enumerate(pickup.rule):
        at = ("pickup", "rule", index)
        if rule.client and rule.server and rule.client.version != rule.server.version:
            yield Mistake(
                at, "can never match: client is IPv4 and server IPv6, or the reverse", "write one rule for each"
            )
        if rule.direction is Direction.LOCAL and rule.action not in {Action.PASS, Action.DROP}:
            reason = f"{rule.action.value!r} is not possible for mail to the box itself"
            yield Mistake((*at, "action"), reason, 'use "pass" or "drop"')


def _domains(protected: tuple[Protected, ...]) -> Iterator[Mistake]:
    for index, entry in enumerate(protected):
        if entry.domain is not None and any(entry.domain == other.domain for other in protected[:index]):
            reason = f"{entry.domain!r} is protected twice"
            yield Mistake(("protected", index, "domain"), reason, "put all its servers in one [[protected]]")


def _by_address(protected: tuple[Protected, ...]) -> Iterator[Mistake]:
    """A server without a domain is accessed by its address only."""
    known: set[str] = set()
    for index, entry in enumerate(protected):
        if entry.domain is not None:
            continue
        if not entry.servers:
            yield Mistake(("protected", index), "has neither domain nor servers", "give one of them, or both")
        if entry.subdomains:
            yield Mistake(("protected", index, "subdomains"), "there is no domain", "remove it, or add domain")
        for number, item in enumerate(entry.servers):
            at = ("protected", index, "servers", number)
            if isinstance(read_server(item, ""), Question):
                reason = f"{item!r} is not an address: a server without a domain has no other name"
                yield Mistake(at, reason, 'give its address, or add domain = "example.com"')
            elif item in known:
                yield Mistake(at, f"{item!r} is protected twice without a domain", "name each server once")
            known.add(item)


# Each check with the tables that it takes.
CHECKS: tuple[tuple[tuple[str, ...], Callable[..., Iterable[Mistake]]], ...] = (
    (("bridge",), _ports),
    (("bridge",), _vlans),
    (("bridge",), _profile),
    (("bridge",), _link_loss),
    (("bridge", "bypass"), _bypass),
    (("bridge",), _management),
    (("bridge",), _gateway),
    (("bridge",), _namespace),
    (("bridge", "intercept"), _not_hidden),
    (("intercept",), _mail_ports),
    (("bridge", "pickup"), _pickup_ports),
    (("bridge", "pickup"), _pickup_vlans),
    (("pickup",), _rules),
    (("protected",), _domains),
    (("protected",), _by_address),
    *rule_checks.CHECKS,
    *mta_checks.CHECKS,
)


def warnings(config: Config) -> list[str]:
    """What is legal and may still surprise: one line each, beginning with the key."""
    return [warning for check in _WARNINGS for warning in check(config)]


def _warn_protected(config: Config) -> Iterator[str]:
    if not config.protected:
        yield "protected: there is none, so every connection and every message is outgoing"
    for index, entry in enumerate(config.protected):
        if entry.domain is None:
            example = "user@[192.0.2.20]"
            yield f"protected[{index}]: no domain: of mail only that to its servers' addresses ({example}) is incoming"
        elif not entry.servers:
            yield f"protected[{index}].servers: {entry.domain} has none, so no connection is incoming because of it"


def _warn_everybody(config: Config) -> Iterator[str]:
    """A direction that all mail has is none."""
    for index, entry in enumerate(config.protected):
        networks = [ip_network(item) for item in entry.servers if "/" in item]
        whole: list[IPv4Network | IPv6Network] = []
        whole += collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
        whole += collapse_addresses(network for network in networks if isinstance(network, IPv6Network))
        for network in whole:
            if network.prefixlen == 0:
                every = f"every IPv{network.version} host is a protected server, so that no connection is outgoing"
                yield f"protected[{index}].servers: {network}: {every}"


def _warn_own(config: Config) -> Iterator[str]:
    own = {str(interface.ip) for interface in config.bridge.management}
    for index, number in own_servers(config, own):
        address = config.protected[index].servers[number]
        yield f"protected[{index}].servers[{number}]: {address} is this box itself (bridge.management): {OWN_MAIL}"


def own_servers(config: Config, own: Collection[str]) -> Iterator[tuple[int, int]]:
    """Which servers, by their numbers, are addresses of the box. A network that it stands in is as it should be."""
    for index, entry in enumerate(config.protected):
        yield from ((index, number) for number, item in enumerate(entry.servers) if item.partition("/")[0] in own)


def _warn_names(config: Config) -> Iterator[str]:
    _, questions = split(protected_servers(config))
    if questions:
        names = ", ".join(map(str, questions))
        yield f"protected: {names}: unknown until the DNS has answered; until then connections to them are outgoing"


def _warn_nothing_inspected(config: Config) -> Iterator[str]:
    tables = [config.pickup, *config.pickup.port.values(), *config.pickup.rule]
    actions = {getattr(table, key, None) for table in tables for key in ("incoming", "outgoing", "action")}
    if Action.INTERCEPT not in actions:
        yield "pickup: nothing is set to intercept, so no mail is inspected"


def _warn_rules(config: Config) -> Iterator[str]:
    for index, rule in enumerate(config.pickup.rule[:-1]):
        if {rule.client, rule.server, rule.port, rule.vlan, rule.direction} == {None}:
            yield f"pickup.rule[{index}]: matches everything, so the rules after it and the tables are never asked"


def _warn_block(config: Config) -> Iterator[str]:
    if config.bridge.on_failure is OnFailure.BLOCK:
        tagged = "mail of VLANs that are not in bridge.vlans" if config.bridge.vlans else "VLAN-tagged mail"
        yield f'bridge.on_failure: "block" drops all mail while the gateway does not run, and {tagged} always'


def _warn_not_hidden(config: Config) -> Iterator[str]:
    if config.intercept.hidden:
        return
    if config.bridge.adopt:
        yield "intercept.hidden: false speaks to servers from whatever addresses the adopted bridge has"
        return
    versions = {interface.version for interface in config.bridge.management}
    for version in sorted({4, 6} - versions):
        yield f"intercept.hidden: false, but management has no IPv{version} address: IPv{version} mail is not inspected"


def _warn_local(config: Config) -> Iterator[str]:
    if config.pickup.local is LocalAction.DROP and not config.bridge.management and not config.bridge.adopt:
        yield 'pickup.local: "drop" has nothing to drop: the box has no address on the bridge'


def _warn_session(config: Config) -> Iterator[str]:
    intercept = config.intercept
    if Way.STRIP in ways(config).all:
        yield (
            'intercept.starttls: "strip" takes encryption from mail that had it; senders that insist on it '
            "(DANE, MTA-STS) will not deliver at all"
        )
    if intercept.on_client_doubt is OnDoubt.PASS:
        yield (
            'intercept.on_client_doubt: "pass" lets any client end inspection at will: one command that brings the '
            "server to a reply that nobody expects, and its messages are seen by nobody"
        )
    if config.limits.reply_line_bytes <= config.limits.command_line_bytes:
        yield (
            "limits.reply_line_bytes: not above limits.command_line_bytes: a server that repeats a long command in its "
            "reply is then in doubt; let it be 4096 more"
        )
    if intercept.bare_newline is BareNewline.PASS:
        yield 'intercept.bare_newline: "pass" leaves it to each server not to be smuggled to'
    if config.limits.errors:
        yield f"limits.errors: mail to a list with {config.limits.errors} unknown addresses does not get through"


OWN_MAIL = "mail to it is local (pickup.local) and never inspected"
_WARNINGS: tuple[Callable[[Config], Iterable[str]], ...] = (
    _warn_protected,
    _warn_everybody,
    _warn_own,
    _warn_names,
    _warn_nothing_inspected,
    _warn_rules,
    _warn_block,
    _warn_not_hidden,
    _warn_local,
    _warn_session,
    *rule_checks.WARNINGS,
    *tls_checks.WARNINGS,
    *mta_checks.WARNINGS,
)
