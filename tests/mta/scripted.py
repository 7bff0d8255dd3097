"""A courier that says what the test wants, and a runner whose clock is the test's; the spool is the real one."""

from __future__ import annotations

import asyncio
import email
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, TypeAlias

from smtp_intercept.direction import Direction, recipient_domain
from smtp_intercept.mta.courier import Parcel
from smtp_intercept.mta.destinations import Bounds
from smtp_intercept.mta.envelope import OURSELVES, Entry, Envelope, Origin, Outcome, Queued, Recipient, State
from smtp_intercept.mta.fate import Reporter
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.runner import Runner
from smtp_intercept.mta.schedule import Schedule
from smtp_intercept.mta.settling import Settling
from smtp_intercept.mta.spool import Spool

START = 1_795_000_000.0
ORIGIN = Origin(("192.0.2.1", 4000), ("198.51.100.1", 25), Direction.OUTGOING, helo="client.example.com")
CONTENT = b"From: alice@example.com\r\nSubject: Hello\r\n\r\nGood morning\r\n"

Answer: TypeAlias = Callable[[Parcel, int], Outcome | Awaitable[Outcome]]


def delivered(parcel: Parcel, number: int) -> Outcome:
    return Outcome(number, State.DELIVERED, 250, "2.0.0", "250 2.0.0 Ok", "mx.example.org")


def refused(parcel: Parcel, number: int) -> Outcome:
    return Outcome(number, State.FAILED, 550, "5.1.1", "550 5.1.1 No such user", "mx.example.org")


def greylisted(parcel: Parcel, number: int) -> Outcome:
    return Outcome(number, State.QUEUED, 450, "4.7.1", "450 4.7.1 Come back later", "mx.example.org")


def down(parcel: Parcel, number: int) -> Outcome:
    return Outcome(number, State.QUEUED, 0, "4.4.1", "192.0.2.7:25: Connection refused", "mx.example.org")


@dataclass
class Courier:
    """Answers by the recipient's domain; ``carried`` is (time, recipients) of every parcel."""

    clock: Callable[[], float]
    answers: dict[str, Answer] = field(default_factory=dict)
    carried: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    notices: list[Message] = field(default_factory=list)
    flying: int = 0
    most_flying: int = 0

    async def carry(self, parcel: Parcel) -> list[Outcome]:
        addresses = tuple(each.address for each in parcel.envelope.recipients)
        self.carried.append((self.clock(), addresses))
        self.flying += 1
        self.most_flying = max(self.flying, self.most_flying)
        try:
            if parcel.origin == OURSELVES:
                with parcel.content() as content:
                    self.notices.append(email.message_from_bytes(content.read()))
            await asyncio.sleep(0)
            return [await self._outcome(parcel, *each) for each in zip(parcel.numbers, addresses, strict=True)]
        finally:
            self.flying -= 1

    async def _outcome(self, parcel: Parcel, number: int, address: str) -> Outcome:
        answer = self.answers.get(address.rpartition("@")[2], delivered)(parcel, number)
        return answer if isinstance(answer, Outcome) else await answer

    def attempts(self, address: str) -> list[float]:
        """Seconds from the start."""
        return [at - START for at, addresses in self.carried if address in addresses]


class Office:
    """Spool, courier and runner; the time is ``now``, which passes by itself if it is ``ticking``."""

    def __init__(
        self, directory: Path, schedule: Schedule | None = None, bounds: Bounds | None = None, ticking: bool = False
    ) -> None:
        self.now = START
        self._ticks = time.monotonic if ticking else lambda: 0.0
        self._began = self._ticks()
        self.spool = Spool.open(directory, reserve_bytes=0)
        self.courier = Courier(self.steady)
        self.log: list[dict[str, Any]] = []
        tokens = iter(range(10**9))
        self.settling = Settling(
            queue=self.spool,
            schedule=schedule or Schedule(jitter=0.0),
            reporter=Reporter("gate.example.net"),
            log=self.log.append,
            clock=self.clock,
            chance=lambda: 0.0,
            token=lambda: f"token{next(tokens)}",
            steady=self.steady,
        )
        self.set_s = 0.0
        self._bounds = bounds or Bounds()
        self.start_runner()

    def start_runner(self) -> None:
        """A new one, as when the process was started again."""
        self.runner = Runner(self.spool, self.courier, by_domain, self.settling, self._bounds)

    def clock(self) -> float:
        """The wall's, which may have been set by ``set_s`` against the true time."""
        return self.steady() + self.set_s

    def steady(self) -> float:
        return self.now + self._ticks() - self._began

    async def post(self, *recipients: str | Recipient, sender: str = "alice@example.com", **envelope: Any) -> str:
        """A message arrives now."""
        draft = self.spool.draft()
        draft.write(CONTENT)
        all_ = tuple(each if isinstance(each, Recipient) else Recipient(each) for each in recipients)
        return await self.spool.enqueue(draft, ORIGIN, Envelope(sender, all_, **envelope), self.clock())

    async def look(self) -> None:
        """Look at the queue until there is nothing to begin, and nothing in hand."""
        async with asyncio.timeout(20):
            while True:
                begun = len(self.courier.carried), len(self.log)
                self.runner.look()
                await self.runner.idle()
                if begun == (len(self.courier.carried), len(self.log)) and self.runner.at_end:
                    return

    async def until(self, seconds: float) -> None:
        """Let the time pass, from one message that becomes due to the next."""
        end_at = START + seconds
        while (due_at := self.spool.next_due_at()) is not None and due_at <= end_at:
            self.now = max(self.now, due_at)
            await self.look()
        self.now = end_at

    def entries(self) -> list[Entry]:
        return list(self.spool.entries())

    def outcomes(self) -> list[tuple[str, str]]:
        """(recipient, outcome) of the log's deliveries."""
        return [(each["recipient"], each["outcome"]) for each in self.log if each["type"] == "delivery"]


def by_domain(entry: Entry, queued: Queued) -> NextHop:
    return NextHop("R8", domain=recipient_domain(queued.recipient.address) or "")
