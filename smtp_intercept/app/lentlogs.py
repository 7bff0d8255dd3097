"""The mail log and its rotated copies, opened by who may and lent, to be read only, to the process that may not.

One letter for each file stands in the message that it comes with.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from smtp_intercept.watch.follow import Log

AGAIN_S = 1.0  # so often at most: whoever asks without end must not keep the lender from all else
MOST = 200  # files of one message; the kernel takes 253 (SCM_MAX_FD)
_LIVE, _PLAIN, _GZIP = b"L", b"p", b"z"


def pair() -> tuple[socket.socket, socket.socket]:
    """(the lender's end, the reader's end)."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


class Lender:
    """``log`` is the descriptor that is written to, ``path`` its name: the copies lie beside it."""

    def __init__(self, end: socket.socket, log: int, path: Path) -> None:
        self._end, self._log, self._path = end, log, path
        self._answered_at = float("-inf")

    def turn(self, now: float) -> None:
        """Answer, if somebody asks."""
        if now - self._answered_at < AGAIN_S:
            return
        with suppress(OSError):
            if not self._end.recv(64):
                return
            self._answered_at = now
            self._lend()

    def _lend(self) -> None:
        # By the descriptor: whatever the file is called by now, this one is written to.
        opened = [(_LIVE, os.open(f"/proc/self/fd/{self._log}", os.O_RDONLY | os.O_CLOEXEC))]
        try:
            opened += _rotated(self._path)
            socket.send_fds(self._end, [b"".join(kind for kind, _ in opened)], [fd for _, fd in opened])
        finally:
            for _, fd in opened:
                os.close(fd)


class Borrowed:
    """The reader's end: `ask` as the follower of the log wants it."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._asked_at = end, float("-inf")

    def ask(self) -> list[Log] | None:
        try:
            kinds, fds, _, _ = socket.recv_fds(self._end, MOST + 1, MOST + 1)
        except BlockingIOError:
            self._ask(time.monotonic())
            return None
        return [
            Log(fd, live=kind == _LIVE[0], compressed=kind == _GZIP[0]) for kind, fd in zip(kinds, fds, strict=True)
        ]

    def _ask(self, now: float) -> None:
        """Again, where an answer was lost."""
        if now - self._asked_at >= 2 * AGAIN_S:
            self._asked_at = now
            with suppress(OSError):
                self._end.send(b"?")


def logs(path: Path) -> list[Log]:
    """The same for who may open them: the live one by its name."""
    opened = [(_LIVE, os.open(path, os.O_RDONLY | os.O_CLOEXEC))] if path.exists() else []
    return [Log(fd, live=kind == _LIVE, compressed=kind == _GZIP) for kind, fd in [*opened, *_rotated(path)]]


def _rotated(path: Path) -> Iterator[tuple[bytes, int]]:
    """The newest `MOST`."""
    for each in sorted(copies(path), key=_written_at)[-(MOST - 1) :]:
        with suppress(OSError):
            fd = os.open(each, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                yield _GZIP if each.suffix == ".gz" else _PLAIN, fd
            else:
                os.close(fd)


def copies(path: Path) -> list[Path]:
    """As logrotate(8) names them: ``mail.log.1``, ``mail.log.2.gz``, ``mail.log-20261130``."""
    named = re.compile(re.escape(path.name) + r"[.-][0-9]+(-[0-9]+)*(\.gz)?")
    return [each for each in path.parent.iterdir() if named.fullmatch(each.name)]


def _written_at(path: Path) -> float:
    with suppress(OSError):
        return path.lstat().st_mtime
    return 0.0
