"""Questions to the DNS of one process: kept as long as their answers say, asked once at a time, and so many at once.

One kind of I/O: DNS queries.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import dns.asyncresolver
import dns.flags
import dns.name
import dns.rdatatype
import dns.resolver

from smtp_intercept.lookup import Records, ask, read_nameservers, stub_resolver

# Answers kept, the least lately used forgotten first: some 2 KB each.
CACHED_ANSWERS = 10_000
# However long a server wants it kept: what it says may have been a lie.
CACHED_S = 86_400.0
# Queries at once over all domains: a resolver limits the rate of those who ask for more.
QUERIES = 64
# /etc/resolv.conf may appear or change while we run.
REREAD_S = 30.0


class _Cache(dns.resolver.LRUCache):
    def put(self, key: dns.resolver.CacheKey, value: dns.resolver.Answer) -> None:
        value.expiration = min(value.expiration, time.time() + CACHED_S)
        super().put(key, value)


class Questions:
    """``nameservers`` are addresses, optionally with a port ("192.0.2.53", "192.0.2.53:5353", "[2001:db8::53]:53");
    none: those of /etc/resolv.conf. ValueError for another spelling. ``timeout_s``: of one query with its retries;
    ``queue_s``: how long it may wait for its turn, None for ever."""

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        timeout_s: float = 5.0,
        queue_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nameservers = read_nameservers(nameservers)
        self._timeout_s, self._queue_s, self._clock = timeout_s, queue_s, clock
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(QUERIES))
        self._cache = _Cache(CACHED_ANSWERS)
        self._stub: dns.asyncresolver.Resolver | None = None
        self._read_at = 0.0
        self._under_way: dict[tuple[dns.name.Name, int], asyncio.Task[Records]] = {}

    async def ask(self, name: str, rdtype: dns.rdatatype.RdataType, group: str = "") -> Records:
        """As `lookup.ask`. Those who ask the same at the same time share one query; one of them who leaves does not end
        it. Each ``group`` has turns of its own: where one is slow the others are not."""
        key = dns.name.from_text(name), int(rdtype)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._query(key[0], rdtype, self._turns[group]))
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    async def _query(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, turns: asyncio.Semaphore) -> Records:
        async with asyncio.timeout(self._queue_s):
            await turns.acquire()
        try:
            return await ask(self._current(), name, rdtype, self._timeout_s)
        finally:
            turns.release()

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
