"""100,000 messages are due for a destination that is down, or says nothing; mail for others goes by beside them."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from pathlib import Path

import pytest

from smtp_intercept.mta.courier import Parcel
from smtp_intercept.mta.destinations import Bounds
from smtp_intercept.mta.envelope import Outcome
from smtp_intercept.mta.parts import WAITING
from smtp_intercept.mta.runner import PAGE
from tests.mta.scripted import START, Answer, Office, down

MESSAGES = 100_000
MORE_MEMORY_KIB = 24 << 10  # the rows alone are five times that; the test's own log is in it

_MANY = f"""
WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {MESSAGES})
INSERT INTO message SELECT (SELECT max(seq) FROM message) + n, received_at, content_bytes, file, origin,
    reverse_path, body, smtputf8, ret, envid, 0, '', 0, {START} - 1000 + n * 0.001 FROM n, message;
INSERT INTO recipient SELECT m.seq, 0, 'user' || m.seq || '@stuck.example', 3, '', 'queued', 0, m.due_at, '', '', 0
    FROM message m WHERE m.seq NOT IN (SELECT seq FROM recipient);
"""


async def hang(parcel: Parcel, number: int) -> Outcome:
    await asyncio.sleep(3600)
    raise AssertionError


def memory_kib() -> int:
    found = re.search(r"VmRSS:\s*(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def fill(directory: Path) -> None:
    async def first() -> None:
        office = Office(directory)
        office.now = START - 1000
        await office.post("user@stuck.example")
        office.spool.close()

    asyncio.run(first())
    connection = sqlite3.connect(directory / "queue.db")
    connection.executescript(_MANY)
    connection.close()


@pytest.mark.alone
@pytest.mark.parametrize("answer", [down, hang], ids=["down", "silent"])
def test_a_long_queue_stops_nobody(tmp_path: Path, answer: Answer) -> None:
    fill(tmp_path)

    async def delivered(office: Office, to: str) -> float:
        """Seconds from the message's arrival."""
        began_at = time.monotonic()
        await office.post(to)
        async with asyncio.timeout(20):
            while (to, "delivered") not in office.outcomes():
                await asyncio.sleep(0.005)
        return time.monotonic() - began_at

    async def scene() -> None:
        office = Office(tmp_path, ticking=True)
        office.courier.answers["stuck.example"] = answer
        before_kib = memory_kib()
        running = asyncio.create_task(office.runner.run())
        took, most = [], 0
        for number in range(5):
            await asyncio.sleep(0.3)
            took.append(await delivered(office, f"u{number}@lively.example"))
            most = max(most, office.runner.in_hand)
        more_kib = memory_kib() - before_kib
        office.runner.stop(within_s=0)
        await running
        office.spool.close()
        worst = max(took)
        print(f"beside {MESSAGES} for others: {worst:.3f} s at worst; {most} in hand, {more_kib} KiB more")
        assert worst < 3
        assert most <= Bounds().total + WAITING + 2 * PAGE
        assert more_kib < MORE_MEMORY_KIB

    asyncio.run(scene())
