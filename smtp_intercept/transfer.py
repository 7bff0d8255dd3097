"""A message's content on its way: with DATA up to its end, with BDAT by count; and what of it must not cross.

Pure. The octets of the client's between its commands; commands are read in `conversation`.
"""

from __future__ import annotations

from dataclasses import replace

from smtp_intercept import answers
from smtp_intercept.answers import Answer
from smtp_intercept.data import ANY, CR_BEHIND_DOT, NEVER
from smtp_intercept.dialogue import Owed, Reading, Verb
from smtp_intercept.replies import Replies
from smtp_intercept.rules import Rules

_FORGET = b"RSET\r\n"


class Transfer(Replies):
    """``cuts`` are the places in the buffer being read that must not cross, each with what crosses instead."""

    __slots__ = ("_holding", "_last_chunk", "cuts")

    def __init__(self, rules: Rules, now: float = 0.0) -> None:
        super().__init__(rules, now)
        self._holding = CR_BEHIND_DOT if rules.reject_bare_newline else NEVER
        self._last_chunk = False
        self.cuts: list[tuple[int, int, bytes]] = []

    # Each reader takes (buffer, position, now) and gives the position that it has read up to.

    def _read_data(self, buffer: bytes, position: int, now: float) -> int:
        before = self._dot.size_bytes
        end = self._dot.find(buffer, position, holding=ANY if self._inspection is not None else self._holding)
        upto = self._dot.read_to
        self._go_on(upto - position, now, ended=bool(end))
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

    def _go_on(self, size_bytes: int, now: float, *, ended: bool) -> None:
        """So much of the content has come. What the client has fallen behind is kept up to the next message's end, so
        that it does not begin anew with each chunk."""
        if now != self.moved_at:
            self.moved_at = self._rules.limits.moved_at(self.moved_at, size_bytes, now)
        if ended:
            self._lag_s, self.moved_at = now - self.moved_at, now

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
        self.reading, self._inspection = self._behind_message(), None
        if self._fate is not None:
            self._end_unheard(end, now)
        else:
            if self._owed:
                self._owed[-1].ended = True
            self._screen.forget()
            if self._transaction and self._transaction.refusal and not self._owed:
                self._end(self._transaction.refusal, now)

    def _behind_message(self) -> Reading:
        """How many replies PRDR brings is not known before they have come."""
        return self.wait() if self._transaction and self._transaction.prdr else self.next_command()

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
        while len(self._owed) > 1 and self._owed[-2].verb is Verb.VERDICT:
            del self._owed[-2]
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
        end = self._chunk.find(buffer, position)
        self._go_on(end - position, now, ended=not self._chunk.left_bytes)
        if self._swallowed is not None or self._fate is not None:
            self.cuts.append((position, end, b""))
        elif self._inspection is not None:
            self._inspect_chunk(buffer, position, end)
        if not self._chunk.left_bytes:
            self.reading = self._behind_message() if self._last_chunk else self.next_command()
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
            self._end_chunks()

    def _end_chunks(self) -> None:
        """The last of a message has crossed whole."""
        if self._owed:
            self._owed[-1].ended = True
        self._screen.forget()

    def _end_swallowed(self, owed: Owed, end: int, now: float) -> None:
        """The last chunk of a message that was discarded."""
        if owed.last and owed.answer is answers.CHUNK_OK and self.reading is not Reading.OVER:
            self._forget_at(end, now)

    def _end_empty_chunk(self, position: int, end: int, now: float) -> None:
        """``BDAT 0 LAST``: the command itself is what must not cross."""
        if self._inspection is None or (answer := self._inspection.finish()) is None:
            self._end_chunks()
            return
        self.cuts.append((position, end, b""))
        self._break_chunks(answer, now)

    def _break_chunks(self, fate: Answer, now: float) -> None:
        """The server waits for octets that will not come: nothing may cross until its leg is gone, and that has to
        wait for its replies to what came before."""
        self.reading = Reading.WAITING
        self._answer_last(fate, now)
