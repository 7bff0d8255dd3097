"""Which way a connection and a message are going: two levels, both kept.

Pure. A connection's direction is its destination's alone. A message's direction is its recipient's domain alone, or the
server's where that has no domain and goes by its address. Where the mail comes from is never asked.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import MappingProxyType
from typing import TypeAlias

AddressOrNetwork: TypeAlias = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network

MAX_DOMAIN = 255  # octets of a domain name, RFC 5321 §4.5.3.1.2; longer ones belong to nobody
MAX_LABEL = 63  # octets of one label, RFC 1035 §2.3.4; punycode is quadratic, so longer ones are not converted

_MAX_TYPED = 4 * MAX_DOMAIN  # Unicode composes at most four characters into one: what is longer stays longer
# RFC 5321 §4.1.2, A-d-l ":" before the mailbox; a colon inside an address literal does not end it.
_SOURCE_ROUTE = re.compile(r"\A@[^:\[]*+(?:\[[^\]]*+\][^:\[]*+)*:")
# An unterminated quote runs to the end: one pass whatever the peer sends.
_QUOTED = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*"?', re.DOTALL)
_LITERAL = re.compile(r"\[(?:ipv6:([0-9a-f:.]++)|([0-9.]++))\]", re.IGNORECASE)
_FULL_STOPS = re.compile("[\u3002\uff0e\uff61]")  # the other full stops that read as "." (UTS 46)


class Direction(Enum):
    """Of a connection: any of the three. Of a message to one recipient: incoming or outgoing."""

    INCOMING = "incoming"
    OUTGOING = "outgoing"
    LOCAL = "local"


# The mark's tag that tells the interceptor the connection's direction; local connections are never handed to it.
TAGS: Mapping[Direction, int] = MappingProxyType({Direction.INCOMING: 1, Direction.OUTGOING: 2})
_DIRECTIONS = {tag: direction for direction, tag in TAGS.items()}


def direction_of_tag(tag: int) -> Direction | None:
    """The reverse of `TAGS`; None for a tag that nobody sets."""
    return _DIRECTIONS.get(tag)


@dataclass(frozen=True, slots=True)
class Network:
    """An IP network over packed addresses of ``width`` octets: what is left of one after ``shift`` is ``prefix``."""

    width: int
    shift: int
    prefix: int

    @classmethod
    def of(cls, item: AddressOrNetwork) -> Network:
        """From an address or a network; ValueError for other text, host bits set, or an IPv6 zone."""
        network = ip_network(item)
        if isinstance(network, IPv6Network) and network.network_address.scope_id is not None:
            raise ValueError(f"{item} has a zone")
        shift = network.max_prefixlen - network.prefixlen
        return cls(network.max_prefixlen // 8, shift, int(network.network_address) >> shift)

    def holds(self, address: bytes) -> bool:
        """Whether the packed address lies in the network; another family never does."""
        return len(address) == self.width and int.from_bytes(address, "big") >> self.shift == self.prefix


@dataclass(frozen=True, slots=True)
class Servers:
    """The protected servers: packed addresses, and networks grouped by (width, shift) so that a look-up costs
    one set probe per prefix length in use, however many networks there are."""

    addresses: frozenset[bytes] = frozenset()
    networks: tuple[tuple[int, int, frozenset[int]], ...] = ()

    @classmethod
    def of(cls, items: Iterable[AddressOrNetwork]) -> Servers:
        """A table of addresses and networks, in any order; ValueError as `Network.of`."""
        addresses: set[bytes] = set()
        groups: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        for network in map(Network.of, items):
            if network.shift:
                groups[network.width, network.shift].add(network.prefix)
            else:
                addresses.add(network.prefix.to_bytes(network.width, "big"))
        return cls(
            frozenset(addresses),
            tuple((width, shift, frozenset(groups[width, shift])) for width, shift in sorted(groups)),
        )

    def holds(self, address: bytes) -> bool:
        """Whether the packed address (4 or 16 octets) is a protected server's."""
        if address in self.addresses:
            return True
        if not self.networks:
            return False
        number, octets = int.from_bytes(address, "big"), len(address)
        return any(octets == width and number >> shift in prefixes for width, shift, prefixes in self.networks)


@dataclass(frozen=True, slots=True)
class Serving:
    """Which protected domains a server takes mail for: their names by (width, shift) and prefix, as in `Servers`."""

    groups: tuple[tuple[int, int, Mapping[int, tuple[str, ...]]], ...] = ()

    @classmethod
    def of(cls, items: Iterable[tuple[str, AddressOrNetwork]]) -> Serving:
        """From (domain, one of its servers); ValueError as `Network.of`."""
        groups: defaultdict[tuple[int, int], defaultdict[int, dict[str, None]]]
        groups = defaultdict(lambda: defaultdict(dict))
        for domain, item in items:
            network = Network.of(item)
            groups[network.width, network.shift][network.prefix][domain] = None
        return cls(
            tuple(
                (width, shift, MappingProxyType({prefix: tuple(names) for prefix, names in group.items()}))
                for (width, shift), group in sorted(groups.items())
            )
        )

    def by(self, server: bytes) -> tuple[str, ...]:
        """The domains of the server with this packed address, those that name it most closely first."""
        number, octets = int.from_bytes(server, "big"), len(server)
        found = (names.get(number >> shift, ()) for width, shift, names in self.groups if width == octets)
        return tuple(dict.fromkeys(name for names in found for name in names))


