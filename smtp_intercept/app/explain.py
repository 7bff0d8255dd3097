"""What would happen to a connection and its messages, and which key of the configuration says so.

Pure: it asks the same functions that decide on real mail, and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from bridge.flow import Action
from smtp_intercept.direction import Direction, Domains, Network, message_direction, recipient_domain
from smtp_intercept.pickup import Decision, Policy, decide

if TYPE_CHECKING:
    from smtp_intercept.app.config import Config

Address: TypeAlias = IPv4Address | IPv6Address

NOT_MAIL = "intercept.ports"  # the key that decides when the port dialled carries no mail


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a message on the connection."""

    mailbox: str
    domain: str | None
    direction: Direction


@dataclass(frozen=True, slots=True)
class Explanation:
    """One connection: its class (``direction``), what happens to it and why. ``handler`` is None unless intercepted."""

    client: str
    server: str
    server_port: int
    port: str
    direction: Direction
    because: str
    action: Action
    decided_by: str
    handler: str | None
    next_hop: str
    recipients: tuple[Recipient, ...]

    def as_json(self) -> dict[str, object]:
        """The same for machines."""
        return {
            "client": self.client,
            "server": {"address": self.server, "port": self.server_port},
            "port": self.port,
            "direction": self.direction.value,
            "because": self.because,
            "action": self.action.value,
            "decided_by": self.decided_by,
            "handler": self.handler,
            "next_hop": self.next_hop,
            "recipients": [
                {"address": each.mailbox, "domain": each.domain, "direction": each.direction.value}
                for each in self.recipients
            ],
        }

    def as_text(self) -> str:
        """The same for people: one line each, aligned."""
        rows = [
            ("connection", f"{self.client} → {self.server} port {self.server_port}, arriving on {self.port}"),
            ("direction", f"{self.direction.value}: {self.because}"),
            ("action", f"{self.action.value}, decided by {self.decided_by}"),
            ("handler", self.handler or "none"),
            ("next hop", self.next_hop),
            *(("recipient", _recipient_text(each)) for each in self.recipients),
        ]
        return "\n".join(f"{name:<10}  {text}" for name, text in rows)


def explain(
    policy: Policy,
    domains: Domains,
    config: Config,
    *,
    client: str,
    server: str,
    port: str,
    server_port: int | None = None,
    recipients: Iterable[str] = (),
) -> Explanation:
    """Explain a connection from ``client`` to ``server`` (addresses as text) that arrives on ``port`` (a link's name).

    ``server_port`` is the TCP port dialled, by default the first of intercept.ports. ValueError for a bad address or
    two families.
    """
    source, destination = ip_address(client), ip_address(server)
    if source.version != destination.version:
        raise ValueError(f"{client} and {server} are not of one address family")
    dialled = config.intercept.ports[0] if server_port is None else server_port
    decision = decide(policy, source.packed, destination.packed, port)
    if dialled not in config.intercept.ports:
        decision = Decision(decision.direction, Action.PASS, NOT_MAIL)
    return Explanation(
        client=str(source),
        server=str(destination),
        server_port=dialled,
        port=port,
        direction=decision.direction,
        because=_because(decision.direction, destination, config),
        action=decision.action,
        decided_by=decision.decided_by,
        handler=_handler(decision, config),
        next_hop=_NEXT_HOPS[decision.action](decision, f"{destination} port {dialled}", source, config),
        recipients=tuple(_recipient(mailbox, domains) for mailbox in recipients),
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
                return f"protected[{index}].servers[{number}], {protected.domain}"
    return "by a name that the DNS has answered"


def _covers(item: str, server: Address) -> bool:
    try:
        return Network.of(item).holds(server.packed)
    except ValueError:
        return False  # a name: what it stands for is in the policy's table


def _handler(decision: Decision, config: Config) -> str | None:
    if decision.action is not Action.INTERCEPT:
        return None
    return {Direction.INCOMING: config.intercept.incoming, Direction.OUTGOING: config.intercept.outgoing}[
        decision.direction
    ].value


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


def _recipient(mailbox: str, domains: Domains) -> Recipient:
    return Recipient(mailbox, recipient_domain(mailbox), message_direction(mailbox, domains))


def _recipient_text(recipient: Recipient) -> str:
    if recipient.domain is None:
        return f"<{recipient.mailbox}>: {recipient.direction.value}: it has no domain"
    protected = "is protected" if recipient.direction is Direction.INCOMING else "is not protected"
    return f"<{recipient.mailbox}>: {recipient.direction.value}: {recipient.domain} {protected}"
