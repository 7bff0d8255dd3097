"""What would happen to a connection and its messages, and which key of the configuration says so.

Pure: it asks the same functions that decide on real mail, and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, assert_never

from bridge.flow import Action
from smtp_intercept.direction import (
    Direction,
    Network,
    literal_address,
    message_direction,
    recipient_domain,
    without_route,
)
from smtp_intercept.handling import Choice, Handler, Handling
from smtp_intercept.mta.envelope import Origin
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.relaying import RelayRule, admission
from smtp_intercept.mta.routing import RouteTable, route, straight
from smtp_intercept.pickup import Decision, Policy, decide

if TYPE_CHECKING:
    from smtp_intercept.app.config import Config

Address: TypeAlias = IPv4Address | IPv6Address

NOT_MAIL = "intercept.ports"  # the key that decides when the port dialled carries no mail


@dataclass(frozen=True, slots=True)
class Mail:
    """What is asked beyond the pick-up: the handler, and the MTA's next hop of each recipient."""

    handling: Handling
    routes: RouteTable
    relaying: RelayRule


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a message on the connection. ``row`` is the next-hop table's; without one the recipient is
    refused in the box's own words (``refusal``), or the connection is not inspected."""

    mailbox: str
    domain: str | None
    direction: Direction
    row: str | None = None
    next_hop: str | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """One connection: its class (``direction``), what happens to it and why. ``handler`` is None unless intercepted,
    and ``handled_by`` the key that says so."""

    client: str
    server: str
    server_port: int
    port: str
    vlan: int
    direction: Direction
    because: str
    action: Action
    decided_by: str
    handler: str | None
    handled_by: str | None
    next_hop: str
    recipients: tuple[Recipient, ...]

    def as_json(self) -> dict[str, object]:
        """The same for machines."""
        return {
            "client": self.client,
            "server": {"address": self.server, "port": self.server_port},
            "port": self.port,
            "vlan": self.vlan or None,
            "direction": self.direction.value,
            "because": self.because,
            "action": self.action.value,
            "decided_by": self.decided_by,
            "handler": self.handler,
            "handled_by": self.handled_by,
            "next_hop": self.next_hop,
            "recipients": [
                {
                    "address": each.mailbox,
                    "domain": each.domain,
                    "direction": each.direction.value,
                    "row": each.row,
                    "next_hop": each.next_hop,
                    "refusal": each.refusal,
                }
                for each in self.recipients
            ],
        }

    def as_text(self) -> str:
        """The same for people: one line each, aligned."""
        tag = f" in VLAN {self.vlan}" if self.vlan else ""
        rows = [
            ("connection", f"{self.client} → {self.server} port {self.server_port}, arriving on {self.port}{tag}"),
            ("direction", f"{self.direction.value}: {self.because}"),
            ("action", f"{self.action.value}, decided by {self.decided_by}"),
            ("handler", f"{self.handler}, decided by {self.handled_by}" if self.handler else "none"),
            ("next hop", self.next_hop),
            *(("recipient", _recipient_text(each)) for each in self.recipients),
        ]
        return "\n".join(f"{name:<10}  {text}" for name, text in rows)


def explain(
    policy: Policy,
    mail: Mail,
    config: Config,
    *,
    client: str,
    server: str,
    port: str,
    vlan: int = 0,
    server_port: int | None = None,
    served: tuple[str, ...] = (),
    recipients: Iterable[str] = (),
) -> Explanation:
    """Explain a connection from ``client`` to ``server`` (addresses as text) that arrives on ``port`` (a link's name),
    tagged with the VID ``vlan`` or untagged (0).

    ``server_port`` is the TCP port dialled, by default the first of intercept.ports; ``served`` are the protected
    domains whose server it is. ValueError for a bad address or two families.
    """
    source, destination = ip_address(client), ip_address(server)
    if source.version != destination.version:
        raise ValueError(f"{client} and {server} are not of one address family")
    dialled = config.intercept.ports[0] if server_port is None else server_port
    decision = decide(policy, source.packed, destination.packed, port, vlan)
    if dialled not in config.intercept.ports:
        decision = Decision(decision.direction, Action.PASS, NOT_MAIL)
    choice = mail.handling.choose(port, decision.direction, served) if decision.action is Action.INTERCEPT else None
    origin = Origin((str(source), 0), (str(destination), dialled), decision.direction, port, served)
    return Explanation(
        client=str(source),
        server=str(destination),
        server_port=dialled,
        port=port,
        vlan=vlan,
        direction=decision.direction,
        because=_because(decision.direction, destination, config),
        action=decision.action,
        decided_by=decision.decided_by,
        handler=choice.handler.value if choice else None,
        handled_by=choice.decided_by if choice else None,
        next_hop=_next_hop(decision, choice, f"{destination} port {dialled}", source, config),
        recipients=tuple(_recipient(mailbox, origin, choice, mail) for mailbox in recipients),
    )


