"""A server's replies: whole ones out of whatever pieces come, bounded whatever comes.

Pure. Lines are read by `wire`; here they become replies with one code and one status.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from smtp_intercept.limits import DEFAULT_LIMITS
from smtp_intercept.wire import clip, line_end, parse_reply_line, safe_text

# Lines of one reply. An EHLO reply has some twenty; beyond, somebody fills our memory or our time.
REPLY_LINES = 256

# RFC 2034 §4: the status that opens the text.
_STATUS = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


class GarbageError(ValueError):
    """What came is no reply, or one without bounds."""


@dataclass(frozen=True, slots=True)
class Reply:
    """``lines`` are the texts without the code, safe to log."""

    code: int
    lines: tuple[str, ...]

    @property
    def enhanced(self) -> str:
        """The status as the server gave it (RFC 3463), "" without one or if it contradicts the code."""
        found = _STATUS.match(self.lines[0])
        return found[1] if found and found[1][0] == str(self.code)[0] else ""

    @property
    def status(self) -> str:
        """The server's status, or one that says no more than the code."""
        return self.enhanced or f"{self.code // 100}.0.0"

    def __str__(self) -> str:
        """In one line, the status said once."""
        first, *rest = self.lines
        return clip(" ".join(filter(None, [str(self.code), first, *(_STATUS.sub("", line, count=1) for line in rest)])))


class Replies:
    """The stream of replies. ``ahead``: octets that no reply has been made of yet."""

    __slots__ = ("_buffer", "_lines")

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[str] = []

    @property
    def ahead(self) -> bool:
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Reply | None:
        """The next whole reply, None if it has not come yet; `GarbageError`."""
        while line := self._line():
            reply = parse_reply_line(line)
            if reply is None:
                raise GarbageError(f"not an SMTP reply: {clip(safe_text(line.strip()[:100]))}")
            self._lines.append(clip(safe_text(reply.text.strip())))
            if reply.final:
                lines, self._lines = self._lines, []
                return Reply(reply.code, tuple(lines))
            if len(self._lines) >= REPLY_LINES:
                raise GarbageError(f"a reply of more than {REPLY_LINES} lines")
        return None

    def _line(self) -> bytes:
        end = line_end(self._buffer, 0, DEFAULT_LIMITS.reply_line_bytes)
        if end < 0:
            raise GarbageError("a reply line without end")
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        return line
