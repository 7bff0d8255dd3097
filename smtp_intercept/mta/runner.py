"""Takes what is due from the spool, has it carried, and settles what became of it.

Decides nothing about mail itself: `schedule`, `destinations`, `aftermath` and `dsn` do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, BinaryIO, Protocol, TypeAlias

from smtp_intercept.mta.drafts import Draft
from smtp_intercept.mta.dsn import Reporter
from smtp_intercept.mta.envelope import Entry, Envelope, Outcome, Queued
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.schedule import Schedule

Route: TypeAlias = Callable[[Entry, Queued], NextHop]
Log: TypeAlias = Callable[[Mapping[str, Any]], None]


class Queue(Protocol):
    """What the runner needs of the spool."""

    def due(self, now: float, limit: int, busy: Collection[str]) -> list[Entry]: ...
    def next_due_at(self) -> float | None: ...
    def content(self, id: str) -> BinaryIO: ...
    def draft(self) -> Draft: ...
    async def settle(
        self, id: str, outcomes: Sequence[Outcome], notice: tuple[Draft, Envelope] | None, now: float
    ) -> str | None: ...


class Carrier(Protocol):
    """What the runner needs of the courier. Parcel is the courier's own word for a message and one next hop."""

    async def carry(self, parcel: Any) -> Sequence[Outcome]: ...


class Runner:
    """Between the spool and the courier."""

    def __init__(
        self,
        queue: Queue,
        courier: Carrier,
        route: Route,
        schedule: Schedule,
        reporter: Reporter,
        log: Log,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None: ...

    async def run(self) -> None:
        """Until `stop`; returns when nothing is in flight."""
        raise NotImplementedError

    def stop(self, within_s: float) -> None:
        """Begin nothing new. What is in flight has ``within_s``; what has not ended then stays queued as it was."""
        raise NotImplementedError
