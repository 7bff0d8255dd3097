"""Writes down what became of an attempt: the recipients' states, the notice to the sender, and the mail log.

One kind of I/O: the spool. While the disk takes nothing the outcomes wait here, for forgetting them would send twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, TypeAlias

from smtp_intercept.mta.aftermath import Ending, Moment, endings, returned, untold
from smtp_intercept.mta.drafts import Draft
from smtp_intercept.mta.dsn import compose
from smtp_intercept.mta.envelope import Entry, Envelope, Outcome, State
from smtp_intercept.mta.fate import Action, Fate, Notice, Original, Reporter
from smtp_intercept.mta.faults import NoSuchMessageError, SpoolError
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.nexthop import Protocol as Speech
from smtp_intercept.mta.quoted import bytes_needed
from smtp_intercept.mta.schedule import Schedule
from smtp_intercept.timestamp import timestamp
from smtp_intercept.wire import clip

AGAIN_S = 5.0  # a disk that is full or read-only is asked again so often

_LOG = logging.getLogger("tollbridge")
_WORDS = {State.DELIVERED: "delivered", State.QUEUED: "deferred", State.FAILED: "failed", State.DEAD: "dead"}

Log: TypeAlias = Callable[[dict[str, Any]], None]


class Queue(Protocol):
    """What settling needs of the spool."""

    def content(self, queue_id: str) -> BinaryIO: ...
    def draft(self) -> Draft: ...
    async def settle(
        self,
        queue_id: str,
        outcomes: Sequence[Outcome],
        notice: tuple[Draft, Envelope] | None,
        now: float,
    ) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Try:
    """Where an attempt went, and how long it took."""

    hop: NextHop
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Settling:
    """``clock`` gives UTC seconds, ``chance`` a number in [0, 1), ``token`` letters and digits that nobody guesses."""

    queue: Queue
    schedule: Schedule
    reporter: Reporter
    log: Log
    clock: Callable[[], float]
    chance: Callable[[], float]
    token: Callable[[], str]
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def settle(self, entry: Entry, outcomes: Sequence[Outcome], tried: Try) -> None:
        """Of the recipients that ``outcomes`` name; returns when it is on disk."""
        moment = Moment(self.clock(), self.chance(), final=tried.hop.protocol is Speech.LMTP)
        await self._commit(entry, endings(entry, outcomes, self.schedule, moment), moment, tried)

    async def give_back(self, entry: Entry) -> None:
        """An administrator wants its queued recipients failed, and the sender told."""
        moment = Moment(self.clock(), self.chance())
        await self._commit(entry, returned(entry, self.schedule, moment), moment, Try(NextHop("returned")))

    async def _commit(self, entry: Entry, ends: Sequence[Ending], moment: Moment, tried: Try) -> None:
        while True:
            try:
                settled, notice_id = await self._written(entry, ends, moment)
            except NoSuchMessageError:
                return  # deleted meanwhile
            except SpoolError as failure:
                _LOG.error("message %s: its outcome waits for the spool: %s", entry.id, failure)
                await self.pause(AGAIN_S)
            else:
                self.tell(entry, settled, notice_id, tried)
                return

    async def _written(
        self, entry: Entry, ends: Sequence[Ending], moment: Moment
    ) -> tuple[Sequence[Ending], str | None]:
        fates = [end.fate for end in ends if end.fate]
        try:
            notice = self._drafted(entry, fates) if fates else None
        except NoSuchMessageError:
            raise
        except SpoolError as failure:
            _LOG.error("message %s: no notice to its sender now: %s", entry.id, failure)
            ends, notice = untold(entry, ends, self.schedule, moment), None
        outcomes = [end.outcome for end in ends]
        return ends, await self.queue.settle(entry.id, outcomes, notice, self.clock())

    def notice(self, entry: Entry, fates: Sequence[Fate], content: BinaryIO) -> Notice:
        """To the sender, about ``fates`` (not empty); reads what it quotes."""
        failed = any(fate.action is Action.FAILED for fate in fates)
        head = content.read(bytes_needed(entry.envelope, entry.content_bytes, failed))
        original = Original(entry.id, entry.received_at, entry.origin.helo, entry.envelope, head, entry.content_bytes)
        return compose(original, fates, self.reporter, self.token(), self.clock())

    def _drafted(self, entry: Entry, fates: Sequence[Fate]) -> tuple[Draft, Envelope]:
        with self.queue.content(entry.id) as content:
            notice = self.notice(entry, fates, content)
        return drafted(self.queue, notice), notice.envelope

    def tell(self, entry: Entry, ends: Sequence[Ending], notice_id: str | None, tried: Try) -> None:
        """The mail log: each recipient, and the notice."""
        at = timestamp(self.clock())
        queued = {each.number: each for each in entry.queued}
        for end in ends:
            outcome, of = end.outcome, queued[end.outcome.number]
            if outcome.attempted or outcome.state is not State.QUEUED:
                said = {"time": at, "queue_id": entry.id, "sender": clip(entry.envelope.reverse_path)}
                self._write({"type": "delivery", **said, **_record(of.recipient.address, outcome, tried, of.attempts)})
        if notice_id is not None:
            told = {"queue_id": notice_id, "about": entry.id, "recipient": clip(entry.envelope.reverse_path)}
            actions = sorted({end.fate.action.value for end in ends if end.fate})
            self._write({"type": "notice", "time": at, **told, "actions": actions})

    def _write(self, record: Mapping[str, Any]) -> None:
        try:
            self.log(dict(record))
        except Exception as mistake:
            _LOG.error("message %s: the log failed: %s", record["queue_id"], type(mistake).__name__)


def drafted(queue: Queue, notice: Notice) -> Draft:
    """For the spool; nothing is left of it on `SpoolError`."""
    draft = queue.draft()
    try:
        draft.write(notice.content)
    except SpoolError:
        draft.abandon()
        raise
    return draft


def _record(address: str, outcome: Outcome, tried: Try, attempts: int) -> dict[str, Any]:
    return {
        "recipient": clip(address),
        "next_hop": clip(str(tried.hop)),
        "host": outcome.host,
        "row": tried.hop.row,
        "reply": clip(outcome.reply),
        "outcome": _WORDS[outcome.state],
        "seconds": round(tried.seconds, 3),
        "attempt": attempts + outcome.attempted,
    }
