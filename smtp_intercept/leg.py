"""One leg of a proxied session: a connection, and what waits in this process to be sent on it.

One kind of I/O: reads and writes one connection. What comes is for the pair to deal with.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from smtp_intercept.events import Out
from smtp_intercept.transparent import reset_on_close

if TYPE_CHECKING:
    from smtp_intercept.legs import Pair

# What may wait for a slow reader on one leg, besides the one read that passes it; the other leg is not read then.
WRITE_BUFFER_BYTES = 131_072
# A reset waits so long for what its side has still to be sent: the reply that explains it.
FLUSH_S = 1.0
FLUSH_EVERY_S = 0.01


class Leg(asyncio.Protocol):
    """One connection. ``full``: it takes no more for now; ``ended``: its peer will send no more."""

    __slots__ = ("_loop", "_pair", "_sent", "_sock", "_transport", "ended", "full", "lost", "name", "reading")

    def __init__(self, name: str, pair: Pair, sock: socket.socket, sent: Callable[[bytes, float], list[Out]]) -> None:
        self.name = name
        self._pair, self._sock, self._sent = pair, sock, sent
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.full = self.ended = self.lost = False
        self.reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        self._pair.received(self._sent, data)

    def eof_received(self) -> bool:
        self.ended = True
        self._pair.ended(self)
        return True  # this side may still be written to

    def pause_writing(self) -> None:
        self.full = True
        self._pair.regulate()

    def resume_writing(self) -> None:
        self.full = False
        self._pair.regulate()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._pair.lost(self, exc)

    @property
    def unsent_bytes(self) -> int:
        """What waits in this process for the peer to read."""
        return 0 if self.lost or self._transport is None else self._transport.get_write_buffer_size()

    def read(self, wanted: bool) -> None:
        """Read this leg, or leave what comes to the kernel and so, in the end, to the sender."""
        if wanted is self.reading or self._transport is None or self._transport.is_closing():
            return
        self.reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def write(self, data: bytes) -> None:
        """Send, or keep for the peer; nothing if the leg is going."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def end(self) -> None:
        """Half-close: the peer has everything."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        """Close when all has been sent."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close with a RST, a little later if something has still to be sent."""
        self._loop.call_soon(self._reset, self._loop.time() + FLUSH_S)

    def _reset(self, latest_at: float) -> None:
        if self.lost or self._transport is None:
            return
        if self._transport.get_write_buffer_size() and self._loop.time() < latest_at:
            self._loop.call_later(FLUSH_EVERY_S, self._reset, latest_at)
            return
        reset_on_close(self._sock)
        self._transport.abort()
