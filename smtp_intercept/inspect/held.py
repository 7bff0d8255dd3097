"""The content of one message that nobody else has yet: in memory while it is small, then in a file without a name.

One kind of I/O: one file. What the box holds so is gone with the process, and its client, who has heard nothing,
sends it again.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

from smtp_intercept.mta.content import DotStuffing as Unstuffing
from smtp_intercept.mta.stuffing import DotStuffing
from smtp_intercept.policy import Body

# Most mail is smaller; what is larger would be memory that a few clients could use up.
MEMORY_BYTES = 65_536
PIECE_BYTES = 65_536
_READ_ONLY = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
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

    def octets(self, *, dotted: bool = False) -> Iterator[bytes]:
        """The content as it was written, as often as it is asked for; ``dotted``: it is kept as DATA has it."""
        return _without_dots(self._pieces(), self.size_bytes) if dotted else self._pieces()

    def pieces(
        self, edit: Callable[[bytes], bytes] | None = None, *, dotted: bool = False, body: Body | None = None
    ) -> tuple[int, Iterator[bytes]]:
        """How many octets, and the octets, with the header as ``edit`` makes it: its fields, without the blank line.
        ``dotted``: as DATA has it; of how many octets is not known then if there is another ``body``. To be asked
        once."""
        whole = self._pieces()
        if edit is None and body is None:
            return self.size_bytes, whole
        begun = b""
        while _BLANK_LINE not in begun and not begun.startswith(b"\r\n") and (piece := next(whole, b"")):
            begun += piece
        header = begun[: _header_end(begun, dotted=dotted)]
        edited = _undotted(header) if dotted else header
        edited = edit(edited) if edit else edited
        if body is not None:
            return len(edited) + 2 + body.size_bytes, _with_body(edited, body, dotted=dotted)
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

    def lend(self) -> int:
        """An open file with what is there, to be read only; the caller's to close. OSError: nothing is any more."""
        if self._file >= 0:
            return os.open(f"/proc/self/fd/{self._file}", os.O_RDONLY | os.O_CLOEXEC)
        if not self.size_bytes:
            raise OSError(errno.ENOENT, "nothing is held")
        file = os.memfd_create("held", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            for piece in self._memory:
                _write(file, piece)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _READ_ONLY)
        except OSError:
            os.close(file)
            raise
        return file

    def close(self) -> None:
        """Nobody will have it any more."""
        self._memory.clear()
        self.size_bytes = 0
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1


def _with_body(header: bytes, body: Body, *, dotted: bool) -> Iterator[bytes]:
    stuffing = DotStuffing()
    for piece in _chain(header + b"\r\n", body.octets()):
        yield stuffing.stuff(piece) if dotted else piece
    if dotted:
        yield stuffing.end()
    body.close()


def _without_dots(pieces: Iterator[bytes], size_bytes: int) -> Iterator[bytes]:
    """What DATA had, of so many octets, without its end."""
    stuffing, left = Unstuffing(), size_bytes
    for piece in pieces:
        left -= len(piece)
        yield stuffing.remove(piece, ended=not left)


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
    raise OSError(errno.ENOSPC, "there is no place for held content")
