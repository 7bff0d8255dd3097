"""Rules in the MTA's receiving side: what its clients hear, and what is kept, with the same judge as live sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.heldplace import held_place
from smtp_intercept.inspect.actions import AddHeader, TagSubject
from smtp_intercept.inspect.criteria import CRITERIA
from smtp_intercept.inspect.facts import Connection
from smtp_intercept.inspect.judge import Judge
from smtp_intercept.inspect.rule import Condition, Rule
from smtp_intercept.inspect.ruleset import Ruleset
from smtp_intercept.limits import DEFAULT_LIMITS
from smtp_intercept.mta.faults import SpoolFullError
from smtp_intercept.passage import Passage
from smtp_intercept.policy import Close, Decider, Defer, Discard, Need, Pass, Question, Refuse, Ruling, Stage
from tests.mta.receiving import RULE, House, Shelf, everything, house, replies, send
from tests.smtp.box import Run

HELLO = b"EHLO c.example\r\n"
MAIL = b"MAIL FROM:<%b>\r\n"
RCPT = b"RCPT TO:<%b>\r\n"


def said(name: str, *texts: Any, field: str = "") -> Condition:
    return Condition(name, tuple(map(CRITERIA[name].kind.read, texts)), False, field)


def judging(*rules: Rule, observed: bool = False) -> Callable[[Passage], Decider]:
    ruleset = Ruleset(rules, observed=observed)

    def of(passage: Passage) -> Decider:
        client, server = (ip_address(address[0]).packed for address in (passage.client, passage.server))
        connection = Connection(passage.arrival.direction, client, server, passage.arrival.port)
        return Decider(Judge(lambda: ruleset, connection, RULE.protection).ask)

    return of


async def mailed(it: House, sender: bytes, recipients: list[bytes], content: bytes) -> list[bytes]:
    """The last line of each reply behind EHLO's."""
    sock = it.enter()
    await send(sock, HELLO + MAIL % sender + b"".join(RCPT % each for each in recipients))
    heard = (await replies(sock, 3 + len(recipients))).splitlines()
    await send(sock, b"DATA\r\n")
    heard += (await replies(sock, 1)).splitlines()
    if heard[-1].startswith(b"354"):
        await send(sock, content + b".\r\n")
        heard += (await replies(sock, 1)).splitlines()
    with suppress(ConnectionError):
        await send(sock, b"QUIT\r\n")
    await everything(sock)
    sock.close()
    await it.over()
    return [line for line in heard if line[3:4] == b" "][2:]


NO = Refuse(550, "5.7.1 no")
OK = [b"250 2.1.0 Ok", b"250 2.1.5 Ok"]
TEXT = b"Subject: x\r\n\r\n..dot\r\n"
KEPT = b"Subject: x\r\n\r\n.dot\r\n"


@pytest.mark.parametrize(
    ("rule", "heard", "kept"),
    [
        (Rule("r", (said("sender", "a@c.example"),), NO), [b"550 5.7.1 no", *[b"503 5.5.1 Need MAIL first"] * 2], None),
        (
            Rule("r", (said("recipient", "b@example.com"),), NO),
            [OK[0], b"550 5.7.1 no", b"554 5.5.1 No valid recipients"],
            None,
        ),
        (
            Rule("r", (said("recipients_over", 0),), Defer(451, "4.7.1 later")),
            [OK[0], b"451 4.7.1 later", b"554 5.5.1 No valid recipients"],
            None,
        ),
        (Rule("r", (said("header", "x", field="subject"),), NO), [*OK, b"354", b"550 5.7.1 no"], None),
        (Rule("r", (said("size_over_bytes", 10),), Discard()), [*OK, b"354", b"250 2.0.0 Ok"], None),
        (Rule("r", (said("sender", "c.example"),), Discard()), [*OK, b"354", b"250 2.0.0 Ok"], None),
        (Rule("r", (said("recipient", "example.com"),), Discard()), [*OK, b"354", b"250 2.0.0 Ok"], None),
        (Rule("r", (said("size_over_bytes", 100),), NO), [*OK, b"354", b"250 2.0.0 Ok: queued as Q1"], KEPT),
        (
            Rule("r", (said("header", "x", field="subject"),), edits=(TagSubject("[T]"), AddHeader("X-A", "1"))),
            [*OK, b"354", b"250 2.0.0 Ok: queued as Q1"],
            b"X-A: 1\r\nSubject: [T] x\r\n\r\n.dot\r\n",
        ),
        (
            Rule("r", (said("header", "x", field="subject"),), NO, observed=True),
            [*OK, b"354", b"250 2.0.0 Ok: queued as Q1"],
            KEPT,
        ),
    ],
)
def test_what_a_rule_does(run: Run, tmp_path: Path, rule: Rule, heard: list[bytes], kept: bytes | None) -> None:
    async def work() -> None:
        spill = held_place(tmp_path / "held", 0, 0)
        async with house(judge=judging(rule), spill=spill) as it:
            answered = await mailed(it, b"a@c.example", [b"b@example.com"], TEXT)
            assert [line[:3] if line.startswith(b"354") else line for line in answered] == heard
            assert [each.content.partition(b"+0000\r\n")[2] for each in it.shelf.kept] == ([kept] if kept else [])
            assert all(each.content.startswith(b"Received: ") for each in it.shelf.kept)
            assert all(draft.over for draft in it.shelf.drafts)
            (record,) = it.records("message")
            acts = rule.edits or b"queued" not in heard[-1]
            assert record.get("rules") == (["r"] if acts and not rule.observed else None)
            assert record.get("would") == (["r"] if rule.observed else None)

    run(work())


