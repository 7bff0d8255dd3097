"""SMTP dialogues as text files, each run whole, byte by byte and in random cuts; and the law behind them: how the
octets were cut makes no difference to anything.

    s -> 220 mx.example          the server sends this line and CRLF
    c -> EHLO client.example     the client does
    c => b"..\r\n"               octets as they are, a Python literal
    c >< NOOP                    sent, but must not reach the other side
    c close                      the end of one side's stream
    abort: REASON                the session must end so
    log:                         then the records in order, JSON, the session's own last
"""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_intercept.direction import Domains
from smtp_intercept.events import Abort, EndClient, EndServer, MessageDone, Out, ToClient, ToServer
from smtp_intercept.session import Session

DOMAINS = Domains.of([("example.com", False)])
FILES = sorted((Path(__file__).parent / "dialogues").glob("*.txt"))
RANDOM_CUTS = 40

Side = Literal["c", "s"]
Cut = Callable[[bytes], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Event:
    """What one side sends; ``data`` is None at the end of its stream."""

    side: Side
    data: bytes | None


@dataclass(slots=True)
class Script:
    """A dialogue file."""

    events: list[Event] = field(default_factory=list)
    to_server: bytes = b""
    to_client: bytes = b""
    abort: str | None = None
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Played:
    """All that a session did."""

    to_server: bytes = b""
    to_client: bytes = b""
    ends: list[Out] = field(default_factory=list)
    abort: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    session: dict[str, Any] = field(default_factory=dict)

    def take(self, outs: list[Out]) -> None:
        for out in outs:
            assert self.abort is None, f"{out} after the abort"
            match out:
                case ToServer(data):
                    assert data
                    self.to_server += data
                case ToClient(data):
                    assert data
                    self.to_client += data
                case EndServer() | EndClient():
                    assert out not in self.ends
                    self.ends.append(out)
                case Abort(reason):
                    self.abort = reason
                case MessageDone(record):
                    self.messages.append(record.fields())


def play(events: Iterable[Event], cut: Cut) -> Played:
    """Drive a session at time 0, each event's octets in the pieces that ``cut`` makes."""
    session, played = Session(DOMAINS), Played()
    steps = [(event.side, piece) for event in events for piece in ([None] if event.data is None else cut(event.data))]
    for side, piece in steps:
        if played.abort is not None:
            break
        if piece is None:
            played.take((session.client_closed if side == "c" else session.server_closed)(0.0))
        else:
            played.take((session.client_sent if side == "c" else session.server_sent)(piece, 0.0))
    abort, played.abort = played.abort, None
    played.take(session.finish(0.0))
    # After an abort the octets that came with the fatal one are counted or not, as they were cut.
    uncounted = {"bytes_from_client", "bytes_from_server"} if abort else set()
    played.session = {name: value for name, value in session.fields().items() if name not in uncounted}
    played.abort = abort
    return played


def whole(data: bytes) -> Iterable[bytes]:
    return [data]


def bytewise(data: bytes) -> Iterable[bytes]:
    return (bytes([octet]) for octet in data)


def read_script(path: Path) -> Script:
    """A dialogue file; what one side sends in consecutive lines is one event."""
    script = Script()
    lines = iter(path.read_text("utf-8").splitlines())
    for line in lines:
        if line == "log:":
            script.log = [json.loads(record) for record in lines if record]
        elif line.startswith("abort: "):
            script.abort = line.removeprefix("abort: ")
        elif line and not line.startswith("#"):
            read_event(script, line)
    return script


def read_event(script: Script, line: str) -> None:
    side: Side = "c" if line[0] == "c" else "s"
    if line[1:] == " close":
        script.events.append(Event(side, None))
        return
    assert line[0] in "cs", line
    assert line[1:5] in {" -> ", " => ", " >< "}, line
    data = ast.literal_eval(line[5:]) if line[1:5] == " => " else line[5:].encode() + b"\r\n"
    if line[1:5] != " >< ":
        script.to_server += data if side == "c" else b""
        script.to_client += data if side == "s" else b""
    last = script.events[-1] if script.events else Event(side, None)
    if last.side == side and last.data is not None:
        script.events[-1] = Event(side, last.data + data)
    else:
        script.events.append(Event(side, data))


def in_pieces(chance: random.Random) -> Cut:
    def cut(data: bytes) -> Iterable[bytes]:
        while data:
            size = chance.choice([1, 2, 3, 5, 20, 100])
            yield data[:size]
            data = data[size:]

    return cut


def check(script: Script, played: Played) -> None:
    assert played.to_server == script.to_server
    assert played.to_client == script.to_client
    assert played.abort == script.abort
    *messages, session = script.log
    assert [without(message, "seconds") for message in played.messages] == messages
    assert without(played.session, "bytes_from_client", "bytes_from_server") == session


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def test_there_are_dialogues() -> None:
    assert len(FILES) >= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dialogue(path: Path) -> None:
    script = read_script(path)
    check(script, play(script.events, whole))
    check(script, play(script.events, bytewise))
    for seed in range(RANDOM_CUTS):
        check(script, play(script.events, in_pieces(random.Random(seed))))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dialogue_cut_off_anywhere_still_tells_its_message(path: Path) -> None:
    script = read_script(path)
    told = play(script.events, whole).messages
    for end in range(len(script.events)):
        messages = play(script.events[:end], whole).messages
        assert [m["number"] for m in messages] == list(range(1, len(messages) + 1))
        assert len(messages) <= len(told) or not told


def test_no_credential_is_logged() -> None:
    for path in FILES:
        played = play(read_script(path).events, whole)
        assert "c2VjcmV0" not in str(played.messages) + str(played.session), path.stem


# Words of both sides, in an order that no honest peer would have: the law holds for nonsense too.
CLIENT = [
    "EHLO c.example", "HELO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@example.com>", "DATA", ".", "text", "",
    "BDAT 5", "BDAT 7 LAST", "BDAT 0 LAST", "BDAT x", "AUTH LOGIN", "STARTTLS", "RSET", "NOOP", "QUIT", "ATRN x",
]  # fmt: skip
SERVER = [
    "220 mx", "250 ok", "250-mx", "250 CHUNKING", "250-STARTTLS", "354 go", "334 x", "421 bye", "450 no", "500 what",
    "502 no", "503 no", "550 no", "235 ok", "221 bye", "junk",
]  # fmt: skip
HONEST = [
    Event("s", b"220 mx\r\n"),
    Event("c", b"EHLO c.example\r\n"),
    Event("s", b"250-mx\r\n250-STARTTLS\r\n250 CHUNKING\r\n"),
    Event("c", b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.com>\r\n"),
]


def said(side: Side, words: list[str]) -> st.SearchStrategy[Event]:
    ends = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", ""])
    line = st.builds(lambda word, end: (word + end).encode(), st.sampled_from(words), ends)
    lines = st.lists(line, min_size=1, max_size=6).map(b"".join).filter(bool)
    return lines.map(lambda data: Event(side, data))


NONSENSE = st.lists(st.one_of(said("c", CLIENT), said("s", SERVER)), max_size=12)


@settings(max_examples=400, deadline=None)
@given(st.booleans(), NONSENSE, st.sampled_from([None, "c", "s"]), st.randoms(use_true_random=False))
def test_no_cut_makes_a_difference(
    honest: bool, nonsense: list[Event], closed: Side | None, chance: random.Random
) -> None:
    events = [*(HONEST if honest else []), *nonsense, *([Event(closed, None)] if closed else [])]
    expected = play(events, whole)
    assert play(events, bytewise) == expected
    assert play(events, in_pieces(chance)) == expected


@settings(max_examples=200, deadline=None)
@given(st.booleans(), NONSENSE)
def test_no_byte_changes(honest: bool, nonsense: list[Event]) -> None:
    events = [*(HONEST if honest else []), *nonsense, Event("s", None), Event("c", None)]
    played = play(events, whole)
    for side, crossed in (("c", played.to_server), ("s", played.to_client)):
        sent = b"".join(event.data or b"" for event in events if event.side == side)
        assert sent.startswith(crossed)
        assert crossed == sent or played.abort or (side == "c" and b"STARTTLS" in sent)
