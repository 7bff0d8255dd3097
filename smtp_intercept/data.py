"""Where a message ends: CRLF.CRLF across chunk borders (RFC 5321 §4.1.1.4), or a count of octets (RFC 3030); and
where some server might think that it ends.

Pure. Looks for the end and nothing else: no line is split, no dot removed, no octet kept beyond the last four.
"""

from __future__ import annotations

import re

END_OF_DATA = b"\r\n.\r\n"
_OVERLAP = len(END_OF_DATA) - 1
# How much of the end must be there to be held back: nothing is, or CRLF.CR, at which some servers stop already, or all.
NEVER, CR_BEHIND_DOT, ANY = 0, 4, 1
_LAST = frozenset({b"\r", b"\n", b"."})  # octets of what may be its beginning
# A lone dot between line ends of which one is not CRLF: what some servers have taken for the end. A NUL beside the
# dot is one that some drop. CR CR LF before a whole end is none of these: it ends there for everybody. The dot stands
# first and what is before it is looked back at: the search then skips from dot to dot.
_DOUBTFUL = re.compile(
    rb"\.[\r\n\0](?<=[\r\n\0]..)"
    rb"(?:(?<=\r..)|(?<=[^\r]\n..)|(?<=\0..)|(?<=\0)|(?<=\r\n.\n)|(?<=\r\n.\r)(?=[^\n]))",
    re.DOTALL,
)


class DotEnd:
    """The end of one message sent with DATA. ``size_bytes`` counts what came before the final dot, as it was sent,
    that is with doubled dots. ``read_to`` is the index up to which the last buffer has been read."""

    __slots__ = ("_tail", "read_to", "size_bytes")

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the CRLF of the DATA command counts: a lone dot is an empty message
        self.size_bytes = self.read_to = 0

    def find(self, buffer: bytes, start: int = 0, *, holding: int = NEVER) -> int:
        """Feed ``buffer[start:]``: the index in ``buffer`` past the end of data, or 0 if it is not in there.

        One search over the buffer whatever its lines, from its first dot on, and one over the border to the buffer
        before. ``holding``: the octets with which the end may have begun, if they are so many of it, are not read, and
        must be fed again.
        """
        at = (self._tail + buffer[start : start + _OVERLAP]).find(END_OF_DATA)
        if at >= 0:
            end = start + at + len(END_OF_DATA) - len(self._tail)
        elif (dot := buffer.find(b".", start)) >= 0 and (at := buffer.find(END_OF_DATA, max(start, dot - 2))) >= 0:
            end = at + len(END_OF_DATA)
        else:
            held = holding and buffer[-1:] in _LAST and self._begun(buffer, start, holding)
            self.read_to = stop = len(buffer) - held
            self._tail = (self._tail + buffer[max(start, stop - _OVERLAP) : stop])[-_OVERLAP:]
            self.size_bytes += stop - start
            return 0
        self.size_bytes += end - start - len(b".\r\n")
        self.read_to = end
        return end

    def _begun(self, buffer: bytes, start: int, least: int) -> int:
        """How many octets of ``buffer`` may be the beginning of the end, if ``least`` of it are there."""
        if least == CR_BEHIND_DOT and not buffer.endswith(b"\r"):
            return 0
        tail = (self._tail + buffer[max(start, len(buffer) - _OVERLAP) :])[-_OVERLAP:]
        begun = max(length for length in range(len(END_OF_DATA)) if tail.endswith(END_OF_DATA[:length]))
        return min(begun, len(buffer) - start) if begun >= least else 0


class DoubtfulEnd:
    """The first octet with which some server may have seen the end of data before it came."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def find(self, buffer: bytes, start: int, end: int) -> int:
        """Feed ``buffer[start:]``, or up to the ``end`` of data if it is in there: the octet's index, or -1. It is
        ``start`` if the octet was the last before.

        Some 30 µs for 64 KiB of text, 1 µs where there is no dot, as in base64.
        """
        stop = max(start, end - 2) if end else len(buffer)
        border = self._tail + buffer[start : min(start + len(END_OF_DATA), stop)]
        if found := _DOUBTFUL.search(border):
            return max(start, start + found.end() - 1 - len(self._tail))
        self._tail = (self._tail + buffer[max(start, stop - _OVERLAP) : stop])[-_OVERLAP:]
        dot = buffer.find(b".", start + 2, stop)  # the dots before are the border's
        if dot >= 0 and (found := _DOUBTFUL.search(buffer, dot, stop)):
            return found.end() - 1
        return -1


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