def test_a_large_message_is_held_and_kept_whole(run: Run, tmp_path: Path) -> None:
    content = b"Subject: x\r\n\r\n" + b"text \xff\r\n" * 50_000
    rule = Rule("r", (said("header", "lottery", field="subject"),), NO)

    async def work() -> None:
        async with house(judge=judging(rule), spill=held_place(tmp_path / "held", 0, 0)) as it:
            assert (await mailed(it, b"a@c.example", [b"b@example.com"], content))[-1].startswith(b"250 ")
            assert it.shelf.kept[0].content.endswith(b"\r\n" + content)

    run(work())


def test_each_recipient_has_its_own(run: Run) -> None:
    """Thrown away for one: the other has it."""
    rules = (
        Rule("one", (said("recipient", "b@example.com"), said("size_over_bytes", 1)), Discard()),
        Rule("two", (said("recipient", "c@example.com"),), Discard()),
        Rule("three", (said("recipient", "d@example.com"),), NO),
    )

    async def work() -> None:
        async with house(judge=judging(*rules)) as it:
            recipients = [b"%b@example.com" % letter for letter in (b"b", b"c", b"d", b"e")]
            heard = await mailed(it, b"a@c.example", recipients, TEXT)
            assert heard[1:5] == [OK[1], OK[1], b"550 5.7.1 no", OK[1]]
            (kept,) = it.shelf.kept
            assert [each.address for each in kept.envelope.recipients] == ["e@example.com"]

    run(work())


@pytest.mark.parametrize("name", ["client", "helo"])
def test_before_any_message(run: Run, name: str) -> None:
    rule = Rule("r", (said(name, "192.0.2.9" if name == "client" else "c.example"),), NO)

    async def work() -> None:
        async with house(judge=judging(rule)) as it:
            sock = it.enter()
            await send(sock, HELLO + b"QUIT\r\n")
            heard = await everything(sock)
            assert heard.splitlines()[-2 if name == "helo" else -1] == b"550 5.7.1 no"
            (record,) = await it.over()
            assert record["rules"] == ["r"]

    run(work())


def test_the_last_word(run: Run) -> None:
    rule = Rule("r", (said("size_over_bytes", 1),), Close(421, "4.7.0 go"))

    async def work() -> None:
        async with house(judge=judging(rule)) as it:
            assert (await mailed(it, b"a@c.example", [b"b@example.com"], TEXT))[-1] == b"421 4.7.0 go"
            assert it.shelf.kept == []

    run(work())


@pytest.mark.parametrize("verdict", [Pass(), NO])
@pytest.mark.parametrize("late", list(Stage))
def test_an_answer_may_come_later(run: Run, late: Stage, verdict: Any) -> None:
    def ask(question: Question) -> Ruling | None:
        return None if question.stage is late else Ruling(need=Need.HOLD, token="t")

    def later(question: Question, told: Callable[[Ruling], None]) -> None:
        ruling = Ruling(verdict, need=Need.HOLD, token="t")
        asyncio.get_running_loop().call_later(0.01, told, ruling)

    async def work() -> None:
        async with house(judge=lambda passage: Decider(ask, later)) as it:
            sock = it.enter()
            await send(sock, HELLO + MAIL % b"a@c.example" + RCPT % b"b@example.com" + b"DATA\r\n")
            await asyncio.sleep(0.1)
            with suppress(ConnectionError):
                await send(sock, TEXT + b".\r\nQUIT\r\n")
            heard = await everything(sock)
            await it.over()
            assert len(it.shelf.kept) == (verdict == Pass())
            assert (b"550 5.7.1 no" in heard) == (verdict != Pass())

    run(work())


@pytest.mark.parametrize("place", ["held", "spool"])
def test_no_room(run: Run, place: str) -> None:
    rule = Rule("r", (said("header", "lottery", field="subject"),), NO)
    shelf = Shelf(failure=SpoolFullError("full"), fails_at_bytes=1_000 if place == "spool" else float("inf"))
    content = b"x: y\r\n" + b"text\r\n" * 30_000

    async def work() -> None:
        async with house(shelf, judge=judging(rule)) as it:
            heard = await mailed(it, b"a@c.example", [b"b@example.com"], content)
            assert heard[-1] == b"452 4.3.1 No room for mail now"
            assert all(draft.over for draft in it.shelf.drafts)

    run(work())


def test_a_header_that_is_too_large(run: Run) -> None:
    limits = replace(DEFAULT_LIMITS, header_bytes=10)
    rule = Rule("r", (said("header", "lottery", field="subject"),), NO)

    async def work() -> None:
        async with house(judge=judging(rule), limits=limits) as it:
            assert (await mailed(it, b"a@c.example", [b"b@example.com"], TEXT))[-1] == b"552 5.3.4 Header too large"

    run(work())
