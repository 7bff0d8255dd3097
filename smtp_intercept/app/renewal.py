"""Looks after the files of [[tls.identity]], and hands those that were renewed down to the processes that show them.

One kind of I/O: files, read as root. Judges nothing: who shows a certificate finds out whether it can be used, and goes
on with the old one if it cannot.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterable
from pathlib import Path

from smtp_intercept.app import given
from smtp_intercept.app.channel import DATAGRAM_OCTETS
from smtp_intercept.app.config import Config
from smtp_intercept.app.tls_schema import TlsIdentity

LOOK_EVERY_S = 2.0  # and a file that was seen to change is read at the next look: its writer may not be through

Signature = tuple[tuple[int, int, int], ...]

_LOG = logging.getLogger("tollbridge")


class Renewals:
    """``ends`` are those of the processes' channels that are written to. What a process reads when it starts is not
    its business."""

    def __init__(self, config: Config, ends: Iterable[socket.socket]) -> None:
        self._entries, self._ends, self._look_at = config.tls.identity, tuple(ends), 0.0
        self._taken = [_signature(entry) for entry in self._entries]
        self._seen = list(self._taken)

    def follow(self, now: float) -> None:
        """To be called often. ``now`` is of a steady clock."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        for number, entry in enumerate(self._entries):
            found, before = _signature(entry), self._seen[number]
            self._seen[number] = found
            if found and found == before and found != self._taken[number]:
                self._hand_down(number, entry)
                self._taken[number] = found

    def _hand_down(self, number: int, entry: TlsIdentity) -> None:
        try:
            chain, key = (given.octets(Path(path), DATAGRAM_OCTETS // 4) for path in (entry.certificate, entry.key))
            said = {"identity": number, "chain": chain.decode(), "key": key.decode()}
            for end in self._ends:
                end.send(json.dumps(said).encode())
        except (given.GivenError, OSError, ValueError) as error:
            reason = getattr(error, "reason", "") or getattr(error, "strerror", "") or type(error).__name__
            _LOG.warning("tls.identity[%d]: what was renewed cannot be read, restart run: %s", number, reason)


def _signature(entry: TlsIdentity) -> Signature:
    """Empty while one of them is not there."""
    try:
        found = [Path(path).stat() for path in (entry.certificate, entry.key)]
    except OSError:
        return ()
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)
