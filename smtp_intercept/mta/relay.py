"""`mta.queue = "relay"`: the client's message goes to the relay while the client waits, and is not kept here.

The client's 250 is said after the relay's. Only what one reply cannot express stays in the spool: recipients put off
while others were taken, and a notice that the relay did not take.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol

from smtp_intercept.answers import Answer
from smtp_intercept.mta import settling
from smtp_intercept.mta.aftermath import Ending, Moment, endings
from smtp_intercept.mta.courier import Parcel
from smtp_intercept.mta.drafts import Draft
from smtp_intercept.mta.envelope import OURSELVES, Entry, Envelope, Origin, Outcome, Queued, State
from smtp_intercept.mta.fate import Notice
from smtp_intercept.mta.faults import NotTakenError
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.nexthop import Protocol as Speech
from smtp_intercept.mta.parts import RECIPIENTS
from smtp_intercept.mta.printable import one_ascii_line
from smtp_intercept.mta.runner import Carrier
from smtp_intercept.mta.settling import Settling, Try, drafted

# A client waits for 10 minutes after its data (RFC 5321 §4.5.3.2.6); with one that is gone the message comes twice.
PATIENCE_S = 500.0
NOTICE_S = 30.0  # of that for a notice; then it is queued
TEXT_CHARACTERS = 400  # of the relay's reply in ours: a reply line has 512 (RFC 5321 §4.5.3.1.5)


class Queue(settling.Queue, Protocol):
    """What the relay needs of the spool."""

    async def enqueue(self, draft: Draft, origin: Origin, envelope: Envelope, now: float) -> str: ...


@dataclass(frozen=True, slots=True)
class Relay:
    """Stands in the spool's place at the receiving side. ``hop`` is the relay, ``spool`` where the exceptions go."""

    spool: Queue
    courier: Carrier
    hop: NextHop
    settling: Settling
    patience_s: float = PATIENCE_S

    def draft(self) -> Draft:
        """As `Spool.draft`."""
        return self.spool.draft()

    async def enqueue(self, draft: Draft, origin: Origin, envelope: Envelope, now: float) -> str:
        """Hand it over: an id for the reply and the log once the relay has it. `NotTakenError`, or `SpoolError` as of
        `Spool.enqueue`. The draft is used up either way."""
        queued = tuple(Queued(number, each, State.QUEUED, 0, now) for number, each in enumerate(envelope.recipients))
        entry = Entry(self.settling.token(), now, draft.size_bytes, origin, envelope, queued)
        clock = asyncio.get_running_loop().time
        began_at = clock()
        try:
            outcomes = await self._carried(entry, draft.content, self.patience_s)
            refuse_untaken(outcomes)
            moment = Moment(self.settling.clock(), 0.0, final=self.hop.protocol is Speech.LMTP)
            ends = endings(entry, outcomes, self.settling.schedule, moment)
            notice_id = await self._tell_sender(entry, ends, draft)
            await self._keep(entry, ends, draft)
        finally:
            draft.abandon()
        tried = Try(self.hop, clock() - began_at)
        self.settling.tell(entry, ends, notice_id, dict.fromkeys(settling.numbers(ends), tried))
        return entry.id

    async def _carried(self, entry: Entry, content: Callable[[], BinaryIO], patience_s: float) -> list[Outcome]:
        """As many recipients at a time as every server takes."""
        numbers = range(len(entry.queued))
        outcomes: list[Outcome] = []
        try:
            async with asyncio.timeout(patience_s):
                for start in range(0, len(numbers), RECIPIENTS):
                    outcomes += await self._part(entry, tuple(numbers[start : start + RECIPIENTS]), content)
        except TimeoutError:
            late = numbers[len(outcomes) :]
            outcomes += [Outcome(number, State.QUEUED, 0, "4.4.2", "The relay is too slow") for number in late]
        return outcomes

    async def _part(self, entry: Entry, numbers: tuple[int, ...], content: Callable[[], BinaryIO]) -> Sequence[Outcome]:
        recipients = tuple(entry.envelope.recipients[number] for number in numbers)
        envelope = replace(entry.envelope, recipients=recipients)
        parcel = Parcel(entry.id, self.hop, envelope, numbers, content, entry.content_bytes, entry.origin)
        return await self.courier.carry(parcel)

    async def _tell_sender(self, entry: Entry, ends: Sequence[Ending], draft: Draft) -> str | None:
        """The id of the notice about those that were refused, or taken if the sender wants to know."""
        fates = [end.fate for end in ends if end.fate and end.outcome.state is not State.QUEUED]
        if not fates:
            return None
        with draft.content() as content:
            notice = self.settling.notice(entry, fates, content)
        return await self._notice_handed_over(notice)

    async def _notice_handed_over(self, notice: Notice) -> str:
        now, size_bytes = self.settling.clock(), len(notice.content)
        queued = (Queued(0, notice.envelope.recipients[0], State.QUEUED, 0, now),)
        entry = Entry(self.settling.token(), now, size_bytes, OURSELVES, notice.envelope, queued)
        outcomes = await self._carried(entry, lambda: io.BytesIO(notice.content), NOTICE_S)
        if all(outcome.state is State.DELIVERED for outcome in outcomes):
            return entry.id
        return await self.spool.enqueue(drafted(self.spool, notice), OURSELVES, notice.envelope, now)

    async def _keep(self, entry: Entry, ends: Sequence[Ending], draft: Draft) -> None:
        """Who was put off while others were taken; and who was refused when nobody can be told: the queue keeps it."""
        kept = [end.outcome.number for end in ends if end.outcome.state in (State.QUEUED, State.DEAD)]
        if kept:
            recipients = tuple(entry.envelope.recipients[number] for number in kept)
            envelope = replace(entry.envelope, recipients=recipients)
            await self.spool.enqueue(draft, entry.origin, envelope, self.settling.clock())


def refuse_untaken(outcomes: Sequence[Outcome]) -> None:
    """`NotTakenError` unless a recipient at least was taken. Put off for one is put off for all: the client comes
    again, and is refused then for whom it has to be."""
    states = {outcome.state for outcome in outcomes}
    if State.DELIVERED in states:
        return
    worst = State.QUEUED if State.QUEUED in states else State.FAILED
    said = next(outcome for outcome in outcomes if outcome.state is worst)
    code = 451 if worst is State.QUEUED else said.code if said.code >= 500 else 554
    raise NotTakenError(Answer(code, f"{said.status or f'{code // 100}.0.0'} {_text(said)}"))


def _text(said: Outcome) -> str:
    """The relay's words without its code and status, which stand in front of ours."""
    text = one_ascii_line(said.reply, TEXT_CHARACTERS)
    for head in (str(said.code), said.status):
        text = text.removeprefix(head).lstrip()
    return text or "The relay did not take it"
