"""Carries mail to its next hop: finds the host, gets a connection, hands the message over.

Decides nothing about retries; each recipient's outcome says what the server, the DNS or the network said.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from smtp_intercept.limits import RFC_SECONDS, Phase
from smtp_intercept.mta import mx
from smtp_intercept.mta.delivery import Session
from smtp_intercept.mta.envelope import Origin, Outcome, State
from smtp_intercept.mta.exchange import Terms
from smtp_intercept.mta.failure import Failure, for_good, for_now
from smtp_intercept.mta.line import Line
from smtp_intercept.mta.nexthop import NextHop, Place, Security
from smtp_intercept.mta.parcel import Errand, Parcel
from smtp_intercept.mta.pool import Bounds, Key, Pool
from smtp_intercept.mta.resolver import Resolver
from smtp_intercept.mta.tls import Contexts

__all__ = ["Bounds", "Counters", "Courier", "Credentials", "Dial", "Parcel"]

# Connects to a place whose host is an address: in the name of the origin's client as far as the lane can, or from the
# box's own address if the origin is None. A non-blocking, connected socket; OSError is the network's answer.
Dial: TypeAlias = Callable[[Origin | None, Place], Awaitable[socket.socket]]

# For a SYN's answer; RFC 5321 has no figure, Postfix the same.
CONNECT_S = 30.0
# Addresses tried in one attempt, over all hosts, one of each preference among them (`mx.spread`): a domain of dead
# servers must not keep a slot for an hour.
ADDRESSES_TRIED = 10


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the relay host knows us by."""

    username: str
    password: str = field(repr=False)


@dataclass(slots=True)
class Counters:
    """Since the start. ``possible_duplicates``: recipients whose message's last reply was lost; ``in_clear``: after TLS
    failed, in the handshake or behind it."""

    connections: int = 0
    reused: int = 0
    transactions: int = 0
    possible_duplicates: int = 0
    in_clear: int = 0


