"""The beat itself: one marked datagram to the loopback, which the ruleset takes and drops."""

from __future__ import annotations

import contextlib
import socket

from bridge.flow import live_mark


class Heartbeat:
    """Of one queue's diverter, which has the right to mark (CAP_NET_ADMIN)."""

    def __init__(self, queue: int = 0) -> None:
        self._queue = queue
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def beat(self, port: int, vlan: int = 0, version: int = 4) -> None:
        """Keep that part of the queue live for that port for another `bridge.lane.LIVE_TIMEOUT_S`."""
        # The rule that counted the datagram also dropped it, which reads as EPERM here. Any other error is a beat
        # that was not heard, and opens the switch.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, live_mark(self._queue, vlan, version))
            self._socket.sendto(b"", ("127.0.0.1", port))
