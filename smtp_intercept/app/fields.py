"""The kinds of value that the configuration holds, each with the reason and the remedy for a bad one.

Pure but for pydantic. Looks at one value at a time; what does not go together is found in `checks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from bridge.flow import MAX_VLAN, Action
from bridge.lane import LANE
from hwprofiles.shown import shown
from hwprofiles.validation import mistake
from smtp_intercept.direction import Direction
from smtp_intercept.handling import Handler
from smtp_intercept.mta.nexthop import Protocol, Security, place_of
from smtp_intercept.names import Question, read_domain, read_host, read_server
from smtp_intercept.tls.manners import Way

DNS_PORT = 53
METRICS_PORT = 9725
IFNAMSIZ = 16  # linux/if.h, with the final NUL
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
FROM_PROFILE = ("profile",)  # what bridge.ports is for the word: the pair that the hardware profile has for a bridge
_LANE_LINK = re.compile(rf"{LANE}|{LANE}[wlt.].*")


class OnFailure(StrEnum):
    """What mail meets while the gateway cannot inspect it."""

    PASS = "pass"
    BLOCK = "block"


class Home(StrEnum):
    """The network namespace that ports, bridge and lanes live in."""

    OWN = "own"
    HOST = "host"


class LinkLoss(StrEnum):
    """What a port does when the other one of the bridge has lost its carrier."""

    KEEP = "keep"
    PROPAGATE = "propagate"


class BypassWhen(StrEnum):
    """When the relays of bypass hardware join their ports."""

    BOX = "box"
    GATEWAY = "gateway"
    OFF = "off"


class RelayKind(StrEnum):
    """How a relay is driven: `hwprofiles.bypass.DRIVEN`."""

    SILICOM = "silicom"
    GPIO = "gpio"


class BareNewline(StrEnum):
    """What happens to a message that some server could end elsewhere than we."""

    PASS = "pass"
    REJECT = "reject"


class OnDoubt(StrEnum):
    """What happens to a dialogue that cannot be followed."""

    PASS = "pass"
    CLOSE = "close"


class OnOverload(StrEnum):
    """What connections beyond `limits.sessions` meet."""

    PASS = "pass"
    DEFER = "defer"


class Source(StrEnum):
    """The address that the MTA delivers from."""

    BOX = "box"
    CLIENT = "client"


class VerifyFailure(StrEnum):
    """What becomes of a recipient whose server cannot be asked."""

    ACCEPT = "accept"
    DEFER = "defer"


class Queue(StrEnum):
    """Who keeps mail that the MTA has accepted."""

    OWN = "own"
    RELAY = "relay"


class LocalAction(StrEnum):
    """What happens to mail for the box itself."""

    ALLOW = "allow"
    DROP = "drop"


def choice(kind: type[Enum]) -> BeforeValidator:
    """One of the values of an enumeration."""
    names = ", ".join(str(member.value) for member in kind)

    def read(value: Any) -> Any:
        try:
            return kind(value)
        except ValueError:
            raise mistake(f"{shown(value)} is not one of {names}", "choose one of them") from None

    return BeforeValidator(read)


def _text(read: Callable[[str], Any], example: str) -> BeforeValidator:
    """Read a text; the ValueError of ``read`` is the reason, ``example`` the remedy."""

    def validate(value: Any) -> Any:
        try:
            if not isinstance(value, str):
                raise ValueError(f"{shown(value)} is not a text")
            return read(value)
        except ValueError as error:
            raise mistake(str(error), f"write it like {example}") from None

    return BeforeValidator(validate)


def _vlan(least: int, meaning: str) -> BeforeValidator:
    def read(value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and not least <= value <= MAX_VLAN:
            raise mistake(f"{value} is no VLAN's VID", f"give {least} to {MAX_VLAN}{meaning}")
        return value

    return BeforeValidator(read)


def _link(value: str) -> str:
    """A name that the kernel takes for a link: dev_valid_name() in net/core/dev.c."""
    if not value or value in {".", ".."} or len(value.encode()) >= IFNAMSIZ or re.search(r"[/:\s]", value):
        raise ValueError(f"{value!r} is not a link's name (1-{IFNAMSIZ - 1} octets without '/', ':' and spaces)")
    if _LANE_LINK.fullmatch(value):
        raise ValueError(f"{value!r} is a name that Tollbridge gives to its own links")
    return value


def read_port(value: str) -> str:
    """The name of a link, or a MAC address; ValueError says why not."""
    lower = value.lower()
    if not _MAC.fullmatch(lower):
        return _link(value)
    if int(lower[:2], 16) & 1 or lower == "00:00:00:00:00:00":
        raise ValueError(f"{value!r} is not one card's MAC address")
    return lower


def _of_the_profile(value: Any) -> Any:
    return FROM_PROFILE if value == FROM_PROFILE[0] else value


def _several(value: Any) -> Any:
    """One, or a list of them; of one that is wrong it is not said that it is the first."""
    if not isinstance(value, str):
        return value
    try:
        return (str(ip_address(value)),)
    except ValueError as error:
        raise mistake(str(error), f"write it like {_ADDRESSES}") from None


def _interface(value: str) -> IPv4Interface | IPv6Interface:
    if "/" not in value:
        raise ValueError(f"{value!r} has no prefix length")
    interface = ip_interface(value)
    ip, network = interface.ip, interface.network
    if ip.is_multicast or ip.is_unspecified or ip.is_loopback:
        raise ValueError(f"{value!r} is not an address that a box can have on a wire")
    if network.num_addresses > 2 and (ip == network.network_address or _is_broadcast(ip, network)):
        raise ValueError(f"{value!r} is the network's own or its broadcast address, not a host's")
    return interface


def _is_broadcast(ip: IPv4Address | IPv6Address, network: IPv4Network | IPv6Network) -> bool:
    return ip.version == 4 and ip == network.broadcast_address


def _network(value: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(value)
    except ValueError:
        if re.fullmatch(r"[0-9a-fA-F.:]+/\d+", value):
            raise ValueError(f"{value!r} has host bits set; the network is {ip_network(value, strict=False)}") from None
        raise


# What people write for a domain that is none → what it is, and what to do.
_NO_DOMAINS = (
    (r"\*?\.", "is a wildcard: write the domain itself; [[protected]] takes all below it with subdomains = true"),
    (r".*\*", "is a wildcard, and there are none: write each domain"),
    (r".*://", "is the address of a page: write the domain alone"),
    (r".*@", "is a mailbox: write what stands behind the @"),
    (r"[^:]*[^:0-9.][^:]*:\d+$", "has a port: write the domain alone"),
)


def _domain(value: str) -> str:
    for pattern, what in _NO_DOMAINS:
        if re.match(pattern, value):
            raise ValueError(f"{shown(value)} {what}")
    return read_domain(value)


def _protected_domain(value: str) -> str:
    if re.fullmatch(r"[0-9.]+|\[.*|[^/]*:[^/]*:.*", value):  # no domain is called that
        raise ValueError(f"{shown(value)} is an address: leave domain out, and name the address in servers")
    return _domain(value)


def _server(value: str) -> str:
    if value.startswith("["):
        raise ValueError(f"{shown(value)} is an address literal, as mail has it: write the address without brackets")
    if "*" in value:
        raise ValueError(f"{shown(value)} is a wildcard: name each host, their network, or mx")
    # The domain is only the "mx"'s, so any will do here.
    match read_server(value, "example.com"):
        case Question(mx=True):
            return "mx"
        case Question(name=name):
            return name
        case literal:
            return literal.lower()


def _place(value: str) -> str:
    return "mx" if value.lower() == "mx" else str(place_of(value))


def _host(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        if re.fullmatch(r"[0-9.]*|.*[:/%\[].*", value):  # meant as an address, or with a port
            raise
        return read_host(value)


def _resolver(value: str) -> str:
    place = place_of(value, DNS_PORT)
    try:
        ip_address(place.host)
    except ValueError:
        raise ValueError(f"{value!r} is not an address") from None
    return str(place)


def _listen(value: str) -> str:
    if value.startswith("/"):
        return str(read_absolute(value))
    place = place_of(value, METRICS_PORT)
    address = ip_address(place.host)
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{value!r} is every address: name one, of the management network")
    return str(place)


def _user(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError(f"{value!r} is not a user's name")
    return value


def read_absolute(value: str) -> PurePosixPath:
    """The absolute path of a file; ValueError says why not."""
    path = PurePosixPath(value)
    if not path.is_absolute() or "\0" in value or path.name in {"", ".."}:
        raise ValueError(f"{value!r} is not the absolute path of a file")
    return path


_ADDRESSES = '"198.51.100.1" or "2001:db8::1"'
LinkName = Annotated[str, _text(_link, '"br0"')]
PortName = Annotated[str, _text(read_port, '"enp1s0" or "52:54:00:12:34:56"')]
PortNames = Annotated[tuple[PortName, ...], BeforeValidator(_of_the_profile)]
Interface = Annotated[IPv4Interface | IPv6Interface, _text(_interface, '"198.51.100.2/24" or "2001:db8::2/64"')]
Address = Annotated[IPv4Address | IPv6Address, _text(ip_address, _ADDRESSES)]
Gateways = Annotated[tuple[Address, ...], BeforeValidator(_several)]
Network = Annotated[IPv4Network | IPv6Network, _text(_network, '"10.0.0.0/8" or "2001:db8::/32"')]
Domain = Annotated[str, _text(_domain, '"example.com"')]
ProtectedDomain = Annotated[str, _text(_protected_domain, '"example.com"')]
ServerItem = Annotated[str, _text(_server, '"192.0.2.20", "2001:db8::/64", "mail.example.com" or "mx"')]
FilePath = Annotated[PurePosixPath, _text(read_absolute, '"/var/log/tollbridge/mail.log"')]
PlaceItem = Annotated[str, _text(_place, '"192.0.2.20", "[2001:db8::20]:2525", "mail.example.com:2525" or "mx"')]
Host = Annotated[str, _text(_host, '"relay.example.net" or "192.0.2.25"')]
ResolverItem = Annotated[str, _text(_resolver, '"192.0.2.53" or "[2001:db8::53]:5353"')]
ListenChoice = Annotated[str, _text(_listen, '"127.0.0.1:9725" or "/run/tollbridge/metrics.sock"')]
UserName = Annotated[str, _text(_user, '"tollbridge"')]
VlanId = Annotated[int, _vlan(1, " (802.1Q keeps 0 and 4095 for itself)")]
VlanChoice = Annotated[int, _vlan(0, ", 0 for untagged mail")]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
HomeChoice = Annotated[Home, choice(Home)]
LinkLossChoice = Annotated[LinkLoss, choice(LinkLoss)]
BypassChoice = Annotated[BypassWhen, choice(BypassWhen)]
RelayChoice = Annotated[RelayKind, choice(RelayKind)]
OnFailureChoice = Annotated[OnFailure, choice(OnFailure)]
HandlerChoice = Annotated[Handler, choice(Handler)]
WayChoice = Annotated[Way, choice(Way)]
BareNewlineChoice = Annotated[BareNewline, choice(BareNewline)]
OnDoubtChoice = Annotated[OnDoubt, choice(OnDoubt)]
OnOverloadChoice = Annotated[OnOverload, choice(OnOverload)]
SourceChoice = Annotated[Source, choice(Source)]
VerifyFailureChoice = Annotated[VerifyFailure, choice(VerifyFailure)]
QueueChoice = Annotated[Queue, choice(Queue)]
SecurityChoice = Annotated[Security, choice(Security)]
ProtocolChoice = Annotated[Protocol, choice(Protocol)]
LocalChoice = Annotated[LocalAction, choice(LocalAction)]
ActionChoice = Annotated[Action, choice(Action)]
DirectionChoice = Annotated[Direction, choice(Direction)]
