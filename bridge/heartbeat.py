"""The beat itself: one marked datagram a mail port to the loopback, which the ruleset takes and drops."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from bridge.flow import queue_mark


class Heartbeat:
    """Of one queue's diverter. A socket opened while there is privilege (SO_MARK) and used without."""

    def __init__(self, ports: Iterable[int], queue: int = 0) -> None:
        self._ports = tuple(ports)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, queue_mark(queue))

    def beat(self) -> None:
        """Keep the queue live for every port for another `bridge.lane.LIVE_TIMEOUT_S`."""
        for port in self._ports:
            # The rule that counted the datagram also dropped it, which reads as EPERM here. Any other error is a beat
            # that was not heard, and opens the switch.
            with contextlib.suppress(OSError):
                self._socket.sendto(b"", ("127.0.0.1", port))
