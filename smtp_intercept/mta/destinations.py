"""Which next hops are worth an attempt now, and how many at once: what is learnt from one message spares the others.

Pure. A destination that cannot be reached is left alone for a while and then tried with one message. One that has not
shown yet that it answers gets little, for a thousand dead ones must not take every connection.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from smtp_intercept.mta.envelope import Outcome, State
from smtp_intercept.mta.nexthop import NextHop

_What = TypeVar("_What")

PROBE_S = 5.0  # a destination that says nothing for so long is still down for the others
SPREAD = 0.25  # of the wait, on top, by chance: those that were put off together do not come back together
REMEMBERED = 10_000  # destinations known to be up, and as many known to be down; the longest unheard of is forgotten
# "Service not available, closing transmission channel" (RFC 5321 §3.8): what it says of one message holds for all.
_CLOSING = 421
FIRST_S = 60.0  # a server that restarts
RETRY_S = 1_620.0  # then a failing message has its own second attempt


@dataclass(frozen=True, slots=True)
class Bounds:
    """Parcels in flight at once, and the waits for a destination that is down."""

    total: int = 200  # two for each of the courier's 100 connections: the next one is there when one ends
    each: int = 20  # for one destination: two for each of its 10 connections
    unproven: int = 50  # to all together that have not answered yet: half of the connections are for those that do
    unproven_each: int = 2  # Postfix begins with 5
    first_s: float = FIRST_S
    most_s: float = RETRY_S

    @classmethod
    def of(cls, connections: int, connections_per_host: int, retry_s: float = RETRY_S) -> Bounds:
        """That go with the courier's; nobody rests for longer than a message's first wait."""
        unproven = max(connections // 2, 1)
        total, each = 2 * connections, 2 * connections_per_host
        return cls(total, each, unproven, min(2, unproven), min(FIRST_S, retry_s), retry_s)


@dataclass(frozen=True, slots=True)
class Go:
    """Try it now."""


@dataclass(frozen=True, slots=True)
class Full:
    """Later: as many as may be are on their way, to it or at all."""


@dataclass(frozen=True, slots=True)
class Down:
    """Not before ``until_at``; ``last`` is what the attempt that showed it has said. ``since_at``: of this wait. Times
    are of a clock that is never set: a day's step backward must not be a day's wait."""

    until_at: float
    since_at: float
    wait_s: float
    last: Outcome


Admission: TypeAlias = Go | Full | Down


class Destinations:
    """What is known of next hops. Every `Go` is followed by `begin` and, when the parcel is back, `end`."""

    def __init__(self, bounds: Bounds = Bounds()) -> None:
        self.bounds = bounds
        self._flying: Counter[NextHop] = Counter()
        self._total = self._unproven = 0
        self._up: OrderedDict[NextHop, None] = OrderedDict()
        self._down: OrderedDict[NextHop, Down] = OrderedDict()
        self._probed_at: dict[NextHop, float] = {}  # when one left to see whether it is still down

    @property
    def longest_s(self) -> float:
        """Nobody is put off for longer."""
        return self.bounds.most_s * (1 + SPREAD)

    @property
    def full(self) -> bool:
        """Nothing at all may begin."""
        return self._total >= self.bounds.total

    def admission(self, hop: NextHop, now: float, fraction: float) -> Admission:
        """Whether a parcel may go to ``hop``; ``fraction`` in [0, 1) spreads those that are put off."""
        if down := self._down.get(hop):
            probed_at = self._probed_at.get(hop, -math.inf)
            if now < down.until_at:
                return replace(down, until_at=down.until_at + fraction * down.wait_s * SPREAD)
            if now < probed_at + PROBE_S:
                return Full()
            if probed_at > -math.inf:
                return replace(down, until_at=now + down.wait_s * (1 + fraction * SPREAD))
        return Full() if self._crowded(hop) else Go()

    def begin(self, hop: NextHop, now: float) -> None:
        """A parcel leaves."""
        if hop in self._down:
            self._probed_at[hop] = now
        self._flying[hop] += 1
        self._total += 1
        self._unproven += hop not in self._up

    def end(self, hop: NextHop, outcomes: Sequence[Outcome], began_at: float, now: float) -> None:
        """It is back; no outcomes, or only our own: nothing was learnt."""
        self._flying[hop] -= 1
        self._total -= 1
        if not self._flying[hop]:
            del self._flying[hop]
        if began_at >= self._probed_at.get(hop, math.inf):
            del self._probed_at[hop]
        if all(map(_ours, outcomes)):
            pass
        elif unreachable(outcomes):
            self._failed(hop, outcomes[0], began_at, now)
        else:
            self._answered(hop)
        self._unproven = sum(count for flying, count in self._flying.items() if flying not in self._up)

    def _crowded(self, hop: NextHop) -> bool:
        if self.full or self._flying[hop] >= self.bounds.each:
            return True
        many = self._flying[hop] >= self.bounds.unproven_each or self._unproven >= self.bounds.unproven
        return hop not in self._up and many

    def _answered(self, hop: NextHop) -> None:
        self._down.pop(hop, None)
        _remember(self._up, hop, None)

    def _failed(self, hop: NextHop, last: Outcome, began_at: float, now: float) -> None:
        self._up.pop(hop, None)
        before = self._down.get(hop)
        if before is not None and began_at < before.since_at:
            return  # it left before this was known, and says nothing new
        wait_s = min(before.wait_s * 2, self.bounds.most_s) if before else self.bounds.first_s
        _remember(self._down, hop, Down(now + wait_s, now, wait_s, last))


def unreachable(outcomes: Sequence[Outcome]) -> bool:
    """Whether the destination rather than the message is to blame: no recipient got an answer but 421."""
    return all(each.state is State.QUEUED and each.code in (0, _CLOSING) for each in outcomes)


def _ours(outcome: Outcome) -> bool:
    """Not an answer, and no network: our own system failed (RFC 3463 §3.4), and one message's content that cannot be
    read must not hold up the others'."""
    return not outcome.code and outcome.status.startswith("4.3.")


def _remember(known: OrderedDict[NextHop, _What], hop: NextHop, what: _What) -> None:
    known[hop] = what
    known.move_to_end(hop)
    if len(known) > REMEMBERED:
        known.popitem(last=False)
