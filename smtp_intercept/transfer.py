"""A message's content on its way: with DATA up to its end, with BDAT by count; and what of it must not cross.

Pure. The octets of the client's between its commands; commands are read in `conversation`.
"""

from __future__ import annotations

from dataclasses import replace

from smtp_intercept import answers
from smtp_intercept.answers import Answer
from smtp_intercept.data import CR_BEHIND_DOT, NEVER
from smtp_intercept.dialogue import Owed, Reading, Verb
from smtp_intercept.holding import Holding
from smtp_intercept.rules import Rules

_FORGET = b"RSET\r\n"


class Transfer(Holding):
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
        end = self._dot.find(buffer, position, holding=self._holding)
        upto = self._dot.read_to
        self._go_on(upto - position, now, ended=bool(end))
        if self._fate is not None:
            self.cuts.append((position, upto, b""))
        elif self._rules.reject_bare_newline and (at := self._doubtful.find(buffer[:upto], position, end)) >= 0:
            self._dot.size_bytes = before + at - position
            return self._break_off(at, upto, now)
        elif self._look is not None:
            self._see(buffer, position, upto)
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

    def _see(self, buffer: bytes, position: int, upto: int) -> None:
        """Octets that somebody must have seen, or has to see before they cross."""
        self.hold(buffer[position:upto])
        if self._held:
            self.cuts.append((position, upto, b""))

    def _end_data(self, end: int, now: float) -> None:
        self.reading = self._behind_message()
        if self._fate is not None:
            self._end_unheard(end, now)
            return
        self.end_content(chunked=False)
        if self.reading is not Reading.JUDGED:
            if self._owed:
                self._owed[-1].ended = True
            self._screen.forget()
            if self._transaction and self._transaction.refusal and not self._owed:
                self._end(self._transaction.refusal, now)

    def _end_unheard(self, end: int, now: float) -> None:
        """The content has come, and the server has had none of it."""
        fate, self._fate = self._fate, None
        assert fate is not None
        self._answer_last(fate, now)
        if self.reading is not Reading.OVER:
            self._forget_at(end, now)

    def _answer_last(self, answer: Answer, now: float) -> None:
        """Ours, not the server's, is the reply to what came last."""
        self._owed[-1] = replace(self._owed[-1], answer=answer)
        self.settle(now)

    def _forget_at(self, end: int, now: float) -> None:
        """The client believes the transaction to be over: so must the server, or the next MAIL is a mistake to it."""
        if self._screen.server_waits:
            self._reset_server(end, now)
        self._screen.forget()

    def _reset_server(self, at: int, now: float) -> None:
        """Whatever transaction it has, there is none for the client."""
        self.cuts.append((at, at, _FORGET))
        self._owed.append(Owed(Verb.RSET, now, silent=True))
        self._screen.unsure = False

    # Chunks.

    def _read_chunk(self, buffer: bytes, position: int, now: float) -> int:
        end = self._chunk.find(buffer, position)
        self._go_on(end - position, now, ended=not self._chunk.left_bytes)
        if self._swallowed is not None:
            if self._swallowed.answer is answers.CHUNK_HELD:
                self.hold(buffer[position:end])
            self.cuts.append((position, end, b""))
        elif self._look is not None:
            self._see(buffer, position, end)
        if not self._chunk.left_bytes:
            self.reading = self._behind_message() if self._last_chunk else self.next_command()
            self._end_chunk(end, now)
        return end

    def _end_chunk(self, end: int, now: float) -> None:
        if self._swallowed is not None:
            owed, self._swallowed = self._swallowed, None
            self._answer_chunk(owed, end, now)
        elif self._last_chunk:
            self._end_chunks()

    def _answer_chunk(self, owed: Owed, end: int, now: float) -> None:
        """It has come, and the server has not had it."""
        if owed.last and owed.answer is answers.CHUNK_HELD:
            self._owed.append(Owed(Verb.HELD, now))
            self.end_content(chunked=True)
            return
        self._owed.append(owed)
        self.settle(now)
        self._end_swallowed(owed, end, now)

    def _end_chunks(self) -> None:
        """The last of a message has crossed whole."""
        self.end_content(chunked=True)
        if self._owed:
            self._owed[-1].ended = True
        self._screen.forget()

    def _end_swallowed(self, owed: Owed, end: int, now: float) -> None:
        """The last chunk of a message that was discarded."""
        if owed.last and owed.answer is answers.CHUNK_OK and self.reading is not Reading.OVER:
            self._forget_at(end, now)
