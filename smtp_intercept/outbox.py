"""What a server is to have, in order: octets that cross at once, and content that was held until now.

One kind of I/O: feeds a leg as fast as its peer reads. Held content is read piece by piece, so that little of it is in
memory; what is said behind it waits.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator

from smtp_intercept.inspect.held import Held
from smtp_intercept.leg import WRITE_BUFFER_BYTES, Leg
from smtp_intercept.policy import Body

# Of held content in one turn of the loop: the others want theirs.
TURN_BYTES = 524_288


class Outbox:
    """One server's. ``busy``: it has not got all yet; its leg is told to send nothing but through here then."""

    __slots__ = ("_held", "_leg", "_queue", "_spill")

    def __init__(self, leg: Leg, spill: Callable[[], int]) -> None:
        self._leg, self._spill = leg, spill
        self._held: Held | None = None  # the content that is being kept
        self._queue: deque[bytes | tuple[Held, Iterator[bytes]] | None] = deque()
        leg.drained = self._feed

    @property
    def busy(self) -> bool:
        """Something waits."""
        return bool(self._queue)

    @property
    def memory_bytes(self) -> int:
        """What it keeps in memory."""
        held = self._held.memory_bytes if self._held else 0
        return held + sum(len(each) for each in self._queue if isinstance(each, bytes))

    def write(self, data: bytes) -> None:
        """Now, or behind what waits."""
        if self._queue:
            self._queue.append(data)
        else:
            self._leg.write(data)

    def end(self) -> None:
        """The client has sent all it will."""
        if self._queue:
            self._queue.append(None)
        else:
            self._leg.end()

    def hold(self, data: bytes) -> None:
        """Keep this behind what is kept. OSError: there is no room; nothing is kept any more."""
        self._held = self._held or Held(self._spill)
        try:
            self._held.add(data)
        except OSError:
            self._held = None
            raise

    def forget(self) -> None:
        """What is kept."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def content(self, *, dotted: bool) -> Callable[[], Iterator[bytes]]:
        """What is kept, as it was written; ``dotted``: it is kept as DATA has it."""
        held = self._held
        return lambda: held.octets(dotted=dotted) if held is not None else iter(())

    def lend(self) -> int:
        """As `Held.lend`."""
        if self._held is None:
            raise OSError(errno.ENOENT, "nothing is held")
        return self._held.lend()

    def release(self, edit: Callable[[bytes], bytes] | None, *, chunked: bool, body: Body | None = None) -> None:
        """Send what is kept; ``chunked``: as one BDAT."""
        held, self._held = self._held or Held(self._spill), None
        size_bytes, pieces = held.pieces(edit, dotted=not chunked, body=body)
        if chunked:
            self.write(b"BDAT %d LAST\r\n" % size_bytes)
        self._queue.append((held, pieces))
        self._feed()

    def close(self) -> None:
        """Nobody is there who would have it."""
        self._leg.drained = None
        self.forget()
        for each in self._queue:
            if isinstance(each, tuple):
                each[0].close()
        self._queue.clear()

    def _feed(self) -> None:
        left_bytes = TURN_BYTES
        while self._queue and left_bytes > 0 and self._leg.unsent_bytes <= WRITE_BUFFER_BYTES:
            left_bytes -= self._send_next()
        if self._queue and self._leg.lost:
            self.close()
        elif self._queue and not self._leg.unsent_bytes:
            self._leg.later(self._feed)

    def _send_next(self) -> int:
        """How many octets were sent."""
        match self._queue[0]:
            case None:
                self._queue.popleft()
                self._leg.end()
                return 0
            case bytes() as data:
                self._queue.popleft()
                self._leg.write(data)
                return len(data)
            case held, pieces:
                piece = next(pieces, b"")
                if piece:
                    self._leg.write(piece)
                    return len(piece)
                held.close()
                self._queue.popleft()
        return 0