@dataclass(frozen=True, slots=True)
class Domains:
    """The protected domains, as A-labels: those that stand for themselves, and those whose subdomains count too."""

    names: frozenset[str] = frozenset()
    with_subdomains: frozenset[str] = frozenset()

    @classmethod
    def of(cls, entries: Iterable[tuple[str, bool]]) -> Domains:
        """From (name, whether its subdomains are protected as well)."""
        known = [(normal_domain(name), subdomains) for name, subdomains in entries]
        return cls(
            frozenset(name for name, _ in known),
            frozenset(name for name, subdomains in known if subdomains),
        )

    def holds(self, domain: str) -> bool:
        """Whether mail for ``domain``, in any spelling, is for a protected domain."""
        domain = normal_domain(domain)
        if len(domain) > MAX_DOMAIN:
            return False
        if domain in self.names or not self.with_subdomains:
            return domain in self.names
        return any(domain[dot + 1 :] in self.with_subdomains for dot, letter in enumerate(domain) if letter == ".")


@dataclass(frozen=True, slots=True)
class Protection:
    """The protected domains, the servers given as addresses and networks and, on one connection, the packed address of
    the server dialled if that is protected (b"": it is not), by whatever name."""

    domains: Domains = field(default_factory=Domains)
    servers: Servers = field(default_factory=Servers)
    dialled: bytes = b""

    def on(self, server: str, direction: Direction) -> Protection:
        """On a connection to ``server`` (an address) that goes this way."""
        return replace(self, dialled=ip_address(server).packed if direction is Direction.INCOMING else b"")

    def holds(self, domain: str) -> bool:
        """Whether ``domain``, in any spelling, is a protected domain or the address literal of a protected server."""
        address = literal_address(domain)
        if address is None:
            return self.domains.holds(domain)
        return address.packed == self.dialled or self.servers.holds(address.packed)


def normal_domain(domain: str) -> str:
    """One spelling per domain: lower case, no trailing dot, U-labels as A-labels (RFC 5890 §2.3.2.1)."""
    if len(domain) <= _MAX_TYPED and not domain.isascii():
        domain = _FULL_STOPS.sub(".", domain)
        domain = ".".join(map(_a_label, domain.split(".")))
    return domain.lower().removesuffix(".")


def _a_label(label: str) -> str:
    if label.isascii() or len(label) > MAX_LABEL:
        return label
    # Twice, for characters whose lower case or compatibility form is ASCII after all: K (Kelvin sign) is k.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).lower())
    return folded if folded.isascii() else "xn--" + folded.encode("punycode").decode("ascii")


def without_route(path: str) -> str:
    """The mailbox of what stands between "<" and ">": a source route is ignored (RFC 5321 Appendix C)."""
    return _SOURCE_ROUTE.sub("", path, count=1)


def recipient_domain(mailbox: str) -> str | None:
    """The domain of what stands between "<" and ">", in normal spelling; None without one (``postmaster``).

    RFC 5321 §4.1.2: a source route is not the domain, nor is an "@" in a quoted local part. An address literal keeps
    its brackets.
    """
    if mailbox[:1] == "@" or '"' in mailbox:
        mailbox = _QUOTED.sub("", without_route(mailbox))
    _, at, domain = mailbox.rpartition("@")
    return (normal_domain(domain) or None) if at else None


def literal_address(domain: str) -> IPv4Address | IPv6Address | None:
    """The address that stands in a domain's place, ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 §4.1.3). One
    that maps an IPv4 address is that one, as it is to whoever dials it; an octet with a leading zero, which some read
    as octal, is none."""
    literal = _LITERAL.fullmatch(domain)
    if literal is None:
        return None
    try:
        if literal[1] is None:
            return IPv4Address(literal[2])
        address = IPv6Address(literal[1])
    except ValueError:
        return None
    return address.ipv4_mapped or address


def connection_direction(server: bytes, own: frozenset[bytes], servers: Servers) -> Direction:
    """From the destination alone: the box's own address, a protected server, or anything else. Packed addresses."""
    if server in own:
        return Direction.LOCAL
    return Direction.INCOMING if servers.holds(server) else Direction.OUTGOING


def message_direction(mailbox: str, protection: Protection) -> Direction:
    """Of one message to one recipient. ``postmaster`` without a domain (RFC 5321 §4.5.1) is the server dialled's."""
    domain = recipient_domain(mailbox)
    if domain is None:
        # An "@" and no domain, as in an open quote: who knows what the server makes of it.
        inside = protection.dialled != b"" and "@" not in without_route(mailbox)
    else:
        inside = protection.holds(domain)
    return Direction.INCOMING if inside else Direction.OUTGOING
