"""One SMTP conversation followed: commands and content on one side, replies on the other, matched in order.

Pure. Reads whole lines and content where `session` shows them; forwards nothing. What it cannot follow it gives up,
and says why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

from smtp_intercept.data import DotEnd, OctetEnd
from smtp_intercept.dialogue import AFTER, MAX_OUTSTANDING, Effect, Owed, Reading, Verb, effect, owe
from smtp_intercept.direction import Domains
from smtp_intercept.events import Doubt
from smtp_intercept.transaction import Message, Recipient, Transaction
from smtp_intercept.wire import LineTooLongError, ReplyLine, line_end, parse_command, parse_reply_line

# EHLO keywords remembered; servers have about fifteen.
MAX_KEYWORDS = 64
# Replies that say "no such command", so that what follows BDAT is no chunk (RFC 5321 §4.2.4).
_UNKNOWN_COMMAND = frozenset({500, 502})


class Conversation:
    """What is known of the dialogue. ``ahead_bytes`` is kept by the session: client octets that have come behind the
    last command understood. ``ended`` are messages to be told. ``tls``: none, offered, refused or started."""

    __slots__ = (
        "_chunk",
        "_domains",
        "_dot",
        "_keywords",
        "_lines",
        "_owed",
        "_transaction",
        "ahead_bytes",
        "doubt",
        "ended",
        "helo",
        "messages",
        "quitted",
        "reading",
        "tls",
    )

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._owed: deque[Owed] = deque([Owed(Verb.CONNECT, 0.0)])
        self._lines: list[bytes] = []  # of the EHLO reply under way: the first word of each
        self._keywords: frozenset[bytes] = frozenset()
        self._transaction: Transaction | None = None
        self._dot = DotEnd()
        self._chunk = OctetEnd(0)
        self.reading = Reading.COMMAND
        self.ahead_bytes = self.messages = 0
        self.ended: list[Message] = []
        self.doubt: Doubt | None = None
        self.helo, self.tls, self.quitted = "", "none", False

    @property
    def awaits_chunk(self) -> bool:
        """The reply to a BDAT decides whether what follows is its chunk."""
        return self.reading is Reading.WAITING and self._owed[-1].verb is Verb.BDAT

    # The client's side: each reader takes (buffer, position, now) and gives the position that it has read up to.

    def read_client(self, buffer: bytes, now: float) -> int:
        """Understand as much of the client's octets as can be: the position of the rest."""
        position = 0
        while position < len(buffer) and (read := _READERS.get(self.reading)):
            before, position = position, read(self, buffer, position, now)
            if position == before:
                break
        return position

    def _read_command(self, buffer: bytes, position: int, now: float) -> int:
        if end := self.find_line(buffer, position, Doubt.LONG_COMMAND, now):
            owed = owe(parse_command(buffer[position:end]), self._domains, now)
            self._owed.append(owed)
            if owed.verb is Verb.BDAT and owed.size_bytes is not None and b"CHUNKING" in self._keywords:
                self._begin_chunk(owed.size_bytes)
            else:
                self.reading = AFTER.get(owed.verb) or self._next_command()
        return end or position

    def _read_credentials(self, buffer: bytes, position: int, now: float) -> int:
        if end := self.find_line(buffer, position, Doubt.LONG_COMMAND, now):
            self._owed.append(Owed(Verb.AUTH, now))
            self.reading = Reading.WAITING
        return end or position

    def _read_data(self, buffer: bytes, position: int, now: float) -> int:
        end = self._dot.find(buffer, position)
        if self._transaction:
            self._transaction.size_bytes = self._dot.size_bytes
        if end:
            self.reading = self._next_command()
            if self._transaction and self._transaction.refusal and not self._owed:
                self._end(self._transaction.refusal, now)
        return end or len(buffer)

    def _begin_chunk(self, size_bytes: int) -> None:
        self._chunk = OctetEnd(size_bytes)
        self.reading = Reading.CHUNK if size_bytes else self._next_command()

    def _read_chunk(self, buffer: bytes, position: int, now: float) -> int:
        end = self._chunk.find(buffer, position)
        if not self._chunk.left_bytes:
            self.reading = self._next_command()
        return end

    def _next_command(self) -> Reading:
        return Reading.FULL if len(self._owed) >= MAX_OUTSTANDING else Reading.COMMAND

    def find_line(self, buffer: bytes, position: int, doubt: Doubt, now: float) -> int:
        """The index past the line that begins at ``position``; 0 if it is not whole, or too long (``doubt``)."""
        try:
            return line_end(buffer, position)
        except LineTooLongError:
            self.give_up(doubt, now)
            return 0

    # The server's side.

    def read_reply(self, line: bytes, now: float) -> None:
        """Give a whole line to the command that has waited longest. A 421 may come unasked (RFC 5321 §3.8)."""
        reply = parse_reply_line(line)
        if reply is None:
            self.give_up(Doubt.GARBAGE, now)
        elif self._owed:
            self._match(reply, now)
        elif reply.code != 421:
            self.give_up(Doubt.SURPLUS, now)

    def _match(self, reply: ReplyLine, now: float) -> None:
        owed = self._owed[0]
        if owed.verb is Verb.EHLO and len(self._lines) <= MAX_KEYWORDS:
            self._lines.append(reply.text.partition(b" ")[0].strip().upper())
        if not reply.final:
            return
        self._owed.popleft()
        if self.reading is Reading.FULL and len(self._owed) <= MAX_OUTSTANDING // 2:
            self.reading = Reading.COMMAND
        _EFFECTS[effect(owed.verb, reply.code)](self, owed, reply, now)
        self._lines.clear()

    def _nothing(self, owed: Owed, reply: ReplyLine, now: float) -> None: ...

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
        if accepted or self._transaction is None or not self._transaction.opened:
            self.leave(now)
            self._transaction = Transaction(owed.name, owed.sent_at, accepted, None if accepted else reply)

    def _recipient(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if self._transaction:
            self._transaction.add(Recipient(owed.name, owed.direction, reply))

    def _send_content(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self._transaction = self._transaction or Transaction("", owed.sent_at)
        self._dot, self.reading = DotEnd(), Reading.DATA
        self._owed.append(Owed(Verb.CONTENT, now))

    def _refuse_content(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if self._transaction:
            self._transaction.refuse(reply)
        self.reading = self._next_command()

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
        if self.reading is Reading.WAITING and not self._owed:
            if size_bytes is None or size_bytes > self.ahead_bytes:
                return self.give_up(Doubt.CHUNK, now)
            self._begin_chunk(size_bytes)
        elif self.reading is Reading.CHUNK and not self._owed:
            return self.give_up(Doubt.EARLY, now)
        if self._transaction:
            self._transaction.size_bytes += size_bytes or 0
            if owed.last:
                self._end(reply, now)
        return None

    def _refuse_chunk(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """The message has failed (RFC 3030 §2), unless the server does not know the command at all."""
        if self.reading is Reading.WAITING and not self._owed:
            if owed.size_bytes is None or reply.code in _UNKNOWN_COMMAND:
                self.reading = self._next_command()
                return
            self._begin_chunk(owed.size_bytes)
        if self._transaction:
            self._end(reply, now)

    def _send_credentials(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.reading = Reading.CREDENTIALS

    def _resume(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.reading = self._next_command()

    def _start_tls(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """Octets sent in clear behind STARTTLS would be taken for the encrypted session's (RFC 3207 §6)."""
        if self.ahead_bytes:
            self.reading = Reading.OVER
            return
        self.leave(now)
        self.tls, self.reading = "started", Reading.OPAQUE

    def _refuse_tls(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.tls, self.reading = "refused", self._next_command()

    def _doubt(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.give_up(Doubt.UNEXPECTED, now)

    # The transaction's end.

    def _end(self, reply: ReplyLine, now: float) -> None:
        if self._transaction:
            self._tell(self._transaction.end(self.messages + 1, now, reply))

    def leave(self, now: float) -> None:
        """No more of the transaction under way, if there is one."""
        if self._transaction:
            self._tell(self._transaction.leave(self.messages + 1, now))

    def give_up(self, doubt: Doubt, now: float) -> None:
        """From here on the octets are opaque."""
        self.doubt, self.reading = doubt, Reading.OPAQUE
        self._owed.clear()
        if self._transaction:
            self._tell(self._transaction.lose(self.messages + 1, now))

    def _tell(self, message: Message) -> None:
        self._transaction = None
        self.messages += 1
        self.ended.append(message)


_READERS: Mapping[Reading, Callable[[Conversation, bytes, int, float], int]] = MappingProxyType(
    {
        Reading.COMMAND: Conversation._read_command,
        Reading.CREDENTIALS: Conversation._read_credentials,
        Reading.DATA: Conversation._read_data,
        Reading.CHUNK: Conversation._read_chunk,
    }
)
_EFFECTS: Mapping[Effect, Callable[[Conversation, Owed, ReplyLine, float], None]] = MappingProxyType(
    {each: getattr(Conversation, "_" + each.name.lower()) for each in Effect}
)
