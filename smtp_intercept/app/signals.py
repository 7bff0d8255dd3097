"""SIGINT and SIGTERM end a command at once while it looks and asks, and never in the middle of what it changes.

The programs that it starts meanwhile do not hear of them either, nor does a reader who has gone away stop a change.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from threading import current_thread, main_thread

from smtp_intercept.app.streams import Unfailing

STOPPING = (signal.SIGINT, signal.SIGTERM)
# How `down` asks what runs to end, and its unit lets it be. SIGTERM may be a stray `kill`, and the unit starts it again
# (packaging/files); a `systemctl stop` is heeded in any case.
ASKS = signal.SIGINT


def ended_by(numbers: Collection[int]) -> int:
    """The exit status of what ran until these signals came, as a shell would report it: that it was asked, if it was,
    else the first."""
    return 128 + (ASKS if ASKS in numbers else next(iter(numbers)))


class Interrupted(KeyboardInterrupt):
    """Somebody wants the command to end. ``status`` is its exit status, as a shell would report the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.status = 128 + number


def _raise(number: int, _: object) -> None:
    raise Interrupted(number)


@contextmanager
def heard() -> Iterator[None]:
    """Raises `Interrupted` wherever the command is. What whoever started it has it ignore, as a shell does for what
    runs behind a script, stays ignored."""
    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _raise)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # of who was started in the middle of a change
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Change:
    """What is being changed; ``numbers`` are the signals that wait. The first since it was begun waits for `check`."""

    def __init__(self, numbers: Collection[int] = ()) -> None:
        self.numbers, self._heard = numbers, 0

    def note(self, number: int, _: object = None) -> None:
        self._heard = self._heard or number

    @property
    def interrupted(self) -> bool:
        while self.numbers and (found := signal.sigtimedwait(self.numbers, 0)) is not None:
            self.note(found.si_signo)
        return bool(self._heard)

    def check(self) -> None:
        """Between two steps. Raises `Interrupted` if somebody wants the command to end."""
        if self.interrupted:
            raise Interrupted(self._heard)


def heed_asks() -> None:
    """Also what was started with it ignored, as by a shell in the background, is to end when it is asked."""
    if current_thread() is main_thread() and signal.getsignal(ASKS) is signal.SIG_IGN:
        signal.signal(ASKS, _raise)


@contextmanager
def undisturbed() -> Iterator[Change]:
    """While a change is made: signals wait until it asks for them or, if it does not, come too late; a terminal that
    goes away, which may be by this change, means nothing; and whatever is printed is printed or lost."""
    with redirect_stdout(Unfailing(sys.stdout)), redirect_stderr(Unfailing(sys.stderr)), _waiting() as change:
        yield change


@contextmanager
def _waiting() -> Iterator[Change]:
    if current_thread() is not main_thread():
        yield Change()
        return
    before = {number: signal.getsignal(number) for number in (*STOPPING, signal.SIGHUP)}
    # One that is ignored and blocked would wait all the same (kernel/signal.c, sig_ignored).
    change = Change([number for number in STOPPING if before[number] is not signal.SIG_IGN])
    # The mask goes along to nft and its like, which Ctrl-C reaches too; a thread may hear of it all the same.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, change.numbers)
    for number in change.numbers:
        signal.signal(number, change.note)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield change
    finally:
        _ = change.interrupted  # too late
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
