"""The delivery session: dialogues, and what holds for every server however it behaves.

courier ── begin ──►  Session  ── Send ──►  server
        ◄─ Settled ──          ◄─ received ──
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_intercept.limits import DEFAULT_LIMITS, RFC_SECONDS, Phase
from smtp_intercept.mta.delivery import Session
from smtp_intercept.mta.envelope import Envelope, Outcome, Recipient, State
from smtp_intercept.mta.exchange import Out, Over, Send, Settled
from smtp_intercept.mta.reply import REPLY_LINES
from smtp_intercept.mta.request import Mail
from tests.mta.script import FILES, TERMS, play, read
from tests.smtp.cuts import Cut, bytewise, whole

# Octets that come after the handshake has begun are the handshake's to refuse, and no event of the session's.
WHOLE_ONLY = {"tls_injection"}
PLAYS = [(path, cut) for path in FILES for cut in (whole, bytewise) if cut is whole or path.stem not in WHOLE_ONLY]


@pytest.mark.parametrize(("path", "cut"), PLAYS, ids=lambda it: it.stem if isinstance(it, Path) else it.__name__)
def test_dialogues(path: Path, cut: Cut) -> None:
    text = read(path)
    assert play(text, cut) == text


def test_these_dialogues_can_fail() -> None:
    text = read(FILES[0].with_name("one_message.txt"))
    for right, wrong in (
        ("250 2.0.0 queued", "550 2.0.0 queued"),
        ("c -> EHLO box", "c -> HELO box"),
        ("ready\nmail", "mail"),
        ("0 delivered", "1 delivered"),
    ):
        assert right in text
        spoilt = text.replace(right, wrong)
        assert play(spoilt, whole) != spoilt


GREETING = b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n"
MAIL = Mail(Envelope("a@x.example", tuple(Recipient(f"{n}@y.example") for n in range(4))), (3, 5, 7, 9), 10, False)


def ready(*, pipelining: bool = True) -> Session:
    session = Session(TERMS)
    session.opened(0.0)
    session.received(GREETING if pipelining else b"220 mx\r\n250 mx\r\n", 0.0)
    assert session.ready
    return session


def settled(outs: list[Out]) -> list[Settled]:
    return [out for out in outs if isinstance(out, Settled)]


CODES = st.sampled_from([200, 250, 251, 354, 421, 450, 452, 500, 550, 552])
SAYINGS = st.builds(lambda code, dash: b"%d%bx\r\n" % (code, b"-" if dash else b" "), CODES, st.booleans())


@settings(max_examples=300, deadline=None)
@given(said=st.lists(st.one_of(SAYINGS, st.binary(max_size=8)), max_size=30), pipelining=st.booleans())
def test_whatever_a_server_says_a_transaction_is_settled_once(said: list[bytes], pipelining: bool) -> None:
    session = ready(pipelining=pipelining)
    outs = session.begin(MAIL, 0.0)
    for data in said:
        outs += session.received(data, 0.0)
        if session.streaming:
            outs += session.content(b".x\r\n", 0.0) + session.content_sent(0.0)
    once_ready = session.ready
    outs += session.closed(0.0)
    (each,) = settled(outs)
    numbers = [outcome.number for outcome in each.outcomes]
    assert numbers == sorted(set(numbers) & set(MAIL.numbers))
    assert not once_ready or numbers, "a courier that asks again at once would do so for ever"
    assert [out for out in outs if isinstance(out, Over)] == outs[-1:]
    assert session.over
    ends = sum(out.data.count(b"\r\n.\r\n") for out in outs if isinstance(out, Send))
    if any(outcome.state is State.DELIVERED for outcome in each.outcomes):
        assert ends or any(out.data == b".\r\n" for out in outs if isinstance(out, Send))


def test_a_reply_line_without_end_is_garbage() -> None:
    session = ready()
    assert session.received(b"2" * (DEFAULT_LIMITS.reply_line_bytes - 1), 0.0) == []
    (over,) = session.received(b"2", 0.0)
    assert isinstance(over, Over)


def test_a_reply_without_end_is_garbage() -> None:
    session = Session(TERMS)
    session.opened(0.0)
    assert session.received(b"220-x\r\n" * (REPLY_LINES - 1), 0.0) == []
    (over,) = session.received(b"220-x\r\n", 0.0)
    assert isinstance(over, Over)


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        (b"", Phase.BANNER),
        (b"220 mx\r\n", Phase.REPLY),
        (b"220 mx\r\n250 mx\r\n", None),
        (b"220 mx\r\n250 mx\r\nMAIL", Phase.REPLY),
        (b"220 mx\r\n250 mx\r\nMAIL250 ok\r\n250 ok\r\n", Phase.DATA_REPLY),
        (b"220 mx\r\n250 mx\r\nMAIL250 ok\r\n250 ok\r\n354 go\r\n", None),
        (b"220 mx\r\n250 mx\r\nMAIL250 ok\r\n250 ok\r\n354 go\r\nEND", Phase.END_REPLY),
    ],
)
def test_servers_have_the_time_that_rfc_5321_gives_them(said: bytes, phase: Phase | None) -> None:
    session = Session(TERMS)
    session.opened(100.0)
    greeting, mail, rest = said.partition(b"MAIL")
    replies, end, _ = rest.partition(b"END")
    session.received(greeting, 200.0)
    if mail:
        session.begin(Mail(Envelope("", (Recipient("b@y"),)), (0,), 1, False), 300.0)
        session.received(replies, 400.0)
    if end:
        session.content_sent(500.0)
    last_at = 100.0 + 100.0 * sum(map(bool, (greeting, mail, replies, end)))
    assert session.deadline_at == (None if phase is None else last_at + RFC_SECONDS[phase])


def test_a_server_that_answers_octet_by_octet_gains_no_time() -> None:
    session = Session(TERMS)
    session.opened(0.0)
    for second in range(200):
        session.received(b"220-x\r\n"[second % 7 : second % 7 + 1], float(second))
    assert session.deadline_at == RFC_SECONDS[Phase.BANNER]


def test_a_recipient_keeps_its_number() -> None:
    session = ready()
    session.begin(MAIL, 0.0)
    outs = session.received(b"250 a\r\n550 b\r\n250 c\r\n250 d\r\n250 e\r\n354 f\r\n", 0.0)
    outs += session.content_sent(0.0) + session.received(b"250 2.1.0 taken\r\n", 0.0)
    (each,) = settled(outs)
    refused = Outcome(3, State.FAILED, 550, "5.0.0", "550 b", "mx.example")
    taken = [Outcome(number, State.DELIVERED, 250, "2.1.0", "250 2.1.0 taken", "mx.example") for number in (5, 7, 9)]
    assert list(each.outcomes) == [refused, *taken]
