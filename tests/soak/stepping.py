"""Python for a box whose clock can be set, without setting the machine's.

What the interpreter's ``time.time`` and its like tell is shifted by as many seconds as a file says; `Clock.interpreter`
is a program to run the product with, in all of its processes. Not shifted, for nobody can without the kernel: the time
stamps of files, and what C libraries ask for themselves (SQLite's and TLS' own). CLOCK_MONOTONIC is the machine's, as
it is when somebody sets a clock.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Read again when the file is another one; a look at its time stamp costs a microsecond.
SITE = """
import os, time

_real, _real_ns, _gettime, _path = time.time, time.time_ns, time.clock_gettime, os.environ["SOAK_CLOCK"]
_seen = [None, 0.0]


def _shift():
    try:
        stamp = os.stat(_path).st_mtime_ns
        if stamp != _seen[0]:
            with open(_path) as file:
                _seen[:] = stamp, float(file.read() or 0)
    except (OSError, ValueError):
        pass
    return _seen[1]


time.time = lambda: _real() + _shift()
time.time_ns = lambda: _real_ns() + int(_shift() * 1e9)
time.clock_gettime = lambda clock: _gettime(clock) + (_shift() if clock == time.CLOCK_REALTIME else 0.0)
"""


class Clock:
    """Of one box, in a directory that its processes may read."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o755)
        self._shift, site, self._program = directory / "shift", directory / "site", directory / "python"
        self.set(0)
        site.mkdir(mode=0o755)
        (site / "sitecustomize.py").write_text(SITE)
        here = Path(__file__).parents[2]
        environment = f"PYTHONPATH={site}:{here} SOAK_CLOCK={self._shift}"
        self._program.write_text(f'#!/bin/sh\nexec env {environment} {sys.executable} "$@"\n')
        self._program.chmod(0o755)

    @property
    def interpreter(self) -> str:
        return str(self._program)

    def set(self, by_s: float) -> None:
        """As many seconds ahead of the machine's, or behind."""
        new = self._shift.with_suffix(".new")
        new.write_text(str(by_s))
        new.replace(self._shift)
