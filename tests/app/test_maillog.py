"""The mail log under attack, on a full disk, and beyond its size: what matters is written, the rest is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.maillog import Bounds, MailLog
from smtp_intercept.repetition import WINDOW_S
from tests.unshown import NOT_ROOT


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def session(number: int, client: str = "192.0.2.10", outcome: str = "aborted") -> dict[str, Any]:
    who = {"handler": "proxy", "client": {"address": client}, "tls": "none", "sasl_layer": False}
    return {"type": "session", "session": f"s{number}", **who, "outcome": outcome}


def message(number: int, outcome: str = "accepted") -> dict[str, Any]:
    return {"type": "message", "session": f"s{number}", "outcome": outcome}


class Log:
    def __init__(self, path: Path, **bounds: int) -> None:
        self.path, self.clock = path, Clock()
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.log = MailLog(self.fd, Bounds(**bounds), self.clock, lambda: 0.0)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    if os.geteuid():
        NOT_ROOT.skip()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_one_that_repeats_itself_is_counted_and_what_matters_is_not(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", each=10)
    for number in range(1000):
        log.log(session(number))
        log.log(message(number, "rejected"))
    for number in range(50):
        log.log(message(number))
        log.log(session(number))
    log.log(session(0, client="198.51.100.1"))
    kinds = [(record["type"], record["outcome"]) for record in log.records()]
    assert kinds.count(("session", "aborted")) == 10 + 50 + 1, "another network has its own"
    assert kinds.count(("message", "accepted")) == 50
    assert kinds.count(("message", "rejected")) == 1000, "one of each session: none repeats itself"
    assert log.log.counts["log_suppressed"] == 990
    log.clock.now += WINDOW_S
    log.log.turn()
    assert log.records()[-1] == {
        "type": "suppressed",
        "time": "1970-01-01T00:00:00.000Z",
        "of": "session",
        "client": "192.0.2.0/24",
        "outcome": "aborted",
        "number": 990,
    }
    log.log.turn()
    assert sum(record["type"] == "suppressed" for record in log.records()) == 1


def test_what_nobody_could_look_into_is_bounded_too(tmp_path: Path) -> None:
    """Ten times as many, for it may be all that is known of mail; neither takes the others' part."""
    log = Log(tmp_path / "log", each=10, together=20)
    for number in range(1000):
        log.log(session(number))
        log.log({**session(number, outcome="closed"), "tls": "started"})
    for number in range(1000):
        log.log({**session(number, client=f"10.0.{number % 250}.1", outcome="closed"), "tls": "started"})
    log.log(session(0, client="198.51.100.1"))
    kinds = [(record["outcome"], record["tls"]) for record in log.records()]
    assert kinds.count(("aborted", "none")) == 10 + 1
    assert kinds.count(("closed", "started")) == 100 + 100, "of one network, and of all"
    assert log.log.counts["log_suppressed"] == 990 + 900 + 900
    log.clock.now += WINDOW_S
    log.log.turn()
    summed = [record for record in log.records() if record["type"] == "suppressed"]
    assert [(each["client"], each["number"], each.get("encrypted")) for each in summed[:2]] == [
        ("192.0.2.0/24", 990, None),
        ("192.0.2.0/24", 900, True),
    ]


def test_what_nobody_could_look_into_outlasts_trifles(small: Path) -> None:
    """The log's size is no bound for it, the reserve of the disk is."""
    log = Log(small / "log", size_bytes=2_000, reserve_bytes=128 << 10)
    for number in range(2000):
        log.clock.now += 1
        log.log({**session(number), "tls": "started"})
    assert 112 << 10 < log.path.stat().st_size <= 132 << 10
    assert log.log.counts["log_room_kept"] > 0


def test_all_together_are_bounded(tmp_path: Path) -> None:
    """From a thousand networks too: 4.8 MB a second become some hundred records a minute."""
    log = Log(tmp_path / "log", each=10, together=100)
    for number in range(10_000):
        log.log(session(number, client=f"10.{number % 250}.{number // 250}.1"))
    assert len(log.records()) == 100
    assert log.log.counts["log_suppressed"] == 9_900


def test_beyond_its_size_only_what_matters_is_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", size_bytes=2_000)
    for number in range(100):
        log.clock.now += 1
        log.log(session(number))
        log.log(message(number))
    records = log.records()
    assert sum(record["type"] == "message" for record in records) == 100
    assert log.log.counts["log_room_kept"] > 0
    os.ftruncate(log.fd, 0)  # as its rotation does
    log.clock.now += 1
    log.log(session(1000))
    assert len(log.records()) == 1


def test_of_the_reserve_only_what_matters_takes(small: Path) -> None:
    log = Log(small / "log", reserve_bytes=128 << 10)
    for number in range(2000):
        log.clock.now += 1
        log.log(session(number))
    assert 112 << 10 < log.path.stat().st_size <= 132 << 10
    assert log.log.counts["log_room_kept"] > 0
    before = len(log.records())
    log.log(message(1))
    assert len(log.records()) == before + 1
    assert log.log.counts["log_lines_lost"] == 0


def test_a_full_disk_loses_lines_and_tears_none(small: Path) -> None:
    log = Log(small / "log")
    for number in range(6000):
        log.log(message(number))
    lost = log.log.counts["log_lines_lost"]
    assert lost > 0
    assert len(log.records()) == 6000 - lost
    os.ftruncate(log.fd, 0)
    log.log(message(7000))
    assert log.records() == [message(7000)]
    assert log.log.counts["log_lines_lost"] == lost


def test_what_was_cut_off_all_the_same_ends_there(tmp_path: Path) -> None:
    """Somebody else may take the last of the room between the look and the line (here: a limit of the file's size)."""
    code = (
        "import os, resource, signal, sys; from smtp_intercept.app.maillog import MailLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))\n"
        "log = MailLog(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND))\n"
        "log({'type': 'notice', 'is': 'x' * 40}); log({'type': 'notice', 'is': 'x' * 40})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)); log({'type': 'notice', 'is': 'whole'})\n"
        "print(log.counts['log_lines_lost'])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "log"], capture_output=True, text=True, check=True)
    lines = (tmp_path / "log").read_text().splitlines()
    assert done.stdout == "1\n"
    assert (len(lines), json.loads(lines[0])["is"], json.loads(lines[2])["is"]) == (3, "x" * 40, "whole")
