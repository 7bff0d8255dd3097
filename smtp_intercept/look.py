"""The header of one message as its octets go by, and its size.

Pure. Keeps the header up to a limit, and nothing of the body.
"""

from __future__ import annotations

_BLANK_LINE = b"\r\n\r\n"


class Look:
    """``read`` takes the message's octets in any cut. ``too_large``: the header is, and is not kept."""

    __slots__ = ("_header", "_limit", "_whole", "size_bytes", "too_large")

    def __init__(self, header_bytes: int) -> None:
        """0 octets is no limit."""
        self._limit = header_bytes
        self._header = bytearray(b"\r\n")  # a message may begin with the blank line
        self._whole = self.too_large = False
        self.size_bytes = 0

    def read(self, octets: bytes) -> None:
        """The next ones."""
        before = self.size_bytes
        self.size_bytes += len(octets)
        if self._whole or self.too_large:
            return
        self._header += octets
        at = self._header.find(_BLANK_LINE, max(0, before - 1))
        if at >= 0:
            del self._header[at + len(_BLANK_LINE) :]
            self._whole = True
        elif 0 < self._limit < len(self._header) - len(b"\r\n.\r\n"):
            self.too_large = True
            self._header.clear()

    def header(self, *, dotted: bool) -> bytes | None:
        """Up to the blank line, if there is one; None if that is more than may be kept. ``dotted``: as DATA has it, the
        end of data included."""
        if self.too_large:
            return None
        header = self._written() if dotted else bytes(self._header[2:])
        return None if 0 < self._limit < len(header) else header

    def _written(self) -> bytes:
        header = bytes(self._header[2:])
        if not self._whole:
            header = header.removesuffix(b".\r\n")
        header = header.replace(b"\r\n..", b"\r\n.")
        return header[1:] if header.startswith(b"..") else header
