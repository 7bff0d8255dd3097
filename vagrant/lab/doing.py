"""Programs run to their end with a deadline, and a line for each step with its time."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from smtp_intercept.app.lab.host import LabError


def run(argv: Sequence[str | Path], *, timeout_s: float = 60.0, check: bool = True, text: str | None = None) -> str:
    """A program's standard output; ``text`` is its input. `LabError` with all of its output if it fails or is late."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=timeout_s, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(words)}: not done after {timeout_s:.0f} s") from None
    except FileNotFoundError:
        raise LabError(f"{words[0]} is not installed: make lab-tools") from None
    if done.returncode and check:
        raise LabError(f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Progress:
    """Says what has been done, as it is done: `` 47.2 s  gateway: provisioned (9.1 s)``."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._lock = threading.Lock()
        self.steps: list[tuple[str, float]] = []  # (name, seconds)

    def say(self, text: str) -> None:
        with self._lock:
            print(f"{time.monotonic() - self._began_at:7.1f} s  {text}", flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began_at = time.monotonic()
        yield
        took_s = time.monotonic() - began_at
        self.steps.append((name, took_s))
        self.say(f"{name} ({took_s:.1f} s)")
