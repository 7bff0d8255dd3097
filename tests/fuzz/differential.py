"""Random sessions of a hostile client with a loose server, the pure session between them: stored = logged as accepted.

Pure. Octets on both ways wait for as long as chance will have it; what has crossed the server always hears.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from smtp_intercept.direction import Domains, Protection
from smtp_intercept.events import (
    Abort,
    Asking,
    DropServer,
    EndServer,
    Forget,
    Hold,
    Leave,
    MessageDone,
    Out,
    Release,
    Side,
    ToClient,
    ToServer,
)
from smtp_intercept.policy import Defer, Discard, Need, Pass, Question, Refuse, Ruling, Stage, Verdict
from smtp_intercept.rules import Rules
from smtp_intercept.session import Session
from smtp_intercept.transaction import Message, Outcome
from tests.fuzz.hostile import End, Hostile
from tests.fuzz.loose import TRAP, LooseServer, Quirks
from tests.smtp.script import released

PROTECTION = Protection(Domains.of([("example.com", False)]))
VERDICTS: tuple[Verdict, ...] = (*[Pass()] * 9, Refuse(550, "5.7.1 no"), Defer(450, "4.7.1 later"), Discard())
REFUSED = frozenset({Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.MESSAGE})


Envelope = tuple[str, tuple[str, ...]]


def envelope(message: Message) -> Envelope:
    """Of a message that was accepted: with those of its recipients that were."""
    return message.sender, tuple(r.address for r in message.recipients if r.reply.code < 300 and not r.thrown_away)


def kept(envelopes: Iterable[Envelope]) -> Counter[Envelope]:
    """Without what the server has discarded behind a 250."""
    found = ((sender, tuple(r for r in to if not r.startswith(TRAP))) for sender, to in envelopes)
    return Counter(each for each in found if each[1])


def judging(chance: random.Random) -> Callable[[Question], Ruling]:
    """A judge that has content held, all of it or any, and some of the mail refused, deferred or thrown away."""
    needs = chance.choice([[Need.HOLD], list(Need)])

    def ask(question: Question) -> Ruling:
        verdict = chance.choice(VERDICTS) if question.stage in REFUSED else Pass()
        return Ruling(verdict, need=chance.choice(needs), token="r")

    return ask


@dataclass
class Meeting:
    """One session. ``judge``: who answers in his own time, if anybody is asked."""

    session: Session
    server: LooseServer
    chance: random.Random
    judge: Callable[[Question], Ruling] | None = None
    asked: list[Question] = field(default_factory=list)
    held: bytes = b""
    to_server: bytes = b""
    to_box: bytes = b""
    told: list[Message] = field(default_factory=list)
    over: bool = False
    gone: bool = False  # the client, by a reset: the server is heard as long as it owes a word

    def take(self, outs: list[Out]) -> None:
        for out in outs:
            match out:
                case ToServer(data):
                    self.to_server += data
                case MessageDone(message):
                    self.told.append(message)
                case Abort() | Leave():
                    self.over = True
                case Hold(data):
                    self.held += data
                case Forget():
                    self.held = b""
                case Release():
                    self.to_server, self.held = self.to_server + released(self.held, out), b""
                case Asking(question):
                    self.asked.append(question)
                case EndServer() | DropServer() | ToClient():
                    pass

    def some(self, octets: bytes) -> int:
        return len(octets) if self.chance.random() < 0.7 else self.chance.randint(1, len(octets))

    def move(self) -> bool:
        """One of the two ways goes on, or the judge speaks; False if there is nothing to go."""
        waiting = ((self.to_server, self.server_hears), (self.to_box, self.box_hears), (self.asked, self.judge_speaks))
        ways = [way for waits, way in waiting if waits]
        if ways:
            self.chance.choice(ways)()
        return bool(ways)

    def server_hears(self) -> None:
        size = self.some(self.to_server)
        heard, self.to_server = self.to_server[:size], self.to_server[size:]
        self.to_box += self.server.hear(heard)

    def box_hears(self) -> None:
        size = self.some(self.to_box)
        heard, self.to_box = self.to_box[:size], self.to_box[size:]
        if not self.over and (not self.gone or self.session.owes_word):
            self.take(self.session.server_sent(heard, 0.0))

    def judge_speaks(self) -> None:
        assert self.judge is not None
        question = self.asked.pop()
        if not self.over and not self.gone:
            self.take(self.session.told(self.judge(question), 0.0))

    def settle(self) -> None:
        while self.move():
            pass

    def encrypt(self) -> None:
        """Up to where both legs are encrypted and what is said in there is read."""
        self.server.greet()  # in clear, before
        for heard, said in (
            (b"220 mx\r\n", b"EHLO c.example\r\n"),
            (b"250-mx\r\n250 STARTTLS\r\n", b"STARTTLS\r\n"),
            (b"220 go\r\n", b""),
        ):
            for outs in (self.session.server_sent(heard, 0.0), self.session.client_sent(said, 0.0)):
                self.take(outs)
                while self.asked:
                    self.judge_speaks()
        assert self.to_server == b"EHLO c.example\r\nSTARTTLS\r\n"
        self.to_server = b""
        self.take(self.session.encrypted({}, verified=True, now=0.0))


def meet(
    seed: str, rules: Rules | None = None, *, judged: bool = False, encrypted: bool = False
) -> tuple[Meeting, Hostile, Quirks]:
    """One session, to its end. ``judged``: by somebody, at once or in his own time. ``encrypted``: all of it is said in
    TLS that the box takes part in."""
    chance = random.Random(f"meet {seed}")
    quirks = Quirks.by(chance)
    client = Hostile(seed, "example.com")
    rules = rules or Rules(reject_bare_newline=True, strip_starttls=chance.random() < 0.3)
    judge = judging(chance) if judged else None
    if judge is not None:
        rules = replace(rules, ask=judge if chance.random() < 0.5 else lambda question: None)
    if encrypted:
        rules = replace(rules, takes_part=True, strip_starttls=False)
    it = Meeting(Session(PROTECTION, rules), LooseServer(quirks), chance, judge)
    it.take(it.session.opened(0.0))
    if encrypted:
        while it.asked:
            it.judge_speaks()
        it.encrypt()
    greeted = encrypted
    for step in client.steps:
        if not greeted and (step is None or chance.random() < 0.2):
            it.to_box, greeted = it.to_box + it.server.greet(), True
        if it.over:
            break
        if step is None:
            it.settle()
        elif isinstance(step, End):
            it.gone = step is End.RESET
        else:
            it.take(it.session.client_sent(step, 0.0))
            while chance.random() < 0.4 and it.move():
                pass
    if not greeted and not it.gone:
        it.to_box += it.server.greet()
    it.settle()
    if not (it.over or it.gone):
        it.take(it.session.client_closed(0.0))
    it.settle()
    it.take(it.session.finish(0.0))
    return it, client, quirks


def accepted(it: Meeting) -> Counter[Envelope]:
    """What is logged so."""
    return kept(envelope(message) for message in it.told if message.outcome is Outcome.ACCEPTED)


def check(seed: str, *, judged: bool = False, encrypted: bool = False) -> Meeting:
    """AssertionError with all that is needed to play it again."""
    it, client, quirks = meet(seed, judged=judged, encrypted=encrypted)
    logged, stored = accepted(it), kept(it.server.taken)
    assert logged == stored, (seed, stored - logged, logged - stored, quirks, client.steps)
    assert not it.session.unread or it.session.doubted is Side.SERVER, (seed, it.session.doubt, quirks, client.steps)
    return it


def trusting(seed: str) -> Meeting:
    """The same where the client's doubts pass, as a proof that these sessions are hostile."""
    return meet(seed, replace(Rules(), pass_client_doubt=True))[0]
