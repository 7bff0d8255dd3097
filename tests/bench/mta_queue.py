"""A queue of many messages: how long listing them takes, in how much memory, and what the MTA needs that holds them."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

from smtp_intercept.app.lab.host import Host
from smtp_intercept.direction import Direction
from smtp_intercept.mta import database
from smtp_intercept.mta.envelope import Envelope, Origin, Recipient
from smtp_intercept.mta.records import Records
from smtp_intercept.mta.spool import Spool
from tests.bench.mta_systems import PATIENCE_S, Ours

MESSAGES = 100_000
CONTENT = b"Subject: bench\r\n\r\n" + b"x" * 76 + b"\r\n" * 12
AWAY_S = 86_400.0  # the next attempt is tomorrow
SETTLED_S = 3.0  # then the MTA has looked at its queue, and reported
GROUP = 5_000
LISTS = 5


def measure(host: Host, disk: Path, messages: int) -> dict[str, Any]:
    ours = Ours(host, disk)
    ours.empty()
    empty_mib = _held(ours)
    fill(ours.spool, messages)
    listed = {f"queue list{words}": _listed(host, ours.spool, *words.split()) for words in ("", " --json")}
    held_mib, started_s = _held(ours), _started(ours)
    ours.empty()
    return {
        "messages": messages,
        **listed,
        "start of the MTA, s": started_s,
        "MTA with an empty queue, MiB": empty_mib,
        "MTA with these messages, MiB": held_mib,
    }


def fill(spool: Path, messages: int) -> None:
    Spool.open(spool, reserve_bytes=0).close()
    connection: sqlite3.Connection = database.connect(spool / database.NAME)
    records, now = Records(connection), time.time()
    origin = Origin(("192.0.2.10", 40_000), ("127.0.0.1", 25), Direction.INCOMING, "p0", ("example.com",))
    for start in range(0, messages, GROUP):
        with database.transaction(connection):
            for number in range(start, min(start + GROUP, messages)):
                envelope = Envelope(f"sender{number}@example.net", (Recipient(f"user{number}@example.com"),))
                records.insert(origin, envelope, CONTENT, "", len(CONTENT), now)
    with database.transaction(connection):
        connection.execute("UPDATE recipient SET next_at = ?", (now + AWAY_S,))
        connection.execute("UPDATE message SET due_at = ?", (now + AWAY_S,))
    connection.close()


def _listed(host: Host, spool: Path, *options: str) -> str:
    """Seconds, the median of so many, with the interpreter's start; and the most memory that the process ever had."""
    runs = sorted(_listed_once(host, spool, options) for _ in range(LISTS))
    took_s, cpu_s, rss_mib = runs[LISTS // 2]
    return f"{took_s:.2f} s ({runs[0][0]:.2f} to {runs[-1][0]:.2f}), {cpu_s:.2f} s of CPU, {rss_mib:.0f} MiB"


def _listed_once(host: Host, spool: Path, options: Sequence[str]) -> tuple[float, float, float]:
    words = [host.interpreter, "-m", "smtp_intercept.app", "queue", "--spool", str(spool), "list", *options]
    with (host.directory / "list").open("wb") as out:
        began_at = time.monotonic()
        process = Popen([*host.enter, *words], stdout=out)
        killer = threading.Timer(PATIENCE_S, process.kill)
        killer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            killer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"queue list: exit status {process.returncode}")
    return time.monotonic() - began_at, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _started(ours: Ours) -> float:
    began_at = time.monotonic()
    ready_at = ours.start()
    ours.stop()
    return round(ready_at - began_at, 2)


def _held(ours: Ours) -> float:
    ours.start()
    time.sleep(SETTLED_S)
    assert ours.process is not None
    status = Path(f"/proc/{ours.process.pid}/status").read_text()
    ours.stop()
    kib = re.search(r"(?m)^VmRSS:\s+(\d+) kB$", status)
    assert kib is not None
    return round(int(kib[1]) / 1024, 1)
