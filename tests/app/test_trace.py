"""`tollbridge trace` and `reindex`: from the mail log to an answer, as somebody at a help desk has it.

::

    mail.log ─▶ tracker ─▶ volumes ─▶ trace
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app import cli, trace_words, tracker
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.lentlogs import logs as opened
from smtp_intercept.app.trace import fitting
from smtp_intercept.app.tracker import REBUILD, TakenError, Tracker
from smtp_intercept.watch.index import LOCK, Index, Keep, volumes_in
from smtp_intercept.watch.terms import Field
from tests.watch import logs
from tests.watch.logs import delivery, line, message, notice, session
from tests.watch.test_story import HOSTILE

T = logs.BEGAN_S


class Box:
    """A configuration, a log and its tracker, in this process."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.log, self.config = directory / "index", directory / "mail.log", directory / "t.toml"
        self.directory.mkdir()
        self.log.touch()
        tables = f'[bridge]\nports = ["p0", "p1"]\n[log]\nmail = "{self.log}"\nreserve_bytes = 0\n'
        self.config.write_text(f'{tables}[tracking]\nindex = "{self.directory}"\n')

    def write(self, *records: dict[str, Any]) -> None:
        with self.log.open("ab") as log:
            log.writelines(line(record) + b"\n" for record in records)

    def tracker(self, reserve_bytes: int = 0) -> Tracker:
        return Tracker(self.directory, Keep(30, 1 << 30), reserve_bytes, lambda: opened(self.log))

    def indexed(self, *records: dict[str, Any]) -> None:
        self.write(*records)
        one = self.tracker()
        turn(one)
        one.close()

    def run(self, *words: str) -> int:
        return cli.main([*words, "--config", str(self.config), "--run-dir", str(self.config.parent / "run")])


def turn(one: Tracker) -> None:
    """Until it has nothing to do."""
    while not one.turn(time.monotonic()):
        pass


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def two_mails() -> list[dict[str, Any]]:
    return [
        message(1, T, sender="ann@example.org", queue_id="0CKQ2T0PMLB"),
        session(1, T + 1, seconds=1.5),
        delivery("0CKQ2T0PMLB", T + 2, "failed", reply="550 5.1.1 who?"),
        notice("0CKQ2T0PMLC", "0CKQ2T0PMLB", T + 2),
        message(2, T + 3, sender="Carol@example.net"),
        session(2, T + 4),
    ]


