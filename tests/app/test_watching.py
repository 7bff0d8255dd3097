"""When a process of the daemon's is taken for hung: later while it starts than once it has reported.

::

    start ─────────────── 15 s ────────────── 180 s
    silent so far           runs on              killed
    has reported            killed
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


@pytest.mark.parametrize(("reported", "limit_s"), [(False, STARTING_S), (True, HUNG_S)], ids=["starting", "at work"])
def test_at_its_limit_and_not_before(
    process: tuple[Child, subprocess.Popen[bytes]], reported: bool, limit_s: float
) -> None:
    child, running = process
    child.report = {"pid": running.pid} if reported else {}
    child.watch(limit_s)
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(0.2)
    child.watch(limit_s + 0.1)
    assert running.wait(10.0) == -9
