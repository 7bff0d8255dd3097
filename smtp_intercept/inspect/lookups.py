"""What rules want to know of clients and names, asked for in the DNS.

One kind of I/O: DNS queries, by `Questions`. What answers mean to a rule is decided in `dns`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address

import dns.exception
import dns.rdatatype
import dns.reversename
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from smtp_intercept.inspect.dns import LISTED, MAX_ADDRESSES, MAX_NAMES, NOBODY, askable
from smtp_intercept.inspect.facts import Lookup, Reply, Source
from smtp_intercept.lookup import outcome_of
from smtp_intercept.names import Outcome
from smtp_intercept.questions import Questions

# Who could not be asked is left alone for so long: each session would wait for it anew (RFC 2308 §7 allows minutes).
FAILED_S = 10.0
MAX_FAILED = 10_000
# A name is text from strangers; `TimeoutError` is an OSError.
_ERRORS = (dns.exception.DNSException, OSError, UnicodeError, ValueError)
_YES: Reply = ("yes",)
_NO: Reply = ()


class Lookups:
    """``clock``: any steady one."""

    def __init__(self, questions: Questions, clock: Callable[[], float] = time.monotonic) -> None:
        self._questions, self._clock = questions, clock
        self._failed: OrderedDict[tuple[Source, str], float] = OrderedDict()  # until

    async def answer(self, lookup: Lookup) -> Reply:
        """Within ``wait_s``; what comes later is kept for who asks next."""
        key = lookup.source, lookup.name
        if self._failed.get(key, 0.0) > self._clock():
            return None
        try:
            async with asyncio.timeout(lookup.wait_s):
                reply = await _ANSWERS[lookup.source](self, lookup)
        except _ERRORS:
            reply = None
        if reply is None:
            self._failed[key] = self._clock() + FAILED_S
            self._failed.move_to_end(key)
            if len(self._failed) > MAX_FAILED:
                self._failed.popitem(last=False)
        return reply

    async def _client(self, lookup: Lookup) -> Reply:
        address = ip_address(lookup.name)
        pointers = await self._records(dns.reversename.from_address(lookup.name).to_text(), "PTR", lookup)
        if pointers is None:
            return None
        names = [record.target.to_text(omit_final_dot=True) for record in pointers if isinstance(record, PTR)]
        names = [name.lower() for name in dict.fromkeys(names) if askable(name)][:MAX_NAMES]
        rdtype = "A" if address.version == 4 else "AAAA"
        found = await asyncio.gather(*(self._addresses(name, rdtype, lookup) for name in names))
        confirmed = tuple(name for name, each in zip(names, found, strict=True) if each and str(address) in each)
        return confirmed or (None if None in found else _NO)

    async def _host(self, lookup: Lookup) -> Reply:
        found = await asyncio.gather(*(self._addresses(lookup.name, each, lookup) for each in ("A", "AAAA")))
        return _YES if any(found) else None if None in found else _NO

    async def _mail(self, lookup: Lookup) -> Reply:
        exchanges = await self._records(lookup.name, "MX", lookup)
        if not exchanges:
            return None if exchanges is None else await self._host(lookup)
        null = all(isinstance(record, MX) and record.exchange == dns.name.root for record in exchanges)
        return _NO if null else _YES

    async def _list(self, lookup: Lookup) -> Reply:
        """A list that has 127.0.0.1 has everybody (RFC 5782 §5): it was given up, and says nothing."""
        found = await self._addresses(lookup.name, "A", lookup)
        if not found or not lookup.group:
            return found
        everybody = await self._addresses(f"{NOBODY}.{lookup.group}", "A", lookup)
        return None if any(LISTED.holds(ip_address(each).packed) for each in everybody or ()) else found

    async def _addresses(self, name: str, rdtype: str, lookup: Lookup) -> Reply:
        records = await self._records(name, rdtype, lookup)
        if records is None:
            return None
        found = (record.address for record in records if isinstance(record, A | AAAA))
        return tuple(str(ip_address(each)) for each in itertools.islice(found, MAX_ADDRESSES))

    async def _records(self, name: str, rdtype: str, lookup: Lookup) -> tuple[object, ...] | None:
        """None: nobody says. A name that does not exist has none."""
        try:
            return (await self._questions.ask(name, dns.rdatatype.from_text(rdtype), lookup.group)).records
        except _ERRORS as error:
            return () if outcome_of(error) is Outcome.ABSENT else None


_ANSWERS = {
    Source.CLIENT: Lookups._client,
    Source.HOST: Lookups._host,
    Source.MAIL: Lookups._mail,
    Source.LIST: Lookups._list,
}
