"""The protected servers' table, kept fresh from the DNS beside the datapath and never in it.

Does one kind of I/O, DNS queries; what the answers mean is decided in `names`. A name that cannot be looked up keeps
its last good addresses and is named in `ProtectedServers.state`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from smtp_intercept.direction import Servers, Serving
from smtp_intercept.lookup import Records, ask, outcome_of, reason_of
from smtp_intercept.names import GOOD, Answer, Limits, Outcome, Question, Standing, after, serving, split, table

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NameState:
    """One name as `status` shows it. ``age_s`` is None before the first good answer, ``error`` if all is well."""

    name: str
    addresses: tuple[str, ...]
    age_s: float | None
    next_refresh_s: float
    outcome: Outcome
    error: str | None


class ProtectedServers:
    """The table of protected servers: complete for addresses and networks at once, for names after a look-up."""

    def __init__(
        self,
        protected: Iterable[tuple[str, Iterable[str]]],
        on_change: Callable[[Servers], None] = lambda _: None,
        *,
        resolver: Callable[[], dns.asyncresolver.Resolver] = dns.asyncresolver.Resolver,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``protected`` are pairs (domain, its servers as the configuration spells them); ValueError for a bad one.
        ``on_change`` gets each new table. ``resolver`` is called for every look-up, because /etc/resolv.conf may
        appear or change while we run."""
        self._limits = limits or Limits()
        self._protected = tuple((domain, tuple(items)) for domain, items in protected)
        self._literals, questions = split(self._protected)
        self._standings = {question: Standing(question) for question in questions}
        self._on_change, self._resolver, self._clock = on_change, resolver, clock
        self._queries = asyncio.Semaphore(self._limits.queries)
        self._servers = table(self._literals, ())
        self._serving: Serving | None = None  # made when it is asked for: only the MTA does

    @property
    def servers(self) -> Servers:
        """The table as it stands now."""
        return self._servers

    @property
    def serving(self) -> Serving:
        """Which domain's servers they are, as it stands now."""
        if self._serving is None:
            self._serving = serving(self._protected, self._standings.values())
        return self._serving

    def state(self) -> tuple[NameState, ...]:
        """Every name, in the configuration's order."""
        now = self._clock()
        return tuple(
            NameState(
                name=str(standing.question),
                addresses=tuple(sorted(standing.addresses)),
                age_s=None if standing.answered_at is None else now - standing.answered_at,
                next_refresh_s=max(0.0, standing.refresh_at - now),
                outcome=standing.outcome,
                error=standing.error,
            )
            for standing in self._standings.values()
        )

    async def resolve_once(self) -> Servers:
        """Look every name up once; the table as it stands then."""
        await asyncio.gather(*map(self._refresh, self._standings))
        return self._servers

    async def run(self) -> None:
        """Keep every name fresh until cancelled. Names do not wait for one another."""
        async with asyncio.TaskGroup() as names:
            for question in self._standings:
                names.create_task(self._keep(question))
            await asyncio.Event().wait()  # without names too, `run` ends by cancellation only

    async def _keep(self, question: Question) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._standings[question].refresh_at - self._clock()))
            await self._refresh(question)

    async def _refresh(self, question: Question) -> None:
        answer = await self._look_up(question)
        before = self._standings[question]
        standing = after(before, answer, self._clock(), self._limits)
        self._standings[question], self._serving = standing, None
        _log_change(before, standing)
        servers = table(self._literals, self._standings.values())
        if servers != self._servers:
            self._servers = servers
            self._on_change(servers)

    async def _look_up(self, question: Question) -> Answer:
        try:
            lookup = _Lookup(self._resolver(), self._queries, self._limits)
            return await (lookup.mail_hosts(question.name) if question.mx else lookup.host(question.name))
        except (dns.exception.DNSException, OSError) as error:
            return Answer(outcome_of(error), error=reason_of(error))
        except Exception as error:
            # A name is text from strangers: whatever it breaks, only this look-up may end.
            _LOG.exception("protected server %s", question)
            return Answer(Outcome.FAILED, error=repr(error))


class _Lookup:
    """One name's queries."""

    def __init__(self, resolver: dns.asyncresolver.Resolver, queries: asyncio.Semaphore, limits: Limits) -> None:
        self._resolver, self._queries, self._limits = resolver, queries, limits

    async def mail_hosts(self, domain: str) -> Answer:
        """The addresses of the hosts that take mail for ``domain``: RFC 5321 §5.1, RFC 7505."""
        found = await self._ask(dns.name.from_text(domain), dns.rdatatype.MX)
        records = sorted((rdata.preference, rdata.exchange) for rdata in found.records if isinstance(rdata, MX))
        if not records:
            return await self.host(domain)  # the implicit MX
        hosts = list(dict.fromkeys(exchange for _, exchange in records if exchange != dns.name.root))
        if not hosts:
            return Answer(Outcome.NULL_MX, ttl_s=found.ttl_s, error=Outcome.NULL_MX.value)
        return await self._addresses(hosts, found.ttl_s)

    async def host(self, name: str) -> Answer:
        """The addresses of one host."""
        return await self._addresses([dns.name.from_text(name)], float("inf"))

    async def _addresses(self, hosts: list[dns.name.Name], ttl_s: float) -> Answer:
        asked = itertools.product(hosts[: self._limits.mx_hosts], (dns.rdatatype.A, dns.rdatatype.AAAA))
        results = await asyncio.gather(*itertools.starmap(self._try, asked))
        answers = [result for result in results if isinstance(result, Records)]
        errors = [result for result in results if isinstance(result, Exception)]
        found = {rdata.address for answer in answers for rdata in answer.records if isinstance(rdata, A | AAAA)}
        return self._summed(found, errors, min([ttl_s, *(answer.ttl_s for answer in answers)]), len(hosts))

    async def _try(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Records | Exception:
        try:
            return await self._ask(name, rdtype)
        except (dns.exception.DNSException, OSError) as error:
            return error

    def _summed(self, found: set[str], errors: list[Exception], ttl_s: float, hosts: int) -> Answer:
        addresses = frozenset(sorted(found)[: self._limits.addresses])
        if broken := [error for error in errors if outcome_of(error) is Outcome.FAILED]:
            return Answer(Outcome.INCOMPLETE if found else Outcome.FAILED, addresses, error=reason_of(broken[0]))
        if not found:
            return Answer(Outcome.ABSENT, error=reason_of(errors[0])) if errors else Answer(Outcome.EMPTY)
        excess = None
        if len(found) > self._limits.addresses:
            excess = f"{len(found)} addresses: only {self._limits.addresses} are kept"
        elif hosts > self._limits.mx_hosts:
            excess = f"{hosts} MX hosts: only {self._limits.mx_hosts} are asked for"
        return Answer(Outcome.ANSWERED, addresses, ttl_s, excess)

    async def _ask(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Records:
        async with self._queries:
            return await ask(self._resolver, name, rdtype, self._limits.query_timeout_s)


def _log_change(before: Standing, now: Standing) -> None:
    addresses = ", ".join(sorted(now.addresses)) or "no address"
    if now.outcome not in GOOD and now.outcome is not before.outcome:
        _LOG.warning("protected server %s: %s; kept: %s", now.question, now.error, addresses)
    elif now.outcome in GOOD and before.outcome not in GOOD | {Outcome.PENDING}:
        _LOG.info("protected server %s: answered again: %s", now.question, addresses)
