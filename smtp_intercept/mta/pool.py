"""Connections that wait for the next message, and how many there may be: to one host, and altogether.

Opens nothing; closes what has waited too long or is in the way of another.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from smtp_intercept.mta.line import Line
from smtp_intercept.mta.nexthop import Place, Protocol, Security


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many connections there may be, and how long they are kept."""

    connections: int = 100  # at once; each costs a descriptor and some 100 KB
    connections_per_host: int = 10  # more is rude; Postfix's default is 20
    messages_per_connection: int = 100  # servers behind a load balancer want to be rid of us now and then
    idle_s: float = 5.0  # a connection waits so long for the next message


@dataclass(frozen=True, slots=True)
class Key:
    """What two messages must have in common to share a connection. ``client``: the address it was made from, "" for
    ours."""

    place: Place
    host: str
    security: Security
    protocol: Protocol
    authenticate: bool
    client: str


class Pool:
    """At work and idle together are never more than the bounds allow."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._total = asyncio.Semaphore(bounds.connections)
        self._hosts: dict[Place, asyncio.Semaphore] = {}
        self._wanted: Counter[Place] = Counter()
        self._working: Counter[Place] = Counter()
        self._idle: OrderedDict[Line, tuple[Key, asyncio.TimerHandle]] = OrderedDict()  # the longest idle first

    @property
    def working(self) -> int:
        """Connections at work."""
        return self._working.total()

    @property
    def idle(self) -> int:
        return len(self._idle)

    @asynccontextmanager
    async def slot(self, place: Place) -> AsyncIterator[None]:
        """The right to have one connection to ``place`` at work; waits for it, in order."""
        host = self._hosts.setdefault(place, asyncio.Semaphore(self._bounds.connections_per_host))
        self._wanted[place] += 1
        try:
            async with host, self._total:
                self._working[place] += 1
                try:
                    yield
                finally:
                    _less(self._working, place)
        finally:
            if not _less(self._wanted, place):
                del self._hosts[place]

    def take(self, key: Key) -> Line | None:
        """An idle connection that fits, the one last used first. For those in a slot."""
        for line, (other, _) in reversed(self._idle.items()):
            if other == key:
                self._remove(line)
                if line.session.ready:
                    return line
                return self.take(key)
        return None

    def make_room(self, place: Place) -> None:
        """Before another connection is opened: an idle one may be one too many now."""
        here = [line for line, (key, _) in self._idle.items() if key.place == place]
        if here and len(here) + self._working[place] > self._bounds.connections_per_host:
            self._dismiss(here[0])
        if self._idle and len(self._idle) + self.working > self._bounds.connections:
            self._dismiss(next(iter(self._idle)))

    def keep(self, key: Key, line: Line) -> None:
        """After a message: wait for the next, if this connection may have one."""
        if not line.session.ready or line.messages >= self._bounds.messages_per_connection:
            line.quit()
            return
        timer = asyncio.get_running_loop().call_later(self._bounds.idle_s, self._dismiss, line)
        self._idle[line] = key, timer

    def close(self) -> None:
        """Say goodbye on what is idle."""
        for line in list(self._idle):
            self._dismiss(line)

    def _dismiss(self, line: Line) -> None:
        self._remove(line)
        line.quit()

    def _remove(self, line: Line) -> None:
        _, timer = self._idle.pop(line)
        timer.cancel()


def _less(counter: Counter[Place], place: Place) -> int:
    """One less, and no entry for none: the number of hosts has no bound."""
    counter[place] -= 1
    left = counter[place]
    if not left:
        del counter[place]
    return left
