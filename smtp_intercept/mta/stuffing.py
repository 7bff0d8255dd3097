"""Content as DATA wants it: a dot before each line's own, and the end that only we say. The reverse of `data.DotEnd`.

Pure. Rewrites nothing: a bare LF or CR crosses as it is, unless some server could take what follows for the end.
"""

from __future__ import annotations

from smtp_intercept.data import DoubtfulEnd


class DoubtfulContentError(ValueError):
    """Some server would see the message end before we say so, and take the rest for commands (SMTP smuggling).

    Reception refuses such content by default (``bare_newline``); where it does not, delivery does.
    """


class DotStuffing:
    """One message on its way (RFC 5321 §4.5.2). A line begins after CRLF and nowhere else."""

    __slots__ = ("_doubtful", "_tail")

    def __init__(self) -> None:
        self._tail = b"\r\n"  # that of the DATA command
        self._doubtful = DoubtfulEnd()

    def stuff(self, chunk: bytes) -> bytes:
        """What to send for the next octets of the content, in pieces of any size."""
        whole = self._tail + chunk
        stuffed = whole.replace(b"\r\n.", b"\r\n..")[len(self._tail) :]
        self._tail = whole[-2:]
        return self._checked(stuffed)

    def end(self) -> bytes:
        """What ends it: CRLF if the content has no line end of its own at its end, then the lone dot."""
        line_end = b"" if self._tail == b"\r\n" else b"\r\n"
        return self._checked(line_end) + b".\r\n"

    def _checked(self, stuffed: bytes) -> bytes:
        if self._doubtful.find(stuffed, 0, 0) >= 0:
            raise DoubtfulContentError
        return stuffed
