"""Standard error that nobody reads: a pipe, a socket as the journal's, a terminal. No process waits for it."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from smtp_intercept.app.processlog import ALIKE_PER_MINUTE, Outlet


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing


@contextmanager
def journal() -> Iterator[tuple[int, int]]:
    reading, writing = socket.socketpair()
    with reading, writing:
        yield reading.detach(), writing.detach()


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    yield pty.openpty()


@pytest.mark.parametrize("kind", [pipe, journal, terminal])
def test_nobody_waits_and_the_loss_is_told(kind: Callable[[], AbstractContextManager[tuple[int, int]]]) -> None:
    with kind() as (reading, writing):
        outlet, began_at = Outlet(writing), time.monotonic()
        for number in range(20_000):
            outlet.say(f"line {number} {'x' * 100}")
        assert time.monotonic() - began_at < 10
        assert outlet.lost > 0
        assert os.get_blocking(writing), "others have this descriptor too"
        os.set_blocking(reading, False)
        said = drain(reading)
        before = outlet.lost
        outlet.say("again")
        said += drain(reading)
        told = re.findall(r"WARNING: (\d+) lines before this one were lost", said)
        assert sum(map(int, told)) == before, "a terminal may take a few more in between"
        assert said.splitlines()[-1] == "again"
        assert outlet.lost == before
        os.close(reading)
        os.close(writing)


def drain(reading: int) -> str:
    found = b""
    deadline_at = time.monotonic() + 1
    while time.monotonic() < deadline_at:
        try:
            found += os.read(reading, 65536)
        except OSError:
            if found:
                break
    return found.decode()


ALIKE = """
import logging
from smtp_intercept.app import processlog
processlog.begin()
for number in range(1000):
    logging.getLogger("tollbridge").error("session %s: failed", number)
logging.getLogger("tollbridge").error("another")
"""


def test_what_is_said_again_and_again_is_said_so_often() -> None:
    """By its wording: each of a thousand sessions has another number."""
    done = subprocess.run([sys.executable, "-c", ALIKE], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == ALIKE_PER_MINUTE + 1
    assert lines[0] == "ERROR: session 0: failed"
    assert lines[-1] == "ERROR: another"
