"""One connection to a server as its client, SMTP or LMTP: messages in, each recipient's outcome out.

Pure: events in, actions out; no socket, no clock, no file. Never says the end of a message that is not whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeAlias

from smtp_intercept.dialogue import Verb
from smtp_intercept.limits import RFC_SECONDS, Phase
from smtp_intercept.mta.envelope import Outcome, State
from smtp_intercept.mta.exchange import Out, Owed, Send, SendContent, Settled, Terms
from smtp_intercept.mta.failure import Failure, for_good, for_now
from smtp_intercept.mta.greeting import EFFECTS as GREETING_EFFECTS
from smtp_intercept.mta.greeting import Greeting
from smtp_intercept.mta.nexthop import Protocol
from smtp_intercept.mta.reply import Reply
from smtp_intercept.mta.request import Mail, impossible, mail_line, rcpt_line, unreachable
from smtp_intercept.mta.stuffing import DotStuffing, DoubtfulContentError

_STATES = {2: State.DELIVERED, 4: State.QUEUED, 5: State.FAILED}
# "Too many recipients" (RFC 5321 §4.5.3.1.10), unless the status says that it is something else.
_TOO_MANY = MappingProxyType({452: frozenset({"", "4.5.3"}), 552: frozenset({"", "5.5.3"})})


class Session(Greeting):
    """``begin`` is for a session that is ``ready``, the content's events for one that asked for it."""

    __slots__ = ("_accepted", "_mail", "_outcomes", "_stuffing", "_unclean")

    def __init__(self, terms: Terms, patience_s: Mapping[Phase, float] = RFC_SECONDS) -> None:
        super().__init__(terms, patience_s)
        self._mail: Mail | None = None
        self._outcomes: dict[int, Outcome] = {}
        self._accepted: list[int] = []
        self._unclean = False
        self._stuffing = DotStuffing()

    def begin(self, mail: Mail, now: float) -> list[Out]:
        """Hand over a message."""
        self.ready, self._mail = False, mail
        self._outcomes, self._accepted, self._unclean = {}, [], False
        if failure := impossible(mail, self.offer):
            self._decide_rest(failure)
        askable = []
        for number, recipient in mail.recipients if not failure else ():
            if without := unreachable(recipient, self.offer):
                self._outcomes[number] = without.of(number)
            else:
                askable.append((rcpt_line(recipient, mail, self.offer), Owed(Verb.RCPT, number)))
        self._ask(mail, askable, now)
        return self.take()

    def content(self, data: bytes, now: float) -> list[Out]:
        """The next octets of the stored content; none is sent any more when the server has refused it early."""
        if not self.streaming:
            return []
        try:
            self.out(Send(self._stuffing.stuff(data)))
        except DoubtfulContentError:
            self._give_up_content()
        return self.take()

    def content_sent(self, now: float) -> list[Out]:
        """That was all of it."""
        if not self.streaming:
            return []
        try:
            self.out(Send(self._stuffing.end()))
        except DoubtfulContentError:
            self._give_up_content()
        self.streaming, self._since = False, now
        return self.take()

    def content_lost(self, reason: str, now: float) -> list[Out]:
        """The content cannot be read: without its end the server must not take it for whole (RFC 5321 §4.1.1.4)."""
        if self.streaming and self._mail:
            self._decide_rest(for_now("4.3.0", reason))
            self.fail(None)
        return self.take()

    def quit(self, now: float) -> list[Out]:
        """No more messages; the server's goodbye ends it."""
        if self.ready:
            self.ready = False
            self.say(b"QUIT\r\n", Owed(Verb.QUIT))
            self.speak(now)
        return self.take()

    def _ask(self, mail: Mail, askable: list[tuple[bytes, Owed]], now: float) -> None:
        if not askable:
            return self._settle(now)
        self.say(mail_line(mail, self.offer), Owed(Verb.MAIL))
        for line, owed in askable:
            self.say(line, owed)
        if not mail.asking:
            self.say(b"DATA\r\n", Owed(Verb.DATA))
        return self.speak(now, together="PIPELINING" in self.offer)

    def _decide_rest(self, failure: Failure) -> None:
        """For all who have no answer yet."""
        self._decide(self._mail.numbers if self._mail else (), failure)

    def _decide(self, numbers: Iterable[int], failure: Failure) -> None:
        self._outcomes |= {number: failure.of(number) for number in numbers if number not in self._outcomes}

    def _answer(self, numbers: Iterable[int], reply: Reply) -> None:
        state, host = _STATES[reply.code // 100], self.terms.host
        self._decide(numbers, Failure(state, reply.status, str(reply), reply.code, host))

    def _settle(self, now: float) -> None:
        """The transaction is over, the connection is not. What it left behind on the server goes first."""
        self._publish()
        if self._unclean:
            self._unclean = False
            self.say(b"RSET\r\n", Owed(Verb.RSET))
        else:
            self.become_ready()

    def _publish(self, doubtful: int = 0) -> None:
        taken = "DSN" in self.offer
        outcomes = (self._outcomes[number] for number in sorted(self._outcomes))
        self.out(
            Settled(tuple(replace(each, dsn_taken=taken and each.state is _STATES[2]) for each in outcomes), doubtful)
        )
        self._mail = None
        self._unsaid.clear()

    def _interrupted(self, failure: Failure | None) -> None:
        """A recipient of a message whose end was said may have it: asking again at once would make sure of two."""
        self.ready = False
        if self._mail is None:
            return
        whole = bool(self._owed) and self._owed[0].verb is Verb.CONTENT and not self.streaming
        doubtful = [number for number in self._accepted if number not in self._outcomes] if whole else []
        if failure is not None:
            self._decide(doubtful, for_now(failure.status, f"{failure.reply}; a duplicate is possible", failure.host))
        self._publish(len(doubtful))

    def _give_up_content(self) -> None:
        self._decide_rest(for_good("5.6.0", "the content could be taken for two messages (smuggling)"))
        self.fail(None)

    # The effects.

    def _perform(self, owed: Owed, reply: Reply, now: float) -> None:
        _EFFECTS[owed.verb][reply.code // 100 - 2](self, owed, reply, now)

    def _began(self, owed: Owed, reply: Reply, now: float) -> None:
        self._unclean = True

    def _not_from_them(self, owed: Owed, reply: Reply, now: float) -> None:
        """Every recipient's answer; those to come are only its consequences. Who was only asking knows no more of them
        than before: the server does not like him."""
        if self._mail is not None and self._mail.asking:
            self._decide_rest(for_now(reply.status, str(reply), self.terms.host))
        self._answer(self._mail.numbers if self._mail else (), reply)
        if not self._owed:
            self._settle(now)

    def _recipient(self, owed: Owed, reply: Reply, now: float) -> None:
        if self._mail is not None and self._mail.asking:
            self._answer([owed.number], reply)
            return None if self._owed or self._unsaid else self._settle(now)
        if reply.code < 300 and owed.number not in self._outcomes:
            self._accepted.append(owed.number)
        elif not (self._accepted and reply.enhanced in _TOO_MANY.get(reply.code, ())):
            self._answer([owed.number], reply)
        if not self._accepted and [each.verb for _, each in self._unsaid] == [Verb.DATA]:
            self._unsaid.clear()
            self._settle(now)
        return None

    def _send_content(self, owed: Owed, reply: Reply, now: float) -> None:
        if not self._accepted:
            return self._send_nothing(now)
        each = self._accepted if self.terms.protocol is Protocol.LMTP else [-1]
        self._owed.extend(Owed(Verb.CONTENT, number) for number in each)
        self._stuffing, self.streaming = DotStuffing(), True
        return self.out(SendContent())

    def _send_nothing(self, now: float) -> None:
        """A server that wants data for nobody gets a lone dot (RFC 2920 §3.1); over LMTP no reply would end it."""
        if self.terms.protocol is Protocol.LMTP:
            return self.fail(None)
        self.say(b".\r\n", Owed(Verb.CONTENT))
        return self.speak(now)

    def _no_content(self, owed: Owed, reply: Reply, now: float) -> None:
        self._answer(self._accepted, reply)
        self._settle(now)

    def _taken(self, owed: Owed, reply: Reply, now: float) -> None:
        """Before the end of data it means that we do not agree on where that is."""
        if self.streaming:
            self.streaming = False
            self._owed.appendleft(owed)
            return self.fail(for_now("4.5.0", f"reply before the end of the message: {reply}", self.terms.host))
        return self._answered(owed, reply, now)

    def _answered(self, owed: Owed, reply: Reply, now: float) -> None:
        """A refusal may come early, and ends the connection: the server still waits for the rest."""
        self._answer([owed.number] if owed.number >= 0 and not self.streaming else self._accepted, reply)
        if self.streaming:
            return self.fail(self.refusal(reply))
        if not self._owed:
            self._unclean = not self._accepted
            self._settle(now)
        return None

    def _reset(self, owed: Owed, reply: Reply, now: float) -> None:
        self.become_ready()


_Does: TypeAlias = Callable[[Session, Owed, Reply, float], None]
_S = Session
# By the first digit of the code, RFC 5321 §4.2.1: 2yz, 3yz, 4yz, 5yz.
_EFFECTS: Mapping[Verb, tuple[_Does, _Does, _Does, _Does]] = MappingProxyType(
    {
        **GREETING_EFFECTS,
        Verb.MAIL: (_S._began, _S._broken, _S._not_from_them, _S._not_from_them),
        Verb.RCPT: (_S._recipient, _S._broken, _S._recipient, _S._recipient),
        Verb.DATA: (_S._broken, _S._send_content, _S._no_content, _S._no_content),
        Verb.CONTENT: (_S._taken, _S._broken, _S._answered, _S._answered),
        Verb.RSET: (_S._reset, _S._broken, _S._refused, _S._refused),
        Verb.QUIT: (_S._ended, _S._ended, _S._ended, _S._ended),
    }
)
