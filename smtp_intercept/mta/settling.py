"""Writes down what became of an attempt: the recipients' states, the notice to the sender, and the mail log.

One kind of I/O: the spool. While the disk takes nothing the outcomes wait here, for forgetting them would send twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, TypeAlias

from smtp_intercept.mta.aftermath import Ending, Moment, endings, returned, untold
from smtp_intercept.mta.drafts import Draft
from smtp_intercept.mta.dsn import compose
from smtp_intercept.mta.envelope import Entry, Envelope, Outcome, State
from smtp_intercept.mta.fate import Action, Fate, Notice, Original, Reporter
from smtp_intercept.mta.faults import NoSuchMessageError, SpoolError
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.nexthop import Protocol as Speech
from smtp_intercept.mta.quota import Quota
from smtp_intercept.mta.quoted import bytes_needed
from smtp_intercept.mta.schedule import Schedule
from smtp_intercept.timestamp import timestamp
from smtp_intercept.wire import clip, common_spelling

HOLD_S = 600.0  # a refusal waits so long for those of the same message's other next hops: one notice tells them all
NOTICES_PER_HOUR = 100  # to one address, see `Quota`
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


def steady() -> float:
    """Seconds of a clock that is never set and counts while the box sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Held:
    """Endings that the sender has to hear of, kept back for one notice. Forgotten, they are only tried again."""

    entry: Entry
    since_at: float
    ends: list[Ending] = field(default_factory=list)
    tries: dict[int, Try] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settling:
    """``clock`` gives UTC seconds, ``chance`` a number in [0, 1), ``token`` letters and digits that nobody guesses;
    ``steady`` seconds of a clock that is never set."""

    queue: Queue
    schedule: Schedule
    reporter: Reporter
    log: Log
    clock: Callable[[], float]
    chance: Callable[[], float]
    token: Callable[[], str]
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    steady: Callable[[], float] = steady
    quota: Quota = field(default_factory=lambda: Quota(NOTICES_PER_HOUR))
    _held: dict[str, Held] = field(default_factory=dict, init=False)

    async def settle(self, entry: Entry, outcomes: Sequence[Outcome], tried: Try, *, more: bool = False) -> None:
        """Of the recipients that ``outcomes`` name; returns when it is on disk. ``more``: other parts of this message
        are in hand, and what its sender has to hear waits for them or for `flush`."""
        moment = Moment(self.clock(), self.chance(), final=tried.hop.protocol is Speech.LMTP)
        ends = endings(entry, outcomes, self.schedule, moment)
        tries = {end.outcome.number: tried for end in ends}
        held = self._held.get(entry.id)
        if more and not (held and self.steady() - held.since_at >= HOLD_S):
            ends = self._hold(entry, ends, tries)
        elif held:
            ends, tries = held.ends + ends, held.tries | tries
            self.forget(entry.id)
        if ends:
            await self._commit(entry, ends, moment, tries)

    async def flush(self, queue_id: str) -> None:
        """Nothing else of this message is in hand: what was held for it is written down."""
        if held := self._held.pop(queue_id, None):
            await self._commit(held.entry, held.ends, Moment(self.clock(), self.chance()), held.tries)

    def _hold(self, entry: Entry, ends: Sequence[Ending], tries: Mapping[int, Try]) -> list[Ending]:
        """Those that cannot wait: what was delivered must never be sent again."""
        waiting = [end for end in ends if end.fate and end.outcome.state is not State.DELIVERED]
        if waiting:
            held = self._held.setdefault(entry.id, Held(entry, self.steady()))
            held.ends += waiting
            held.tries |= {end.outcome.number: tries[end.outcome.number] for end in waiting}
        return [end for end in ends if end not in waiting]

    def forget(self, queue_id: str) -> None:
        """What is held for it is found out anew."""
        self._held.pop(queue_id, None)

    async def give_back(self, entry: Entry) -> None:
        """An administrator wants its queued recipients failed, and the sender told."""
        moment = Moment(self.clock(), self.chance())
        ends = returned(entry, self.schedule, moment)
        await self._commit(entry, ends, moment, dict.fromkeys(numbers(ends), Try(NextHop("returned"))))

    async def _commit(self, entry: Entry, ends: Sequence[Ending], moment: Moment, tries: Mapping[int, Try]) -> None:
        while True:
            try:
                settled, notice_id = await self._written(entry, ends, moment)
            except NoSuchMessageError:
                return  # deleted meanwhile
            except SpoolError as failure:
                _LOG.error("message %s: its outcome waits for the spool: %s", entry.id, failure)
                await self.pause(AGAIN_S)
            else:
                self.tell(entry, settled, notice_id, tries)
                return

    async def _written(
        self, entry: Entry, ends: Sequence[Ending], moment: Moment
    ) -> tuple[Sequence[Ending], str | None]:
        fates = [end.fate for end in ends if end.fate]
        if fates and not self.quota.take(entry.envelope.reverse_path, self.steady()):
            _LOG.warning("message %s: its sender has had too many notices within the hour; it waits", entry.id)
            ends, fates = untold(entry, ends, self.schedule, moment), []
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

    def tell(self, entry: Entry, ends: Sequence[Ending], notice_id: str | None, tries: Mapping[int, Try]) -> None:
        """The mail log: each recipient, and the notice. ``tries`` by the recipients' numbers."""
        at = timestamp(self.clock())
        queued = {each.number: each for each in entry.queued}
        for end in ends:
            outcome, of = end.outcome, queued[end.outcome.number]
            if outcome.attempted or outcome.state is not State.QUEUED:
                said = {"time": at, "queue_id": entry.id, "sender": _logged(entry.envelope.reverse_path)}
                self._write(
                    {
                        "type": "delivery",
                        **said,
                        **_record(of.recipient.address, outcome, tries[outcome.number], of.attempts),
                    }
                )
        if notice_id is not None:
            told = {"queue_id": notice_id, "about": entry.id, "recipient": _logged(entry.envelope.reverse_path)}
            actions = sorted({end.fate.action.value for end in ends if end.fate})
            self._write({"type": "notice", "time": at, **told, "actions": actions})

    def _write(self, record: Mapping[str, Any]) -> None:
        try:
            self.log(dict(record))
        except Exception as mistake:
            _LOG.error("message %s: the log failed: %s", record["queue_id"], type(mistake).__name__)


def numbers(ends: Sequence[Ending]) -> list[int]:
    """Whom they are of."""
    return [end.outcome.number for end in ends]


def drafted(queue: Queue, notice: Notice) -> Draft:
    """For the spool; nothing is left of it on `SpoolError`."""
    draft = queue.draft()
    try:
        draft.write(notice.content)
    except SpoolError:
        draft.abandon()
        raise
    return draft


def _logged(mailbox: str) -> str:
    return clip(common_spelling(mailbox.encode(errors="surrogateescape")))


def _record(address: str, outcome: Outcome, tried: Try, attempts: int) -> dict[str, Any]:
    return {
        "recipient": _logged(address),
        "next_hop": clip(str(tried.hop)),
        "host": outcome.host,
        "row": tried.hop.row,
        "reply": clip(outcome.reply),
        "outcome": _WORDS[outcome.state],
        "seconds": round(tried.seconds, 3),
        "attempt": attempts + outcome.attempted,
    }
