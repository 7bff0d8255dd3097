"""Blank TCP sockets of another network namespace: a process that lives there makes them, one that does not takes them.

Who takes one binds and dials it as if it were its own; what it may do is its own privilege's to say.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from contextlib import suppress

STOCK = 32  # of each family, at the taker's: as many as are dialled before the lender's turn comes
BATCH = 64  # asked for at one go; a taker that asks without end must not keep the lender from all else
WAIT_S = 0.1  # a lender's loop that turns has answered by then

_FAMILIES = {b"4": socket.AF_INET, b"6": socket.AF_INET6}
_WORDS = {family: word for word, family in _FAMILIES.items()}


def pair() -> tuple[socket.socket, socket.socket]:
    """(the lender's end, the taker's end), both non-blocking. Several may lend by copies of one end."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def lend(end: socket.socket) -> None:
    """Answer those who wait, up to `BATCH`. What cannot be made is not sent: it is asked for again."""
    for _ in range(BATCH):
        try:
            word = end.recv(1)
        except OSError:
            return
        if not word:
            return
        with suppress(OSError, KeyError), socket.socket(_FAMILIES[word], socket.SOCK_STREAM) as made:
            socket.send_fds(end, [word], [made.fileno()])


class Borrowed:
    """A stock of them, asked for ahead."""

    def __init__(self, end: socket.socket, stock: int = STOCK) -> None:
        self._end, self._stock = end, stock
        self._there: dict[socket.AddressFamily, deque[socket.socket]] = {family: deque() for family in _WORDS}
        self._asked = dict.fromkeys(_WORDS, 0)
        for family in _WORDS:
            self._ask(family)

    def take(self, family: socket.AddressFamily) -> socket.socket:
        """A non-blocking one. EAGAIN if the lender is silent."""
        self._receive()
        if not self._there[family]:
            self._asked[family] = 0  # whom they were asked of may have been another life
            self._ask(family)
            select.select([self._end], [], [], WAIT_S)
            self._receive()
        if not self._there[family]:
            raise OSError(errno.EAGAIN, "no socket of the other network namespace: who makes them does not answer")
        taken = self._there[family].popleft()
        self._ask(family)
        return taken

    def close(self) -> None:
        for stock in self._there.values():
            while stock:
                stock.popleft().close()
        self._end.close()

    def _ask(self, family: socket.AddressFamily) -> None:
        with suppress(OSError):
            while len(self._there[family]) + self._asked[family] < self._stock:
                self._end.send(_WORDS[family])
                self._asked[family] += 1

    def _receive(self) -> None:
        while True:
            try:
                word, descriptors, _, _ = socket.recv_fds(self._end, 1, 1)
            except OSError:
                return
            if not word:
                return
            for descriptor in descriptors:
                made = socket.socket(fileno=descriptor)
                made.setblocking(False)
                made.set_inheritable(False)
                family = _FAMILIES[word]
                self._there[family].append(made)
                self._asked[family] = max(0, self._asked[family] - 1)
