"""Standard input, output and error as a shell may give them: closed, full, with a reader who goes away, of another
encoding. Nothing of that ends in a traceback, or in words written to a file that took the number of a closed one.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from hwprofiles.shown import on_one_line

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

OUTPUT = "standard output"
# What the command's own words hold beyond ASCII → how it reads where that cannot be said.
_PLAIN = {"→": "->", "…": "...", "«": '"', "»": '"', "–": "-", "×": "x", "≤": "<=", "≥": ">=", "’": "'", "●": "*"}


def open_standard() -> None:
    """All three are open afterwards, and take any text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(number, True)
    codecs.register_error("tollbridge", _plain)
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    sys.stdout = _said(1, OUTPUT, sys.stdout)
    sys.stderr = _said(2, "standard error", sys.stderr)


class _Named(io.FileIO):
    """Whose errors say which of the files it is."""

    def __init__(self, number: int, called: str) -> None:
        super().__init__(number, "w", closefd=False)
        self._called = called

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._called) from None


def _said(number: int, called: str, before: TextIO | None) -> TextIO:
    encoding = None if before is None else before.encoding
    raw = io.BufferedWriter(_Named(number, called))
    return io.TextIOWrapper(raw, encoding, "tollbridge", line_buffering=number == 2 or os.isatty(number))


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What the encoding does not have, in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end


def tell(text: object, kind: str = "") -> None:
    """On standard error, each line as the command's own; ``kind`` is "warning" or nothing."""
    for line in str(text).splitlines():
        print(f"tollbridge: {kind and f'{kind}: '}{on_one_line(line)}", file=sys.stderr)


def finished(status: int) -> int:
    """The exit status, once all has been written: 1 in place of 0 if it could not be. A reader who has seen enough
    (`tollbridge plan | head`) is no error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            silence(stream)
            if stream is sys.stdout and error.errno != errno.EPIPE:
                status = status or 1
                with suppress(OSError):
                    print(f"tollbridge: {OUTPUT}: {error.strerror}", file=sys.stderr)
    return status


def warn(findings: Iterable[object]) -> None:
    """Of what is not as it should be, hardware or another program; nothing fails by it."""
    for finding in findings:
        tell(finding, "warning")


def silence(stream: TextIO) -> None:
    """What is still to be written goes nowhere, so that nothing else fails by it."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class Unfailing(io.TextIOBase):
    """A stream; what cannot be written to it, and all that comes after, is lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def _lose(self, error: OSError) -> None:
        silence(self._stream)
        if error.errno != errno.EPIPE and self.fileno() == 1:
            with suppress(OSError):
                print(f"tollbridge: warning: {OUTPUT}: {error.strerror}: no more is shown", file=sys.stderr)