class Courier:
    """Shared by all deliveries of a process."""

    def __init__(
        self,
        resolver: Resolver,
        dial: Dial,
        hostname: str,
        *,
        bounds: Bounds | None = None,
        credentials: Credentials | None = None,
        tls: Callable[[Security], ssl.SSLContext] | None = None,
        patience_s: Mapping[Phase, float] = RFC_SECONDS,
        connect_s: float = CONNECT_S,
    ) -> None:
        """``hostname`` greets in EHLO. ``tls`` makes the context for a security other than NONE; by default the
        system's authorities count. ``patience_s``: what servers may take (RFC 5321 §4.5.3.2)."""
        self._resolver, self._dial, self._hostname = resolver, dial, hostname
        self._credentials = (credentials.username, credentials.password) if credentials else None
        self._tls, self._patience_s, self._connect_s = tls or Contexts(), patience_s, connect_s
        self._bounds = bounds or Bounds()
        self._pool = Pool(self._bounds)
        self.counters = Counters()

    @property
    def connections(self) -> tuple[int, int]:
        """At work, and idle."""
        return self._pool.working, self._pool.idle

    async def carry(self, parcel: Parcel) -> list[Outcome]:
        """One outcome for each recipient, in the parcel's order; never raises for what the other side does."""
        errand, tried = Errand(parcel), 0
        async for host, place in self._places(errand):
            await self._visit(errand, host, place)
            tried += 1
            if not errand.waiting or tried >= ADDRESSES_TRIED:
                break
        return errand.outcomes()

    def close(self) -> None:
        """Say QUIT on the idle connections. Those at work are the callers' to wait for."""
        self._pool.close()

    async def _places(self, errand: Errand) -> AsyncIterator[tuple[str, Place]]:
        """Every host's name and each of its addresses, in the order to try them."""
        hop = errand.parcel.next_hop
        for place in hop.places:
            async for each in self._given(errand, place):
                yield each
        if hop.domain:
            async for each in self._exchangers(errand, hop):
                yield each
        elif not hop.places:
            errand.fail(for_good("5.1.3", "there is no domain to deliver to"))

    async def _exchangers(self, errand: Errand, hop: NextHop) -> AsyncIterator[tuple[str, Place]]:
        targets = await self._resolver.targets(hop.domain)
        if isinstance(targets, Failure):
            errand.fail(targets)
            return
        each = [replace(target, addresses=(address,)) for target in targets for address in target.addresses]
        for target in mx.spread(each, ADDRESSES_TRIED):
            yield target.host, Place(target.addresses[0])

    async def _given(self, errand: Errand, place: Place) -> AsyncIterator[tuple[str, Place]]:
        """A place that was configured: if it is not in the DNS that is ours to mend, and no reason to bounce mail."""
        target = await self._resolver.addresses(place.host)
        if isinstance(target, Failure):
            errand.fail(replace(target, state=State.QUEUED, status="4" + target.status[1:]))
            return
        for address in target.addresses:
            yield place.host, Place(address, place.port)

    async def _visit(self, errand: Errand, host: str, place: Place) -> None:
        """Try one address, on a connection that is there or on a new one."""
        key = self._key(errand.parcel, host, place)
        async with self._pool.slot(place):
            while errand.waiting:
                kept = self._pool.take(key)
                line = kept or await self._open(errand, key)
                if line is None:
                    return
                self.counters.reused += kept is not None
                answered = await self._hand_over(errand, key, line)
                # A kept connection that the server has closed meanwhile says nothing about the server.
                if line.session.over and (answered or kept is None):
                    if kept is None and self._may_go_without(line, key):
                        await self._hand_over_in_clear(errand, key)
                    return

    async def _hand_over(self, errand: Errand, key: Key, line: Line) -> bool:
        """Every recipient that still waits, as far as the line carries; whether anything was answered."""
        answered = False
        try:
            while errand.waiting and line.session.ready and line.messages < self._bounds.messages_per_connection:
                mail = await errand.mail("8BITMIME" in line.session.offer)
                settled = await line.transact(mail, errand.parcel.content)
                self.counters.transactions += 1
                self.counters.possible_duplicates += settled.doubtful
                answered = bool(settled.outcomes) or answered
                errand.settle(settled.outcomes)
        except BaseException:
            line.abort()
            raise
        if line.failure is not None:
            errand.fail(line.failure)
        self._pool.keep(key, line)
        return answered

    async def _hand_over_in_clear(self, errand: Errand, key: Key) -> None:
        """To those who have no answer yet. Some servers' TLS breaks at the first large record, at every try."""
        if errand.waiting and (line := await self._open(errand, key, plain=True)):
            await self._hand_over(errand, key, line)

    def _may_go_without(self, line: Line, key: Key) -> bool:
        """TLS has failed, and only kept listeners out (RFC 7435): the alternative is no mail at all."""
        died = line.died_encrypted and not key.authenticate
        return key.security is Security.OPPORTUNISTIC and bool(line.handshake_failed or died)

    async def _open(self, errand: Errand, key: Key, *, plain: bool = False) -> Line | None:
        """A new connection that is ready. Where TLS is opportunistic, one without if it fails."""
        self._pool.make_room(key.place)
        self.counters.in_clear += plain
        line = await self._connect(errand, key, plain=plain)
        if line and not plain and self._may_go_without(line, key):
            self.counters.in_clear += 1
            line = await self._connect(errand, key, plain=True)
        if line is None or line.session.ready:
            return line
        errand.fail(line.failure or for_now("4.4.2", "the server closed the connection", _label(key)))
        return None

    async def _connect(self, errand: Errand, key: Key, *, plain: bool) -> Line | None:
        """A connection that is ready or over; None if there is none at all."""
        parcel = errand.parcel
        try:
            async with asyncio.timeout(self._connect_s):
                sock = await self._dial(parcel.origin if parcel.next_hop.from_client else None, key.place)
        except OSError as error:
            errand.fail(for_now("4.4.1", f"cannot connect to {key.place}: {_reason(error)}", _label(key)))
            return None
        self.counters.connections += 1
        line = self._line(key, plain)
        try:
            await asyncio.get_running_loop().create_connection(lambda: line, sock=sock)
            await line.ready()
        except BaseException:
            line.abort()
            raise
        return line

    def _line(self, key: Key, plain: bool) -> Line:
        credentials = self._credentials if key.authenticate else None
        terms = Terms(self._hostname, _label(key), key.security, key.protocol, plain, credentials)
        session = Session(terms, self._patience_s)
        return Line(session, lambda: self._tls(key.security), key.host, self._patience_s)

    def _key(self, parcel: Parcel, host: str, place: Place) -> Key:
        next_hop = parcel.next_hop
        client = parcel.origin.client[0] if next_hop.from_client else ""
        return Key(place, host, next_hop.security, next_hop.protocol, next_hop.authenticate, client)


def _label(key: Key) -> str:
    """For logs and notices: whom we spoke with."""
    place = key.place
    return str(place) if key.host == place.host else f"{key.host} [{place.host}]:{place.port}"


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio's own text names the call, not the reason
    return str(error) or type(error).__name__
