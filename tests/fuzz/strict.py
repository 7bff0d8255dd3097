"""A server that takes every message and reads as RFC 5321 and 3030 say, no more: it decides what was sent."""

from __future__ import annotations

import re

OFFER = b"250-mx\r\n250-STARTTLS\r\n250 CHUNKING\r\n"
REPLIES = {b"EHLO": OFFER, b"RSET": b"250 reset\r\n", b"QUIT": b"221 bye\r\n", b"STARTTLS": b"454 no\r\n"}


class StrictServer:
    """``taken`` are the contents of the messages that it has answered 250."""

    def __init__(self) -> None:
        self._buffer, self._content, self._left = b"", b"", -1
        self._in_data = self._last = self._mail = self._gone = False
        self._recipients = 0
        self.taken: list[bytes] = []

    def hear(self, data: bytes) -> bytes:
        """What it replies."""
        self._buffer += data
        replies = b""
        while (reply := self._step()) is not None:
            replies += reply
        return replies

    def _step(self) -> bytes | None:
        if self._gone:
            return None
        if self._left >= 0:
            return self._chunk()
        if self._in_data:
            return self._data()
        line, end, rest = self._buffer.partition(b"\n")
        if not end:
            return None
        self._buffer = rest
        return self._command(line.strip().upper())

    def _data(self) -> bytes | None:
        content, end, rest = (b"\r\n" + self._buffer).partition(b"\r\n.\r\n")
        if not end:
            return None
        self._buffer, self._in_data = rest, False
        return self._take(content)

    def _chunk(self) -> bytes | None:
        if len(self._buffer) < self._left:
            return None
        self._content += self._buffer[: self._left]
        self._buffer, self._left = self._buffer[self._left :], -1
        if not self._recipients:
            self._forget()
            return b"503 no\r\n"
        return self._take(self._content) if self._last else b"250 so far\r\n"

    def _take(self, content: bytes) -> bytes:
        self.taken.append(content)
        self._forget()
        return b"250 taken\r\n"

    def _forget(self) -> None:
        self._mail, self._recipients, self._content = False, 0, b""

    def _command(self, line: bytes) -> bytes:
        verb = (line.split(None, 1) or [b""])[0]
        self._gone = verb == b"QUIT"
        if verb == b"MAIL" and not self._mail:
            self._mail = True
        elif verb == b"RCPT" and self._mail:
            self._recipients += 1
        elif verb == b"DATA" and self._recipients:
            self._in_data = True
            return b"354 go\r\n"
        elif chunk := re.fullmatch(rb"BDAT (\d+)( LAST)?", line):
            self._left, self._last = int(chunk[1]), bool(chunk[2])
            return b""
        elif verb in {b"MAIL", b"RCPT", b"DATA", b"BDAT"}:
            return b"503 no\r\n"
        elif verb in {b"RSET", b"EHLO"}:
            self._forget()
        return REPLIES.get(verb, b"250 ok\r\n")
