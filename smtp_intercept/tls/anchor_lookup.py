"""Asks the DNS whether clients of a mail server trust it by the DNS: TLSA records, or an MTA-STS policy.

One kind of I/O: DNS queries. A record that is there is enough, whether or not it is signed: its owner wants clients to
look at the certificate. Nobody waits here for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import dns.asyncresolver
import dns.name
import dns.rdatatype

# dnspython loads its parts when it needs them; by then this process may be nobody, who may not read them.
import dns.rdtypes.ANY.TLSA
import dns.rdtypes.ANY.TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from smtp_intercept.lookup import Records, ask, outcome_of
from smtp_intercept.names import Outcome
from smtp_intercept.tls.manners import Why

DEADLINE_S = 2.0  # of all queries about one name
MAX_QUESTIONS = 256  # names at once; those beyond get no answer
MAX_QUERIES = 32  # at once: a resolver rate-limits those who ask for more
MAX_ADDRESSES = 64  # of one name
# A policy is a mail domain's and the name a host's: the policies of the domains above it count, the last label not.
MOST_DOMAINS = 4
FAILED_TTL_S, MOST_TTL_S = 30.0, 3_600.0
_POLICY = b"v=STSv1"  # RFC 8461 §3.1

Answer = list[object]


class AnchorLookup:
    """``resolver`` is called for every name, because /etc/resolv.conf may change while we run."""

    def __init__(self, resolver: Callable[[], dns.asyncresolver.Resolver], deadline_s: float = DEADLINE_S) -> None:
        self._resolver, self._deadline_s = resolver, deadline_s
        self._queries = asyncio.Semaphore(MAX_QUERIES)
        self._tasks = set[asyncio.Task[None]]()

    def ask(self, question: object, told: Callable[[Answer], None]) -> None:
        """[name, port]; the answer is as `Anchors.learn` has it. What is no question is passed over."""
        match question:
            case [str(name), int(port)] if len(self._tasks) < MAX_QUESTIONS:
                task = asyncio.create_task(self._answer(name, port, told))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, name: str, port: int, told: Callable[[Answer], None]) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self.look_up(name, port)
        except TimeoutError:
            answer = [name, port, "", [], FAILED_TTL_S]
        told(answer)

    async def look_up(self, name: str, port: int) -> Answer:
        """All that there is to ask about a name, at once."""
        resolver = self._resolver()
        tlsa, v4, v6, *policies = await asyncio.gather(
            self._try(resolver, f"_{port}._tcp.{name}", dns.rdatatype.TLSA),
            self._try(resolver, name, dns.rdatatype.A),
            self._try(resolver, name, dns.rdatatype.AAAA),
            *(self._try(resolver, f"_mta-sts.{each}", dns.rdatatype.TXT) for each in domains(name)),
        )
        found = [each.address for records in (v4, v6) for each in records.records if isinstance(each, A | AAAA)]
        why = Why.TLSA if tlsa.records else Why.MTA_STS if any(map(_is_policy, policies)) else ""
        ttl_s = min(each.ttl_s for each in (tlsa, v4, v6, *policies))
        return [name, port, str(why), sorted(found)[:MAX_ADDRESSES], ttl_s]

    async def _try(self, resolver: dns.asyncresolver.Resolver, name: str, rdtype: dns.rdatatype.RdataType) -> Records:
        """A name is text from strangers: whatever it breaks, there are no records."""
        try:
            async with self._queries:
                return await ask(resolver, dns.name.from_text(name), rdtype, self._deadline_s)
        except Exception as error:
            return Records((), MOST_TTL_S if outcome_of(error) is Outcome.ABSENT else FAILED_TTL_S)


def domains(name: str) -> Iterator[str]:
    """Whose policy may have been looked up by a client that asks for this host."""
    labels = name.split(".")
    yield from (".".join(labels[at:]) for at in range(min(len(labels) - 1, MOST_DOMAINS)))


def _is_policy(found: Records) -> bool:
    return any(b"".join(getattr(each, "strings", ())).startswith(_POLICY) for each in found.records)
