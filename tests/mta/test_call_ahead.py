"""A recipient is asked for at its server before the client hears 250.

client ──RCPT──► box ──MAIL FROM:<>, RCPT, RSET──► protected server
       ◄─ 250, or the server's own refusal; a server that cannot say makes nobody wait
"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.answers import Answer
from smtp_intercept.direction import Direction
from smtp_intercept.mta import call_ahead
from smtp_intercept.mta.call_ahead import NOT_NOW, CallAhead, Said, Verdict, Verdicts, said
from smtp_intercept.mta.envelope import Origin, Outcome, State
from smtp_intercept.mta.nexthop import NextHop, Place, Security
from smtp_intercept.mta.parcel import Parcel
from tests.mta.couriers import LOOPS, courier, run_on, to
from tests.mta.receiving import everything, house, replies, send
from tests.mta.remote import Remote, serving

ORIGIN = Origin(("192.0.2.9", 40_000), ("192.0.2.1", 25), Direction.INCOMING, "p0")
NO_USER = "550 5.1.1 <nobody>: no such user"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def asking(remote: Remote | None, clock: Clock | None = None, if_unknown: Answer | None = None) -> CallAhead:
    hop = to(remote) if remote else to(Place("127.0.0.1", 1))
    return CallAhead(courier(), lambda origin, mailbox: hop, clock or Clock(), if_unknown)


# --- what an answer means ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome(0, State.DELIVERED, 250, "2.1.5", "250 2.1.5 ok"), Said(Verdict.TAKEN)),
        (
            Outcome(0, State.FAILED, 550, "5.1.1", "550 5.1.1 no such user"),
            Said(Verdict.REFUSED, Answer(550, "5.1.1 no such user")),
        ),
        (Outcome(0, State.FAILED, 550, "5.0.0", "550 no"), Said(Verdict.REFUSED, Answer(550, "5.0.0 no"))),
        (Outcome(0, State.FAILED, 553, "5.0.0", "553"), Said(Verdict.REFUSED, Answer(553, "5.0.0 No such mailbox"))),
        (Outcome(0, State.QUEUED, 450, "4.2.0", "450 greylisted"), Said(Verdict.UNKNOWN)),
        (Outcome(0, State.QUEUED, 0, "4.4.1", "cannot connect"), Said(Verdict.UNKNOWN)),
        (Outcome(0, State.FAILED, 0, "5.1.2", "does not exist"), Said(Verdict.UNKNOWN)),
        (Outcome(0, State.FAILED, 521, "5.3.2", "521 no mail here"), Said(Verdict.UNKNOWN)),
        (Outcome(0, State.FAILED, 556, "5.1.10", "556 no mail there"), Said(Verdict.UNKNOWN)),
    ],
)
def test_only_the_servers_word_about_the_recipient_counts(outcome: Outcome, expected: Said) -> None:
    assert said(outcome) == expected


@given(st.text(max_size=2_000), st.integers(500, 599))
def test_a_servers_refusal_is_one_reply_line_in_ours(text: str, code: int) -> None:
    found = said(Outcome(0, State.FAILED, code, "5.1.1", f"{code} 5.1.1 {text}"))
    if found.reply is not None:
        line = found.reply.line
        assert line.endswith(b"\r\n")
        assert line.count(b"\r") == line.count(b"\n") == 1
        assert len(line) <= 512
        assert line.isascii()


# --- what is remembered ------------------------------------------------------------------------------------------


def test_how_long_it_is_remembered() -> None:
    verdicts, hop = Verdicts(), NextHop("R1", (Place("192.0.2.20"),))
    for verdict, seconds in (
        (Verdict.TAKEN, call_ahead.TAKEN_S),
        (Verdict.REFUSED, call_ahead.REFUSED_S),
        (Verdict.UNKNOWN, call_ahead.SILENT_S),
    ):
        key = hop, f"{verdict.value}@example.com"
        verdicts.keep(key, Said(verdict), 0.0)
        assert verdicts.find(key, seconds - 1) == Said(verdict)
        assert verdicts.find(key, seconds) is None


def test_a_silent_server_is_not_asked_for_others_either() -> None:
    verdicts, hop = Verdicts(), NextHop("R1", (Place("192.0.2.20"),))
    verdicts.keep((hop, "a@example.com"), Said(Verdict.UNKNOWN), 0.0)
    assert verdicts.find((hop, "b@example.com"), 1.0) == Said(Verdict.UNKNOWN)
    assert verdicts.find((NextHop("R1", (Place("192.0.2.21"),)), "b@example.com"), 1.0) is None


def test_names_that_do_not_exist_drive_out_none_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {verdict: (seconds, 3) for verdict, (seconds, _) in call_ahead._KEPT.items()}
    monkeypatch.setattr(call_ahead, "_KEPT", kept)
    verdicts, hop = Verdicts(), NextHop("R1", (Place("192.0.2.20"),))
    verdicts.keep((hop, "user@example.com"), Said(Verdict.TAKEN), 0.0)
    for number in range(100):
        verdicts.keep((hop, f"{number}@example.com"), Said(Verdict.REFUSED), 0.0)
    assert verdicts.find((hop, "user@example.com"), 1.0) == Said(Verdict.TAKEN)
    assert [verdicts.find((hop, f"{number}@example.com"), 1.0) is not None for number in range(96, 100)] == [
        False,
        True,
        True,
        True,
    ]


# --- asking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_it_is_asked_once_and_remembered(loop: str) -> None:
    async def work() -> None:
        clock = Clock()
        async with serving({"RCPT": ["250 ok", NO_USER, "250 ok"]}) as remote:
            ask = asking(remote, clock)
            assert await ask(ORIGIN, "a@example.com") is None
            assert await ask(ORIGIN, "nobody@example.com") == Answer(550, "5.1.1 <nobody>: no such user")
            for _ in range(3):
                assert await ask(ORIGIN, "a@example.com") is None
                assert await ask(ORIGIN, "nobody@example.com") is not None
            assert [line for line in remote.commands[0] if line.startswith(("MAIL", "RCPT", "RSET"))] == [
                "MAIL FROM:<>",
                "RCPT TO:<a@example.com>",
                "RSET",
                "MAIL FROM:<>",
                "RCPT TO:<nobody@example.com>",
                "RSET",
            ]
            clock.now += call_ahead.REFUSED_S
            assert await ask(ORIGIN, "nobody@example.com") is None, "made meanwhile"
            assert not remote.messages
            assert ask.counts == {"taken": 5, "refused": 4, "unknown": 0}

    run_on(loop, work())


def test_who_asks_the_same_at_the_same_time_shares_the_answer() -> None:
    async def work() -> None:
        async with serving({"RCPT": NO_USER}) as remote:
            ask = asking(remote)
            answers = await asyncio.gather(*(ask(ORIGIN, "nobody@example.com") for _ in range(50)))
            assert set(answers) == {Answer(550, "5.1.1 <nobody>: no such user")}
            assert sum(line.startswith("RCPT") for each in remote.commands for line in each) == 1

    run_on("asyncio", work())


def test_a_harvest_leaves_the_connections_to_the_mail() -> None:
    async def work() -> None:
        async with serving({"RCPT": NO_USER}) as remote:
            ask = asking(remote)
            await asyncio.gather(*(ask(ORIGIN, f"{number}@example.com") for number in range(100)))
            assert remote.most_open <= call_ahead.EACH
            assert not ask._slots
            assert not ask._asking

    run_on("asyncio", work())


@pytest.mark.parametrize(
    "behaviour",
    [
        {"RCPT": "450 4.2.0 greylisted"},
        {"RCPT": "421 4.3.2 closing"},
        {"MAIL": "550 5.7.1 you are blocked"},
        {"BANNER": "554 5.7.1 not you"},
        {"BANNER": None},
        {"RCPT": None},
    ],
    ids=lambda it: " ".join(map(str, next(iter(it.items())))),
)
def test_a_server_that_cannot_say_stops_no_mail(behaviour: dict[str, str | None]) -> None:
    async def work() -> None:
        async with serving(behaviour) as remote:
            assert await asking(remote)(ORIGIN, "a@example.com") is None
            assert await asking(remote, if_unknown=NOT_NOW)(ORIGIN, "a@example.com") is NOT_NOW

    run_on("asyncio", work())


def test_a_server_that_is_away_or_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_ahead, "PATIENCE_S", 0.2)

    async def work() -> None:
        assert await asking(None)(ORIGIN, "a@example.com") is None
        async with serving({"RCPT": ""}) as remote:
            ask = asking(remote)
            assert await ask(ORIGIN, "a@example.com") is None
            assert await ask(ORIGIN, "b@example.com") is None
            assert len(remote.commands) == 1, "left alone for a while"

    run_on("asyncio", work())


@pytest.mark.parametrize("row", ["R2", "R3", "R4", "R7", "R8", "relay"])
def test_nobody_else_is_asked(row: str) -> None:
    class Nobody:
        async def carry(self, parcel: Parcel) -> list[Outcome]:
            raise AssertionError

    hop = NextHop(row, (Place("192.0.2.20"),), security=Security.NONE)
    ask = CallAhead(Nobody(), lambda origin, mailbox: hop, Clock())
    assert asyncio.run(ask(ORIGIN, "a@example.org")) is None


def test_a_recipient_without_a_next_hop_is_the_queues_matter() -> None:
    def nowhere(origin: Origin, mailbox: str) -> NextHop:
        raise ValueError("no way")

    assert asyncio.run(CallAhead(courier(), nowhere, Clock())(ORIGIN, "a@example.com")) is None


# --- in a session ------------------------------------------------------------------------------------------------


PIPELINED = (
    b"MAIL FROM:<a@example.org>\r\nRCPT TO:<nobody@example.com>\r\nRCPT TO:<user@example.com>\r\n"
    b"RCPT TO:<victim@other.example>\r\nDATA\r\n"
)


def test_the_client_hears_the_servers_own_refusal_and_nothing_is_kept_for_it() -> None:
    async def work() -> None:
        async with serving({"RCPT": [NO_USER, "250 ok"]}) as remote, house(verify=asking(remote)) as it:
            sock = it.enter()
            await replies(sock, 1)
            await send(sock, b"EHLO c.example\r\n")
            await replies(sock, 1)
            await send(sock, PIPELINED)
            assert (await replies(sock, 5)).splitlines() == [
                b"250 2.1.0 Ok",
                b"550 5.1.1 <nobody>: no such user",
                b"250 2.1.5 Ok",
                b"550 5.7.1 relay access denied",
                b"354 End data with <CR><LF>.<CR><LF>",
            ]
            await send(sock, b"Subject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n")
            await everything(sock)
            (kept,) = it.shelf.kept
            assert [each.address for each in kept.envelope.recipients] == ["user@example.com"]
            (record,) = it.records("message")
            assert [each["reply"][:3] for each in record["recipients"]] == ["550", "250", "550"]
            assert not any("victim" in line for each in remote.commands for line in each), "the box's own refusal"

    run_on("asyncio", work())


def test_a_client_that_goes_while_its_recipient_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving({"RCPT": ""}) as remote, house(verify=asking(remote)) as it:
            sock = it.enter()
            await send(sock, b"EHLO c.example\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<user@example.com>\r\n")
            while not any("RCPT" in line for each in remote.commands for line in each):
                await asyncio.sleep(0.01)
            sock.close()
            await it.over()
            assert not it.shelf.kept

    run_on("asyncio", work())
