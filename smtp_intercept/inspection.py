"""One message on its way past a policy: its header until it is whole, then its size.

Pure. Keeps the header up to a limit, and nothing of the body.
"""

from __future__ import annotations

from smtp_intercept import answers
from smtp_intercept.answers import Answer
from smtp_intercept.policy import Stage
from smtp_intercept.screen import Screen

_BLANK_LINE = b"\r\n\r\n"


class Inspection:
    """``read`` takes the message's octets in any cut, ``finish`` its end."""

    __slots__ = ("_header", "_limit", "_screen", "_size_bytes", "_whole")

    def __init__(self, screen: Screen, header_bytes: int) -> None:
        self._screen, self._limit = screen, header_bytes
        self._header = bytearray(b"\r\n")  # a message may begin with the blank line
        self._size_bytes, self._whole = 0, False

    def read(self, octets: bytes) -> tuple[int, Answer] | None:
        """The index of the first octet that must not cross, and what the client is told; None: all cross."""
        before = self._size_bytes
        self._size_bytes += len(octets)
        if self._whole:
            return None
        self._header += octets[: self._limit - before] if self._limit else octets
        at = self._header.find(_BLANK_LINE, max(0, before - 1)) + len(_BLANK_LINE)
        if at >= len(_BLANK_LINE):
            answer = self._judge(at)
            return (at - 3 - before, answer) if answer else None
        if self._limit and self._size_bytes > self._limit:
            return self._limit - before, answers.HEADER_TOO_LARGE
        return None

    def finish(self) -> Answer | None:
        """What the client is told instead of the server's word on the message."""
        answer = None if self._whole else self._judge(len(self._header))
        return answer or self._screen.ask(Stage.MESSAGE, size_bytes=self._size_bytes)

    def _judge(self, end: int) -> Answer | None:
        header, self._header, self._whole = bytes(self._header[2:end]), bytearray(), True
        return self._screen.ask(Stage.HEADERS, header=header)
