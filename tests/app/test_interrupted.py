"""Ctrl-C and `kill` at every prompt of `setup`, while Python is still loading, and at the write; and what a shell may
give for standard output. Each ends in a line and a status of the table, never in a traceback.

At the steps of `up` and `down`: tests/kernel/test_signals.py; thousands of command lines: tests/fuzz.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hwprofiles.case import Case
from smtp_intercept.app import cli, setup
from smtp_intercept.app.config import load
from smtp_intercept.app.ports import Port
from smtp_intercept.app.refusals import said
from smtp_intercept.app.signals import Interrupted, heard, undisturbed

COMMAND = [sys.executable, "-m", "smtp_intercept.app"]
PORTS = tuple(Port(f"enp{n}s0", f"02:00:00:00:00:0{n}", "igb", True) for n in (1, 2))
ANSWERS = ("", "-", "-", "example.com", "192.0.2.20", "")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(setup, "found", lambda: (PORTS, Case()))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    path = tmp_path / "tollbridge.toml"
    path.write_text("mine")
    return path


@pytest.mark.parametrize("number", SIGNALS)
def test_at_every_prompt(
    path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The file of before is there until the new one is, whole; at the last prompt the new one is."""
    for at in range(len(ANSWERS) + 2):
        typed: Iterator[str] = iter(("y", *ANSWERS)[:at])

        def answer(prompt: str, typed: Iterator[str] = typed) -> str:
            if (words := next(typed, None)) is None:
                os.kill(os.getpid(), number)
            return words or ""

        monkeypatch.setattr("builtins.input", answer)
        assert cli.main(["--config", str(path), "setup"]) == 128 + number, at
        assert capfd.readouterr().err.splitlines()[-1] == f"tollbridge: interrupted by {signal.Signals(number).name}"
        if at <= len(ANSWERS):
            assert [file.name for file in path.parent.iterdir()] == [path.name], at
            assert path.read_text() == "mine", at
    assert load(path).bridge.ports == ("enp1s0", "enp2s0")
    assert path.with_name(f"{path.name}.old").read_text() == "mine"


def test_in_the_middle_of_the_write_it_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        assert path.exists(), "at no instant is there none"
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    typed = iter(("y", *ANSWERS))
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    assert cli.main(["--config", str(path), "setup"]) == 128 + signal.SIGINT
    assert load(path).bridge.ports == ("enp1s0", "enp2s0")
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.old"}


def test_a_write_that_fails_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        self.touch()
        raise OSError(28, "No space left on device", str(self))

    typed = iter(("y", *ANSWERS))
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    monkeypatch.setattr(Path, "write_text", full)
    assert cli.main(["--config", str(path), "setup"]) == 1
    assert "No space left on device; make room there" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert not path.with_name(f"{path.name}.new").exists()


@pytest.mark.parametrize(
    ("place", "named"),
    [("", "is a directory"), ("file/x.toml", "file is a file"), ("/proc/1/x", "cannot be written to")],
)
def test_a_place_that_cannot_be_is_refused_before_anything_is_asked(
    tmp_path: Path,
    path: Path,
    place: str,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("it asks"))
    assert cli.main(["--config", str(tmp_path / place), "setup"]) == 1
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer", ["gateway = 2026-01-01", "ports = [1, 2]", "domain = nan", "servers = [[]]", "x = " + "[" * 5000]
)
def test_answers_of_another_kind(path: Path, tmp_path: Path, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "answers").write_text(answer)
    assert cli.main(["--config", str(path), "setup", "--yes", "--answers", str(tmp_path / "answers")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tollbridge: --answers: {tmp_path}/answers: ")
    assert path.read_text() == "mine"


def test_ctrl_c_on_a_terminal() -> None:
    """The real thing, at a prompt, once."""
    ours, theirs = pty.openpty()
    words = [*COMMAND, "--config", "/nonexistent/x.toml", "setup"]
    process = subprocess.Popen(["setsid", "--ctty", *words], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    while b"Ports to bridge" not in text:
        text += os.read(ours, 4096)
    deadline_at = time.monotonic() + 60
    while (
        process.poll() is None and time.monotonic() < deadline_at
    ):  # one that comes just before it reads waits for more
        os.write(ours, b"\x03")
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
    assert process.returncode == 130
    text += os.read(ours, 4096)
    os.close(ours)
    assert text.decode().splitlines()[-1] == "tollbridge: interrupted by SIGINT"


def test_ctrl_c_while_python_loads() -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *COMMAND[1:], "status"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.split()[-1] == "argparse":
            process.send_signal(signal.SIGINT)
            break
    assert "Traceback" not in process.stderr.read()
    assert process.wait(60) in (-signal.SIGINT, 130)


# --- the piece itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_step_to_end(number: int) -> None:
    kills = "import os, signal; os.kill(os.getpid(), 2); print(1)"
    with heard(), undisturbed() as change:
        change.check()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        child = subprocess.run([sys.executable, "-c", kills], check=False, capture_output=True)
        assert child.stdout == b"1\n", "nor does a program of its hear of it meanwhile"
        with pytest.raises(Interrupted) as ended:
            change.check()
    assert ended.value.status == 128 + number


def test_what_nobody_asked_for_comes_too_late() -> None:
    with heard(), undisturbed():
        os.kill(os.getpid(), signal.SIGINT)


def test_what_was_ignored_stays_ignored() -> None:
    """`tollbridge up &` in a script: its shell ignores SIGINT for it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heard(), undisturbed() as change:
            os.kill(os.getpid(), signal.SIGINT)
            change.check()
        with heard():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_signals_come_again_afterwards() -> None:
    with heard():
        with undisturbed():
            pass
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


# --- standard output --------------------------------------------------------------------------------------------------

SAYS = "from smtp_intercept.app import streams; streams.open_standard(); print(*map(chr, (0x2192, 0xAB, 0xE9, 0xDCFF)))"


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"PYTHONIOENCODING": "latin-1"}, b"-> \xab \xe9 \\udcff\n"),
        ({"PYTHONIOENCODING": "ascii"}, b'-> " \\xe9 \\udcff\n'),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b'-> " \\xe9 \\udcff\n'),
        ({"LANG": "C"}, "→ « é \\udcff\n".encode()),  # PEP 538
    ],
)
def test_what_the_encoding_does_not_have_is_said_in_ascii(environment: dict[str, str], text: bytes) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    done = subprocess.run([sys.executable, "-c", SAYS], env={**clean, **environment}, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (text, b"")


@pytest.mark.parametrize(
    ("shell", "status", "error"),
    [
        (">/dev/full", 1, "tollbridge: standard output: No space left on device"),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_a_standard_output_that_takes_nothing(shell: str, status: int, error: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {shell}', "sh", *COMMAND, "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (status, error)


@pytest.mark.parametrize("words", [["--version"], ["hw", "show", "generic"]])
def test_a_full_standard_output_is_told_once(words: list[str]) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >/dev/full', "sh", *COMMAND, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("standard output: No space left on device")) == (1, 1)


def test_a_refusal_names_the_file_and_the_remedy() -> None:
    assert said(OSError(30, "Read-only file system", "/etc/x")).startswith(
        "/etc/x: Read-only file system; it is mounted"
    )
    assert said(OSError(2, "No such file or directory", b"/\xff")) == "/\ufffd: No such file or directory"
    assert said(OSError("words")) == "words"
