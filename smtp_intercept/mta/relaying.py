"""Whom a client may reach through the MTA, so that it never is an open relay.

Pure. The sender is not asked: anybody can claim to be one. A recipient is judged by every address that the next server
could read out of it, not by how it begins or ends.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from smtp_intercept.answers import Answer
from smtp_intercept.direction import Direction, Protection, Servers, literal_address, recipient_domain, without_route
from smtp_intercept.mta.envelope import Origin
from smtp_intercept.names import read_domain

# RFC 5321 §4.5.3.1 has 256 for a path, and asks for no limit where none is needed; rewritten senders (SRS, BATV) do
# exceed it when they become recipients.
MAX_MAILBOX_BYTES = 1_000

RELAY_DENIED = Answer(550, "5.7.1 relay access denied")
BAD_MAILBOX = Answer(501, "5.1.3 Not a mailbox")

# RFC 5321 §4.1.2, RFC 6531 §3.3; dots anywhere, because some providers have given out such addresses.
_MAILBOX = re.compile(
    r"""
    (?P<local> [^\s"(),:;<>@\[\\\]]++ | " [^"\\]*+ (?: \\. [^"\\]*+ )* " )
    @
    (?P<domain> [^\s"(),;<>@\\]++ )
    """,
    re.VERBOSE,
)
_NOBODY = Servers()
# Control characters end lines, lone surrogates were no UTF-8: neither can be part of a mailbox (RFC 6531 §3.3).
_NEVER = frozenset({"Cc", "Cs", "Zl", "Zp"})
_HOPS = re.compile("[@%]")  # user%domain@relay and, for servers that unquote before they route, "user@domain"@relay


@dataclass(frozen=True, slots=True)
class RelayRule:
    """What is protected is everybody's to reach. Clients that arrive on one of ``ports`` (links' names), if there are
    ``networks`` from an address in one of them, reach all others too: an address alone is what any neighbour on the
    other side can claim, and have its answers sent to."""

    protection: Protection
    networks: Servers = field(default_factory=Servers)
    ports: frozenset[str] = frozenset()

    def trusts(self, origin: Origin) -> bool:
        """Whether the connection is one of those that may reach anybody."""
        client = origin.client[0]  # "": a message of our own, which asks nobody
        if not client or origin.port not in self.ports:
            return False
        return self.networks == _NOBODY or self.networks.holds(ip_address(client).packed)

    def on(self, origin: Origin) -> Protection:
        """What is protected, on this connection."""
        return self.protection.on(origin.server[0], origin.direction)


def admission(origin: Origin, recipient: str, rule: RelayRule) -> Answer | None:
    """The reply to RCPT of an unauthenticated client, None if the recipient is admitted. ``recipient`` is what stands
    between "<" and ">"; what is to be delivered to afterwards is `direction.without_route` of it, and nothing else."""
    mailbox = without_route(recipient)
    if not is_mailbox(mailbox):
        return BAD_MAILBOX
    if rule.trusts(origin):
        return None
    if _is_postmaster(mailbox):
        return None if origin.direction is Direction.INCOMING else RELAY_DENIED
    # A name first: "other.example .example.com" ends as a subdomain does.
    protection = rule.on(origin)
    within = all(_is_host(domain) and _is_everybodys(domain, protection) for domain in reached(mailbox))
    return None if within else RELAY_DENIED


def _is_everybodys(domain: str, protection: Protection) -> bool:
    """A network's hosts are protected, but one by one nobody has named them: a client comes no further with the box's
    help than with its own SYN, past whatever firewall stands there or, with 0.0.0.0/0, to the whole world."""
    address = literal_address(domain)
    if address is None:
        return protection.domains.holds(domain)
    return address.packed == protection.dialled or address.packed in protection.servers.addresses


def is_mailbox(mailbox: str) -> bool:
    """Whether it is one that could be delivered to: a local part and a host's name or address, or ``postmaster``."""
    if len(mailbox.encode("utf-8", "surrogatepass")) > MAX_MAILBOX_BYTES:
        return False
    if any(unicodedata.category(character) in _NEVER for character in mailbox):
        return False
    parts = _MAILBOX.fullmatch(mailbox)
    return _is_postmaster(mailbox) if parts is None else _is_host(parts["domain"])


def _is_postmaster(mailbox: str) -> bool:
    return mailbox.lower() == "postmaster"  # RFC 5321 §4.5.1: in any case, and without a domain


def _is_host(domain: str) -> bool:
    if domain.startswith("["):
        address = literal_address(domain)
        return address is not None and not (address.is_loopback or address.is_unspecified or address.is_multicast)
    try:
        read_domain(domain)
    except ValueError:
        return False
    return True


def reached(mailbox: str) -> Iterator[str]:
    """Every domain that some server could carry mail for ``mailbox`` on to: its own, and what stands where one would in
    the percent hack, a bang path, or an address in quotes (RFC 5321 Appendix F.2 names the old kinds of route)."""
    yield recipient_domain(mailbox) or ""
    # Compatibility forms, for the server that folds FULLWIDTH PERCENT SIGN before it routes.
    local = unicodedata.normalize("NFKC", mailbox.rpartition("@")[0])
    first, *hops = _HOPS.split(local.removeprefix('"').removesuffix('"'))
    yield from first.split("!")[:-1]
    yield from hops