def test_several_in_lines_and_one_whole(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.indexed(*two_mails())
    assert box.run("trace", "--to", "example.com") == Exit.DONE
    first, second = capsys.readouterr().out.splitlines()
    assert "failed" in first
    assert "ann@example.org" in first
    assert first.endswith("0CKQ2T0PMLB")
    assert second.endswith("198.51.0.2  a1b2c3d4-2.1"), "the newest last"
    for words in (["0ckq2t0pmlb"], ["--from", "ann@example.org"], ["--client", "198.51.0.1"], ["--outcome", "failed"]):
        assert box.run("trace", *words) == Exit.DONE
        told = capsys.readouterr().out.splitlines()
        assert told[0] == first
        assert [line.split()[1] for line in told[1:] if line[2] != " "] == ["session", "message", "delivery", "notice"]
    assert box.run("trace", "a1b2c3d4-2.1") == Exit.DONE
    assert capsys.readouterr().out.startswith(second)
    assert box.run("trace", "a1b2c3d4-2.7") == Exit.DONE
    assert capsys.readouterr().out == "no mail fits\n"


def test_for_machines_each_is_whole(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.indexed(*two_mails())
    assert box.run("trace", "--json") == Exit.DONE
    newest, other = map(json.loads, capsys.readouterr().out.splitlines())
    assert (newest["mail"], newest["state"]) == ("a1b2c3d4-2.1", "accepted")
    assert other["records"] == two_mails()[:4]


def test_no_more_than_asked_for_and_it_says_so(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.indexed(*(message(number) for number in range(30)))
    assert box.run("trace", "--number", "5") == Exit.DONE
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 5
    assert "--number" in err
    assert box.run("trace", "--since", "2026-09-21T14:13:21Z", "--number", "50", "--json") == Exit.DONE
    assert 0 < len(capsys.readouterr().out.splitlines()) < 30


def test_a_session_that_nobody_saw_into_is_found_by_its_client(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.indexed(session(7, messages=0, tls="started"))
    assert box.run("trace", "--client", "198.51.0.7") == Exit.DONE
    assert "not seen" in capsys.readouterr().out.splitlines()[0]


def test_strangers_command_neither_terminal_nor_reader(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    to = [{"address": HOSTILE, "direction": "incoming", "reply": HOSTILE}]
    box.indexed(message(1, sender=HOSTILE, recipients=to, reply=HOSTILE), session(1, helo=HOSTILE))
    for words in ([], ["--from", HOSTILE.replace("\x00", "")], ["--json"]):
        assert box.run("trace", *words) == Exit.DONE
        assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_before_the_first_mail_there_is_none(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    (box.directory / LOCK).touch()
    assert box.run("trace") == Exit.DONE
    assert capsys.readouterr().out == "no mail fits\n"


def test_without_an_index_it_says_what_to_do(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    assert box.run("trace") == Exit.FAILED
    assert "has not yet run" in capsys.readouterr().err
    box.config.write_text('[bridge]\nports = ["p0", "p1"]\n')
    for verb in ("trace", "reindex"):
        assert box.run(verb) == Exit.FAILED
        assert "set tracking.index" in capsys.readouterr().err


def test_made_anew_from_the_log_and_its_copies(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.indexed(*two_mails())
    box.log.rename(box.log.with_name("mail.log.1"))
    box.write(message(9))
    (box.directory / "volume-000001.db").write_bytes(b"damaged")
    assert box.run("reindex") == Exit.DONE
    assert capsys.readouterr().out.startswith("7 records indexed")
    assert box.run("trace", "--json") == Exit.DONE
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_running_tracker_does_it_itself(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.write(*two_mails())
    one = box.tracker()
    turn(one)
    with sqlite3.connect(next(iter(volumes_in(box.directory).values()))) as volume:
        volume.execute("DELETE FROM record")
    assert box.run("reindex") == Exit.DONE
    assert "the running tracker" in capsys.readouterr().out
    turn(one)
    assert not (box.directory / REBUILD).exists()
    assert len(list(Index(box.directory).since((0, 0)))) == 6
    one.close()


def test_two_never_write_to_one(box: Box) -> None:
    one = box.tracker()
    with pytest.raises(TakenError):
        box.tracker()
    one.close()
    box.tracker().close()


def test_a_full_disk_is_waited_for_and_said(box: Box) -> None:
    box.write(*two_mails())
    one = box.tracker(reserve_bytes=1 << 60)
    assert one.turn(time.monotonic()) > 0
    assert "log.reserve_bytes" in one.report()["stands"]
    one._reserve = 0
    one.turn(time.monotonic() + tracker.AGAIN_S)
    turn(one)
    assert (one.report()["stands"], one.report()["records"]) == ("", 6)
    one.close()


def test_a_volume_damaged_at_work_is_made_again(box: Box) -> None:
    box.write(*two_mails())
    one = box.tracker()
    turn(one)
    (newest,) = volumes_in(box.directory).values()
    damage = sqlite3.DatabaseError("database disk image is malformed")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    one._failed(damage)
    assert not newest.exists()
    one._again_at = 0.0
    turn(one)
    assert len(list(Index(box.directory).since((0, 0)))) == 6
    one.close()


def test_what_comes_is_shown_as_it_fits(box: Box) -> None:
    box.indexed(*two_mails())
    index = Index(box.directory)
    client = frozenset({(Field.CLIENT, "198.51.0.1"), (Field.SENDER, "ann@example.org")})
    shown = [fits.record for found in index.since((0, 0)) for fits in fitting(index, found, client)]
    assert shown == two_mails()[:2], "the message once its session's record tells the client"
    failed = frozenset({(Field.OUTCOME, "failed")})
    kinds = [fits.record["type"] for found in index.since((0, 0)) for fits in fitting(index, found, failed)]
    assert kinds == ["delivery", "notice"]
    everything = [fits.record for found in index.since((0, 0)) for fits in fitting(index, found, frozenset())]
    assert everything == two_mails()


@pytest.mark.parametrize("text", ["", "h", "-1h", "3w", "2026-13-01", "99999999999999d", "noon", "1e9d", "\x1b[2J"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        trace_words.when(text)
    assert str(refused.value).isprintable()


def test_times() -> None:
    assert abs(trace_words.when("2h") / 1000 - (time.time() - 7200)) < 5
    assert trace_words.when("2026-09-21T14:13:20Z") == round(T * 1000)
    assert trace_words.when("2026-09-21") == round(time.mktime((2026, 9, 21, 0, 0, 0, 0, 0, -1)) * 1000)
