"""Takes connections from listeners, as many as there is room for, and rests when there is none or accepting fails.

One kind of I/O: it accepts. What becomes of a connection is for whoever is given it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable
from time import perf_counter

from smtp_intercept.transparent import Address

# Connections accepted at one go, and for so long, so that a storm of them does not hold up the sessions that are there.
ACCEPT_BATCH, ACCEPT_S = 64, 0.005
# When accepting fails (no descriptor, no memory) it is tried again after this; trying at once would spin.
ACCEPT_PAUSE_S = 0.1

# accept(2): errors of the connection that was about to be accepted, not of ours.
_STILLBORN = frozenset({
    errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.ENONET,
    errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM,
})  # fmt: skip

_LOG = logging.getLogger("tollbridge")


class Accepting:
    """``begin`` is given each accepted socket and its peer's address; ``room``: one more may be taken; ``batch``:
    connections accepted at one go. ``failures`` counts attempts that failed."""

    def __init__(
        self, begin: Callable[[socket.socket, Address], None], room: Callable[[], bool], batch: int = ACCEPT_BATCH
    ) -> None:
        self._begin, self._room, self._batch = begin, room, batch
        self._listeners: list[socket.socket] = []
        self._held: asyncio.TimerHandle | None = None
        self._failing = False
        self.failures = 0

    @property
    def healthy(self) -> bool:
        """Connections are being accepted."""
        return bool(self._listeners) and self._held is None

    def start(self, listeners: Iterable[socket.socket]) -> None:
        """Serve these too, non-blocking ones; they are ours from now on."""
        self._listeners += listeners
        self._go_on()

    def stop(self) -> None:
        """Take what has already been accepted by the kernel, close the listeners."""
        self._hold(None)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            while self._take(listener):
                pass
            listener.close()

    def rest(self) -> None:
        """Accept nothing for a moment."""
        self._hold(ACCEPT_PAUSE_S)

    def _ready(self, listener: socket.socket) -> None:
        until_at = perf_counter() + ACCEPT_S
        for _ in range(self._batch):
            if not self._take(listener) or perf_counter() > until_at:
                return

    def _take(self, listener: socket.socket) -> bool:
        """Accept one connection; False if there is none, or none can be taken."""
        if not self._room():
            self.rest()
            return False
        try:
            sock, client = listener.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as failure:
            if failure.errno in _STILLBORN:
                return True
            self._fail(failure)
            return False
        self._begin(sock, client)
        return True

    def _fail(self, failure: OSError) -> None:
        self.failures += 1
        if not self._failing:
            _LOG.warning("cannot accept connections: %s", failure.strerror)
        self._failing = True
        self.rest()

    def _hold(self, seconds: float | None) -> None:
        """Stop accepting, for a time or for good."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())
        if self._held is not None:
            self._held.cancel()
        self._held = None if seconds is None else loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        """Accept (again), unless the first attempt fails: no descriptor is an error even when nobody waits."""
        self._held = None
        for listener in self._listeners:
            self._ready(listener)
        if self._held is not None:
            return
        if self._failing:
            _LOG.warning("accepting connections again")
        self._failing = False
        for listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._ready, listener)
