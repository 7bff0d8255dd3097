"""A host of the lab: runs programs and ends them again, and nothing else.

A host is reached by a command prefix (``ip netns exec NAME``); `remote.RemoteHost` is one that is reached by SSH.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from itertools import count
from pathlib import Path
from typing import Any

TERM_GRACE_S = 3.0  # a well-behaved program has closed its files by then
POLL_S = 0.01
# What works is there long before; what hangs ends. No speed is measured by these, so a busy machine has time enough.
SOON_S, AT_LAST_S = 60.0, 120.0
# How many times slower than a real machine this one may be: every deadline of the lab is so many times later.
PATIENCE = float(os.environ.get("TOLLBRIDGE_LAB_PATIENCE", "1"))
PROGRAMS = "smtp_intercept.app.lab"


def patient(seconds: float) -> float:
    """A deadline of so many seconds, on this machine."""
    return seconds * PATIENCE


class LabError(Exception):
    """A program or the lab itself did not do what the caller relied on; the text holds its output."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a program that has ended left behind."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    def check(self) -> Result:
        """Itself if the exit status is 0, else `LabError` with all of the output."""
        if self.returncode:
            raise LabError(f"{' '.join(self.argv)}: exit status {self.returncode}\n{self.stdout}{self.stderr}")
        return self

    def json(self) -> Any:
        """The standard output as one JSON value."""
        return json.loads(self.stdout)

    def json_lines(self) -> list[Any]:
        """The standard output as one JSON value a line."""
        return json_lines(self.stdout)


def json_lines(text: str) -> list[Any]:
    """One JSON value a line; a last line that is still being written is left out."""
    return [json.loads(line) for line in text.split("\n")[:-1]]


class Process:
    """A program that runs on a host. Its output goes to files, so it can never block on a pipe nobody reads."""

    def __init__(self, argv: Sequence[str], command: Sequence[str], output: Path, env: dict[str, str]) -> None:
        self.argv = tuple(argv)
        self._stdout, self._stderr = output.with_suffix(".out"), output.with_suffix(".err")
        self._started_at = time.monotonic()
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            # A session of its own: Ctrl-C reaches the lab alone, which then ends its programs in order.
            self._popen = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, env=env
            )

    @property
    def pid(self) -> int:
        """The program's own pid: ``ip netns exec`` replaces itself by the program."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(errors="replace")

    @property
    def stdout_path(self) -> Path:
        """For what grows too long to be read again and again."""
        return self._stdout

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the program has ended."""
        self._popen.send_signal(number)

    def wait(self, timeout_s: float = AT_LAST_S) -> Result:
        """Wait for its end; on a time-out the program is killed and `LabError` says so."""
        try:
            self._popen.wait(patient(timeout_s))
        except subprocess.TimeoutExpired:
            self.kill()
            text = f"{' '.join(self.argv)}: still running after {timeout_s} s\n{self.stdout}{self.stderr}"
            raise LabError(text) from None
        took_s = time.monotonic() - self._started_at
        return Result(self.argv, self._popen.returncode, self.stdout, self.stderr, took_s)

    def wait_for(self, text: str, timeout_s: float = SOON_S) -> None:
        """Wait until ``text`` stands in the standard output; `LabError` if the program ends first or is late."""
        deadline_at = time.monotonic() + patient(timeout_s)
        while text not in self.stdout:
            if not self.running or time.monotonic() > deadline_at:
                state = "late" if self.running else f"exit status {self._popen.returncode}"
                raise LabError(f"{' '.join(self.argv)}: no {text!r} ({state})\n{self.stdout}{self.stderr}")
            time.sleep(POLL_S)

    def end(self, grace_s: float = TERM_GRACE_S) -> Result:
        """SIGTERM, then SIGKILL; a stopped process is continued first, or it could not obey. Safe to repeat."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            self._popen.wait(patient(grace_s))
        except subprocess.TimeoutExpired:
            self.kill()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._popen.kill()
        self._popen.wait()


@dataclass
class Host:
    """A machine of the lab. ``enter`` is the command prefix that runs a program on it, ``directory`` its own place
    for files; ``addresses`` are with prefix length."""

    name: str
    enter: tuple[str, ...]
    directory: Path
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    mac: str = ""
    interpreter: str = sys.executable
    processes: list[Process] = field(default_factory=list)
    _serial: count[int] = field(default_factory=count)

    @property
    def ipv4(self) -> str:
        """The first IPv4 address."""
        return self.of_version(4)[0]

    @property
    def ipv6(self) -> str:
        """The first IPv6 address."""
        return self.of_version(6)[0]

    def of_version(self, version: int) -> list[str]:
        """All its addresses of IP version 4 or 6, in the order given."""
        return [str(address.ip) for address in self.addresses if address.version == version]

    def spawn(self, argv: Sequence[str]) -> Process:
        """Start a program and return at once."""
        process = self.start_program(argv, self.directory / f"{next(self._serial):04}-{Path(argv[0]).name}")
        self.processes.append(process)
        return process

    def start_program(self, argv: Sequence[str], output: Path) -> Process:
        """By way of the prefix. ``output`` is the path of its files, without what they end with."""
        return Process(argv, [*self.enter, *argv], output, {**os.environ, "PYTHONUNBUFFERED": "1"})

    def new_file(self, suffix: str) -> Path:
        """A path for a file of a program's own, on the host; `fetch` brings it here."""
        return self.directory / f"{next(self._serial):04}{suffix}"

    def fetch(self, path: Path) -> bytes:
        """A file's content."""
        return path.read_bytes()

    def run(self, argv: Sequence[str], *, timeout_s: float = AT_LAST_S, check: bool = True) -> Result:
        """Run a program to its end; `LabError` if it fails (unless ``check`` is off) or is late."""
        process = self.spawn(argv)
        try:
            result = process.wait(timeout_s)
        finally:
            self.processes.remove(process)
        return result.check() if check else result

    def python(self, code: str | Path, *args: str, timeout_s: float = AT_LAST_S, check: bool = True) -> Result:
        """Run Python on the host: source text, or the path of a file."""
        where = [str(code)] if isinstance(code, Path) else ["-c", code]
        return self.run([self.interpreter, *where, *args], timeout_s=timeout_s, check=check)

    def program(self, module: str, *args: str) -> list[str]:
        """The command line of one of the lab's own programs, e.g. ``program("mailclient", "--help")``."""
        return [self.interpreter, "-m", f"{PROGRAMS}.{module}", *args]

    def end(self) -> None:
        """End every program that was started here and still runs; the last started first."""
        for process in reversed(self.processes):
            with contextlib.suppress(OSError):
                process.end()
        self.processes.clear()
