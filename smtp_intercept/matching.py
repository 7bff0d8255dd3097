"""Replies matched to the commands that await them, the server's and ours, and the ends of messages and of sessions.

Pure. What a reply does is said in `replies`. Forwards nothing; what it cannot follow it gives up, and says why.
"""

from __future__ import annotations

from collections import deque

from smtp_intercept import answers
from smtp_intercept.answers import Answer
from smtp_intercept.data import DotEnd, DoubtfulEnd, OctetEnd
from smtp_intercept.dialogue import MAX_OUTSTANDING, Owed, Reading, Verb
from smtp_intercept.events import Abort, Doubt, DropServer, Leave, Pause
from smtp_intercept.inspection import Inspection
from smtp_intercept.offer import Offer
from smtp_intercept.rules import Rules
from smtp_intercept.screen import Screen
from smtp_intercept.transaction import Message, Transaction
from smtp_intercept.wire import ReplyLine, line_end, parse_reply_line

# EHLO keywords remembered; servers have about fifteen.
MAX_KEYWORDS = 64

# Asked for with every line: see `session`.
_EHLO, _FULL, _LONG_REPLY = Verb.EHLO, Reading.FULL, Doubt.LONG_REPLY
_COMMAND = Reading.COMMAND


class Matching:
    """For the session to take away: ``spoken``, our own replies; ``instead``, what crosses in the place of the
    server's line (None: the line); ``ended``, messages to be told; ``orders``, what the shell must do. ``moved_at`` is
    when the dialogue last went on. ``welcomed``: the banner has come. ``alone``: the server's leg is gone. ``tls``:
    none, offered, stripped, refused or started."""

    __slots__ = (
        "_chunk",
        "_dot",
        "_doubtful",
        "_errors",
        "_fate",
        "_inspection",
        "_keywords",
        "_lines",
        "_offer",
        "_owed",
        "_rules",
        "_screen",
        "_swallowed",
        "_transaction",
        "ahead_bytes",
        "alone",
        "doubt",
        "ended",
        "helo",
        "instead",
        "messages",
        "moved_at",
        "orders",
        "quitted",
        "reading",
        "spoken",
        "tls",
        "welcomed",
    )

    def __init__(self, rules: Rules, now: float) -> None:
        self._rules, self._screen = rules, Screen(rules)
        self._owed: deque[Owed] = deque([Owed(Verb.CONNECT, now)])
        self._lines: list[bytes] = []  # of the EHLO reply under way: the first word of each
        self._keywords: frozenset[bytes] = frozenset()
        self._offer: Offer | None = None
        self._transaction: Transaction | None = None
        self._dot, self._doubtful, self._chunk = DotEnd(), DoubtfulEnd(), OctetEnd(0)
        self._inspection: Inspection | None = None
        self._fate: Answer | None = None  # of the content under way, if the server does not get it
        self._swallowed: Owed | None = None  # the BDAT whose chunk is read and thrown away
        self._errors = 0
        self.reading = _COMMAND
        self.ahead_bytes = self.messages = 0
        self.moved_at = now
        self.spoken = b""
        self.instead: bytes | None = None
        self.ended: list[Message] = []
        self.orders: list[Abort | DropServer | Leave | Pause] = []
        self.doubt: Doubt | None = None
        self.helo, self.tls, self.quitted, self.alone = "", "none", False, False
        self.welcomed = False

    def take_kept(self) -> bytes:
        """The line of an EHLO reply that waited for its next; it is not to be waited for any more."""
        offer, self._offer = self._offer, None
        return b"" if offer is None else offer.kept

    def find_line(self, buffer: bytes, position: int, doubt: Doubt, now: float) -> int:
        """The index past the line that begins at ``position``; 0 if it is not whole, or too long (``doubt``)."""
        limits = self._rules.limits
        most = limits.reply_line_bytes if doubt is _LONG_REPLY else limits.command_line_bytes
        end = line_end(buffer, position, most)
        if end >= 0:
            return end
        self.give_up(doubt, now)
        return 0

    def read_reply(self, line: bytes, now: float) -> None:
        """Give a whole line to the command that has waited longest. A 421 may come unasked (RFC 5321 §3.8)."""
        self.instead = None
        reply = parse_reply_line(line)
        if reply is None:
            self.give_up(Doubt.GARBAGE, now)
        elif self._owed:
            self._match(line, reply, now)
        elif reply.code != 421:
            self.give_up(Doubt.SURPLUS, now)

    def _match(self, line: bytes, reply: ReplyLine, now: float) -> None:
        owed = self._owed[0]
        if owed.verb is _EHLO:
            self._read_offer(line, reply)
        elif owed.silent and reply.code != 421:
            self.instead = b""
        if not reply.final:
            return
        self._owed.popleft()
        self.moved_at = now
        if self.reading is _FULL and len(self._owed) <= MAX_OUTSTANDING // 2:
            self.reading = _COMMAND
        self._apply(owed, reply, now)
        if self._owed:
            self.settle(now)

    def _read_offer(self, line: bytes, reply: ReplyLine) -> None:
        if len(self._lines) <= MAX_KEYWORDS:
            self._lines.append(reply.text.partition(b" ")[0].strip().upper())
        if self._rules.strip_starttls:
            self._offer = self._offer or Offer()
            self.instead = self._offer.cross(line, reply)
            if self._offer.stripped:
                self.tls = "stripped"

    def settle(self, now: float) -> None:
        """Give the answers whose turn it is."""
        while self._owed and (answer := self._owed[0].answer) is not None:
            owed = self._owed.popleft()
            self.spoken += answer.line
            self.moved_at = now
            if self._transaction and answer.discards:
                self._transaction.discarded = True
            self._apply(owed, answer.reply, now)
            if answer.closes:
                self._leave_client(answer, now)
            elif answer.drops:
                more = answer.discards and owed.verb is Verb.BDAT and not owed.last
                gone = answers.UNWELCOME if owed.verb is Verb.CONNECT else answers.COME_AGAIN
                self._drop_server(gone, discarding=more)

    def _apply(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self._perform(owed, reply, now)
        if owed.verb is _EHLO:
            self._lines.clear()
            self._offer = None
        if reply.code >= 500 and self._rules.limits.errors and not owed.silent:
            self._count_error(now)

    def _perform(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """What a final reply does."""
        raise NotImplementedError

    def _count_error(self, now: float) -> None:
        self._errors += 1
        if self._errors >= self._rules.limits.errors and self.reading not in {Reading.OPAQUE, Reading.OVER}:
            self._owed.appendleft(Owed(Verb.OTHER, now, answer=answers.TOO_MANY_ERRORS))
        elif pause_s := self._rules.limits.penalty_s(self._errors):
            self.orders.append(Pause(now + pause_s))

    # How it ends before the peers end it.

    def _leave_client(self, answer: Answer, now: float) -> None:
        self.leave(now)
        self._owed.clear()
        self._end_reading(Leave(answer.outcome, "" if answer is answers.BYE else str(answer.reply)))

    def speak_early(self) -> None:
        """The server has sent octets in clear behind its reply to STARTTLS, before the client began: whoever put them
        there would have them taken for the encrypted session's."""
        self._abort("the server sent octets behind its reply to STARTTLS")

    def _abort(self, reason: str) -> None:
        self._end_reading(Abort(reason))

    def _end_reading(self, order: Abort | Leave) -> None:
        self.reading = Reading.OVER
        self.orders.append(order)

    def _drop_server(self, gone: Answer, *, discarding: bool = False) -> None:
        self.alone = True
        self._screen.leave(gone, discarding=discarding)
        self._inspection = self._fate = None
        if self.reading is Reading.WAITING:
            self.reading = _COMMAND
        self.orders.append(DropServer())

    def next_command(self) -> Reading:
        """How commands are read: not at all while too many replies are owed."""
        return _FULL if len(self._owed) >= MAX_OUTSTANDING else _COMMAND

    # The transaction's end.

    def _end(self, reply: ReplyLine, now: float) -> None:
        if self._transaction:
            self._tell(self._transaction.end(self.messages + 1, now, reply))

    def leave(self, now: float) -> None:
        """No more of the transaction under way, if there is one."""
        if self._transaction:
            self._tell(self._transaction.leave(self.messages + 1, now))

    def give_up(self, doubt: Doubt, now: float) -> None:
        """From here on the octets are opaque, or the session is over."""
        self.doubt, self.reading = doubt, Reading.OPAQUE
        closing = self._rules.close_in_doubt or self.alone or self._breaks_off()
        if closing and doubt is Doubt.LONG_COMMAND:
            self._owed.append(Owed(Verb.OTHER, now, answer=answers.LINE_TOO_LONG))
            self.reading = Reading.HELD
            return self.settle(now)
        self._owed.clear()
        if self._transaction:
            self._tell(self._transaction.lose(self.messages + 1, now))
        if closing:
            self.instead = b""
            self._abort(f"in doubt: {doubt.value}")
        return None

    def _breaks_off(self) -> bool:
        """The server has had a part of what it must not have whole."""
        return self._fate is not None or any(owed.answer and owed.answer.drops for owed in self._owed)

    def _tell(self, message: Message) -> None:
        self._transaction = None
        self.messages += 1
        self.ended.append(message)
