"""What one client costs the MTA: time goes first to who has taken least, octets are shares of what is free.

presser, many sessions ─┐                      ┌─ is put off (its turn later; 421 4.3.1)
                        ├─ socket pairs ─ MTA ─┤
victim, one session ────┘                      └─ is served at once
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from smtp_intercept import accounts
from smtp_intercept.accounts import LEAST_OF_CLIENT, LEAST_OF_SESSION, Account, Budget
from smtp_intercept.mta.billing import TURN_S, Turns
from smtp_intercept.mta.receiver import RECIPIENT_BYTES
from tests.kernel.pace import slowness
from tests.mta.receiving import ORIGIN, House, everything, house, replies, send
from tests.smtp.box import Run

PRESSER, VICTIM = Account("192.0.2.66"), Account("192.0.2.10")
BUDGET = Budget(4 * LEAST_OF_CLIENT, client_percent=50, network_percent=100)
FROM_PRESSER = replace(ORIGIN, client=("203.0.113.66", 40_000))
OPENING = b"EHLO c\r\nMAIL FROM:<a@c.example>\r\n"
CHEAP = b"RCPT TO:<b@example.com>\r\n"


def burn(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def worker(name: str, steps: int, done: list[str]) -> None:
    for _ in range(steps):
        burn(TURN_S / 4)
        await asyncio.sleep(0)
    done.append(name)


def charged(turns: Turns, work: Coroutine[Any, Any, Any], account: Account) -> asyncio.Task[Any]:
    async def run() -> Any:
        return await turns.metered(work, lambda: account)

    return asyncio.get_running_loop().create_task(run())


def test_who_has_taken_least_goes_first_and_the_loop_turns(run: Run) -> None:
    async def work() -> None:
        turns, done, beats = Turns(), list[str](), list[float]()
        pressing = [charged(turns, worker("presser", 5, done), PRESSER) for _ in range(200)]

        async def beat() -> None:
            while True:
                beats.append(time.perf_counter())
                await asyncio.sleep(0)

        beating = asyncio.create_task(beat())
        await asyncio.sleep(0.02)
        victim = charged(turns, worker("victim", 5, done), VICTIM)
        await asyncio.gather(victim, *pressing)
        beating.cancel()
        assert done.index("victim") < 40, "most of the presser's come later"
        gaps = sorted(after - before for before, after in pairwise(beats))
        assert gaps[len(gaps) // 2] < 3 * TURN_S

    run(work())


def test_nobody_waits_where_nobody_presses(run: Run) -> None:
    async def work() -> None:
        turns, loop = Turns(), asyncio.get_running_loop()

        async def straight() -> int:
            future: asyncio.Future[int] = loop.create_future()
            loop.call_soon(future.set_result, 5)
            return await future + 1

        assert await turns.metered(straight(), lambda: VICTIM) == 6

    run(work())


def test_errors_and_cancellation_reach_the_work(run: Run) -> None:
    async def work() -> None:
        turns, seen = Turns(), list[str]()

        async def fails() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise KeyError("mine") from None

        task = charged(turns, fails(), PRESSER)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(KeyError):
            await task
        assert seen == ["cancelled"]
        turns._spent_s = 2 * TURN_S  # it waits for its turn now, and is ended there
        waiting = charged(turns, fails(), PRESSER)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises((KeyError, asyncio.CancelledError)):
            await waiting

    run(work())


async def delivered(it: House) -> float:
    """The seconds that a victim's message takes."""
    began_at, sock = time.perf_counter(), it.enter()
    await send(sock, OPENING + b"RCPT TO:<b@example.com>\r\nDATA\r\n")
    await replies(sock, 5)
    await send(sock, b"text\r\n.\r\n")
    assert b"queued" in await replies(sock, 1)
    sock.close()
    return time.perf_counter() - began_at


def test_pipelines_of_one_client_delay_nobody_else(run: Run) -> None:
    """1.2 s of work: each command is judged, and none is wrong."""

    async def work() -> None:
        async with house() as it:
            socks = [it.enter(FROM_PRESSER) for _ in range(60)]
            for sock in socks:
                sock.send(OPENING + CHEAP * 400)
            await asyncio.sleep(0.1)
            await delivered(it)
            ahead = sum(each._reader.ahead_bytes for each in it.receiving._open.values() if each is not None)
            assert ahead > 60 * 400 * len(CHEAP) / 2, "most of the presser's waits still"
            for sock in socks:
                sock.close()

    run(work())


async def recipients(it: House, size: int) -> Any:
    """A session of the presser's that has so many octets kept, and never ends."""
    sock = it.enter(FROM_PRESSER)
    line = b"RCPT TO:<" + b"x" * 60 + b"@example.com>\r\n"
    each = RECIPIENT_BYTES + 2 * (len(line) - len(b"RCPT \r\n"))
    await send(sock, OPENING)
    await replies(sock, 3)
    for _ in range(size // each):
        await send(sock, line)
    return sock


def test_octets_are_a_share_at_its_edge(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the least that is anybody's nothing is asked; beyond, its session waits and is told so."""
    monkeypatch.setattr(accounts, "CROWDED_S", 0.3)
    monkeypatch.setattr(accounts, "CROWDED_EVERY_S", 0.05)

    async def work() -> None:
        async with house(budget=BUDGET) as it:
            below = [await recipients(it, 60 * 1024) for _ in range(8)]
            await asyncio.sleep(0.5)
            assert it.receiving.sessions == 8
            assert LEAST_OF_CLIENT * 0.9 < it.receiving.held_bytes < LEAST_OF_CLIENT
            more = [await recipients(it, 60 * 1024) for _ in range(8)]
            assert await delivered(it) < 0.25 * slowness(), "a victim waits for nobody"
            waiting = (asyncio.wait_for(everything(sock), 2) for sock in more)
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            told = [end for end in ends if isinstance(end, bytes)]
            assert told, "until there is room for the rest"
            assert all(end.endswith(b"421 4.3.1 Too much is kept for you, come again\r\n") for end in told)
            assert it.receiving.held_bytes <= BUDGET.held_bytes // 3 + LEAST_OF_SESSION
            for sock in (*below, *more):
                sock.close()
            await it.over(17)
            assert it.receiving.held_bytes == 0

    run(work())
