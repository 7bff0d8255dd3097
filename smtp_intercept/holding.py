"""Content that the server has not seen: kept for the judge, then given to the server late, or answered here.

Pure. Keeps nothing itself: the shell does, as it is told. The client's next commands wait until the judge has spoken.
"""

from __future__ import annotations

from smtp_intercept import answers
from smtp_intercept.answers import Answer
from smtp_intercept.dialogue import Owed, Reading, Verb
from smtp_intercept.events import Asking, Forget, Hold, Release, ToServer
from smtp_intercept.look import Look
from smtp_intercept.policy import Notes, Ruling, Stage
from smtp_intercept.replies import Replies
from smtp_intercept.wire import MAX_COUNT, ReplyLine

_DATA, _RSET, _NOOP = b"DATA\r\n", b"RSET\r\n", b"NOOP\r\n"
# Servers leave who says nothing for five minutes (RFC 5321 §4.5.3.2.7).
NOOP_EVERY_S = 120.0


class Holding(Replies):
    """A conversation as far as content is kept."""

    __slots__ = ()

    def begin_look(self, now: float, *, held: bool) -> None:
        """Content begins that somebody must have seen."""
        self.drop_held()
        self._look = Look(self._rules.limits.header_bytes)
        self._held, self._no_room, self._server_at = held, False, now

    def hold(self, octets: bytes) -> None:
        """The next of it."""
        assert self._look is not None
        most, before = self._rules.limits.held_message_bytes, self._look.size_bytes
        self._look.read(octets)
        if not self._held:
            return
        if not 0 < most < self._look.size_bytes:
            self.orders.append(Hold(octets))
        elif before <= most:
            self.orders.append(Forget())

    def lack_room(self) -> None:
        """What is held could not be kept: the client will come again."""
        self._no_room = True

    def end_content(self, *, chunked: bool) -> None:
        """All of it has come. What was only looked at crosses meanwhile, whatever is said."""
        if self._held:
            self._chunked, self.reading = chunked, Reading.JUDGED
        elif self._look is not None:
            self._ask(chunked=chunked)
            self._look = None

    def judge_content(self, now: float) -> None:
        """Of content that has ended, and is kept."""
        if self._chunked and self._look and self._transaction:
            self._transaction.size_bytes = self._look.size_bytes
        answer = self._too_much() or self._ask(chunked=self._chunked)
        if answer is answers.ASKED:
            self.reading = Reading.ASKED
            self.orders.append(Asking(self._screen.question))
        elif answer is None:
            self._give(self._screen.ruling, now)
        else:
            self._take_back(answer, now)

    def told(self, ruling: Ruling) -> None:
        """The answer to the question of `Asking`."""
        self._screen.told(ruling)
        self.reading = Reading.JUDGED if self._screen.question.stage is Stage.MESSAGE else Reading.COMMAND

    def _too_much(self) -> Answer | None:
        assert self._look is not None
        if self._no_room:
            return answers.NO_ROOM
        if 0 < self._rules.limits.held_message_bytes < self._look.size_bytes:
            return self._rules.too_large
        if self._chunked and self._look.size_bytes > MAX_COUNT:
            return self._rules.too_large
        return answers.HEADER_TOO_LARGE if self._look.header(dotted=not self._chunked) is None else None

    def _ask(self, *, chunked: bool) -> Answer | None:
        assert self._look is not None
        transaction = self._transaction
        return self._screen.ask(
            Stage.MESSAGE,
            recipient="",
            header=self._look.header(dotted=not chunked) or b"",
            size_bytes=self._look.size_bytes if chunked else self._dot.size_bytes,
            tokens=frozenset(transaction.tokens) if transaction else frozenset(),
        )

    def _give(self, ruling: Ruling | None, now: float) -> None:
        """To the server, which is asked now what the client believes to have asked long ago."""
        self._let_go()
        self.reading, self.moved_at = Reading.WAITING, now
        self._edit = ruling.edit if ruling else None
        if self._chunked:
            self._release(now, Owed(Verb.BDAT, now, size_bytes=0, last=True, ended=True))
        else:
            self._owed.append(Owed(Verb.DATA, now, late=True))
            self.orders.append(ToServer(_DATA))

    def _release(self, now: float, owed: Owed) -> None:
        """All of it: the server's next reply is the client's."""
        self.orders.append(Release(self._edit, self._chunked))
        if self._lmtp and self._transaction:
            self._owe_verdicts(self._transaction.at_server - 1, now)
        self._owed.append(owed)
        self._edit = None
        self.ambiguous = self.ambiguous or not (self._chunked or self._rules.reject_bare_newline)
        self._screen.forget()
        self.reading = self._behind_message()

    def _behind_message(self) -> Reading:
        """How many replies PRDR brings is not known before they have come."""
        return self.wait() if self._transaction and self._transaction.prdr else self.next_command()

    def _take_back(self, answer: Answer, now: float) -> None:
        """The server never hears of it, but that the transaction is over."""
        self._let_go()
        self.orders.append(Forget())
        number = self._transaction.at_server if self._lmtp and self._transaction else 1
        self._owed.extend(Owed(Verb.VERDICT, now, answer=answer) for _ in range(number - 1))
        self._owed.append(Owed(Verb.CONTENT, now, answer=answer))
        self.reading = Reading.HELD if answer.closes else self.next_command()
        if not answer.closes:
            self._forget_late(now)
        self.settle(now)

    def _refuse_late(self, reply: ReplyLine, now: float) -> None:
        """The server wants no content: its word is the client's on the message."""
        self._edit = None
        self.orders.append(Forget())
        self._end(reply, now)
        self.reading = self.next_command()
        self._forget_late(now)

    def _forget_late(self, now: float) -> None:
        """As the client believes: or the next MAIL is a mistake to the server."""
        if self._screen.server_waits and not self.alone:
            self.orders.append(ToServer(_RSET))
            self._owed.append(Owed(Verb.RSET, now, silent=True))
        self._screen.unsure = False
        self._screen.forget()

    def _let_go(self) -> None:
        self._owed.pop()  # `Verb.HELD`; nothing can be behind it
        self._look, self._held = None, False

    def drop_held(self) -> None:
        """The client has begun anew in the middle of it."""
        if self._held:
            self.orders.append(Forget())
        self._look, self._held = None, False

    def keep_server(self, now: float) -> None:
        """Say something to a server that has nothing to do while content is kept."""
        idle = not self._owed or self._owed[0].verb is Verb.HELD
        if self._held and idle and now - self._server_at >= NOOP_EVERY_S:
            self._server_at = now
            self._owed.appendleft(Owed(Verb.OTHER, now, silent=True))
            self.orders.append(ToServer(_NOOP))

    @property
    def session_notes(self) -> Notes:
        """Of rules that came into play before any message."""
        return self._screen.session_notes
