"""A message's recipients by next hop, and the parts of messages that wait in memory for others to end.

Pure. A few wait for each destination that has enough in flight, so that the next one is there when one ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from smtp_intercept.mta.envelope import Entry, Queued
from smtp_intercept.mta.nexthop import NextHop

RECIPIENTS = 100  # of one part: every server takes as many (RFC 5321 §4.5.3.1.8)
WAITING_EACH = 40  # for one destination: twice as many as may be in flight
WAITING = 400  # and for all of them

Route: TypeAlias = Callable[[Entry, Queued], NextHop]


@dataclass(frozen=True, slots=True)
class Part:
    """The recipients of one message that go to one next hop."""

    entry: Entry
    hop: NextHop
    queued: tuple[Queued, ...]

    @property
    def by_hand(self) -> bool:
        """Whether an administrator wants it tried, see `Queued`."""
        return any(each.next_at < self.entry.received_at for each in self.queued)


def split(entry: Entry, route: Route) -> tuple[list[Part], list[tuple[Queued, str]]]:
    """The parts, and each recipient without a next hop with the reason: `route` raised ValueError."""
    hops: dict[NextHop, list[Queued]] = {}
    unroutable: list[tuple[Queued, str]] = []
    for queued in entry.queued:
        try:
            hops.setdefault(route(entry, queued), []).append(queued)
        except ValueError as mistake:
            unroutable.append((queued, str(mistake)))
    parts = [
        Part(entry, hop, tuple(queued[start : start + RECIPIENTS]))
        for hop, queued in hops.items()
        for start in range(0, len(queued), RECIPIENTS)
    ]
    return parts, unroutable


@dataclass(slots=True, eq=False)
class Waiting:
    """First come, first served for each next hop."""

    _parts: dict[NextHop, deque[Part]] = field(default_factory=dict)
    _count: int = 0

    def add(self, part: Part) -> bool:
        """False if there is no room."""
        if self._count >= WAITING or len(self._parts.get(part.hop, ())) >= WAITING_EACH:
            return False
        self._parts.setdefault(part.hop, deque()).append(part)
        self._count += 1
        return True

    def served(self, serve: Callable[[Part], bool]) -> Iterator[Part]:
        """Those that ``serve`` has taken; of each next hop in their order, until it takes one no more."""
        for hop in list(self._parts):
            waiting = self._parts[hop]
            while waiting and serve(waiting[0]):
                self._count -= 1
                yield waiting.popleft()
            if not waiting:
                del self._parts[hop]

    @property
    def has_room(self) -> bool:
        """Whether it is worth looking for more: half of the room for one of them is free."""
        return self._count < WAITING and min(map(len, self._parts.values()), default=0) < WAITING_EACH // 2

    def clear(self) -> None:
        self._parts.clear()
        self._count = 0
