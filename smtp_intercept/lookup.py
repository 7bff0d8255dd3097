"""One question to the DNS, and what its failure means. One kind of I/O: the query."""

from __future__ import annotations

from dataclasses import dataclass

import dns.asyncbackend
import dns.asyncresolver
import dns.flags
import dns.name
import dns.rdata
import dns.rdatatype

# dnspython loads its parts when it needs them; by then this process may be nobody, who may not read them.
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.OPT
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver

from smtp_intercept.names import Outcome

dns.asyncbackend.get_backend("asyncio")  # which loads it


@dataclass(frozen=True, slots=True)
class Records:
    """The records that answer one question; none is an answer too. ``authentic``: the AD bit (RFC 4035 §3.2.3)."""

    records: tuple[dns.rdata.Rdata, ...]
    ttl_s: float
    authentic: bool = False


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
