"""One process of the daemon's: started, listened to, ended if it hangs, started again if it has ended."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from smtp_intercept.app import channel, hangup
from smtp_intercept.app.accounts import account

HUNG_S = 15.0  # without a report for so long a process is ended and started again
STARTING_S = 180.0  # before its first report; an emulated box that boots on a busy host took more than 60 s
BACKOFF_S = (0.5, 30.0)  # first and longest wait before a process that died is started again
STEADY_S = 60.0  # one that lived so long starts again without waiting

_LOG = logging.getLogger("tollbridge")


def _nothing() -> tuple[int, ...]:
    return ()


def _nobody() -> None:
    return None


@dataclass
class Child:
    """One of the processes, and what it last said. ``kind`` is its program; of several of one kind each has a ``name``
    with its number. ``tell`` is its end of ``reports``, kept for the next start; ``lend`` gives the listeners of each
    start, ``mourn`` is called when it has ended."""

    kind: str
    name: str
    command: list[str]
    fds: tuple[int, ...]
    reports: socket.socket
    tell: socket.socket
    lend: Callable[[], tuple[int, ...]] = _nothing
    mourn: Callable[[], None] = _nobody
    process: subprocess.Popen[bytes] | None = None
    report: dict[str, Any] = field(default_factory=dict)
    heard_at: float = 0.0
    started_at: float = 0.0
    start_after: float = 0.0
    wait_s: float = BACKOFF_S[0]
    restarts: int = -1

    def start(self, now: float) -> None:
        """OSError is of what it is lent."""
        lent = self.lend()
        words = [word for number in lent for word in ("--listener", str(number))]
        fds = (*self.fds, *lent)
        with hangup.held():
            self.process = subprocess.Popen([*self.command, *words], pass_fds=fds, stdin=subprocess.DEVNULL)  # noqa: S603 - own module
        self.report, self.heard_at, self.started_at = {}, now, now
        self.restarts += 1

    def listen(self, now: float) -> None:
        for report in channel.hear(self.reports):
            # A datagram of the one before, still in the pipe, is not this one's.
            if self.process is not None and report.get("pid") == self.process.pid:
                self.report, self.heard_at = report, now

    def watch(self, now: float) -> None:
        """End it if it hangs, start it if it has ended and waited."""
        if self.process is not None and self.runs:
            if now - self.heard_at > (limit_s := HUNG_S if self.report else STARTING_S):
                _LOG.error("%s says nothing for %d s: killed", self.name, limit_s)
                self.process.kill()
            return
        if self.process is not None:
            if now - self.started_at > STEADY_S:
                self.wait_s = BACKOFF_S[0]
            self._wait(now, f"ended with {self.process.returncode}")
            self.process = None
            self.mourn()
        if now >= self.start_after:
            try:
                self.start(now)
            except OSError as error:
                self._wait(now, f"cannot start: {error}")

    def _wait(self, now: float, why: str) -> None:
        _LOG.error("%s %s; starts again in %.1f s", self.name, why, self.wait_s)
        self.start_after = now + self.wait_s
        self.wait_s = min(2 * self.wait_s, BACKOFF_S[1])

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ask_to_end(self) -> None:
        if self.process is not None and self.runs:
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)  # a stopped process hears nothing else

    def end(self, timeout_s: float) -> None:
        if self.process is None or not self.runs:
            return
        self.ask_to_end()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _LOG.warning("%s does not end: killed", self.name)
            self.process.kill()
            self.process.wait()


def make_child(kind: str, name: str, arguments: list[str], fds: tuple[int, ...]) -> Child:
    """Not started yet. `NoAccountError`."""
    tell, hear = channel.pair()
    uid, gid = account(kind)
    words = [*arguments, "--uid", str(uid), "--gid", str(gid), "--reports", str(tell.fileno())]
    command = [sys.executable, "-P", "-m", f"smtp_intercept.app.{kind}", *words]
    return Child(kind, name, command, (*fds, tell.fileno()), hear, tell)


def all_up(children: list[Child]) -> bool:
    """Each runs and has reported, and each diverter says that it beats."""
    return all(child.runs and child.report and child.report.get("beating", True) is True for child in children)


def serving(children: list[Child]) -> bool:
    """At least one of each kind is up, of those that see mail."""
    kinds = {child.kind for child in children} - {"resolver", "reader"}
    return all(any(all_up([child]) for child in children if child.kind == kind) for kind in kinds)


def numbered(kind: str, index: int, of: int | None) -> str:
    """The only one has no number."""
    return kind if (of or 1) == 1 else f"{kind}-{index + 1}"


def handed(ends: list[tuple[str, socket.socket]]) -> list[str]:
    """Options by whose names a process knows what it is handed."""
    return [word for name, end in ends for word in (f"--{name}", str(end.fileno()))]


def descriptors(ends: list[tuple[str, socket.socket]]) -> tuple[int, ...]:
    return tuple(end.fileno() for _, end in ends)
