"""One question to the DNS, and what its failure means. One kind of I/O: the query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import dns.asyncbackend
import dns.asyncresolver
import dns.flags
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdatatype

# dnspython loads its parts when it needs them; by then this process may be nobody, who may not read them.
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.OPT
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver

from smtp_intercept.names import Outcome

dns.asyncbackend.get_backend("asyncio")  # which loads it
DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class Records:
    """The records that answer one question; none is an answer too. ``authentic``: the AD bit (RFC 4035 §3.2.3)."""

    records: tuple[dns.rdata.Rdata, ...]
    ttl_s: float
    authentic: bool = False


def read_nameservers(texts: Iterable[str]) -> list[dns.nameserver.Nameserver]:
    """As `read_nameserver`."""
    return [dns.nameserver.Do53Nameserver(*read_nameserver(text)) for text in texts]


def read_nameserver(text: str) -> tuple[str, int]:
    """(address, port) of "192.0.2.53", "192.0.2.53:5353", "2001:db8::53" or "[2001:db8::53]:5353"; ValueError."""
    host, port = text, str(DNS_PORT)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not (port.isdecimal() and 0 < int(port) < 65_536):
        raise ValueError(f"{text!r} has no port between 1 and 65535")
    return str(ip_address(host)), int(port)


def stub_resolver(nameservers: Sequence[dns.nameserver.Nameserver]) -> dns.asyncresolver.Resolver:
    """Asks these, or those of /etc/resolv.conf as it is now."""
    stub = dns.asyncresolver.Resolver(configure=not nameservers)
    if nameservers:
        stub.nameservers = list(nameservers)
    return stub


async def ask(
    resolver: dns.asyncresolver.Resolver, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, lifetime_s: float
) -> Records:
    """``lifetime_s`` is the query's with all its retries; `DNSException` and OSError if there is no answer."""
    # The resolver follows CNAMEs (RFC 1034 §5.3.1), dnspython the chain in its answer, up to 16 of them.
    answer = await resolver.resolve(name, rdtype, raise_on_no_answer=False, search=False, lifetime=lifetime_s)
    authentic = bool(answer.response.flags & dns.flags.AD)
    return Records(tuple(answer.rrset or ()), answer.chaining_result.minimum_ttl, authentic)


def outcome_of(error: BaseException) -> Outcome:
    """Whether the name is known not to exist, or nothing is known."""
    return Outcome.ABSENT if isinstance(error, dns.resolver.NXDOMAIN) else Outcome.FAILED


def reason_of(error: BaseException) -> str:
    """In one line."""
    return " ".join(str(error).split()) or type(error).__name__
