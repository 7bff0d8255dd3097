"""The way to the machines: SSH as root, through one kept connection each, and rsync through the same."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smtp_intercept.app.lab.host import LabError
from vagrant.lab import places
from vagrant.lab.doing import run

TRY_S, PAUSE_S = 15.0, 1.0
BOOT_S = 400.0  # an emulated machine takes 40 seconds, four beside other work on two cores a few times that
COPY_S = 300.0


@dataclass(frozen=True, slots=True)
class Access:
    """``enter`` is put before every program here that speaks to a machine, ``config`` an ssh_config(5)."""

    enter: tuple[str, ...]
    config: Path

    @property
    def ssh(self) -> list[str]:
        return [*self.enter, "ssh", "-F", str(self.config)]

    @property
    def rsync(self) -> list[str]:
        return [*self.enter, "rsync", "-a", "-e", f"ssh -F {self.config}"]

    def run(self, name: str, command: str, *, timeout_s: float = 60.0, check: bool = True) -> str:
        """A shell command's standard output on a machine; `LabError` if it fails or is late."""
        return run([*self.ssh, name, command], timeout_s=timeout_s, check=check)

    def push(self, name: str, source: Path, target: str) -> None:
        """Make a directory of a machine like one here."""
        run([*self.rsync, "--delete", f"{source}/", f"{name}:{target}/"], timeout_s=COPY_S)

    def wait(self, name: str, timeout_s: float = BOOT_S) -> None:
        """Until the machine lets us in; `LabError` if it does not."""
        deadline_at = time.monotonic() + timeout_s
        fresh = [*self.ssh, "-o", "ControlMaster=no", "-o", "ControlPath=none", name, "true"]
        while not _succeeds(fresh):
            if time.monotonic() > deadline_at:
                raise LabError(f"{name}: no SSH after {timeout_s:.0f} s")
            time.sleep(PAUSE_S)

    def forget(self, name: str) -> None:
        """End the kept connection: one to a machine that has lost its power would hang."""
        run([*self.ssh, "-O", "exit", name], check=False)
        (places.RUN / f"{name}.ssh").unlink(missing_ok=True)


def _succeeds(words: Sequence[str]) -> bool:
    try:
        return subprocess.run(words, capture_output=True, timeout=TRY_S, check=False).returncode == 0  # noqa: S603
    except subprocess.TimeoutExpired:
        return False
