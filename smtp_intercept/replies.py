"""The server's half of a conversation: what each final reply does, as a table of effects.

Pure. Which command a reply belongs to is found in `matching`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from smtp_intercept import answers
from smtp_intercept.data import DotEnd, DoubtfulEnd, OctetEnd
from smtp_intercept.dialogue import Effect, Owed, Reading, Verb, effect
from smtp_intercept.events import Doubt
from smtp_intercept.inspection import Inspection
from smtp_intercept.matching import Matching
from smtp_intercept.transaction import Recipient, Transaction
from smtp_intercept.wire import ReplyLine

# Replies that say "no such command", so that what follows BDAT is no chunk (RFC 5321 §4.2.4).
_UNKNOWN_COMMAND = frozenset({500, 502})


class Replies(Matching):
    """A conversation as far as the server's words move it."""

    __slots__ = ()

    def _perform(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        _EFFECTS[effect(owed.verb, reply.code)](self, owed, reply, now)

    # The effects.

    def _nothing(self, owed: Owed, reply: ReplyLine, now: float) -> None: ...

    def _welcome(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.welcomed = True

    def _greet(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.leave(now)
        self.helo, self._keywords = owed.name, frozenset(self._lines[1:])
        if self.tls == "none" and b"STARTTLS" in self._keywords:
            self.tls = "offered"

    def _restart(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.leave(now)
        self._keywords = frozenset()

    def _reset(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.leave(now)

    def _quit(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.leave(now)
        self.quitted = True

    def _mail(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """A MAIL refused inside a transaction (503) leaves that one as it is."""
        accepted = reply.code < 300
        if owed.answer is None:
            self._screen.mail_answered(accepted)
        if accepted or self._transaction is None or not self._transaction.opened:
            self.leave(now)
            self._transaction = Transaction(owed.name, owed.sent_at, accepted, None if accepted else reply)

    def _recipient(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if self._transaction:
            self._transaction.add(Recipient(owed.name, owed.direction, reply))

    def _send_content(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self._transaction = self._transaction or Transaction("", owed.sent_at)
        self._dot, self._doubtful, self.reading = DotEnd(), DoubtfulEnd(), Reading.DATA
        self._fate = answers.TAKEN if owed.answer else None
        if self._rules.policy and not owed.answer:
            self._inspection = Inspection(self._screen, self._rules.limits.header_bytes)
        self._owed.append(Owed(Verb.CONTENT, now))

    def _refuse_content(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if self._transaction:
            self._transaction.refuse(reply)
        if owed.answer is None:
            self._screen.mail_answered(False)  # whether the server still has its transaction is not known
        self.reading = self.next_command()

    def _end_message(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """A refusal may come early; the client reads it at the end of its data. An early acceptance means that
        server and client do not agree on where the message ends: smuggling, or our mistake."""
        if self.reading is not Reading.DATA:
            self._end(reply, now)
        elif reply.code < 300:
            self._end(reply, now)
            self.give_up(Doubt.EARLY, now)
        elif self._transaction:
            self._transaction.refuse(reply)

    def _take_chunk(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        size_bytes = owed.size_bytes
        if self.reading is Reading.CHUNK_OR_COMMAND and not self._owed:
            if size_bytes is None or size_bytes > self.ahead_bytes:
                return self.give_up(Doubt.CHUNK, now)
            self.begin_chunk(size_bytes)
        elif self.reading is Reading.CHUNK and not self._owed and self._swallowed is None:
            return self.give_up(Doubt.EARLY, now)
        if self._transaction:
            self._transaction.size_bytes += size_bytes or 0
            if owed.last:
                self._end(reply, now)
        return None

    def _refuse_chunk(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """The message has failed (RFC 3030 §2), unless the server does not know the command at all."""
        if self.reading is Reading.CHUNK_OR_COMMAND and not self._owed:
            if owed.size_bytes is None or reply.code in _UNKNOWN_COMMAND:
                self.reading = self.next_command()
                return
            self.begin_chunk(owed.size_bytes)
        if self._transaction and owed.answer not in (answers.BAD_CHUNK, answers.NO_CHUNKING):
            self._end(reply, now)

    def begin_chunk(self, size_bytes: int) -> None:
        """So many octets of the client's are no commands."""
        self._chunk = OctetEnd(size_bytes)
        self.reading = Reading.CHUNK if size_bytes else self.next_command()

    def _send_credentials(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.reading = Reading.CREDENTIALS

    def _resume(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.reading = self.next_command()

    def _start_tls(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """Octets sent in clear behind STARTTLS would be taken for the encrypted session's (RFC 3207 §6)."""
        if self.ahead_bytes:
            self.instead = b""
            self._abort("the client sent octets behind STARTTLS")
            return
        self.leave(now)
        self.tls, self.reading = "started", Reading.HANDSHAKE

    def _refuse_tls(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.reading = self.next_command()
        if owed.answer is None:
            self.tls = "refused"

    def _doubt(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.give_up(Doubt.UNEXPECTED, now)


_EFFECTS: Mapping[Effect, Callable[[Replies, Owed, ReplyLine, float], None]] = MappingProxyType(
    {each: getattr(Replies, "_" + each.name.lower()) for each in Effect}
)
