"""Each action at each stage, in both directions, with DATA and BDAT, pipelined and not, for one recipient or two:
what the client hears, what a strict server has taken, and what the log says.
"""

from __future__ import annotations

from ipaddress import ip_address
from itertools import product
from typing import Any

import pytest

from smtp_intercept.direction import Direction, Domains, Protection, Servers
from smtp_intercept.events import DropServer, Forget, Hold, Leave, MessageDone, Out, Release, ToClient, ToServer
from smtp_intercept.inspect.actions import TagSubject
from smtp_intercept.inspect.criteria import CRITERIA
from smtp_intercept.inspect.facts import Connection
from smtp_intercept.inspect.judge import Judge
from smtp_intercept.inspect.rule import Condition, Rule
from smtp_intercept.inspect.ruleset import Ruleset
from smtp_intercept.policy import Close, Defer, Discard, Pass, Refuse
from smtp_intercept.rules import Rules
from smtp_intercept.session import Session
from tests.fuzz.strict import StrictServer
from tests.smtp.script import released

PROTECTION = Protection(Domains.of([("example.com", False)]), Servers.of(["192.0.2.20"]))
SERVERS = {Direction.INCOMING: "192.0.2.20", Direction.OUTGOING: "198.51.100.20"}
CONTENT = b"Subject: x\r\n\r\n.text\r\n"
# What a rule looks at → its criterion and what holds for the message.
STAGES = {
    "connect": ("client", "192.0.2.9"),
    "helo": ("helo", "c.example"),
    "mail": ("sender", "a@c.example"),
    "rcpt": ("recipient", "b@example.com"),
    "message": ("header", "x"),
}
ACTIONS: dict[str, Any] = {
    "accept": Pass(),
    "refuse": Refuse(550, "5.7.1 no"),
    "defer": Defer(450, "4.7.1 later"),
    "discard": Discard(),
    "close": Close(421, "4.7.0 go"),
    "tag": None,
}


class World:
    """A session between a client's octets and a server that does what RFC 5321 says."""

    def __init__(self, rule: Rule, direction: Direction) -> None:
        connection = Connection(direction, ip_address("192.0.2.9").packed, ip_address(SERVERS[direction]).packed)
        on, ruleset = PROTECTION.on(SERVERS[direction], direction), Ruleset([rule])
        self.session = Session(on, Rules(ask=Judge(lambda: ruleset, connection, on).ask))
        self.server, self.kept, self.heard, self.over, self.alone = StrictServer(), b"", b"", False, False
        self.outcomes: list[str] = []
        self.take(self.session.opened(0))
        self.from_server(b"220 mx\r\n")

    def from_server(self, data: bytes) -> None:
        if not (self.over or self.alone):
            self.take(self.session.server_sent(data, 0))

    def say(self, data: bytes) -> None:
        if not self.over:
            self.take(self.session.client_sent(data, 0))

    def take(self, outs: list[Out]) -> None:
        reply = b""
        for out in outs:
            match out:
                case ToServer(data):
                    reply += self.server.hear(data)
                case ToClient(data):
                    self.heard += data
                case Hold(data):
                    self.kept += data
                case Forget():
                    self.kept = b""
                case Release():
                    reply += self.server.hear(released(self.kept, out))
                    self.kept = b""
                case MessageDone(message):
                    self.outcomes.append(message.outcome.value)
                case Leave():
                    self.over = True
                case DropServer():
                    self.alone = True
        if reply:
            self.from_server(reply)


def converse(world: World, recipients: list[bytes], *, chunked: bool, pipelined: bool) -> None:
    dotted = CONTENT.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    half = len(CONTENT) // 2
    chunks = b"BDAT %d\r\n%bBDAT %d LAST\r\n%b" % (half, CONTENT[:half], len(CONTENT) - half, CONTENT[half:])
    world.say(b"EHLO c.example\r\n")
    envelope = [b"MAIL FROM:<a@c.example>\r\n", *(b"RCPT TO:<%b>\r\n" % each for each in recipients)]
    lines = [*envelope, *([chunks] if chunked else [b"DATA\r\n"])]
    for piece in [b"".join(lines)] if pipelined else lines:
        world.say(piece)
    if not chunked and b"\r\n354 " in world.heard:
        world.say(dotted)
    world.say(b"QUIT\r\n")
    world.take(world.session.finish(0))


@pytest.mark.parametrize(("stage", "action"), list(product(STAGES, ACTIONS)))
@pytest.mark.parametrize("direction", SERVERS)
def test_what_comes_of_it(stage: str, action: str, direction: Direction) -> None:
    name, text = STAGES[stage]
    condition = Condition(name, (CRITERIA[name].kind.read(text),), False, "subject" if name == "header" else "")
    edits = (TagSubject("[T]"),) if action == "tag" else ()
    for chunked, pipelined, two in product((False, True), repeat=3):
        world = World(Rule("r", (condition,), ACTIONS[action], edits), direction)
        recipients = [b"b@example.com", *([b"c@example.org"] if two else [])]
        converse(world, recipients, chunked=chunked, pipelined=pipelined)
        case = (chunked, pipelined, two, world.heard)
        # Of two, only the one that the rule speaks of is refused or thrown away at RCPT.
        spared = stage == "rcpt" and two and action in ("refuse", "defer", "discard")
        delivered = action in ("accept", "tag") or spared
        wanted = CONTENT.replace(b"Subject: ", b"Subject: [T] ") if action == "tag" else CONTENT
        taken = [content.removeprefix(b"\r\n") for content in world.server.taken]
        as_sent = [wanted if chunked else wanted.replace(b"\r\n.", b"\r\n..").removesuffix(b"\r\n")]
        assert taken == (as_sent if delivered else []), case
        assert world.kept == b"", case
        if not delivered:
            assert "accepted" not in world.outcomes, case
        else:
            assert world.outcomes == ["accepted"], case
        said = {"refuse": b"550 5.7.1 no", "defer": b"450 4.7.1 later", "close": b"421 4.7.0 go"}.get(action)
        assert (said is None) or said in world.heard, case
        if action == "discard" and not spared:
            assert world.outcomes == ["discarded"], case
            assert b"250 2.0.0 Ok\r\n" in world.heard, case
