"""Takes what is due from the spool, has it carried, and has what became of it settled.

Decides nothing about mail itself: `schedule`, `destinations`, `aftermath` and `dsn` do. Holds a bounded number of
messages, however many are queued, and looks on past those whose destination has enough.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Protocol

from smtp_intercept.mta import settling
from smtp_intercept.mta.clock import Clocks, Step, corrected
from smtp_intercept.mta.courier import Parcel
from smtp_intercept.mta.destinations import Bounds, Destinations, Down, Full, Go
from smtp_intercept.mta.envelope import Entry, Outcome, Queued, State
from smtp_intercept.mta.faults import SpoolError
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.parts import Part, Route, Waiting, split
from smtp_intercept.mta.settling import Settling, Try

PAGE = 100  # messages taken at a look: some milliseconds of the loop's time
JOBS = 1_000  # everything begun and not settled: those in flight, and outcomes that wait for the disk
PACE = 4  # looking takes a fifth of the time at most, however much is due for destinations that have enough
FRESH_S = 3.0  # due for no longer than this: seen at every look, at least twice
LOOK_S = 1.0  # what the command line changes is seen within that time
SICK_S = 60.0  # a message that trips over a mistake of ours comes again after it

_LOG = logging.getLogger("tollbridge")


class Queue(settling.Queue, Protocol):
    """What the runner needs of the spool."""

    changed: asyncio.Event

    def due(
        self, now: float, limit: int, busy: Collection[str], after: tuple[float, str] | None = None
    ) -> list[Entry]: ...
    async def mend_times(self, step: Step | None, now: float, longest_s: float) -> None: ...


class Carrier(Protocol):
    """What the runner needs of the courier."""

    async def carry(self, parcel: Parcel) -> Sequence[Outcome]: ...


@dataclass(slots=True, eq=False)
class Runner:
    """Between the spool and the courier. ``settling`` has the clocks and chance: waits that are kept in memory are by
    the one that is never set."""

    queue: Queue
    courier: Carrier
    route: Route
    settling: Settling
    bounds: Bounds = field(default_factory=Bounds)
    _clocks: Clocks = field(default_factory=Clocks, init=False)
    _steps: list[Step] = field(default_factory=list, init=False)
    _destinations: Destinations = field(init=False)
    _waiting: Waiting = field(default_factory=Waiting, init=False)
    _busy: Counter[str] = field(default_factory=Counter, init=False)
    _jobs: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _carrying: set[asyncio.Task[Any]] = field(default_factory=set, init=False)
    # Where the last look ended, at what has become due lately and at all; None: there was no more.
    _fresh: tuple[float, str] | None = field(default=None, init=False)
    _after: tuple[float, str] | None = field(default=None, init=False)
    _passed_over: bool = field(default=False, init=False)
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _stop_within_s: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._destinations = Destinations(self.bounds)

    @property
    def in_hand(self) -> int:
        """Parts of messages that are held in memory."""
        return self._busy.total()

    @property
    def at_end(self) -> bool:
        """Whether the last look came to the queue's end; the next one begins in front."""
        return self._after is None

    async def run(self) -> None:
        """Until `stop`; returns when nothing is in flight."""
        loop = asyncio.get_running_loop()
        watch = loop.create_task(self._watch())
        try:
            await self._mend_times(None)
            while self._stop_within_s is None:
                began_at = loop.time()
                self._wake.clear()
                await self.mind_the_clock()
                self.look()
                await asyncio.sleep((loop.time() - began_at) * PACE)
                if self.at_end or len(self._jobs) >= JOBS:
                    await self._woken()
        finally:
            watch.cancel()
        await self._wind_up(self._stop_within_s)

    def stop(self, within_s: float) -> None:
        """Begin nothing new. What is in flight has ``within_s``; what has not ended then stays queued as it was."""
        self._stop_within_s = within_s
        self._wake.set()

    async def mind_the_clock(self) -> None:
        """Before a look: if it was set since the last one, the queue's times follow it."""
        if (step := self._clocks.step(self.settling.clock(), self.settling.steady())) is None:
            return
        _LOG.warning("the clock was set %+.0f s: the queue's times follow it", step.by_s)
        for part in self._waiting.served(lambda _: True):  # they are taken again, as the queue knows them then
            self._release(part.entry.id)
        if not self._jobs:
            self._steps.clear()
        self._steps.append(step)
        await self._mend_times(step)

    async def _mend_times(self, step: Step | None) -> None:
        longest_s = max(self.settling.schedule.longest_s, self._destinations.longest_s)
        while True:
            try:
                return await self.queue.mend_times(step, self.settling.clock(), longest_s)
            except SpoolError as failure:
                _LOG.error("the queue's times cannot be mended: %s", failure)
                await self.settling.pause(settling.AGAIN_S)

    def look(self) -> None:
        """Begin what may begin of the next page of the queue."""
        if len(self._jobs) >= JOBS:
            return
        now = self.settling.clock()
        # What has just become due does not wait behind what has waited long: that may be for a server that is down.
        self._fresh = self._page(now, self._fresh or (now - FRESH_S, ""))
        if self.at_end:
            self._passed_over = False
        self._after = self._page(now, self._after)

    def _page(self, now: float, after: tuple[float, str] | None) -> tuple[float, str] | None:
        """Begin what may begin of one page; the place of its last message, or None if that was the queue's last."""
        try:
            page = self.queue.due(now, PAGE, self._busy.keys(), after)
        except SpoolError as failure:
            _LOG.error("the queue cannot be read: %s", failure)
            return None
        for entry in page:
            self._take(entry)
        return (page[-1].due_at, page[-1].id) if len(page) == PAGE else None

    async def idle(self) -> None:
        """When nothing is in hand any more."""
        while self._jobs:
            await asyncio.wait(self._jobs)

    async def _watch(self) -> None:
        while True:
            await self.queue.changed.wait()
            self.queue.changed.clear()
            self._wake.set()

    async def _woken(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._wake.wait()

    async def _wind_up(self, within_s: float) -> None:
        self._waiting.clear()
        await _ended(self._jobs, within_s)
        for task in self._carrying:
            task.cancel()
        await _ended(self._jobs, settling.AGAIN_S)  # what came back is still written down
        for job in self._jobs:
            job.cancel()
        await _ended(self._jobs, settling.AGAIN_S)

    def _take(self, entry: Entry) -> None:
        if entry.returning:
            self._begin(entry, self.settling.give_back(entry))
            return
        parts, unroutable = split(entry, self.route)
        for queued, reason in unroutable:
            self._begin(entry, self._unroutable(entry, queued, reason))
        for part in parts:
            if self._placed(part):
                continue
            if self._waiting.add(part):
                self._busy[entry.id] += 1
            else:
                self._passed_over = True

    def _placed(self, part: Part) -> bool:
        """Whether it is on its way, or put off; or else has to wait."""
        now = self.settling.steady()
        admission = self._destinations.admission(part.hop, now, self.settling.chance())
        if isinstance(admission, Down) and part.by_hand:
            admission = Go()
        match admission:
            case Go():
                self._destinations.begin(part.hop, now)
                self._begin(part.entry, self._carry(part, now))
            case Down() as down:
                self._begin(part.entry, self._put_off(part, down))
            case Full():
                return False
        return True

    def _begin(self, entry: Entry, work: Coroutine[Any, Any, None]) -> None:
        self._busy[entry.id] += 1
        job = asyncio.get_running_loop().create_task(self._job(entry.id, work))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _job(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            if self._busy[name] == 1:
                await self.settling.flush(name)
        except Exception:
            _LOG.exception("message %s: a mistake of ours", name)
            await self.settling.pause(SICK_S)
        finally:
            self._release(name)
            self._advance()

    def _release(self, name: str) -> None:
        self._busy[name] -= 1
        if not self._busy[name]:
            del self._busy[name]
            self.settling.forget(name)

    def _advance(self) -> None:
        """Begin what waited for another to end."""
        for part in self._waiting.served(self._placed):
            self._release(part.entry.id)
        if self._passed_over and self._waiting.has_room:
            self._wake.set()

    async def _carry(self, part: Part, began_at: float) -> None:
        loop, outcomes, steps = asyncio.get_running_loop(), list[Outcome](), len(self._steps)
        left_at = loop.time()
        task = loop.create_task(self._attempt(part))
        self._carrying.add(task)
        try:
            outcomes = await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            return  # stopped: it stays queued as it was
        finally:
            self._carrying.discard(task)
            self._destinations.end(part.hop, outcomes, began_at, self.settling.steady())
        entry = corrected(part.entry, self._steps[steps:])
        await self._settle(entry, outcomes, Try(part.hop, loop.time() - left_at))

    async def _attempt(self, part: Part) -> list[Outcome]:
        entry, numbers = part.entry, tuple(each.number for each in part.queued)
        envelope = replace(entry.envelope, recipients=tuple(each.recipient for each in part.queued))
        parcel = Parcel(
            id=entry.id,
            next_hop=part.hop,
            envelope=envelope,
            numbers=numbers,
            content=lambda: self._content(entry.id),
            size_bytes=entry.content_bytes,
            origin=entry.origin,
        )
        try:
            return list(await self.courier.carry(parcel))
        except Exception:
            _LOG.exception("message %s: a mistake of ours", entry.id)
            return [Outcome(number, State.QUEUED, 0, "4.3.0", "Local error in delivery") for number in numbers]

    def _content(self, name: str) -> BinaryIO:
        """For the courier. Senders are told its OSError, which names no file."""
        try:
            return self.queue.content(name)
        except SpoolError as failure:
            _LOG.error("message %s cannot be read: %s", name, failure)
            raise OSError("the queue's disk failed") from failure

    async def _put_off(self, part: Part, down: Down) -> None:
        next_at = self.settling.clock() + down.until_at - self.settling.steady()
        outcomes = [replace(down.last, number=each.number, next_at=next_at, attempted=False) for each in part.queued]
        await self._settle(part.entry, outcomes, Try(part.hop))

    async def _unroutable(self, entry: Entry, queued: Queued, reason: str) -> None:
        outcome = Outcome(queued.number, State.QUEUED, 0, "4.3.5", f"No next hop: {reason}")
        await self._settle(entry, [outcome], Try(NextHop("none")))

    async def _settle(self, entry: Entry, outcomes: Sequence[Outcome], tried: Try) -> None:
        """One notice for all of a message's next hops that are in hand."""
        await self.settling.settle(entry, outcomes, tried, more=self._busy[entry.id] > 1)


async def _ended(tasks: Collection[asyncio.Task[Any]], within_s: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=within_s)
