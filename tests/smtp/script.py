"""SMTP dialogues as text files, and how a session plays one.

    s -> 220 mx.example          the server sends this line and CRLF
    c -> EHLO client.example     the client does
    c => b"..\\r\\n"               octets as they are, a Python literal
    c >< NOOP                    sent, but must not reach the other side
    c =< b"octets"               likewise, as a literal
    g -> 502 5.5.1 no            the gateway says this to the client, in this place among the server's replies
    g >> RSET                    the gateway says this to the server
    g => b"octets"               likewise, as a literal
    c close                      the end of one side's stream
    abort: REASON                the session must end so
    dropped                      the server's leg must have been reset, and the session gone on
    leave: OUTCOME, REASON       the gateway must have closed the session so
    pause: SECONDS               the client must have been made to wait so long, from time 0
    announced: ADDRESS PORT      the client that a balancer must have named
    log:                         then the records in order, JSON, the session's own last (without what is `USUAL`)

Before all that, what the gateway is told to do:

    rule: starttls strip         | bare_newline reject | on_doubt close | on_client_doubt pass | balancer yes
    limit: recipients 2          a field of `Limits`
    policy: RCPT b@example.com refuse 550 5.7.1 no     at a stage, if the question holds the word (* is any)
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from smtp_intercept.direction import Direction, Domains, Protection, Servers
from smtp_intercept.events import (
    Abort,
    Announced,
    Asking,
    DropServer,
    EndClient,
    EndServer,
    Forget,
    Hold,
    Leave,
    MessageDone,
    Out,
    Pause,
    Release,
    ToClient,
    ToServer,
)
from smtp_intercept.inspect.held import Held, nowhere
from smtp_intercept.policy import Close, Defer, Discard, Need, Pass, Question, Refuse, Ruling, Stage, Verdict
from smtp_intercept.rules import TRANSPARENT, Rules
from smtp_intercept.session import Session
from tests.dialogue import lines, spoken
from tests.smtp.cuts import Cut

SERVER = "192.0.2.20"  # protected, whoever is dialled
PROTECTION = Protection(Domains.of([("example.com", False)]), Servers.of([SERVER]))
FILES = sorted((Path(__file__).parent / "dialogues").glob("*.txt"))
USUAL = {"doubted": None, "sasl_layer": False}
NO_LITERALS, LITERALS = {"->", "><", ">>"}, {"=>", "=<"}
CROSSING = {"->", "=>"}

Side = Literal["c", "s"]


@dataclass(frozen=True, slots=True)
class Event:
    """What one side sends; ``data`` is None at the end of its stream."""

    side: Side
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a dialogue's policy."""

    stage: Stage
    word: str
    verdict: Verdict

    def holds(self, asked: Question) -> bool:
        said = f"{asked.helo} {asked.sender} {asked.recipient} {asked.header.decode('latin-1')} {asked.size_bytes}"
        return asked.stage is self.stage and (self.word == "*" or self.word in said)


@dataclass(slots=True)
class Script:
    """A dialogue file. ``settings`` are its rules by the configuration's names."""

    events: list[Event] = field(default_factory=list)
    to_server: bytes = b""
    to_client: bytes = b""
    abort: str | None = None
    dropped: bool = False
    leave: str | None = None
    pauses: list[float] = field(default_factory=list)
    announced: str | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    rulings: list[Line] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def rules(self) -> Rules:
        settings = self.settings
        return Rules(
            self.judge if self.rulings else None,
            strip_starttls=settings.get("starttls") == "strip",
            reject_bare_newline=settings.get("bare_newline") == "reject",
            close_in_doubt=settings.get("on_doubt") == "close",
            pass_client_doubt=settings.get("on_client_doubt") == "pass",
            balancer=settings.get("balancer") == "yes",
            limits=replace(TRANSPARENT.limits, **self.limits),  # type: ignore[arg-type]
        )

    def judge(self, asked: Question) -> Ruling:
        verdict = next((line.verdict for line in self.rulings if line.holds(asked)), Pass())
        held = any(line.stage is Stage.MESSAGE for line in self.rulings)
        return Ruling(verdict, need=Need.HOLD if held else Need.NOTHING, token="r")


@dataclass(slots=True)
class Played:
    """All that a session did."""

    to_server: bytes = b""
    to_client: bytes = b""
    ends: list[Out] = field(default_factory=list)
    abort: str | None = None
    dropped: bool = False
    leave: str | None = None
    pauses: list[float] = field(default_factory=list)
    announced: str | None = None
    held: bytes = b""
    asked: list[Question] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    session: dict[str, Any] = field(default_factory=dict)

    def take(self, outs: list[Out]) -> None:
        for out in outs:
            assert self.abort is None, f"{out} after the abort"
            assert self.leave is None or isinstance(out, MessageDone), f"{out} after the end"
            match out:
                case ToServer(data):
                    assert data
                    assert not self.dropped, "the server's leg is gone"
                    self.to_server += data
                case ToClient(data):
                    assert data
                    self.to_client += data
                case EndServer() | EndClient():
                    assert out not in self.ends
                    self.ends.append(out)
                case Abort(reason):
                    self.abort = reason
                case DropServer():
                    assert not self.dropped
                    self.dropped = True
                case Leave(outcome, reason):
                    self.leave = f"{outcome}, {reason}"
                case Pause(until_at):
                    self.pauses.append(until_at)
                case Announced(client):
                    self.announced = f"{client[0]} {client[1]}"
                case Hold(data):
                    assert data
                    self.held += data
                case Forget():
                    self.held = b""
                case Release():
                    assert not self.dropped
                    self.to_server += released(self.held, out)
                    self.held = b""
                case Asking(question):
                    self.asked.append(question)
                case MessageDone(record):
                    self.messages.append({"number": record.number, **record.fields()})


