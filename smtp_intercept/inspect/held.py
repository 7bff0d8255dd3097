"""The content of one message that nobody else has yet: in memory while it is small, then in a file without a name.

One kind of I/O: one file. What the box holds so is gone with the process, and its client, who has heard nothing,
sends it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

# Most mail is smaller; what is larger would be memory that a few clients could use up.
MEMORY_BYTES = 65_536
PIECE_BYTES = 65_536
_BLANK_LINE = b"\r\n\r\n"


class Held:
    """``spill`` opens a file that nobody else can: OSError if it cannot."""

    __slots__ = ("_file", "_memory", "_spill", "size_bytes")

    def __init__(self, spill: Callable[[], int]) -> None:
        self._spill, self._file = spill, -1
        self._memory: list[bytes] = []
        self.size_bytes = 0

    @property
    def memory_bytes(self) -> int:
        """What of it is in memory."""
        return self.size_bytes if self._file < 0 else 0

    def add(self, octets: bytes) -> None:
        """Behind what is there. OSError: it cannot be kept, and nothing is any more."""
        self.size_bytes += len(octets)
        if self._file < 0 and self.size_bytes <= MEMORY_BYTES:
            self._memory.append(octets)
            return
        try:
            if self._file < 0:
                self._file = self._spill()
                octets = b"".join([*self._memory, octets])
                self._memory.clear()
            _write(self._file, octets)
        except OSError:
            self.close()
            raise

    def pieces(
        self, edit: Callable[[bytes], bytes] | None = None, *, dotted: bool = False
    ) -> tuple[int, Iterator[bytes]]:
        """How many octets, and the octets, with the header as ``edit`` makes it: its fields, without the blank line.
        ``dotted``: as DATA has it. To be asked once."""
        whole = self._pieces()
        if edit is None:
            return self.size_bytes, whole
        begun = b""
        while _BLANK_LINE not in begun and not begun.startswith(b"\r\n") and (piece := next(whole, b"")):
            begun += piece
        header = begun[: _header_end(begun, dotted=dotted)]
        edited = edit(_undotted(header)) if dotted else edit(header)
        begun_anew = (_dotted(edited) if dotted else edited) + begun[len(header) :]
        return self.size_bytes - len(begun) + len(begun_anew), _chain(begun_anew, whole)

    def _pieces(self) -> Iterator[bytes]:
        if self._file < 0:
            yield from self._memory
            return
        at = 0
        while piece := os.pread(self._file, PIECE_BYTES, at):
            at += len(piece)
            yield piece

    def close(self) -> None:
        """Nobody will have it any more."""
        self._memory.clear()
        self.size_bytes = 0
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1


def _write(file: int, octets: bytes) -> None:
    left = memoryview(octets)
    while left:
        left = left[os.write(file, left) :]


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _header_end(begun: bytes, *, dotted: bool) -> int:
    """Where the header ends: behind its blank line. Without one all is header but, with DATA, the end of data."""
    if begun.startswith(b"\r\n"):
        return 0
    at = begun.find(_BLANK_LINE)
    if at >= 0:
        return at + 2  # the blank line stays as it is
    return len(begun) - len(b".\r\n") if dotted else len(begun)


def _undotted(header: bytes) -> bytes:
    return (b"\r\n" + header).replace(b"\r\n.", b"\r\n")[2:]


def _dotted(header: bytes) -> bytes:
    return (b"\r\n" + header).replace(b"\r\n.", b"\r\n..")[2:]


def nowhere() -> int:
    """Of a process that has no place for files."""
    raise OSError(28, "there is no place for held content")
