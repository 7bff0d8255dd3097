"""SIGHUP never ends inspection, in the daemon or in a process of its: it is held back while one starts, then heard with
a line in the log. There is nothing to reload yet; a shell that goes away, or a habit, must not let mail go unseen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from smtp_intercept.app import processlog

_SAID = (
    "WARNING: SIGHUP is ignored (process {}): nothing is read again. After a change of the configuration: "
    "tollbridge up, then restart `run` (systemctl reload tollbridge-bridge && systemctl restart tollbridge)"
)


def ignore() -> None:
    """From now on; one that was held back is heard at once."""
    signal.signal(signal.SIGHUP, _say)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _say(*_: object) -> None:
    """Not by `logging`: a handler may interrupt it in the middle of a line. The terminal that hung up was our log."""
    processlog.say(_SAID.format(os.getpid()))


@contextmanager
def held() -> Iterator[None]:
    """What is started inside begins with SIGHUP blocked, until it calls `ignore`: an `exec` forgets handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
