"""Where a message ends: CRLF.CRLF across chunk borders (RFC 5321 §4.1.1.4), or a count of octets (RFC 3030).

Pure. Looks for the end and nothing else: no line is split, no dot removed, no octet kept beyond the last four.
"""

from __future__ import annotations

END_OF_DATA = b"\r\n.\r\n"
_OVERLAP = len(END_OF_DATA) - 1


class DotEnd:
    """The end of one message sent with DATA. ``size_bytes`` counts what came before the final dot, as it was sent,
    that is with doubled dots."""

    __slots__ = ("_tail", "size_bytes")

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the CRLF of the DATA command counts: a lone dot is an empty message
        self.size_bytes = 0

    def find(self, buffer: bytes, start: int = 0) -> int:
        """Feed ``buffer[start:]``: the index in ``buffer`` past the end of data, or 0 if it is not in there.

        One search over the buffer whatever its lines, one over the border to the buffer before.
        """
        at = (self._tail + buffer[start : start + _OVERLAP]).find(END_OF_DATA)
        if at >= 0:
            end = start + at + len(END_OF_DATA) - len(self._tail)
        elif (at := buffer.find(END_OF_DATA, start)) >= 0:
            end = at + len(END_OF_DATA)
        else:
            self._tail = (self._tail + buffer[max(start, len(buffer) - _OVERLAP) :])[-_OVERLAP:]
            self.size_bytes += len(buffer) - start
            return 0
        self.size_bytes += end - start - len(b".\r\n")
        return end


class OctetEnd:
    """The end of one chunk sent with BDAT: so many octets, whatever they are."""

    __slots__ = ("left_bytes",)

    def __init__(self, size_bytes: int) -> None:
        self.left_bytes = size_bytes

    def find(self, buffer: bytes, start: int = 0) -> int:
        """Feed ``buffer[start:]``: the index in ``buffer`` up to which it belongs to the chunk."""
        taken = min(self.left_bytes, len(buffer) - start)
        self.left_bytes -= taken
        return start + taken
