"""What each client costs: who is served first, who holds too much, and what one session can hold at most."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.accounts import (
    HALF_S,
    LEAST_OF_CLIENT,
    LEAST_OF_NETWORK,
    LEAST_OF_SESSION,
    Account,
    Accounts,
    Budget,
)
from smtp_intercept.direction import Protection
from smtp_intercept.readiness import FEW, READ, TURN_S, Readiness
from smtp_intercept.rules import Rules
from smtp_intercept.session import Session
from tests.smtp.box import Run, box, connected, listening, receive, send

MIB = 1 << 20
BUDGET = Budget(100 * MIB, client_percent=50, network_percent=100)


# Time.


def test_who_presses_comes_behind_and_its_network_behind_the_others() -> None:
    accounts = Accounts(BUDGET)
    presses, beside, other = map(accounts.open, ("192.0.2.10", "192.0.2.11", "203.0.113.5"))
    presses.charge(0.5, 10.0)
    assert other.rank(10.1) < beside.rank(10.1) < presses.rank(10.1)


def test_what_was_spent_is_forgotten() -> None:
    account = Account("192.0.2.10")
    account.charge(1.0, 10.0)
    ranks = [account.rank(10.0 + HALF_S * n) for n in (0.5, 1.5, 2.5)]
    assert ranks == [1.0, 0.5, 0.0]


class Payer:
    def __init__(self, name: str) -> None:
        self.account = Account(name)


def test_a_turn_has_an_end_and_the_cheap_are_first_in_the_next(run: Run) -> None:
    """Fifty dear ones and one that has cost nothing, all of them readable all the time."""

    async def work() -> None:
        with ExitStack() as stack:
            readiness, seen = Readiness(), list[str]()
            readiness.start()
            stack.callback(readiness.stop)
            presses, victim = Payer("presses"), Payer("victim")
            for number in range(51):
                ours, theirs = socket.socketpair()
                stack.enter_context(ours)
                stack.enter_context(theirs)
                theirs.send(b"x")
                payer = victim if number == 50 else presses

                def told(events: int, payer: Payer = payer) -> None:
                    until_at = time.perf_counter() + (TURN_S / 4 if payer is presses else 0)
                    while time.perf_counter() < until_at:
                        pass
                    seen.append(payer.account.name)

                readiness.watch(ours, READ, told, payer)
            ticks, began_at = 0, time.monotonic()
            while time.monotonic() - began_at < 0.5:
                await asyncio.sleep(0)
                ticks += 1
            assert ticks >= 10, "others on the loop had no turn"
            first = seen.index("victim")
            assert first < 2 * FEW, "it waited for all the dear ones"
            behind = seen[first:]
            assert max(len(each.split()) for each in " ".join(behind).split("victim")) <= FEW

    run(work())


# Octets.


def test_a_client_alone_may_hold_a_third_and_many_leave_something() -> None:
    accounts = Accounts(BUDGET)
    one = accounts.open("192.0.2.10")
    while not accounts.over(one):
        accounts.hold(one, 65_536)
    assert one.held_bytes == pytest.approx(BUDGET.held_bytes / 3, rel=0.01)
    crowd = [accounts.open(f"10.0.{n}.1") for n in range(10)]
    for each in crowd:
        while not accounts.over(each):
            accounts.hold(each, 65_536)
    assert accounts.held_bytes < BUDGET.held_bytes
    assert accounts.over(one)


def test_the_least_is_everybodys_until_there_is_nothing_left() -> None:
    accounts = Accounts(Budget(LEAST_OF_CLIENT * 3, client_percent=10, network_percent=10))
    one, two = accounts.open("192.0.2.10"), accounts.open("192.0.2.11")
    accounts.hold(one, LEAST_OF_CLIENT)
    assert not accounts.over(one)
    accounts.hold(two, LEAST_OF_NETWORK - LEAST_OF_CLIENT)
    assert not accounts.over(two)
    accounts.hold(two, 1)
    assert accounts.over(one)
    accounts.hold(two, -1)
    accounts.hold(one, 1)
    assert accounts.over(one)


@given(st.lists(st.tuples(st.sampled_from(["192.0.2.10", "192.0.2.11", "2001:db8::1"]), st.integers(0, MIB))))
def test_nothing_is_left_when_all_have_gone(moves: list[tuple[str, int]]) -> None:
    accounts = Accounts(BUDGET)
    held = [(accounts.open(address), size) for address, size in moves]
    for account, size in held:
        accounts.hold(account, size)
    for account, size in held:
        accounts.hold(account, -size)
        accounts.close(account)
    assert accounts.held_bytes == 0
    assert not accounts._open


def held_by(*sent: tuple[str, bytes]) -> int:
    """The most that a session has held while this was said."""
    it, most = Session(Protection(), Rules(reject_bare_newline=True)), 0
    it.opened(0)
    for side, data in sent:
        if side == "s":
            it.server_sent(data, 0)
        elif it.wants_client:
            it.client_sent(data, 0)
        most = max(most, it.held_bytes)
    return most


GREETED = (("s", b"220 mx\r\n"), ("c", b"EHLO c\r\n"), ("s", b"250 mx\r\n"), ("c", b"MAIL FROM:<a@b>\r\n"))
LONG = b"RCPT TO:<" + "é".encode() * 255 + b"@b.example>\r\n"
SESSION_BYTES = 655_360  # what docs/hardware.md reckons with


@pytest.mark.parametrize(
    "sent",
    [
        (*GREETED, ("s", b"250 ok\r\n"), *(2_000 * (("c", LONG), ("s", b"250 " + b"x" * 500 + b"\r\n")))),
        (*GREETED, *(2_000 * (("c", LONG),))),
        (*GREETED, *(2_000 * (("c", b"RCPT TO:<" + b"u" * 50 + b"@b.example>\r\n"),))),
        (*GREETED, ("c", b"DATA\r\n"), *(20 * (("c", b"x" * 16_384),))),
        (*GREETED, *(20 * (("s", b"y" * 16_000),))),
    ],
    ids=["long recipients", "long ones unanswered", "short ones unanswered", "ahead", "a reply without end"],
)
def test_no_session_holds_more_than_is_reckoned_with(sent: tuple[tuple[str, bytes], ...]) -> None:
    assert 10_000 < held_by(*sent) < SESSION_BYTES


def test_who_holds_too_much_waits_is_told_so_and_nobody_else_notices(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are read at first; beyond its share the first is not, and hears 421 in the end."""
    monkeypatch.setattr("smtp_intercept.burden.CROWDED_S", 0.5)
    monkeypatch.setattr("smtp_intercept.accounts.LEAST_OF_CLIENT", 0)
    budget = Budget(120_000, client_percent=10, network_percent=1_000)

    async def work() -> None:
        async with listening() as (port, taken), box(port, budget=budget) as it:
            presses, its_server = await connected(it.port), await taken()
            await send(its_server, b"220 x\r\n")
            await receive(presses, 7)
            await send(presses, b"DATA\r\n" + b"x" * 40_000)
            await receive(its_server, 6)
            await asyncio.sleep(0.2)
            assert it.gateway.held_bytes > LEAST_OF_SESSION
            other, others_server = await connected(it.port), await taken()
            await send(others_server, b"220 x\r\n")
            await receive(other, 7)
            await send(other, b"NOOP\r\n")
            assert await receive(others_server, 6) == b"NOOP\r\n"
            assert await receive(presses, 100) == b"421 4.3.1 Too much is kept for you, come again\r\n"
            assert it.gateway.held_bytes < 1_000
            for sock in (presses, its_server, other, others_server):
                sock.close()
            records = await it.over(2)
            assert [record["outcome"] for record in records].count("deferred") == 1

    run(work())
