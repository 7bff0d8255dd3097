"""Connections that the interceptor accepted and the MTA serves: the descriptor, and where it came from.

A socket pair that the daemon made and hands to both, so that one that is started again finds what waited meanwhile.
The MTA's end says five times a second that its loop turns; what is handed to a silent one would wait for nobody.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from smtp_intercept.direction import Direction
from smtp_intercept.mta.envelope import Origin

SIGN_EVERY_S = 0.2
SILENT_S = 1.0  # as the diverter's for the interceptor
# One connection's facts; a name of a protected domain has at most 255 octets.
DATAGRAM_OCTETS = 16_384
SERVED = 32  # protected domains of one server that are told; the rest share its routing
# Connections taken at one go, so that a storm of them does not hold up the sessions that are there.
BATCH = 64


def pair() -> tuple[socket.socket, socket.socket]:
    """(the interceptor's end, the MTA's end), both non-blocking."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


class Giving:
    """The interceptor's end."""

    def __init__(self, end: socket.socket, clock: Callable[[], float] = time.monotonic) -> None:
        self._end, self._clock = end, clock
        self._heard_at = float("-inf")

    def fileno(self) -> int:
        return self._end.fileno()

    def listen(self) -> None:
        """Take the signs of life that wait."""
        with contextlib.suppress(OSError):
            while self._end.recv(1):
                self._heard_at = self._clock()

    @property
    def taken(self) -> bool:
        """The MTA's loop turns."""
        return self._clock() - self._heard_at < SILENT_S

    def give(self, accepted: socket.socket, origin: Origin) -> bool:
        """Whether the MTA has it now: then ``accepted`` is to be closed here. It stays ours if not."""
        if not self.taken:
            return False
        try:
            socket.send_fds(self._end, [_encode(origin)], [accepted.fileno()])
        except OSError:  # it has fallen behind, or is gone
            return False
        return True


class Taking:
    """The MTA's end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def sign(self) -> None:
        """The loop turns. Lost if nobody reads: the next one says the same."""
        with contextlib.suppress(OSError):
            self._end.send(b".")

    def take(self) -> Iterator[tuple[socket.socket, Origin]]:
        """The connections that wait, up to `BATCH`."""
        for _ in range(BATCH):
            try:
                data, descriptors, _, _ = socket.recv_fds(self._end, DATAGRAM_OCTETS, 1)
            except OSError:
                return
            for descriptor in descriptors:
                sock = socket.socket(fileno=descriptor)
                sock.setblocking(False)
                yield sock, _decode(data)
            if not data:
                return


def _encode(origin: Origin) -> bytes:
    facts: dict[str, Any] = {
        "client": origin.client,
        "server": origin.server,
        "direction": origin.direction.value,
        "port": origin.port,
        "served": origin.served[:SERVED],
        "away": origin.away,
    }
    return json.dumps(facts, separators=(",", ":")).encode()


def _decode(data: bytes) -> Origin:
    facts = json.loads(data)
    client, server = facts["client"], facts["server"]
    return Origin(
        client=(str(client[0]), int(client[1])),
        server=(str(server[0]), int(server[1])),
        direction=Direction(facts["direction"]),
        port=str(facts["port"]),
        served=tuple(map(str, facts["served"])),
        away=facts["away"],
    )
