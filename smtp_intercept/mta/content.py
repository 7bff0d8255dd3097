"""The content of one message as it comes behind DATA: where it ends, what of it is kept, and why it is refused.

Pure. Takes the doubled dots away (RFC 5321 §4.5.2) and changes nothing else. Holds no more than a caller lets pile up.
"""

from __future__ import annotations

from smtp_intercept.answers import Answer
from smtp_intercept.data import END_OF_DATA, DotEnd, DoubtfulEnd
from smtp_intercept.mta.replies import DOUBTFUL, TOO_LARGE, TOO_MANY_HOPS
from smtp_intercept.mta.trace import HopCount

_BEGINNINGS = tuple(END_OF_DATA[:length] for length in range(len(END_OF_DATA) - 1, 0, -1))


class DotStuffing:
    """What a message is without its doubled dots and without its end, from octets in any cut."""

    __slots__ = ("_held", "_skip")

    def __init__(self) -> None:
        self._held = b"\r\n"  # the CRLF of the DATA command: the first line may begin with a doubled dot
        self._skip = len(self._held)

    def remove(self, data: bytes, *, ended: bool) -> bytes:
        """The next octets; what the end of data may have begun with is held back. ``ended``: ``data`` closes with the
        end of data."""
        text = self._held + data
        if ended:
            stop = len(text) - len(b".\r\n")
        else:
            begun = next((start for start in _BEGINNINGS if text.endswith(start)), b"")
            stop = len(text) - len(begun)
        self._held = text[stop:]
        kept = text[:stop].replace(b"\r\n.", b"\r\n")
        skipped, self._skip = self._skip, max(0, self._skip - len(kept))
        return kept[skipped:] if skipped else kept


class Content:
    """``size_bytes``: of what is kept, doubled dots removed (RFC 1870 §3). Nothing is kept of what is refused, but
    its end is still looked for: a client that is still sending does not listen."""

    __slots__ = (
        "_dot",
        "_doubt",
        "_hops",
        "_most_bytes",
        "_most_hops",
        "_pieces",
        "_stuffing",
        "refusal",
        "size_bytes",
        "waiting_bytes",
    )

    def __init__(self, *, most_bytes: int, most_hops: int, reject_doubt: bool) -> None:
        self._dot, self._stuffing, self._hops = DotEnd(), DotStuffing(), HopCount()
        self._doubt = DoubtfulEnd() if reject_doubt else None
        self._most_bytes, self._most_hops = most_bytes, most_hops
        self._pieces: list[bytes] = []
        self.refusal: Answer | None = None
        self.size_bytes = self.waiting_bytes = 0

    @property
    def sent_bytes(self) -> int:
        """As it was sent, up to the end."""
        return self._dot.size_bytes

    def feed(self, block: bytes) -> int:
        """The next octets from the client: the index in ``block`` past the end of data, or 0 if it is not in there."""
        end = self._dot.find(block)
        if self.refusal is not None:
            return end
        if self._doubt is not None and self._doubt.find(block, 0, end) >= 0:
            self.refuse(DOUBTFUL)
            return end
        piece = self._stuffing.remove(block[:end] if end else block, ended=bool(end))
        self._hops.feed(piece)
        self.size_bytes += len(piece)
        self.waiting_bytes += len(piece)
        self._pieces.append(piece)
        if self.size_bytes > self._most_bytes > 0:
            self.refuse(TOO_LARGE)
        elif self._hops.hops > self._most_hops:
            self.refuse(TOO_MANY_HOPS)
        return end

    def refuse(self, answer: Answer) -> None:
        """The message is not wanted, for a reason that may not lie in it."""
        self.refusal = answer
        self.take()

    def take(self) -> bytes:
        """What has been kept since the last time."""
        pieces, self._pieces, self.waiting_bytes = self._pieces, [], 0
        return b"".join(pieces)
