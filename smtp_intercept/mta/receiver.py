"""The mail transactions of one session: MAIL and RCPT against the rules, content in a stream to the spool.

One kind of I/O: one connection, and drafts. A message is accepted when the spool says that it has it, never before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TypeVar

from smtp_intercept.answers import (
    MAIL_OK,
    NESTED_MAIL,
    NO_MAIL,
    NO_RECIPIENTS,
    RECIPIENT_OK,
    SEND_CONTENT,
    TIMED_OUT,
    TOO_MANY_RECIPIENTS,
    Answer,
)
from smtp_intercept.limits import Phase
from smtp_intercept.mta.billing import Bill
from smtp_intercept.mta.content import Content
from smtp_intercept.mta.drafts import SMALL_BYTES
from smtp_intercept.mta.envelope import Envelope, Origin, Recipient
from smtp_intercept.mta.esmtp import Mail, RefusedError, read_mail, read_recipient
from smtp_intercept.mta.faults import NotTakenError, SpoolError, SpoolFullError
from smtp_intercept.mta.replies import NO_ARGUMENT, NO_ROOM, NOT_KEPT, TOO_LARGE
from smtp_intercept.mta.services import Draft, Services
from smtp_intercept.mta.smtpd import Smtpd
from smtp_intercept.mta.trace import received_line
from smtp_intercept.transaction import Message, Transaction
from smtp_intercept.transaction import Recipient as Told

# Content goes to the draft in pieces of this size, by another thread; a message that is smaller, in one from here.
PIECE_BYTES = 65_536
# What is kept of a recipient beside its words.
RECIPIENT_BYTES = 500

Tell = Callable[[Message, str], None]
Done = TypeVar("Done")


@dataclass(slots=True)
class Submission:
    """The transaction under way, if there is one."""

    mail: Mail | None = None
    recipients: list[Recipient] = field(default_factory=list)
    told: Transaction | None = None
    octets: int = 0

    def envelope(self) -> Envelope:
        """Once MAIL was accepted."""
        assert self.mail is not None
        mail = self.mail
        return Envelope(mail.reverse_path, tuple(self.recipients), mail.body, mail.smtputf8, mail.ret, mail.envid)


class Receiver(Smtpd):
    """One session. ``tell`` has each message when it ends, and its id in the queue, or ""."""

    def __init__(
        self,
        name: str,
        origin: Origin,
        services: Services,
        *,
        bill: Bill,
        disk: Executor,
        tell: Tell,
        ended: Callable[[], None],
    ) -> None:
        size = (f"SIZE {services.intake.size_bytes}",)
        super().__init__(
            hostname=services.hostname,
            limits=services.limits,
            keywords=("PIPELINING", *size, "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"),
            certificate=services.certificate,
            bill=bill,
            ended=ended,
        )
        self.name, self.origin, self._services, self._disk, self._tell = name, origin, services, disk, tell
        self.messages = self._content_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Of its client's octets: sent ahead, of the envelope, of content that has no file yet."""
        octets: int = self.envelope.octets
        return super().held_bytes + octets + self._content_bytes

    @property
    def in_transaction(self) -> bool:
        return self.envelope.mail is not None

    def fields(self) -> dict[str, object]:
        return {
            **super().fields(),
            "messages": self.messages,
            "bytes_from_client": self._reader.taken_bytes,
            "bytes_from_server": self.bytes_sent,
            "doubt": None,
        }

    # The transaction.

    def _create_envelope(self) -> Submission:
        return Submission()

    def _set_post_data_state(self) -> None:
        """aiosmtpd's name for "no transaction is under way"."""
        self.forget()
        super()._set_post_data_state()

    def forget(self) -> None:
        """What was under way will not be finished."""
        if self.envelope is not None and (told := self.envelope.told) is not None:
            self.envelope.told = None
            self.messages += 1
            self._tell(told.leave(self.messages, self.loop.time()), "")

    async def smtp_MAIL(self, arg: str | None) -> None:
        if not await self.check_helo_needed():
            await self._judged(self._mail, arg)

    async def smtp_RCPT(self, arg: str | None) -> None:
        if not await self.check_helo_needed():
            await self._judged(self._recipient, arg)

    async def _judged(self, judge: Callable[[str], Awaitable[Answer]], arg: str | None) -> None:
        try:
            answer = await judge(arg or "")
        except RefusedError as refused:
            answer = refused.answer
        await self.answer(answer, hold=True)

    async def _mail(self, arg: str) -> Answer:
        if self.in_transaction:
            return NESTED_MAIL
        mail = read_mail(arg, extended=self.session.extended_smtp)
        told = Transaction(mail.reverse_path, self.loop.time())
        if refusal := self._too_large(mail.size_bytes):
            told.refuse(refusal.reply)
            self.envelope.told = told
            self.forget()
            return refusal
        self.envelope.mail, self.envelope.told = mail, told
        return MAIL_OK

    def _too_large(self, size_bytes: int) -> Answer | None:
        """RFC 1870 §6.1."""
        if 0 < self._services.intake.size_bytes < size_bytes:
            return TOO_LARGE
        return NO_ROOM if size_bytes and size_bytes > self._services.room_bytes() else None

    async def _recipient(self, arg: str) -> Answer:
        submission, limit = self.envelope, self._services.limits.recipients
        if submission.mail is None:
            return NO_MAIL
        if 0 < limit <= len(submission.recipients):
            return TOO_MANY_RECIPIENTS
        extended, smtputf8 = self.session.extended_smtp, submission.mail.smtputf8
        recipient = read_recipient(arg, extended=extended, smtputf8=smtputf8)
        answer = await self._admission(recipient.address) or RECIPIENT_OK
        direction = self._services.direction(self.origin, recipient.address)
        submission.told.add(Told(recipient.address, direction, answer.reply))
        submission.octets += RECIPIENT_BYTES + 2 * len(arg)
        if answer.code < 300:
            submission.recipients.append(recipient)
            self._idle_commands -= 1
        return answer

    async def _admission(self, mailbox: str) -> Answer | None:
        """The box's own refusal, then that of the server which would have to take it."""
        here = self._here()
        return self._services.admission(here, mailbox) or await self._services.verify(here, mailbox)

    def _here(self) -> Origin:
        """The origin with what the session has shown of it."""
        return replace(self.origin, helo=self.helo, tls=self.tls_version)

    # The content.

    async def smtp_DATA(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return
        if refusal := self._not_ready(arg):
            await self.answer(refusal)
            return
        try:
            draft = self._services.spool.draft()
        except SpoolError as error:
            refusal = refusal_of(error)
            self.envelope.told.refuse(refusal.reply)
            await self.answer(refusal)
            return
        await self._take(draft)

    def _not_ready(self, arg: str | None) -> Answer | None:
        if arg:
            return NO_ARGUMENT
        if not self.in_transaction:
            return NO_MAIL
        return None if self.envelope.recipients else NO_RECIPIENTS

    async def _take(self, draft: Draft) -> None:
        self._write(SEND_CONTENT.line)
        self._idle_commands = 0
        intake, told = self._services.intake, self.envelope.told
        content = Content(most_bytes=intake.size_bytes, most_hops=intake.hops, reject_doubt=intake.reject_bare_newline)
        try:
            await self._read(content, draft)
        except BaseException:
            draft.abandon()
            raise
        finally:
            self._content_bytes = 0
            told.size_bytes = content.sent_bytes
            self._late = TIMED_OUT
        self._timeout_handle.cancel()  # the spool's time is not the client's
        if content.refusal is None:
            answer = await to_its_end(self.loop.create_task(self._keep(draft)))
        else:
            draft.abandon()
            answer = self._finish(content.refusal, "")
        self._reset_timeout()
        await self.answer(answer)

    async def _read(self, content: Content, draft: Draft) -> None:
        intake, patience_s = self._services.intake, self._limits.patience_s[Phase.BLOCK]
        moved_at = self.loop.time()
        over_at = moved_at + intake.content_s
        self._store(content, draft, self._received())
        refused = False
        while True:
            if not refused:
                if refused := content.refusal is not None:
                    draft.abandon()
                    self._late = replace(content.refusal, closes=True)
                    over_at = self.loop.time() + intake.swallow_s
                left_s = min(moved_at + patience_s, over_at) - self.loop.time()
                self._reset_timeout(max(0.001, left_s))
            block = await self._reader.block()
            moved_at = self._limits.moved_at(moved_at, len(block), self.loop.time())
            end = content.feed(block)
            if content.waiting_bytes >= PIECE_BYTES or (end and content.size_bytes >= PIECE_BYTES):
                await to_its_end(self.loop.run_in_executor(self._disk, self._store, content, draft, content.take()))
            elif end:
                self._store(content, draft, content.take())
            if end:
                self._reader.give_back(block[end:])
                return
            self._content_bytes = content.waiting_bytes + min(content.size_bytes, SMALL_BYTES)
            await self.make_room()

    def _store(self, content: Content, draft: Draft, piece: bytes) -> None:
        if content.refusal is not None:
            return
        try:
            draft.write(piece)
        except SpoolError as error:
            content.refuse(refusal_of(error))

    def _received(self) -> bytes:
        return received_line(
            self._here(),
            self.envelope.envelope(),
            hostname=self._services.hostname,
            extended=self.session.extended_smtp,
            name=f"{self.name}.{self.messages + 1}",
            date=format_datetime(datetime.fromtimestamp(self._services.clock(), UTC)),
        )

    async def _keep(self, draft: Draft) -> Answer:
        """Into the queue, and only then told so."""
        envelope, services = self.envelope.envelope(), self._services
        try:
            queued = await services.spool.enqueue(draft, self._here(), envelope, services.clock())
        except SpoolError as error:
            return self._finish(refusal_of(error), "")
        return self._finish(Answer(250, f"2.0.0 Ok: queued as {queued}"), queued)

    def _finish(self, answer: Answer, queued: str) -> Answer:
        """The transaction has ended with this."""
        told, self.envelope.told = self.envelope.told, None
        self.messages += 1
        if answer.code < 300:
            self._mail_at = self.loop.time()
        self._tell(told.end(self.messages, self.loop.time(), answer.reply), queued)
        self._set_post_data_state()
        return answer


async def to_its_end(work: asyncio.Future[Done]) -> Done:
    """Even if the session is stopped meanwhile: a draft is nobody else's before, and what is kept must be told."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await work
        raise


def refusal_of(error: SpoolError) -> Answer:
    """What the client is told."""
    if isinstance(error, NotTakenError):
        return error.answer
    return NO_ROOM if isinstance(error, SpoolFullError) else NOT_KEPT