def released(kept: bytes, release: Release) -> bytes:
    """What the server has of held content."""
    held = Held(nowhere)
    held.add(kept)
    size_bytes, pieces = held.pieces(release.edit, dotted=not release.chunked)
    return b"BDAT %d LAST\r\n" % size_bytes * release.chunked + b"".join(pieces)


def play(
    events: Iterable[Event], cut: Cut, rules: Rules = TRANSPARENT, slowness: random.Random | None = None
) -> Played:
    """Drive a session at time 0, each event's octets in the pieces that ``cut`` makes. ``slowness``: the judge takes
    its time, but answers before the server replies to what it has not had."""
    judge = rules.ask
    if slowness is not None:
        rules = replace(rules, ask=lambda asked: None)
    session, played = Session(PROTECTION.on(SERVER, Direction.INCOMING), rules), Played()

    def answer(chance: float) -> None:
        while played.asked and slowness is not None and slowness.random() < chance:
            assert judge is not None
            ruling = judge(played.asked.pop())
            assert ruling is not None
            played.take(session.told(ruling, 0.0))

    played.take(session.opened(0.0))
    cuts = {"c": cut, "s": cut if slowness is None else lambda data: data.splitlines(keepends=True)}
    steps = [
        (event.side, piece)
        for event in events
        for piece in ([None] if event.data is None else cuts[event.side](event.data))
    ]
    for side, piece in steps:
        answer(0.3 if side == "c" and piece is not None else 1.0)
        if played.abort is not None or played.leave is not None:
            break
        if piece is None:
            played.take((session.client_closed if side == "c" else session.server_closed)(0.0))
        else:
            played.take((session.client_sent if side == "c" else session.server_sent)(piece, 0.0))
    answer(1.0)
    ended = played.abort, played.leave
    played.abort = played.leave = None
    played.take(session.finish(0.0))
    # After the end the octets that came with the fatal one are counted or not, as they were cut.
    uncounted = {"bytes_from_client", "bytes_from_server"} if any(ended) else set()
    played.session = {name: value for name, value in session.fields().items() if name not in uncounted}
    played.abort, played.leave = ended
    return played


def read_script(path: Path) -> Script:
    """A dialogue file; what one side sends in consecutive lines is one event."""
    script = Script()
    left = lines(path)
    for line in left:
        keyword, _, rest = line.partition(": ")
        if line == "log:":
            script.log = [json.loads(record) for record in left]
        elif keyword in HEADS:
            HEADS[keyword](script, rest)
        else:
            read_event(script, line)
    return script


def read_event(script: Script, line: str) -> None:
    who, how, data = spoken(line, "csg", NO_LITERALS, LITERALS)
    if data is None:
        script.events.append(Event("c" if who == "c" else "s", None))
        return
    expect(script, who, how, data)
    if who != "g":
        send(script, "c" if who == "c" else "s", data)


def expect(script: Script, who: str, how: str, data: bytes) -> None:
    if how == ">>" or (who in "cg" and how == "=>") or (who == "c" and how in CROSSING):
        script.to_server += data
    elif how in CROSSING:
        script.to_client += data


def send(script: Script, side: Side, data: bytes) -> None:
    last = script.events[-1] if script.events else None
    if last and last.side == side and last.data is not None:
        script.events[-1] = Event(side, last.data + data)
    else:
        script.events.append(Event(side, data))


def read_rule(script: Script, text: str) -> None:
    name, _, value = text.partition(" ")
    script.settings[name] = value


def read_limit(script: Script, text: str) -> None:
    name, _, value = text.partition(" ")
    script.limits[name] = float(value) if name.endswith("_s") else int(value)


def read_policy(script: Script, text: str) -> None:
    stage, word, kind, *reply = text.split(" ", 4)
    spoken: dict[str, type[Refuse | Defer | Close]] = {"refuse": Refuse, "defer": Defer, "close": Close}
    verdict: Verdict = spoken[kind](int(reply[0]), reply[1]) if kind in spoken else Discard()
    script.rulings.append(Line(Stage[stage], word, verdict))


def set_field(name: str) -> Callable[[Script, str], None]:
    return lambda script, text: setattr(script, name, text)


HEADS: Mapping[str, Callable[[Script, str], None]] = {
    "rule": read_rule,
    "limit": read_limit,
    "policy": read_policy,
    "abort": set_field("abort"),
    "leave": set_field("leave"),
    "announced": set_field("announced"),
    "pause": lambda script, text: script.pauses.append(float(text)),
    "dropped": lambda script, text: setattr(script, "dropped", True),
}


def check(script: Script, played: Played) -> None:
    assert played.to_server == script.to_server
    assert played.to_client == script.to_client
    assert (played.abort, played.leave) == (script.abort, script.leave)
    assert played.dropped == script.dropped
    assert played.pauses == script.pauses
    assert played.announced == script.announced
    *messages, session = script.log
    assert [without(message, "seconds") for message in played.messages] == messages
    assert without(played.session, "bytes_from_client", "bytes_from_server") == {**USUAL, **session}


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}