def _because(direction: Direction, server: Address, config: Config) -> str:
    if direction is Direction.INCOMING:
        return f"{server} is a protected server ({_named_by(server, config)})"
    return f"{server} is {_NOT_PROTECTED[direction]}"


_NOT_PROTECTED = {Direction.OUTGOING: "not a protected server", Direction.LOCAL: "an address of the box itself"}


def _named_by(server: Address, config: Config) -> str:
    for index, protected in enumerate(config.protected):
        for number, item in enumerate(protected.servers):
            if _covers(item, server):
                return f"protected[{index}].servers[{number}], {protected.domain or 'no domain'}"
    return "by a name that the DNS has answered"


def _covers(item: str, server: Address) -> bool:
    try:
        return Network.of(item).holds(server.packed)
    except ValueError:
        return False  # a name: what it stands for is in the policy's table


def _next_hop(decision: Decision, choice: Choice | None, server: str, client: Address, config: Config) -> str:
    if choice and choice.handler is Handler.MTA:
        return "each recipient's own: the box answers the client, keeps the mail and delivers it"
    return _NEXT_HOPS[decision.action](decision, server, client, config)


def _intercepted(_: Decision, server: str, client: Address, config: Config) -> str:
    if config.intercept.hidden:
        return f"the server dialled, {server}, from the client's own address and port"
    own = [interface.ip for interface in config.bridge.management if interface.version == client.version]
    return f"the server dialled, {server}, from the box's own address{f' {own[0]}' if own else ''}"


def _passed(decision: Decision, server: str, _client: Address, _config: Config) -> str:
    if decision.direction is Direction.LOCAL:
        return "the box itself"
    return f"the server dialled, {server}, bridged untouched"


def _dropped(_decision: Decision, _server: str, _client: Address, _config: Config) -> str:
    return "none: the client hears nothing"


def _rejected(_decision: Decision, server: str, _client: Address, _config: Config) -> str:
    return f"none: the client is refused with a RST in the name of {server}"


_NEXT_HOPS: Mapping[Action, Callable[[Decision, str, Address, Config], str]] = MappingProxyType(
    {Action.INTERCEPT: _intercepted, Action.PASS: _passed, Action.DROP: _dropped, Action.REJECT: _rejected}
)


def _recipient(path: str, origin: Origin, choice: Choice | None, mail: Mail) -> Recipient:
    plain = Recipient(path, recipient_domain(path), message_direction(path, mail.relaying.on(origin)))
    if choice is None:
        return plain
    match choice.handler:
        case Handler.PROXY:
            return _towards(plain, straight(origin))
        case Handler.MTA:
            refusal = admission(origin, path, mail.relaying)
            if refusal is not None:
                return replace(plain, refusal=f"{refusal.code} {refusal.text}")
            return _towards(plain, route(origin, without_route(path), mail.routes))
        case _:
            assert_never(choice.handler)


def _towards(recipient: Recipient, hop: NextHop) -> Recipient:
    return replace(recipient, row=hop.row, next_hop=str(hop))


def _recipient_text(recipient: Recipient) -> str:
    text = f"<{recipient.mailbox}>: {recipient.direction.value}: {_why(recipient)}"
    if recipient.refusal is not None:
        return f"{text}; refused: {recipient.refusal}"
    return text if recipient.row is None else f"{text}; {recipient.row}: {recipient.next_hop}"


def _why(recipient: Recipient) -> str:
    incoming = recipient.direction is Direction.INCOMING
    if recipient.domain is None:
        return f"it has no domain{', and the server dialled is protected' if incoming else ''}"
    if (address := literal_address(recipient.domain)) is not None:
        return f"{address} is {'' if incoming else 'not '}a protected server"
    return f"{recipient.domain} is {'' if incoming else 'not '}protected"
