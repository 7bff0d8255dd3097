"""A receiving session whose mail rules decide about: what is refused, thrown away or changed before it is kept.

One kind of I/O: as `receiver`. Content that rules must see first is held beside the spool and copied into it; of a
message whose recipients fare differently those go for whom it is thrown away, but it is refused as a whole.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from smtp_intercept.answers import HEADER_TOO_LARGE, MAIL_OK, TAKEN, Answer
from smtp_intercept.inspect.held import Held
from smtp_intercept.look import Look
from smtp_intercept.mta.esmtp import RefusedError, read_mail, read_recipient
from smtp_intercept.mta.faults import SpoolError, SpoolFullError
from smtp_intercept.mta.receiver import Receiver, Submission, refusal_of, to_its_end
from smtp_intercept.mta.replies import NOT_KEPT
from smtp_intercept.mta.services import Draft
from smtp_intercept.policy import (
    Ask,
    Body,
    Discard,
    Later,
    Need,
    Notes,
    Question,
    Rewritten,
    Ruling,
    Stage,
    answer_to,
)
from smtp_intercept.wire import parse_path, safe_text


def _nothing() -> None:
    """There is nobody to be told."""


@dataclass(slots=True)
class Ruled(Submission):
    """With what rules have said: of each recipient that was taken, in order. ``gone``: nobody gets it."""

    rulings: list[Ruling] = field(default_factory=list)
    gone: bool = False
    need: Need = Need.NOTHING

    @property
    def tokens(self) -> frozenset[Any]:
        """Of the recipients that are left."""
        return frozenset(each.token for each in self.rulings if each.token is not None and each.verdict != Discard())


class Kept:
    """A draft whose content is looked at on its way, and held back if it must be."""

    def __init__(self, draft: Draft, need: Need, header_bytes: int, spill: Callable[[], int]) -> None:
        self.draft, self.look = draft, Look(header_bytes)
        self._held = Held(spill) if need is Need.HOLD else None
        self._received: bytes | None = None  # our own line: the first that is written

    def write(self, data: bytes) -> None:
        """`SpoolFullError` if it cannot be held."""
        if self._received is None:
            self._received = data
            if self._held is None:
                self.draft.write(data)
            return
        self.look.read(data)
        if self._held is None:
            self.draft.write(data)
            return
        try:
            self._held.add(data)
        except OSError as error:
            raise SpoolFullError(f"content cannot be held: {error.strerror}") from error

    def octets(self) -> Iterator[bytes]:
        """What is held."""
        return iter(()) if self._held is None else self._held.octets()

    def fill(self, edit: Callable[[bytes], bytes] | None, body: Body | None) -> None:
        """The draft, with what was held. May wait for the disk; `SpoolError` as `Draft.write`."""
        if self._held is None:
            return
        self.draft.write(self._received or b"")
        for piece in self._held.pieces(edit, body=body)[1]:
            self.draft.write(piece)
        self._held.close()

    def lend(self) -> int:
        """As `Held.lend`."""
        if self._held is None:
            raise OSError(errno.ENOENT, "nothing is held")
        return self._held.lend()

    def abandon(self) -> None:
        """As `Draft.abandon`."""
        if self._held is not None:
            self._held.close()
        self.draft.abandon()


class Judged(Receiver):
    """One session. ``ask`` decides; ``later`` answers what it does not at once. ``alone`` are the rules without their
    filters, which a message goes through once; ``over`` is called when the session is."""

    def __init__(
        self,
        *given: Any,
        ask: Ask,
        later: Later | None,
        spill: Callable[[], int],
        alone: Ask | None = None,
        over: Callable[[], None] = _nothing,
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self._ask, self._later, self._spill = ask, later, spill
        self._alone, self.over = alone or ask, over
        self._argument = b""
        self._question, self._ruling = Question(Stage.CONNECT), Ruling()
        self.notes = Notes()  # of what came before any message

    def fields(self) -> dict[str, object]:
        return {**super().fields(), **self.notes.fields()}

    def _create_envelope(self) -> Ruled:
        return Ruled()

    async def _judge(self, stage: Stage, notes: Notes, **known: Any) -> Answer | None:
        """What the client is told; None: it goes on."""
        self._question = replace(self._question, stage=stage, **known)
        ruling = self._ask(self._question)
        if ruling is None:
            ruling = await self._told(self._question)
        self._ruling = ruling
        notes.take(ruling)
        return answer_to(ruling.verdict, stage)

    async def _told(self, question: Question) -> Ruling:
        assert self._later is not None
        told: asyncio.Future[Ruling] = self.loop.create_future()
        self._later(question, lambda ruling: None if told.done() else told.set_result(ruling))
        self._timeout_handle.cancel()  # whose time it is
        try:
            async with asyncio.timeout(self._limits.decide_s):
                return await told
        except TimeoutError:
            return self._services.silence
        finally:
            self._reset_timeout()

    async def _handle_client(self) -> None:
        try:
            refusal = await self._judge(Stage.CONNECT, self.notes)
        except asyncio.CancelledError:
            refusal = None
        if refusal is not None:
            self._leave(replace(refusal, closes=True))
            self._ended()
            return
        await super()._handle_client()

    async def _greet(self, hostname: str | None, keywords: tuple[str, ...], *, extended: bool = False) -> None:
        if hostname:
            helo = safe_text(hostname.encode(errors="surrogateescape"))
            if answer := await self._judge(Stage.HELO, self.notes, helo=helo):
                await self.answer(answer)
                return
        await super()._greet(hostname, keywords, extended=extended)

    async def _mail(self, arg: str) -> Answer:
        answer = await super()._mail(arg)
        if answer is not MAIL_OK:
            return answer
        told, argument = self.envelope.told, arg.encode(errors="surrogateescape")
        named = {"sender": self.envelope.mail.reverse_path, "parameters": argument.upper(), "argument": argument}
        answered = await self._judge(Stage.MAIL, told.notes, **named)
        if answered is None or answered is MAIL_OK:
            self.envelope.gone = answered is MAIL_OK
            return answer
        told.refuse(answered.reply)
        self._set_post_data_state()
        return answered

    async def _admission(self, mailbox: str) -> Answer | None:
        """The box's own refusal, the rules', then the server's; nobody is asked for what is thrown away."""
        here, submission = self._here(), self.envelope
        if refusal := self._services.admission(here, mailbox):
            return refusal
        self._ruling = Ruling(Discard())
        if not submission.gone:
            number = len(submission.recipients) + 1
            named = {"recipient": mailbox, "recipients": number, "argument": self._argument}
            answer = await self._judge(Stage.RCPT, submission.told.notes, **named)
            if answer is not None and answer.code >= 300:
                return answer
        thrown_away = self._ruling.verdict == Discard()
        return None if thrown_away else await self._services.verify(here, mailbox)

    async def _recipient(self, arg: str) -> Answer:
        self._argument = arg.encode(errors="surrogateescape")
        answer = await super()._recipient(arg)
        if answer.code < 300:
            self.envelope.rulings.append(self._ruling)
        return answer

    async def smtp_DATA(self, arg: str | None) -> None:
        submission = self.envelope
        if submission.recipients and not arg and submission.tokens:
            named = {"recipient": "", "recipients": len(submission.recipients), "tokens": submission.tokens}
            answer = await self._judge(Stage.DATA, submission.told.notes, **named)
            if answer is not None and answer.code >= 400:
                submission.told.refuse(answer.reply)
                await self.answer(answer)
                return
            submission.gone, submission.need = answer is not None, self._ruling.need
        await super().smtp_DATA(arg)

    async def _take(self, draft: Draft) -> None:
        need = self.envelope.need
        await super()._take(Kept(draft, need, self._limits.header_bytes, self._spill) if need else draft)

    async def _keep(self, draft: Any) -> Answer:
        submission, edit, body = self.envelope, None, None
        if isinstance(draft, Kept):
            answer = await self._weigh(draft)
            if answer is not None and answer is not TAKEN:
                draft.abandon()
                return self._finish(answer, "")
            submission.gone, edit = submission.gone or answer is TAKEN, self._ruling.edit
            body = self._ruling.body
            self._throw_away()
        left = [r for r, ruling in zip(submission.recipients, submission.rulings, strict=True) if _gets(ruling)]
        if submission.gone or not left:
            draft.abandon()
            if body is not None:
                body.close()
            submission.told.discarded = True
            return self._finish(TAKEN, "")
        submission.recipients[:] = left
        if not isinstance(draft, Kept):
            return await super()._keep(draft)
        return await self._fill(draft, edit, body)

    async def _weigh(self, kept: Kept) -> Answer | None:
        """With the content."""
        header = kept.look.header(dotted=False)
        if header is None:
            return HEADER_TOO_LARGE if self.envelope.need is Need.HOLD else None
        known = {"header": header, "size_bytes": self.envelope.told.size_bytes, "tokens": self.envelope.tokens}
        content = {"content": kept.octets, "lend": kept.lend}
        answer = await self._judge(Stage.MESSAGE, self.envelope.told.notes, **content, **known)
        if answer is None and self._ruling.envelope is not None:
            try:
                self._rewrite(self._ruling.envelope)
            except RefusedError:
                return NOT_KEPT
        return answer

    def _throw_away(self) -> None:
        """For whom of several: each is asked about alone."""
        submission = self.envelope
        if len(submission.tokens) > 1 and not submission.gone and submission.need is Need.HOLD:
            for number, each in enumerate(submission.rulings):
                if _gets(each) and each.token is not None:
                    ruling = self._alone(replace(self._question, tokens=frozenset([each.token])))
                    if ruling is not None:
                        submission.rulings[number] = replace(each, verdict=ruling.verdict)

    def _rewrite(self, rewritten: Rewritten) -> None:
        """As filters want it. `RefusedError`: no queue could hold that."""
        submission = self.envelope
        extended, smtputf8 = self.session.extended_smtp, submission.mail.smtputf8
        if rewritten.sender is not None:
            reverse_path = read_mail(rewritten.sender.decode(errors="surrogateescape"), extended=True).reverse_path
            submission.mail = replace(submission.mail, reverse_path=reverse_path)
        for number, recipient in enumerate(submission.recipients):
            if parse_path(b"TO:<%b>" % recipient.address.encode(errors="surrogateescape")) in rewritten.deleted:
                submission.rulings[number] = replace(submission.rulings[number], verdict=Discard())
        for argument in rewritten.added:
            words = argument.decode(errors="surrogateescape")
            submission.recipients.append(read_recipient(words, extended=extended, smtputf8=smtputf8))
            submission.rulings.append(Ruling())

    async def _fill(self, draft: Kept, edit: Callable[[bytes], bytes] | None, body: Body | None) -> Answer:
        try:
            await to_its_end(self.loop.run_in_executor(self._disk, draft.fill, edit, body))
        except SpoolError as error:
            draft.abandon()
            return self._finish(refusal_of(error), "")
        return await super()._keep(draft.draft)


def _gets(ruling: Ruling) -> bool:
    return ruling.verdict != Discard()
