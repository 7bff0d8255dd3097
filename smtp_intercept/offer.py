"""The EHLO reply without the keywords of encryption, its lines otherwise as they came.

Pure. Keeps one line back: whether it is the last is known when the next has come.
"""

from __future__ import annotations

from smtp_intercept.extensions import ENCRYPTING
from smtp_intercept.wire import ReplyLine, parse_command


class Offer:
    """The reply under way. ``kept`` is the line that has not crossed; ``stripped``: a keyword was there."""

    __slots__ = ("_first", "kept", "stripped")

    def __init__(self) -> None:
        self.kept, self._first, self.stripped = b"", True, False

    def cross(self, line: bytes, reply: ReplyLine) -> bytes:
        """What crosses now that ``line`` has come."""
        first, self._first = self._first, reply.final
        if not first and parse_command(reply.text).verb in ENCRYPTING:
            self.stripped = True
            return self._last() if reply.final else b""
        before, self.kept = self.kept, b"" if reply.final else line
        return before + line if reply.final else before

    def _last(self) -> bytes:
        """The kept line ends the reply now: "250-X" becomes "250 X" (RFC 5321 §4.2.1)."""
        line, self.kept = self.kept, b""
        return line[:3] + b" " + line[4:]
