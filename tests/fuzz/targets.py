"""What is fuzzed, each as a function of Hypothesis data that fails on any surprise.

session    hostile client, strict server: both count the same messages, no refused one arrives, no cut matters
envelopes  hostile client, server that takes what some server once took: stored = logged as accepted, nothing unread
peers      hostile client and hostile server: no exception, memory bounded
address    `parse_path` and `recipient_domain`: no exception, safe to log, no time
reply      `parse_reply_line`, `parse_command`, `parse_chunk`: no exception, what is read was there
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from hypothesis import strategies as st

from smtp_intercept.direction import Domains, Protection, Servers, message_direction, recipient_domain
from smtp_intercept.events import (
    Abort,
    DropServer,
    Forget,
    Hold,
    Leave,
    MessageDone,
    Out,
    Release,
    ToClient,
    ToServer,
)
from smtp_intercept.limits import LOOK_AHEAD_BYTES
from smtp_intercept.policy import Ask, Defer, Discard, Need, Pass, Question, Refuse, Ruling, Stage, Verdict
from smtp_intercept.rules import Rules
from smtp_intercept.session import Session
from smtp_intercept.transaction import Outcome
from smtp_intercept.wire import parse_chunk, parse_command, parse_path, parse_reply_line
from tests.fuzz.differential import check
from tests.fuzz.strict import StrictServer
from tests.smtp.script import released

LINES = [
    b"MAIL FROM:<a@b>", b"RCPT TO:<c@example.com>", b"DATA", b".", b"BDAT 4", b"BDAT 3 LAST", b"BDAT 0 LAST", b"RSET",
    b"NOOP", b"STARTTLS", b"EHLO c", b"text", b"Subject: x", b"", b"..", b"\0.", b"BDAT x", b"QUIT",
]  # fmt: skip
ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b""]
TRANSACTION = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@example.com>\r\n"
FRAMES = [
    TRANSACTION + b"DATA\r\nA: b\r\n\r\nx\r\n.\r\n",
    TRANSACTION + b"BDAT 4\r\nA: bBDAT 3 LAST\r\n\r\nx",
    TRANSACTION,
]
LINE = st.builds(lambda line, end: line + end, st.sampled_from(LINES), st.sampled_from(ENDS))
STREAM = st.lists(st.one_of(LINE, LINE, st.sampled_from(FRAMES), st.binary(max_size=8)), max_size=30).map(b"".join)
VERDICTS: tuple[Verdict, ...] = (*[Pass()] * 5, Refuse(550, "no"), Defer(450, "later"), Discard())
UNREFUSABLE = {Stage.CONNECT, Stage.HELO}


def judge_of(seed: int) -> Ask:
    """Random, but the same question gets the same answer."""

    def judge(asked: Question) -> Ruling:
        chance = random.Random(f"{seed} {asked}")
        verdict, need = chance.choice(VERDICTS), chance.choice(list(Need))
        return Ruling(Pass() if asked.stage in UNREFUSABLE else verdict, need=need, token="t")

    return judge


def rules_of(data: st.DataObject) -> Rules:
    seed = data.draw(st.none() | st.integers(0, 1000))
    strip, reject, close = data.draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    ask = None if seed is None else judge_of(seed)
    return Rules(ask, None, strip, reject, close, data.draw(st.booleans()))


def converse(client: bytes, sizes: list[int], rules: Rules) -> tuple[list[Outcome], list[bytes], bytes]:
    """A hostile client's octets in these cuts, against the strict server: what the gateway told, what was taken, and
    what the client heard."""
    session, server, told, heard = Session(Protection(), rules), StrictServer(), list[Outcome](), b""
    over, kept = False, b""

    def take(outs: list[Out]) -> None:
        nonlocal over, heard, kept
        reply = b""
        for out in outs:
            match out:
                case ToServer(data):
                    reply += server.hear(data)
                case ToClient(data):
                    heard += data
                case Hold(data):
                    kept += data
                case Release():
                    reply += server.hear(released(kept, out))
                    kept = b""
                case Forget():
                    kept = b""
                case MessageDone(message):
                    told.append(message.outcome)
                case Abort() | Leave():
                    over = True
                case DropServer():
                    pass
        if reply and not over:
            take(session.server_sent(reply, 0))

    take(session.opened(0))
    take(session.server_sent(b"220 mx\r\n", 0))
    take(session.client_sent(b"EHLO c\r\n", 0))  # what may be sent behind it, its reply tells
    at = 0
    while at < len(client) and not over:
        size = sizes.pop() if sizes else len(client)
        take(session.client_sent(client[at : at + size], 0))
        at += size
    take(session.finish(0))
    return told, server.taken, heard if session.doubt is None else b""


def fuzz_session(data: st.DataObject) -> None:
    client, rules = data.draw(STREAM), rules_of(data)
    told, taken, heard = converse(client, [], rules)
    if Outcome.UNKNOWN not in told:
        assert told.count(Outcome.ACCEPTED) == len(taken), (told, taken)
    cuts = data.draw(st.lists(st.integers(1, 30), max_size=20))
    for sizes in (cuts, [1] * len(client)):
        assert converse(client, list(sizes), rules) == (told, taken, heard)


def fuzz_peers(data: st.DataObject) -> None:
    session = Session(Protection(Domains.of([("example.com", True)])), rules_of(data))
    over = False
    for chunk in data.draw(st.lists(st.tuples(st.booleans(), STREAM | st.binary(max_size=300)), max_size=12)):
        outs = (session.client_sent if chunk[0] else session.server_sent)(chunk[1], 0)
        assert not (over and any(isinstance(out, ToServer | ToClient) for out in outs))
        over = over or any(isinstance(out, Abort | Leave) for out in outs)
        assert session.wants_client or session.ahead_bytes >= LOOK_AHEAD_BYTES
    session.finish(0)


def fuzz_address(data: st.DataObject) -> None:
    argument = data.draw(st.binary(max_size=200) | st.text('<>@:,.[]"\\ aé\u202e\0', max_size=80).map(str.encode))
    path = parse_path(data.draw(st.sampled_from([b"TO:", b"FROM:", b"", b"to: <"])) + argument)
    assert path.isprintable() or not path
    domain = recipient_domain(path)
    assert domain is None or domain == domain.lower()
    message_direction(path, Protection(Domains.of([("example.com", True)]), Servers.of(["192.0.2.0/24"])))


def fuzz_reply(data: st.DataObject) -> None:
    code = data.draw(st.sampled_from([b"", b"250", b"250-", b"250 ", b"999 ", b"2 "]))
    line = code + data.draw(st.binary(max_size=60)) + b"\r\n"
    reply = parse_reply_line(line)
    assert reply is None or (line.startswith(b"%d" % reply.code) and reply.text in line and str(reply).isprintable())
    command = parse_command(line)
    assert command.verb in line.upper()
    assert command.argument in line
    parse_chunk(command.argument)


def fuzz_envelopes(data: st.DataObject) -> None:
    check(f"x{data.draw(st.integers(0, 2**63))}", judged=data.draw(st.booleans()))


TARGETS: Mapping[str, Callable[[st.DataObject], None]] = {
    "session": fuzz_session,
    "envelopes": fuzz_envelopes,
    "peers": fuzz_peers,
    "address": fuzz_address,
    "reply": fuzz_reply,
}
