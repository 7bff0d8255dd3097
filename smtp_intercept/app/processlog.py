"""What the processes of a running gateway say on standard error, which may be a journal that reads no more.

Never waits: what is not taken at once is lost and counted. What is said again and again is said so often a minute.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from smtp_intercept.repetition import Repetition

FORMAT = "%(levelname)s: %(message)s"
LINE_OCTETS = 4096  # a pipe takes so much whole or not at all (PIPE_BUF); a line is cut there
ALIKE_PER_MINUTE = 30  # of one wording, whoever it is about

_STANDARD_ERROR = 2


class Outlet:
    """``lost`` lines were not taken, nor will they be. Whoever else has the descriptor open keeps it as it is."""

    def __init__(self, fd: int = _STANDARD_ERROR) -> None:
        self.lost = 0
        self._unsaid = 0
        self._write = _writer(fd)

    def say(self, line: str) -> None:
        """One line, without its end."""
        if self._unsaid and self._taken(f"WARNING: {self._unsaid} lines before this one were lost: nobody read them"):
            self._unsaid = 0
        if not self._taken(line):
            self.lost += 1
            self._unsaid += 1

    def _taken(self, line: str) -> bool:
        data = line.encode(errors="replace")[: LINE_OCTETS - 1] + b"\n"
        try:
            return self._write(data) == len(data)
        except OSError:
            return False


def _writer(fd: int) -> Callable[[bytes], int]:
    """Of what waits for nobody, whatever the descriptor's own mode, which others share."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):  # the journal's
        end = socket.socket(fileno=os.dup(fd))
        return lambda data: end.send(data, socket.MSG_DONTWAIT)
    if stat.S_ISFIFO(mode) or os.isatty(fd):
        with suppress(OSError):
            again = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            return lambda data: os.write(again, data)
    return lambda data: os.write(fd, data)


class _Handler(logging.Handler):
    """By way of an outlet."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet, self._alike = outlet, Repetition(ALIKE_PER_MINUTE)

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        for wording, number in self._alike.over(now).items():
            self._outlet.say(f"WARNING: {number} more lines like: {wording}")
        if self._alike.admits(str(record.msg), now):
            self._outlet.say(self.format(record))


_outlets: list[Outlet] = []


def begin(level: int = logging.INFO) -> None:
    """From now on `logging` and `say` never wait, in this process."""
    _outlets[:] = [Outlet()]
    handler = _Handler(_outlets[0])
    handler.setFormatter(logging.Formatter(FORMAT))
    logging.basicConfig(handlers=[handler], level=level, force=True)


def say(line: str) -> None:
    """As a signal handler may, in the middle of another line; before `begin` as it comes."""
    (_outlets[0] if _outlets else Outlet()).say(line)


def lost() -> int:
    """Lines of this process that nobody read."""
    return _outlets[0].lost if _outlets else 0
