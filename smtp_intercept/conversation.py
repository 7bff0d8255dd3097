"""One SMTP conversation followed: commands and content on one side, replies on the other, matched in order.

Pure. This is the client's half; the server's is in `replies`. Reads whole lines and content where `session` shows them;
forwards nothing, but says what must not cross.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from smtp_intercept import answers
from smtp_intercept.answers import Answer
from smtp_intercept.dialogue import AFTER, Owed, Reading, Verb, owe
from smtp_intercept.direction import Protection
from smtp_intercept.events import Doubt
from smtp_intercept.inspection import Inspection
from smtp_intercept.limits import Phase
from smtp_intercept.policy import Stage
from smtp_intercept.replies import Replies
from smtp_intercept.rules import Rules
from smtp_intercept.wire import Command, announces_client, begins_foreign, parse_command

_FORGET = b"RSET\r\n"
# Asked for with every command: see `session`.
_BDAT, _LONG_COMMAND = Verb.BDAT, Doubt.LONG_COMMAND
# What an owed reply means for whoever waits for it; one that is not here is a reply like any other.
_PHASES: Mapping[Verb, Phase] = MappingProxyType(
    {Verb.CONNECT: Phase.BANNER, Verb.DATA: Phase.DATA_REPLY, Verb.CONTENT: Phase.END_REPLY}
)


class Conversation(Replies):
    """What is known of the dialogue. ``ahead_bytes`` and ``crossed`` are kept by the session: client octets that have
    come behind the last command understood, and how far the buffer being read has crossed already. ``cuts`` are the
    places in it that must not cross, each with what crosses instead."""

    __slots__ = ("_last_chunk", "_protection", "crossed", "cuts")

    def __init__(self, protection: Protection, rules: Rules, now: float = 0.0) -> None:
        super().__init__(rules, now)
        self._protection = protection
        self._last_chunk = False
        self.crossed = 0
        self.cuts: list[tuple[int, int, bytes]] = []

    @property
    def awaits_chunk(self) -> bool:
        """The reply to a BDAT decides whether what follows is its chunk."""
        return self.reading is Reading.CHUNK_OR_COMMAND

    @property
    def phase(self) -> Phase | None:
        """What the session waits for; None while it cannot know."""
        if self.reading in _UNREADABLE:
            return None
        if self.reading in {Reading.DATA, Reading.CHUNK}:
            return Phase.BLOCK
        return _PHASES.get(self._owed[0].verb, Phase.REPLY) if self._owed else Phase.COMMAND

    def connect(self, now: float) -> None:
        """Both peers are there."""
        self.moved_at = now
        self._answer_last(self._screen.ask(Stage.CONNECT), now)

    def time_out(self, now: float) -> None:
        """What the session waits for does not come."""
        self._owed.appendleft(Owed(Verb.OTHER, now, answer=answers.TIMED_OUT))
        self.settle(now)

    # Each reader takes (buffer, position, now) and gives the position that it has read up to.

    def read_client(self, buffer: bytes, now: float) -> int:
        """Understand as much of the client's octets as can be: the position of the rest."""
        position = 0
        while position < len(buffer) and (read := _READERS.get(self.reading)):
            before, position = position, read(self, buffer, position, now)
            if position == before:
                break
        return position

    def _read_command(self, buffer: bytes, position: int, now: float) -> int:
        if not self.welcomed and begins_foreign(buffer, position, self._rules.limits.command_line_bytes):
            self.give_up(Doubt.FOREIGN, now)
            return position
        end = self.find_line(buffer, position, _LONG_COMMAND, now)
        if not end:
            return position
        self.moved_at = now
        if not self.welcomed and announces_client(buffer[position:end]):
            return end
        command = parse_command(buffer[position:end])
        owed = owe(command, self._protection, now)
        if self._inspection is not None and not self._screen.chunking:
            self._inspection = None
        answer = self._judge(owed, command)
        if answer is not None and position >= self.crossed:
            self.cuts.append((position, end, b""))
            self._answer(owed, answer, end, now)
        else:
            self._cross(owed, position, end, now)
        return end

    def _judge(self, owed: Owed, command: Command) -> Answer | None:
        if owed.verb is _BDAT and self._rules.guarded and not self.alone:
            if owed.size_bytes is None:
                return answers.BAD_CHUNK
            if b"CHUNKING" not in self._keywords:
                return answers.NO_CHUNKING  # whether it is taken would be known too late to keep anything back
        return self._screen.judge(owed.verb, command)

    def _answer(self, owed: Owed, answer: Answer, end: int, now: float) -> None:
        """The server does not hear of it. The answer to BDAT comes when its chunk has been read."""
        owed = replace(owed, answer=answer)
        if owed.verb is _BDAT and owed.size_bytes and not answer.closes:
            self._swallowed = owed
            self.begin_chunk(owed.size_bytes)
            return
        self._owed.append(owed)
        after = self.next_command() if owed.verb is _BDAT else AFTER.get(owed.verb) or self.next_command()
        self.reading = Reading.HELD if answer.closes else after
        self.settle(now)
        if owed.verb is _BDAT:
            self._end_swallowed(owed, end, now)

    def _cross(self, owed: Owed, position: int, end: int, now: float) -> None:
        self._owed.append(owed)
        self._last_chunk = owed.last
        if owed.verb is not _BDAT or owed.size_bytes is None or b"CHUNKING" not in self._keywords:
            self.reading = AFTER.get(owed.verb) or self.next_command()
            return
        if self._inspection is None and self._rules.policy:
            self._inspection = Inspection(self._screen, self._rules.limits.header_bytes)
        self.begin_chunk(owed.size_bytes)
        if owed.last and not owed.size_bytes:
            self._end_empty_chunk(position, end, now)

    def _read_credentials(self, buffer: bytes, position: int, now: float) -> int:
        if end := self.find_line(buffer, position, _LONG_COMMAND, now):
            self._owed.append(Owed(Verb.AUTH, now))
            self.reading, self.moved_at = Reading.WAITING, now
        return end or position

    # Content.

    def _read_data(self, buffer: bytes, position: int, now: float) -> int:
        self.moved_at, before = now, self._dot.size_bytes
        end = self._dot.find(buffer, position, holding=self._inspection is not None)
        upto = self._dot.read_to
        if self._fate is not None:
            self.cuts.append((position, upto, b""))
        elif self._rules.reject_bare_newline and (at := self._doubtful.find(buffer[:upto], position, end)) >= 0:
            self._dot.size_bytes = before + at - position
            return self._break_off(at, upto, now)
        elif self._inspection is not None:
            self._inspect_data(buffer, position, end, upto)
        if self._transaction:
            self._transaction.size_bytes = self._dot.size_bytes
        if end:
            self._end_data(end, now)
        return upto

    def _break_off(self, at: int, upto: int, now: float) -> int:
        """Told at once: a client that ends its data otherwise than with CRLF.CRLF would wait for ever."""
        if self._transaction:
            self._transaction.size_bytes = self._dot.size_bytes
        self.cuts.append((at, upto, b""))
        self._owed.clear()
        self._owed.append(Owed(Verb.CONTENT, now, answer=answers.BARE_NEWLINE))
        self.settle(now)
        return upto

    def _inspect_data(self, buffer: bytes, position: int, end: int, upto: int) -> None:
        assert self._inspection is not None
        begun = max(position, end - len(b"\r\n.\r\n")) if end else upto
        cut = self._inspection.read(buffer[position : end - len(b".\r\n") if end else upto])
        if cut is None and end and (answer := self._inspection.finish()):
            cut = begun - position, answer
        if cut is not None:
            at, self._fate = cut
            self.cuts.append((min(position + at, begun), upto, b""))

    def _end_data(self, end: int, now: float) -> None:
        self.reading, self._inspection = self.next_command(), None
        if self._fate is not None:
            self._end_unheard(end, now)
        else:
            self._screen.forget()
            if self._transaction and self._transaction.refusal and not self._owed:
                self._end(self._transaction.refusal, now)

    def _end_unheard(self, end: int, now: float) -> None:
        """The content has come, and the server has not had all of it, or none."""
        fate, self._fate = self._fate, None
        assert fate is not None
        self._answer_last(fate, now)
        if not fate.drops and self.reading is not Reading.OVER:
            self._forget_at(end, now)

    def _answer_last(self, answer: Answer | None, now: float) -> None:
        """Ours, not the server's, is the reply to what crossed last. Nobody waits for one if it came early."""
        if answer is None:
            return
        if not self._owed:
            if self._transaction and self._transaction.refusal:
                self._end(self._transaction.refusal, now)
            self._drop_server(answers.COME_AGAIN)
            return
        self._owed[-1] = replace(self._owed[-1], answer=answer)
        self.settle(now)

    def _forget_at(self, end: int, now: float) -> None:
        """The client believes the transaction to be over: so must the server, or the next MAIL is a mistake to it."""
        if self._screen.server_waits:
            self.cuts.append((end, end, _FORGET))
            self._owed.append(Owed(Verb.RSET, now, silent=True))
        self._screen.forget()

    # Chunks.

    def _read_chunk(self, buffer: bytes, position: int, now: float) -> int:
        self.moved_at = now
        end = self._chunk.find(buffer, position)
        if self._swallowed is not None or self._fate is not None:
            self.cuts.append((position, end, b""))
        elif self._inspection is not None:
            self._inspect_chunk(buffer, position, end)
        if not self._chunk.left_bytes:
            self.reading = self.next_command()
            self._end_chunk(end, now)
        return end

    def _inspect_chunk(self, buffer: bytes, position: int, end: int) -> None:
        """The last octet of the last chunk does not cross before the policy has spoken."""
        assert self._inspection is not None
        cut = self._inspection.read(buffer[position:end])
        if cut is None and self._last_chunk and not self._chunk.left_bytes and (answer := self._inspection.finish()):
            cut = end - 1 - position, answer
        if cut is not None:
            at, self._fate = cut
            self.cuts.append((position + at, end, b""))

    def _end_chunk(self, end: int, now: float) -> None:
        if self._swallowed is not None:
            owed, self._swallowed = self._swallowed, None
            self._owed.append(owed)
            self.settle(now)
            self._end_swallowed(owed, end, now)
        elif self._fate is not None:
            fate, self._fate = self._fate, None
            self._break_chunks(fate, now)
        elif self._last_chunk:
            self._screen.forget()

    def _end_swallowed(self, owed: Owed, end: int, now: float) -> None:
        """The last chunk of a message that was discarded."""
        if owed.last and owed.answer is answers.CHUNK_OK and self.reading is not Reading.OVER:
            self._forget_at(end, now)

    def _end_empty_chunk(self, position: int, end: int, now: float) -> None:
        """``BDAT 0 LAST``: the command itself is what must not cross."""
        if self._inspection is None or (answer := self._inspection.finish()) is None:
            self._screen.forget()
            return
        self.cuts.append((position, end, b""))
        self._break_chunks(answer, now)

    def _break_chunks(self, fate: Answer, now: float) -> None:
        """The server waits for octets that will not come: nothing may cross until its leg is gone, and that has to
        wait for its replies to what came before."""
        self.reading = Reading.WAITING
        self._answer_last(fate, now)


# There is no telling what the next octets are.
_UNREADABLE = frozenset({Reading.HANDSHAKE, Reading.OPAQUE, Reading.OVER})
_READERS: Mapping[Reading, Callable[[Conversation, bytes, int, float], int]] = MappingProxyType(
    {
        Reading.COMMAND: Conversation._read_command,
        Reading.CREDENTIALS: Conversation._read_credentials,
        Reading.DATA: Conversation._read_data,
        Reading.CHUNK: Conversation._read_chunk,
    }
)
