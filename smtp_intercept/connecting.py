"""Connections under way: who waits for them is told when they are there, or why they never will be.

One kind of I/O: it reads a socket's error. Neither makes nor dials sockets (`transparent` does).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import TypeAlias

from smtp_intercept.readiness import WRITE, Payer, Readiness

# Called once, with None when the connection is there; else it is closed already.
Answered: TypeAlias = Callable[[OSError | None], None]


class Connecting:
    """All wait equally long, ``timeout_s``, so one timer, the eldest's, is enough for them."""

    def __init__(self, readiness: Readiness, timeout_s: float) -> None:
        self._readiness, self._timeout_s = readiness, timeout_s
        self._waiting: dict[socket.socket, tuple[float, Answered]] = {}  # the eldest first
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, sock: socket.socket, answered: Answered, payer: Payer | None = None) -> None:
        """For a socket whose connection is under way. OSError: it cannot be watched."""
        loop = asyncio.get_running_loop()
        self._readiness.watch(sock, WRITE, lambda events: self._ready(sock), payer)
        self._waiting[sock] = loop.time() + self._timeout_s, answered
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._sweep)

    def give_up(self) -> None:
        """On all of them."""
        for sock in tuple(self._waiting):
            self._tell(sock, errno.ECONNABORTED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ready(self, sock: socket.socket) -> None:
        if sock in self._waiting:
            self._tell(sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _sweep(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        now = loop.time()
        for sock in [sock for sock, (until_at, _) in self._waiting.items() if until_at <= now]:
            self._tell(sock, errno.ETIMEDOUT)
        if self._waiting:
            eldest_at = next(iter(self._waiting.values()))[0]
            self._timer = loop.call_at(eldest_at, self._sweep)

    def _tell(self, sock: socket.socket, failure: int) -> None:
        _, answered = self._waiting.pop(sock)
        if not failure:
            return answered(None)
        self._readiness.forget(sock, closing=True)
        sock.close()
        return answered(OSError(failure, os.strerror(failure)))
