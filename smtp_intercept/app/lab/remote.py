"""A host of the lab that is a machine of its own, reached by SSH: the same programs, started and ended over there.

What a program writes to its standard streams comes back; files on that machine are not fetched.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from smtp_intercept.app.lab.gateway import Gateway
from smtp_intercept.app.lab.host import Host, Process, patient

MAIL_LOG = "/var/log/tollbridge/mail.log"
PIDS = "/run/lab-programs"  # on that machine
KILL_S = 30.0


class RemoteProcess(Process):
    """A program on another machine; the process here is the SSH client, which ends when it does."""

    def __init__(self, argv: Sequence[str], enter: Sequence[str], output: Path) -> None:
        pid_file = f"{PIDS}/{uuid4().hex}"
        self._kill = (*enter, f"kill -s %s $(cat {pid_file})")
        script = f"mkdir -p {PIDS} && echo $$ >{pid_file} && PYTHONUNBUFFERED=1 exec {shlex.join(argv)}"
        super().__init__(argv, [*enter, script], output, dict(os.environ))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal over there; nothing happens if the program has ended."""
        if self.running:
            *enter, words = self._kill
            command = [*enter, words % number.name.removeprefix("SIG")]
            subprocess.run(command, check=False, capture_output=True, timeout=patient(KILL_S))  # noqa: S603

    def kill(self) -> None:
        """There, then here: a machine that does not answer must not hold the test."""
        try:
            self.signal(signal.SIGKILL)
        finally:
            super().kill()


@dataclass
class RemoteHost(Host):
    """``enter`` is followed by one word, which a shell over there takes apart: ``("ssh", …, "client")``."""

    def start_program(self, argv: Sequence[str], output: Path) -> Process:
        """One that `Process.end` ends over there."""
        return RemoteProcess(argv, self.enter, output)


@dataclass
class RemoteGateway(RemoteHost, Gateway):
    """The box as its package has set it up; systemd starts and stops it, not this."""

    def read_log(self) -> str:
        """After a power cut zeros stand in the place of what was not written yet."""
        return self.run(["cat", MAIL_LOG], check=False).stdout.replace("\0", "")


@dataclass(frozen=True, slots=True)
class RemoteLab:
    """Of `network.Lab`'s interface what needs no namespace: hosts that run programs, and a gateway with a mail log."""

    hosts: tuple[Host, ...]
    gateway: RemoteGateway

    def host(self, name: str) -> Host:
        """The host of that name; `KeyError` if there is none."""
        return {host.name: host for host in (*self.hosts, self.gateway)}[name]
