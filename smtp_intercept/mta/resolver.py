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

import dns.exception
import dns.name
import dns.rdatatype
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from smtp_intercept.direction import Servers
from smtp_intercept.lookup import Records, outcome_of, reason_of
from smtp_intercept.mta import mx
from smtp_intercept.mta.failure import Failure, for_good, for_now
from smtp_intercept.mta.mx import Exchange, Host, Target
from smtp_intercept.names import Limits, Outcome
from smtp_intercept.questions import Questions


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
        """``nameservers`` and ``timeout_s`` as of `Questions`. ``own``: the box's addresses. ``chance``: in [0, 1)."""
        self._questions = Questions(nameservers, timeout_s=timeout_s, clock=clock)
        self._own, self._chance, self._limits = own or Servers(), chance, Limits()

    async def targets(self, domain: str) -> tuple[Target, ...] | Failure:
        """The hosts that take mail for ``domain`` (a name or an address literal "[192.0.2.1]"), best first."""
        if address := mx.literal(domain):
            host = Host(Outcome.ANSWERED, (address,))
            return mx.usable(domain, (Exchange(0, address),), {address: host}, self._own, self._chance)
        try:
            found = await self._questions.ask(domain, dns.rdatatype.MX)
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
            return await self._questions.ask(name, rdtype)
        except _ERRORS as error:
            return error


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
