"""The run directory: one holder of a lock, believed only while it lives; files that readers see whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from smtp_intercept.app.rundir import LOCKS, AlreadyRunningError, Page, RunDir, read_json, write_json


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


HOLD = """
import sys, time
from pathlib import Path
from smtp_intercept.app.rundir import RunDir
with RunDir(Path(sys.argv[1])).lock(sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def holding(run_dir: RunDir, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(run_dir.path), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("name", LOCKS)
def test_one_holder_who_is_named_and_whose_death_lets_go(run_dir: RunDir, name: str) -> None:
    with holding(run_dir, name) as other:
        assert run_dir.holder(name) == other.pid
        with pytest.raises(AlreadyRunningError, match=rf"process {other.pid}\)"), run_dir.lock(name):
            pass
        other.send_signal(signal.SIGKILL)
    assert run_dir.holder(name) == 0, "the number that a dead process left is not believed"
    with run_dir.lock(name):
        pass


def test_the_locks_do_not_know_each_other(run_dir: RunDir) -> None:
    with run_dir.lock("run"), run_dir.lock("up"):
        assert run_dir.holder("run") == run_dir.holder("up") == os.getpid()


def test_nobody_holds_what_was_never_made(run_dir: RunDir) -> None:
    assert run_dir.holder("run") == 0
    assert not run_dir.path.exists()


ASK = """
import fcntl, sys, time
with open(sys.argv[1]) as file:
    fcntl.flock(file, fcntl.LOCK_SH)
    print("asks", flush=True)
    time.sleep(1)
"""


def test_who_asks_and_stands_still_meanwhile_keeps_nobody_out(run_dir: RunDir) -> None:
    """A `status` on a busy machine, between the two system calls of its question."""
    with run_dir.lock("run"):
        pass
    command = [sys.executable, "-c", ASK, str(run_dir.path / "run.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout
        assert asking.stdout.readline() == "asks\n"
        with run_dir.lock("run"):
            assert run_dir.holder("run") == os.getpid()


def test_asking_who_holds_it_keeps_nobody_out(run_dir: RunDir) -> None:
    """`status` asks at any moment, and `run` must not meet it by chance."""
    with run_dir.lock("run"):
        pass
    stop, refused = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            run_dir.holder("run")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    for _ in range(300):
        try:
            with run_dir.lock("run"):
                pass
        except AlreadyRunningError as error:
            refused.append(error)
    stop.set()
    asking.join(10)
    assert refused == []


def test_a_reader_sees_the_old_file_or_the_new_one(run_dir: RunDir) -> None:
    run_dir.make()
    write_json(run_dir.status, {"number": 0, "padding": ""})
    stop, torn = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            if read_json(run_dir.status) is None:
                torn.append(True)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    for number in range(300):
        write_json(run_dir.status, {"number": number, "padding": "x" * 50_000})
    stop.set()
    reader.join(10)
    assert torn == []
    assert read_json(run_dir.status)["number"] == 299


@pytest.mark.parametrize("text", ["", "{", "\0"])
def test_a_file_that_is_not_whole_is_none(run_dir: RunDir, text: str) -> None:
    run_dir.make()
    run_dir.status.write_text(text)
    assert read_json(run_dir.status) is None
    assert read_json(run_dir.pending) is None


def test_a_page_that_cannot_be_written_is_said_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = Page(tmp_path / "run" / "status.json")
    page.write({"n": 1})
    page.write({"n": 2})
    assert [record.message for record in caplog.records] == [
        f"{page.path} cannot be written, and `tollbridge status` has old news: No such file or directory"
    ]
    page.path.parent.mkdir()
    page.write({"n": 3})
    assert read_json(page.path) == {"n": 3}
    page.path.unlink()
    page.path.parent.rmdir()
    page.write({"n": 4})
    assert len(caplog.records) == 2, "it has worked in between"


REPAIR = """
import sys, time
from pathlib import Path
from smtp_intercept.app.rundir import RunDir
run_dir = RunDir(Path(sys.argv[1]))
with run_dir.lock("run"):
    with run_dir.lock("up"):
        print("held", flush=True)
        time.sleep(1)
    time.sleep(60)
"""


def test_who_types_up_waits_for_the_daemons_own_repair(run_dir: RunDir) -> None:
    command = [sys.executable, "-c", REPAIR, str(run_dir.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout
        assert daemon.stdout.readline() == "held\n"
        with run_dir.lock("up"):
            assert run_dir.holder("run") == daemon.pid
        daemon.kill()
