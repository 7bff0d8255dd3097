"""Follows the mail log into the index: what is there, its rotated copies first, then what is added.

A log is known by its first line, not by its name: copied, renamed or compressed it is the same one, and what of it is
in the index is never read again. Opens nothing itself.
"""

from __future__ import annotations

import gzip
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

HEAD_OCTETS = 4096  # of a log's first line, by which it is known
CHUNK_OCTETS = 512 << 10
LINE_OCTETS = 8 << 20  # a longer one is none of ours; with 1,000 recipients one has 1.2 MB
ALL = 1 << 62  # of a rotated log: it is in the index to its end

_LOG = logging.getLogger("tollbridge")


class Kept(Protocol):
    """What the follower needs of the index."""

    sources: dict[str, int]

    def add(self, lines: Iterable[bytes], sources: dict[str, int], now_ms: int) -> int: ...


@dataclass(slots=True)
class Log:
    """One file, open. ``live``: it is written to still."""

    fd: int
    live: bool = False
    compressed: bool = False
    name: str = ""
    octets: int = 0
    _file: gzip.GzipFile | None = field(default=None)

    def read(self, at: int, octets: int) -> bytes:
        """Less at its end. OSError or EOFError of one that is damaged."""
        if not self.compressed:
            return os.pread(self.fd, octets, at)
        if self._file is None:
            self._file = gzip.GzipFile(fileobj=os.fdopen(os.dup(self.fd), "rb"))
        try:
            self._file.seek(at)
            return self._file.read(octets)
        except zlib.error as error:
            raise gzip.BadGzipFile(str(error)) from None

    def known_as(self) -> str:
        """By its first line; "" as long as it has none."""
        head = self.read(0, HEAD_OCTETS)
        line, end, _ = head.partition(b"\n")
        return blake2b(line, digest_size=16).hexdigest() if end or len(head) == HEAD_OCTETS else ""

    @property
    def size_bytes(self) -> int:
        return os.fstat(self.fd).st_size

    def close(self) -> None:
        os.close(self.fd)


Ask = Callable[[], list[Log] | None]


class Follower:
    """``ask`` gives every log there is, in any order; None: not yet."""

    def __init__(self, kept: Kept, ask: Ask, clock: Callable[[], float] = time.time) -> None:
        self._kept, self._ask, self._clock = kept, ask, clock
        self._logs: list[Log] = []
        self.records = 0

    @property
    def behind_bytes(self) -> int:
        """Of logs that are still to be read; compressed ones by their size as they are."""
        return sum(max(0, log.size_bytes - log.octets) for log in self._logs)

    def turn(self) -> bool:
        """Read the next of it; False if there was nothing."""
        if not self._logs and not self._begin():
            return False
        log = self._logs[0]
        try:
            return self._read(log)
        except (EOFError, gzip.BadGzipFile) as error:
            _LOG.warning("the tracking index lacks the rest of a compressed log: %s", error)
            return self._finish(log)

    def begin_anew(self) -> None:
        """All logs are asked for again."""
        while self._logs:
            self._logs.pop().close()

    def _begin(self) -> bool:
        logs = self._ask()
        if logs is None:
            return False
        for log in logs:
            log.name = self._named(log)
            log.octets = self._kept.sources.get(log.name, 0)
        live = {log.name for log in logs if log.live}
        for log in sorted(logs, key=lambda log: (log.live, os.fstat(log.fd).st_mtime)):
            # A copy that is being made of the live one has nothing that this has not.
            if log.live or (log.name and log.octets < ALL and log.name not in live):
                self._logs.append(log)
            else:
                log.close()
        return bool(self._logs)

    def _named(self, log: Log) -> str:
        try:
            return log.known_as()
        except (OSError, EOFError) as error:
            _LOG.warning("the tracking index lacks a log that cannot be read: %s", error)
            return ""

    def _read(self, log: Log) -> bool:
        if log.live and not self._is_same(log):
            return False
        data = log.read(log.octets, CHUNK_OCTETS)
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == CHUNK_OCTETS:
            data = log.read(log.octets, LINE_OCTETS)
            whole = data.find(b"\n") + 1 or (len(data) if len(data) == LINE_OCTETS else 0)
        if log.live and not self._is_same(log):  # changed under our hands
            return False
        if whole:
            self._add(log, data[:whole].splitlines(), log.octets + whole)
        elif not log.live:
            return self._finish(log, data)
        return bool(whole)

    def _is_same(self, log: Log) -> bool:
        """Else it was rotated, or begun: a copy may have what was not read yet."""
        if (name := log.known_as()) == log.name:
            return bool(name)
        self.begin_anew()
        return False

    def _finish(self, log: Log, rest: bytes = b"") -> bool:
        """A rotated one is in the index; ``rest`` is a line without its end."""
        self._add(log, [rest] if rest else [], ALL)
        self._logs.remove(log)
        log.close()
        return True

    def _add(self, log: Log, lines: list[bytes], octets: int) -> None:
        self.records += self._kept.add(lines, {log.name: octets}, round(self._clock() * 1000))
        log.octets = octets
