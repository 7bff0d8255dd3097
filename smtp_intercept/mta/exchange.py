"""Commands out, replies in, matched in order (RFC 2920): the mechanics of one connection to a server.

Pure. What replies mean stands in `greeting` and `delivery`, as a table from what was asked and the code's first digit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from smtp_intercept.dialogue import Verb
from smtp_intercept.limits import RFC_SECONDS, Phase
from smtp_intercept.mta.envelope import Outcome, State
from smtp_intercept.mta.failure import Failure, for_now
from smtp_intercept.mta.nexthop import Protocol, Security
from smtp_intercept.mta.reply import GarbageError, Replies, Reply


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class StartTls:
    """Shake hands, then say `secured`."""


@dataclass(frozen=True, slots=True)
class SendContent:
    """The server waits for the message: feed `content`, then say `content_sent`."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A message may begin."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The transaction is over: what became of its recipients. Those that are missing have no answer, and may be tried
    again at once. ``doubtful``: of how many a QUEUED may become a duplicate, because the last reply was lost."""

    outcomes: tuple[Outcome, ...]
    doubtful: int = 0


@dataclass(frozen=True, slots=True)
class Over:
    """Close the connection. ``failure`` holds for those without an outcome."""

    failure: Failure | None = None


Out: TypeAlias = Send | StartTls | SendContent | Ready | Settled | Over


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a connection is made. ``host`` names it in outcomes; ``hostname`` is ours; ``plain``: TLS has been tried
    before and failed; ``credentials`` are (user name, password)."""

    hostname: str
    host: str
    security: Security = Security.OPPORTUNISTIC
    protocol: Protocol = Protocol.SMTP
    plain: bool = False
    credentials: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"Terms({self.host!r}, {self.security}, {self.protocol}, plain={self.plain})"


@dataclass(frozen=True, slots=True)
class Owed:
    """A command that awaits its reply; ``number`` is its recipient's."""

    verb: Verb
    number: int = -1


# How long the server may take (RFC 5321 §4.5.3.2); REPLY's for those that are not here.
PHASES: Mapping[Verb, Phase] = MappingProxyType(
    {Verb.CONNECT: Phase.BANNER, Verb.DATA: Phase.DATA_REPLY, Verb.CONTENT: Phase.END_REPLY}
)
LOST = "4.4.2"  # RFC 3463 §3.5: bad connection
# The server is going away (RFC 5321 §3.8): no answer to what was asked, unless that was all there was to ask.
CLOSING = 421
_LAST_WORDS = frozenset({Verb.CONTENT, Verb.QUIT})


class Exchange:
    """Commands and replies of one connection. ``over``: nothing more will be said; ``offer``: what EHLO brought."""

    __slots__ = (
        "_outs",
        "_owed",
        "_patience_s",
        "_replies",
        "_since",
        "_unsaid",
        "offer",
        "over",
        "streaming",
        "terms",
    )

    def __init__(self, terms: Terms, patience_s: Mapping[Phase, float] = RFC_SECONDS) -> None:
        self.terms, self._patience_s = terms, patience_s
        self.offer: Mapping[str, str] = {}
        self.over = self.streaming = False
        self._replies = Replies()
        self._owed: deque[Owed] = deque()
        self._unsaid: deque[tuple[bytes, Owed]] = deque()
        self._outs: list[Out] = []
        self._since = 0.0

    @property
    def deadline_at(self) -> float | None:
        """When the server's reply is too late; None if none is awaited, or not before the content is out."""
        if self.over or self.streaming or not self._owed:
            return None
        return self._since + self._patience_s[PHASES.get(self._owed[0].verb, Phase.REPLY)]

    def received(self, data: bytes, now: float) -> list[Out]:
        """The server said ``data``."""
        if self.over:
            return []
        self._replies.feed(data)
        try:
            while not self.over and (reply := self._replies.next()) is not None:
                self._replied(reply, now)
        except GarbageError as garbage:
            self.fail(for_now("4.5.0", str(garbage), self.terms.host))
        return self.take()

    def closed(self, now: float, reason: str = "lost connection") -> list[Out]:
        """The connection has ended, or failed for ``reason``."""
        self.fail(for_now(LOST, f"{reason} {self.doing()}", self.terms.host))
        return self.take()

    def timed_out(self, now: float) -> list[Out]:
        """`deadline_at` has come, or the content does not leave."""
        return self.closed(now, "timed out")

    def doing(self) -> str:
        """What the server's silence or end fell into."""
        if self.streaming:
            return "while the message was being sent"
        return f"while {_AWAITED[self._owed[0].verb]} was awaited" if self._owed else "between messages"

    # For those who know what replies mean.

    def say(self, line: bytes, owed: Owed) -> None:
        """At its turn."""
        self._unsaid.append((line, owed))

    def speak(self, now: float, *, together: bool = False) -> None:
        """Say what may be said now: all ``together``, or one command when the one before has been answered."""
        count = len(self._unsaid) if together else min(len(self._unsaid), not self._owed)
        said = [self._unsaid.popleft() for _ in range(count)]
        if said:
            self._since = now
            self._owed.extend(owed for _, owed in said)
            self._outs.append(Send(b"".join(line for line, _ in said)))

    def out(self, out: Out) -> None:
        self._outs.append(out)

    def take(self) -> list[Out]:
        outs, self._outs = self._outs, []
        return outs

    def fail(self, failure: Failure | None) -> None:
        """The end of the connection, whatever was going on."""
        if not self.over:
            self._interrupted(failure)
            self.over, self.streaming = True, False
            self.out(Over(failure))

    def refusal(self, reply: Reply) -> Failure:
        """A refusal that is about the host and not about the mail: another time, or another host."""
        status = "4" + reply.status[1:]
        return Failure(State.QUEUED, status, str(reply), reply.code, self.terms.host)

    def _interrupted(self, failure: Failure | None) -> None:
        """The connection ends inside a transaction, perhaps."""

    def _perform(self, owed: Owed, reply: Reply, now: float) -> None:
        raise NotImplementedError

    # Effects that any table may hold.

    def _nothing(self, owed: Owed, reply: Reply, now: float) -> None: ...

    def _broken(self, owed: Owed, reply: Reply, now: float) -> None:
        """A reply that makes no sense here."""
        self.fail(for_now("4.5.0", f"unexpected reply to {owed.verb.name}: {reply}", self.terms.host))

    def _refused(self, owed: Owed, reply: Reply, now: float) -> None:
        """This host, not this mail."""
        self.out(Send(b"QUIT\r\n"))
        self.fail(self.refusal(reply))

    def _ended(self, owed: Owed, reply: Reply, now: float) -> None:
        self.fail(None)

    def _replied(self, reply: Reply, now: float) -> None:
        self._since = now
        if not self._owed:
            said = f"said {reply} unasked"
            return self.fail(self.refusal(reply) if reply.code == CLOSING else for_now("4.5.0", said, self.terms.host))
        owed = self._owed.popleft()
        if reply.code != CLOSING or owed.verb in _LAST_WORDS:
            self._perform(owed, reply, now)
        if reply.code == CLOSING:
            self.fail(self.refusal(reply))
        if not self.over:
            self.speak(now)
        return None


_AWAITED: Mapping[Verb, str] = MappingProxyType(
    {
        **{verb: f"the reply to {verb.name}" for verb in Verb},
        Verb.CONNECT: "the greeting",
        Verb.CONTENT: "the reply to the message",
    }
)
