"""When a process of the daemon's is taken for hung: later while it starts than once it has reported.

::

    start ─────────────── 15 s ────────────── 180 s
    silent so far           runs on              killed
    has reported            killed
    only looks on           runs on              killed
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from smtp_intercept.app import channel
from smtp_intercept.app.children import HUNG_S, STARTING_S, Child

SILENT = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def process() -> Iterator[tuple[Child, subprocess.Popen[bytes]]]:
    tell, hear = channel.pair()
    child = Child("silent", "silent", SILENT, (), hear, tell)
    child.start(0.0)
    assert child.process is not None
    yield child, child.process
    child.end(5.0)
    tell.close()
    hear.close()


@pytest.mark.parametrize(
    ("kind", "reported", "limit_s"),
    [("silent", False, STARTING_S), ("silent", True, HUNG_S), ("tracker", True, STARTING_S)],
    ids=["starting", "at work", "behind all others"],
)
def test_at_its_limit_and_not_before(
    process: tuple[Child, subprocess.Popen[bytes]], kind: str, reported: bool, limit_s: float
) -> None:
    child, running = process
    child.kind, child.report = kind, {"pid": running.pid} if reported else {}
    child.watch(limit_s)
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(0.2)
    child.watch(limit_s + 0.1)
    assert running.wait(10.0) == -9
