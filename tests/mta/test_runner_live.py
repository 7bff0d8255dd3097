"""The runner with the real spool and the real courier, and Postfix's smtp-sink on loopback.

spool -- runner -- courier --+-- sink that takes everything, one file a message
                             +-- sink that says 450 to every RCPT
                             +-- sink that says 500 to every RCPT
                             `-- a port where nobody listens
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from smtp_intercept.app.lab.host import AT_LAST_S, SOON_S, Process
from smtp_intercept.mta.envelope import Entry, Envelope, Queued, Recipient, State
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.spool import Spool
from tests import vacant
from tests.mta.deliver import hop, runner
from tests.mta.scripted import CONTENT, ORIGIN
from tests.tools import program

RECIPIENT = re.compile(rb"^X-Rcpt-Args: <([^>]*)>", re.MULTILINE)


@pytest.fixture
def folder() -> Iterator[Path]:
    """That nobody, as whom smtp-sink runs, can write to."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


@contextmanager
def sink(folder: Path, *options: str) -> Iterator[int]:
    """Its port."""
    path, environment = program("smtp-sink")
    port = vacant.port()
    argv = [path, "-u", "nobody", *options, f"inet:127.0.0.1:{port}", "512"]
    process = Process(argv, argv, folder / f"sink{port}", {**os.environ, **environment})
    try:
        until(lambda: answers(port), SOON_S)
        yield port
    finally:
        process.signal(SIGKILL)
        process.wait(5)


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            return bool(sock.recv(100))
    except OSError:
        return False


def until(true: Callable[[], bool], seconds: float) -> None:
    deadline_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline_at
        time.sleep(0.02)


def stored(folder: Path) -> Counter[str]:
    """Recipients of the messages that arrived."""
    found = (RECIPIENT.findall(path.read_bytes()) for path in folder.glob("mail.*"))
    return Counter(address.decode() for addresses in found for address in addresses)


async def post(spool: Spool, *recipients: str) -> None:
    draft = spool.draft()
    draft.write(CONTENT)
    envelope = Envelope("alice@taken.example", tuple(map(Recipient, recipients)))
    await spool.enqueue(draft, ORIGIN, envelope, time.time())


def test_every_kind_of_server(folder: Path, tmp_path: Path) -> None:
    """One message to all of them, twenty times: split, settled, and its sender told."""
    log: list[dict[str, Any]] = []

    async def scene(ports: dict[str, int]) -> list[Entry]:
        def route(entry: Entry, queued: Queued) -> NextHop:
            return hop(ports[queued.recipient.address.partition("@")[2].partition(".")[0]])

        spool = Spool.open(tmp_path)
        try:
            for number in range(20):
                await post(spool, *(f"u{number}@{name}.example" for name in ports))
            running = runner(spool, route, log.append)
            task = asyncio.create_task(running.run())
            async with asyncio.timeout(SOON_S):
                while sum(stored(folder).values()) < 40:
                    await asyncio.sleep(0.05)
            running.stop(within_s=5)
            await task
            return list(spool.entries())
        finally:
            spool.close()

    with (
        sink(folder, "-d", f"{folder}/mail.") as taken,
        sink(folder, "-r", "RCPT") as later,
        sink(folder, "-f", "RCPT") as refused,
    ):
        left = asyncio.run(scene({"taken": taken, "later": later, "refused": refused, "down": vacant.port()}))
    arrived = stored(folder)
    assert {f"u{number}@taken.example": 1 for number in range(20)}.items() <= arrived.items()
    assert arrived["alice@taken.example"] == 20, "a bounce for each"
    assert [[each.state for each in entry.queued] for entry in left] == [
        [State.DELIVERED, State.QUEUED, State.FAILED, State.QUEUED]
    ] * 20
    tried = Counter(each["recipient"].partition("@")[2] for each in log if each["type"] == "delivery")
    assert tried["down.example"] <= 3, "the others wait for it"
    assert tried["later.example"] == tried["refused.example"] == 20


def test_killed_at_any_instant_nothing_is_lost(folder: Path, tmp_path: Path) -> None:
    """kill -9 between a delivery and its settling costs a duplicate of what was in flight; never a message."""
    messages, kills = 0, 0
    chance = random.Random(4)

    async def fill() -> None:
        nonlocal messages
        spool = Spool.open(tmp_path)
        more = range(messages, messages + 200)
        await asyncio.gather(*(post(spool, f"u{number}@taken.example") for number in more))
        messages = more.stop
        spool.close()

    async def left() -> int:
        spool = Spool.open(tmp_path)
        try:
            return sum(1 for _ in spool.entries())
        finally:
            spool.close()

    asyncio.run(fill())
    with sink(folder, "-d", f"{folder}/mail.") as port:
        argv = [sys.executable, "-m", "tests.mta.deliver", str(tmp_path), str(port)]
        deadline_at = time.monotonic() + 2 * AT_LAST_S
        while (waiting := asyncio.run(left())) or kills <= 2:
            assert time.monotonic() < deadline_at
            if not waiting:  # on a busy machine the blow may fall when all has been delivered
                asyncio.run(fill())
            process = Process(argv, argv, tmp_path / f"deliver{kills}", dict(os.environ))
            until(lambda: "delivered" in process.stdout or not process.running, SOON_S)  # noqa: B023
            time.sleep(chance.random() * 0.3)
            process.signal(SIGKILL)
            process.wait(5)
            kills += 1
    arrived = stored(folder)
    duplicates = sum(arrived.values()) - len(arrived)
    print(f"{messages} messages, {kills} kills, {duplicates} duplicates")
    assert len(arrived) == messages
    assert kills > 2
    assert duplicates <= kills * 20
