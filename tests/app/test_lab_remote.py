"""A program on a machine that is reached by SSH: its words arrive as they are, and it can be ended.

A shell stands for the machine: as sshd does, it takes one word apart.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from smtp_intercept.app.ended import lives
from smtp_intercept.app.lab import hung, remote
from smtp_intercept.app.lab.host import LabError
from smtp_intercept.app.lab.remote import RemoteHost

SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
STUBBORN = "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteHost:
    monkeypatch.setattr(remote, "PLACE", str(tmp_path / "place"))
    return RemoteHost("client", ("sh", "-c"), tmp_path)


@pytest.mark.parametrize("word", ["", "two words", "$HOME", "it's", 'a"b', "line\nline", "*", "a;b", "\\"])
def test_every_word_arrives_as_it_is(host: RemoteHost, word: str) -> None:
    assert host.python("import sys; print(ascii(sys.argv[1]))", word).stdout == f"{word!r}\n"


def test_its_exit_status_and_both_streams_come_back(host: RemoteHost) -> None:
    result = host.python("import sys; print(1); print(2, file=sys.stderr); sys.exit(3)", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, "1\n", "2\n")


@pytest.mark.parametrize(("program", "number"), [(SLEEP, signal.SIGTERM), (STUBBORN, signal.SIGKILL)])
def test_it_is_ended_over_there(host: RemoteHost, program: str, number: signal.Signals) -> None:
    process = host.spawn([sys.executable, "-c", program])
    process.wait_for("\n")
    process.end(grace_s=0.5)
    hung.wait_until(lambda: not lives(int(process.stdout)), "it has ended")


def test_one_that_is_late_is_killed(host: RemoteHost) -> None:
    with pytest.raises(LabError, match="still running after"):
        host.python(SLEEP, timeout_s=0.5)
