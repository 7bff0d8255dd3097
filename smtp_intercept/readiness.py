"""Tells connections that they can be read or written: one epoll for all of them, which the loop watches as one file.

One kind of I/O: it asks epoll. Transports and `add_writer` cost a connection thirty system calls; this costs three.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from smtp_intercept.accounts import Account

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
# Told of in one turn at most, and for so long, so that timers and the rest of the loop have theirs; the others are told
# in the next one.
TURN, TURN_S = 1_024, 0.002
# So few are told as they come: sorting them would cost more than they do.
FEW = 8


class Payer(Protocol):
    """Whose time it is."""

    @property
    def account(self) -> Account: ...


class Readiness:
    """Sockets are told level-triggered and one by one, first those of the clients that have cost least time lately;
    what they want to send they send when all have been read.

    An error is told to whoever is watched for anything; with ``events`` 0 a socket is not watched at all.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._told: dict[int, tuple[Callable[[int], None], Payer | None]] = {}
        self._soon: list[Callable[[], None]] = []
        self._turning = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """From now on with the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def stop(self) -> None:
        """Nobody is told anything any more."""
        if self._loop is not None and not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def watch(self, sock: socket.socket, events: int, told: Callable[[int], None], payer: Payer | None = None) -> None:
        """From now on for these events, READ and WRITE. OSError: the kernel has no room for one more."""
        descriptor = sock.fileno()
        if descriptor not in self._told:
            self._epoll.register(descriptor, events)
        else:
            self._epoll.modify(descriptor, events)
        self._told[descriptor] = told, payer

    def forget(self, sock: socket.socket, *, closing: bool = False) -> None:
        """Watch it no more; ``closing`` spares the system call, as a closed socket leaves the epoll by itself."""
        descriptor = sock.fileno()
        if self._told.pop(descriptor, None) is not None and not closing:
            self._epoll.unregister(descriptor)

    def soon(self, act: Callable[[], None]) -> None:
        """At the end of this turn, in the order in which they were asked for."""
        if not self._turning and not self._soon and self._loop is not None:
            self._loop.call_soon(self._settle)
        self._soon.append(act)

    def _turn(self) -> None:
        self._turning = True
        told = self._told
        # Looked up before anybody is told: a descriptor closed and opened anew in this turn is another connection's.
        ready = [(*told[descriptor], events) for descriptor, events in self._epoll.poll(0, TURN)]
        began_at = now = perf_counter()
        if len(ready) > FEW:
            ready.sort(key=lambda each: each[1].account.rank(began_at) if each[1] else 0.0)
        for tell, payer, events in ready:
            try:
                tell(events)
            except Exception as mistake:  # one connection's, not the others'
                self._complain(mistake)
            before, now = now, perf_counter()
            if payer is not None:
                payer.account.charge(now - before, now)
            if now - began_at > TURN_S:
                break
        self._settle()
        self._turning = False

    def _settle(self) -> None:
        while self._soon:
            acts, self._soon = self._soon, []
            for act in acts:
                try:
                    act()
                except Exception as mistake:
                    self._complain(mistake)

    def _complain(self, mistake: Exception) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler({"message": "a connection's event failed", "exception": mistake})
