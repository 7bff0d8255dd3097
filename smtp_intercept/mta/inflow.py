"""What a client sends, as aiosmtpd reads it. One kind of I/O: the reading side of a connection."""

from __future__ import annotations

import asyncio

# A client that sends more than twice this ahead is made to wait.
AHEAD_BYTES = 32_768


class Inflow(asyncio.StreamReader):
    """A stream whose end is a lost connection: aiosmtpd would ask it for the next line for ever. ``taken_bytes`` is
    all that came; ``waiting``: for a whole line, with nothing else to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=AHEAD_BYTES, loop=loop)
        self._buffer: bytearray
        self.taken_bytes = 0
        self.waiting = self.finished = False

    @property
    def empty(self) -> bool:
        """Nothing was sent ahead."""
        return not self._buffer

    @property
    def ahead_bytes(self) -> int:
        """Sent and not read yet."""
        return len(self._buffer)

    @property
    def has_line(self) -> bool:
        """The next line is there already."""
        return b"\n" in self._buffer

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        """From the transport."""
        if not self.finished:
            self.taken_bytes += len(data)
            super().feed_data(data)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:  # type: ignore[override]
        """A line with its end. Raises what `StreamReader.readuntil` does, or `ConnectionResetError` at the end."""
        self.waiting = not self.has_line
        try:
            return await super().readuntil(separator)
        except asyncio.IncompleteReadError as end:
            raise ConnectionResetError from end
        finally:
            self.waiting = False

    async def block(self) -> bytes:
        """At least one octet; `ConnectionResetError` at the end."""
        if block := await self.read(2 * AHEAD_BYTES):
            return block
        raise ConnectionResetError

    def give_back(self, rest: bytes) -> None:
        """What was read too far."""
        self._buffer[:0] = rest

    def finish(self) -> None:
        """Nothing is read any more, not even what is there."""
        self.finished = True
        self._buffer.clear()
        self.feed_eof()

    def move(self, transport: asyncio.BaseTransport) -> None:
        """The stream goes on over another transport."""
        self._transport = transport
