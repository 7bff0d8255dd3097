"""The DNS as delivery needs it: the hosts that take a domain's mail, and a host's addresses.

Does one kind of I/O, DNS queries; what the answers mean is decided in `mx`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from smtp_intercept.direction import Servers
from smtp_intercept.lookup import Records, ask, outcome_of, read_nameservers, reason_of, stub_resolver
from smtp_intercept.mta import mx
from smtp_intercept.mta.failure import Failure, for_good, for_now
from smtp_intercept.mta.mx import Exchange, Host, Target
from smtp_intercept.names import Limits, Outcome

# Answers kept, the least lately used forgotten first: some 2 KB each.
CACHED_ANSWERS = 10_000
# Queries at once over all domains: a resolver limits the rate of those who ask for more.
QUERIES = 64
# /etc/resolv.conf may appear or change while we run.
REREAD_S = 30.0


class Resolver:
    """Answers are kept as long as their TTLs say."""

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        own: Servers | None = None,
        timeout_s: float = 5.0,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``nameservers`` are addresses, optionally with a port ("192.0.2.53", "192.0.2.53:5353", "[2001:db8::53]:53");
        none: those of /etc/resolv.conf. ValueError for another spelling. ``own``: the box's addresses. ``timeout_s``:
        of one query with its retries. ``chance``: in [0, 1)."""
        self._nameservers = read_nameservers(nameservers)
        self._own, self._timeout_s, self._chance, self._clock = own or Servers(), timeout_s, chance, clock
        self._queries, self._limits = asyncio.Semaphore(QUERIES), Limits()
        self._cache = dns.resolver.LRUCache(CACHED_ANSWERS)
        self._stub: dns.asyncresolver.Resolver | None = None
        self._read_at = 0.0
        self._under_way: dict[tuple[dns.name.Name, int], asyncio.Task[Records]] = {}

    async def targets(self, domain: str) -> tuple[Target, ...] | Failure:
        """The hosts that take mail for ``domain`` (a name or an address literal "[192.0.2.1]"), best first."""
        if address := mx.literal(domain):
            host = Host(Outcome.ANSWERED, (address,))
            return mx.usable(domain, (Exchange(0, address),), {address: host}, self._own, self._chance)
        try:
            found = await self._ask(domain, dns.rdatatype.MX)
        except _ERRORS as error:
            return _failure(domain, error)
        records = [rdata for rdata in found.records if isinstance(rdata, MX)]
        listed = [Exchange(rdata.preference, rdata.exchange.to_text(omit_final_dot=True)) for rdata in records]
        listed = [each if each.host != "." else Exchange(each.preference, "") for each in listed]
        ordered = mx.in_order(domain, listed, self._chance)
        if isinstance(ordered, Failure):
            return ordered
        return await self._usable(domain, mx.spread(ordered, self._limits.mx_hosts), found.authentic)

    async def addresses(self, host: str) -> Target | Failure:
        """One host, a name or an address; a Failure if that is ourselves."""
        address = mx.literal(host)
        found = Host(Outcome.ANSWERED, (address,)) if address else await self._host(host)
        return mx.single(host, found, self._own, self._chance)

    async def _usable(
        self, domain: str, exchanges: Sequence[Exchange], authentic: bool
    ) -> tuple[Target, ...] | Failure:
        names = list(dict.fromkeys(exchange.host for exchange in exchanges))
        hosts = dict(zip(names, await asyncio.gather(*map(self._host, names)), strict=True))
        targets = mx.usable(domain, exchanges, hosts, self._own, self._chance)
        if isinstance(targets, Failure):
            return targets
        return tuple(replace(each, authentic=each.authentic and authentic) for each in targets)

    async def _host(self, name: str) -> Host:
        asked = itertools.product((name,), (dns.rdatatype.A, dns.rdatatype.AAAA))
        results = await asyncio.gather(*itertools.starmap(self._try, asked))
        answers = [result for result in results if isinstance(result, Records)]
        errors = [result for result in results if isinstance(result, Exception)]
        found = [rdata.address for answer in answers for rdata in answer.records if isinstance(rdata, A | AAAA)]
        addresses, authentic = tuple(found[: self._limits.addresses]), all(answer.authentic for answer in answers)
        if unknown := [error for error in errors if outcome_of(error) is Outcome.FAILED]:
            return Host(Outcome.INCOMPLETE if found else Outcome.FAILED, addresses, False, reason_of(unknown[0]))
        if found:
            return Host(Outcome.ANSWERED, addresses, authentic)
        return Host(Outcome.ABSENT, error=reason_of(errors[0])) if errors else Host(Outcome.EMPTY)

    async def _try(self, name: str, rdtype: dns.rdatatype.RdataType) -> Records | Exception:
        try:
            return await self._ask(name, rdtype)
        except _ERRORS as error:
            return error

    async def _ask(self, name: str, rdtype: dns.rdatatype.RdataType) -> Records:
        """Those who ask the same at the same time share one query; one of them who leaves does not end it."""
        key = dns.name.from_text(name), int(rdtype)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._query(key[0], rdtype))
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    async def _query(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Records:
        async with self._queries:
            return await ask(self._current(), name, rdtype, self._timeout_s)

    def _answered(self, key: tuple[dns.name.Name, int], task: asyncio.Task[Any]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # seen, also if nobody waits any more

    def _current(self) -> dns.asyncresolver.Resolver:
        now = self._clock()
        if self._stub is None or (not self._nameservers and now >= self._read_at + REREAD_S):
            self._stub, self._read_at = self._fresh(), now
        return self._stub

    def _fresh(self) -> dns.asyncresolver.Resolver:
        stub = stub_resolver(self._nameservers)
        stub.cache = self._cache
        stub.flags = dns.flags.RD | dns.flags.AD  # tell us what you have verified: RFC 6840 §5.7
        return stub


# A name is text from strangers: one that cannot be asked for (a label of 64 octets) is a `DNSException` as well.
_ERRORS = (dns.exception.DNSException, OSError, UnicodeError)


def _failure(domain: str, error: BaseException) -> Failure:
    if isinstance(
        error, dns.exception.SyntaxError | dns.name.LabelTooLong | dns.name.NameTooLong | dns.name.EmptyLabel
    ):
        return for_good("5.1.2", f"{domain} is not a domain")
    if outcome_of(error) is Outcome.ABSENT:
        return for_good("5.1.2", f"{domain} does not exist")
    return for_now("4.4.3", reason_of(error))
