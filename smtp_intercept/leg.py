"""One leg of a proxied session: a connection, and what waits in this process to be sent on it.

One kind of I/O: reads and writes one connection. What comes is for the pair to deal with.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from smtp_intercept.events import Out
from smtp_intercept.readiness import READ, WRITE, Readiness
from smtp_intercept.tls.layer import BrokenError, Layer
from smtp_intercept.transparent import reset_on_close

if TYPE_CHECKING:
    from smtp_intercept.legs import Pair

# What may wait for a slow reader on one leg, besides the one read that passes it; the other leg is not read then.
WRITE_BUFFER_BYTES = 131_072
# A leg that was full takes more when no more than this waits.
LOW_WATER_BYTES = WRITE_BUFFER_BYTES // 4
# One read, into memory that all legs share: of content, and of what is read line by line at a hundred times the cost.
READ_BYTES, LINES_BYTES = 262_144, 8_192
# A reset waits so long for what its side has still to be sent: the reply that explains it.
FLUSH_S = 1.0
FLUSH_EVERY_S = 0.01

_READ_INTO = memoryview(bytearray(READ_BYTES))


class Leg:
    """One connection. ``full``: it takes no more for now; ``ended``: its peer will send no more; ``lost``: closed.
    ``unsent_bytes`` wait in this process for the peer to read, which has fallen behind since ``behind_at``; ``drained``
    is called when few of them are left. ``taker`` has what comes instead of the session; ``layer`` is TLS that ends
    here, ``parting``: its end is told (close_notify)."""

    __slots__ = (
        "_broken",
        "_closing",
        "_ending",
        "_loop",
        "_pair",
        "_readiness",
        "_resetting",
        "_sent",
        "_sock",
        "_unsent",
        "_watched",
        "behind_at",
        "drained",
        "ended",
        "full",
        "layer",
        "lost",
        "name",
        "parting",
        "reading",
        "taker",
        "unsent_bytes",
    )

    def __init__(
        self,
        name: str,
        pair: Pair,
        sock: socket.socket,
        sent: Callable[[bytes, float], list[Out]],
        readiness: Readiness,
    ) -> None:
        """OSError: the socket cannot be watched."""
        self.name = name
        self._pair, self._sock, self._sent, self._readiness = pair, sock, sent, readiness
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes | memoryview] = []
        self.unsent_bytes, self.behind_at = 0, 0.0
        self.full = self.ended = self.lost = self._ending = self._closing = self._resetting = False
        self.drained: Callable[[], None] | None = None
        self.taker: Callable[[bytes], None] | None = None
        self.layer: Layer | None = None
        self.parting = True
        self._broken: OSError | None = None  # why nothing can be sent any more
        self.reading = True
        self._watched = READ
        readiness.watch(sock, READ, self._ready, pair)

    def read(self, wanted: bool) -> None:
        """Read this leg, or leave what comes to the kernel and so, in the end, to the sender."""
        if wanted is not self.reading and not self._closing:
            self.reading = wanted
            self._watch()

    def write(self, data: bytes) -> None:
        """Send, or keep for the peer; nothing if the leg is going."""
        self.send(data if self.layer is None else self.layer.write(data))

    def encrypt(self, layer: Layer) -> None:
        """From now on with TLS, whose handshake is over; ``taker`` decrypts what comes."""
        self.layer, self.taker = layer, self._decrypt

    def send(self, data: bytes) -> None:
        """As it is. Nothing if the leg is going."""
        if self._closing or self._broken or self._resetting:
            return
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as failure:
                self._break(failure)
                return
            if sent == len(data):
                return
            data, self.behind_at = data[sent:], self._loop.time()
            self._readiness.soon(self._flush)
        self._unsent.append(data)
        self.unsent_bytes += len(data)
        if self.unsent_bytes > WRITE_BUFFER_BYTES and self._watched & WRITE:
            self._fill()

    def later(self, act: Callable[[], None]) -> None:
        """In another turn of the loop."""
        self._loop.call_soon(act)

    def end(self) -> None:
        """Half-close: the peer has everything."""
        if not self._closing:
            self._part()
            self._ending = True
            self._readiness.soon(self._go_on)

    def close(self) -> None:
        """Close when all has been sent."""
        if not self._closing:
            self._part()
            self._closing = True
            self._readiness.soon(self._go_on)

    def _part(self) -> None:
        """A peer whose other end was cut off is cut off too (RFC 8446 §6.1)."""
        if self.layer is not None and self.parting:
            self.send(self.layer.close())

    def reset(self) -> None:
        """Close with a RST, a little later if something has still to be sent. Nothing more is: what the peer says in
        the meantime could let a message's end cross, and nobody would hear what became of it."""
        self._resetting = True
        self._watch()
        latest_at = self._loop.time() + FLUSH_S
        self._readiness.soon(lambda: self._reset(latest_at))

    def _reset(self, latest_at: float) -> None:
        if self.lost:
            return
        if self._unsent and self._loop.time() < latest_at:
            self._loop.call_later(FLUSH_EVERY_S, self._reset, latest_at)
            return
        reset_on_close(self._sock)
        self._lose(None)

    def _ready(self, events: int) -> None:
        if self._watched & WRITE:
            self._flush()
        if self._resetting or not self._watched & READ or events == WRITE:  # an error is read too
            return
        try:
            size = self._sock.recv_into(_READ_INTO, READ_BYTES if self._pair.in_bulk(self) else LINES_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as failure:
            self._lose(self._broken or failure)
            return
        if not size:
            self._end_of_stream()
        elif self.taker is None:
            self._pair.received(self._sent, _READ_INTO[:size].tobytes())
        else:
            self._pair.taken(self.taker, _READ_INTO[:size].tobytes())

    def _end_of_stream(self) -> None:
        if self._broken:
            self._lose(self._broken)
        elif not (self.ended or self.lost):
            self.ended = True
            self._watch()
            self._pair.ended(self)

    def _decrypt(self, octets: bytes) -> None:
        layer, broken = self.layer, ""
        assert layer is not None
        try:
            plain = layer.read(octets)
        except BrokenError as error:
            plain, broken = b"", str(error)
        self.send(layer.to_send())
        if plain:
            self._pair.received(self._sent, plain)
        if broken:
            self._lose(OSError(errno.EPROTO, f"TLS with the {self.name} broke: {broken}"))
        elif layer.ended:
            self._end_of_stream()

    def _flush(self) -> None:
        unsent = self._unsent
        if not unsent:
            return
        data = unsent[0] if len(unsent) == 1 else b"".join(unsent)
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as failure:
            self._break(failure)
            return
        self.unsent_bytes -= sent
        self.behind_at = self._pair.session.limits.moved_at(self.behind_at, sent, self._loop.time())
        if sent == len(data):
            unsent.clear()
        else:
            unsent[:] = [memoryview(data)[sent:]]
        if unsent or self._watched & WRITE or self._ending or self._closing:
            self._go_on()
        if self.drained is not None and self.unsent_bytes <= LOW_WATER_BYTES:
            self.drained()

    def _go_on(self) -> None:
        """Whatever is to follow what has been sent."""
        if self.lost:
            return
        if self._unsent:
            self._watch()
        elif self._closing:
            self._lose(None)
            return
        else:
            self._watch()
            if self._ending:
                self._ending = False
                with suppress(OSError):  # reset already; reading will tell
                    self._sock.shutdown(socket.SHUT_WR)
        self._fill()

    def _fill(self) -> None:
        full = self.unsent_bytes > (LOW_WATER_BYTES if self.full else WRITE_BUFFER_BYTES)
        if full is not self.full:
            self.full = full
            self._pair.regulate()

    def _watch(self) -> None:
        """For what is wanted now. A socket without a wish would be told of its end without an end."""
        reads = self.reading and not self.ended and not self._closing and not self._resetting
        events = (READ if reads else 0) | (WRITE if self._unsent else 0)
        if self.lost or events == self._watched:
            return
        self._watched = events
        if events:
            self._readiness.watch(self._sock, events, self._ready, self._pair)
        else:
            self._readiness.forget(self._sock)

    def _break(self, failure: OSError) -> None:
        """Nothing can be sent any more. What a peer said before its reset is read still, as fast as the other side
        takes it: its last reply. Then the leg is lost; told later, as the session is at work."""
        self._broken, self.unsent_bytes = failure, 0
        self._unsent.clear()
        if self.ended or self._closing or not isinstance(failure, ConnectionError):  # nothing to read, or no end of it
            self._closing, self._watched = True, 0
            self._readiness.soon(lambda: self._lose(failure))
        else:
            self._readiness.soon(self._go_on)

    def _lose(self, failure: OSError | None) -> None:
        if self.lost:
            return
        self.lost = self._closing = True
        self._watched, self.unsent_bytes = 0, 0
        self._unsent.clear()
        self._readiness.forget(self._sock, closing=True)
        self._sock.close()
        self._pair.lost(self, failure)
