"""Sends canaries through the lanes, and a beat for each part of the switch whose canary has come back.

Works in the diverter's loop: what does not turn does not prove. Reads nothing but frames with the box's own secret MAC.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from bridge import flow
from bridge.canary import ENDS, Canaries, Flight, frame
from bridge.flow import Mark, Syn
from bridge.heartbeat import Heartbeat
from bridge.taps import Taps


class RawSockets:
    """Sends whole packets in other hosts' names; the mark takes them out by the lane, where they get the right MACs."""

    def __init__(self) -> None:
        self._sockets = {4: _raw(socket.AF_INET), 16: _raw(socket.AF_INET6)}

    def send(self, packet: bytes, destination: bytes, mark: int) -> None:
        """A full buffer loses it as a wire might."""
        family = socket.AF_INET if len(destination) == 4 else socket.AF_INET6
        raw = self._sockets[len(destination)]
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            raw.sendto(packet, (socket.inet_ntop(family, destination), 0))


def _raw(family: int) -> socket.socket:
    raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw.setblocking(False)
    return raw


class Prover:
    """Of the diverter of one ``queue``; ``alive`` says whether an interceptor has proven itself too, ``macs`` are the
    canary's."""

    def __init__(
        self,
        canaries: Canaries,
        taps: Taps,
        raw: RawSockets,
        alive: Callable[[float], bool],
        *,
        macs: tuple[str, str],
        queue: int = 0,
    ) -> None:
        self.canaries = canaries
        self._taps, self._raw, self._alive, self._macs, self._queue = taps, raw, alive, macs, queue
        self._heart = Heartbeat(queue)

    def filenos(self) -> list[int]:
        """Readable when a canary has come back."""
        return self._taps.filenos()

    def tick(self, now: float) -> None:
        if self._alive(now):
            self.canaries.begin(now)
        for leg, seen in self._taps.heard():
            flight = self.canaries.hear(seen, leg, now)
            if flight is not None and flight.passes:
                continue
            if flight is not None and flight.back:
                self._beat(flight, now)
            elif flight is not None:
                self._go_on(flight)
        for flight in self.canaries.due(now):
            self._send(flight, flight.syn())

    def judge(self, syn: Syn, place: tuple[int, int]) -> int | None:
        """The mark of a canary in the queue, none if it passes as mail does; None for anybody else's SYN."""
        flight = self.canaries.judge(syn, place)
        if flight is None:
            return None
        return 0 if flight.passes else Mark(0, *place).encode() | flow.CANARY

    def _go_on(self, flight: Flight) -> None:
        """The listener is told to forget it, and the way to servers is tried."""
        self._send(flight, flight.reset())
        mark = Mark(0, flight.leg, flight.path.vlan).away() | flow.CANARY
        self._raw.send(flight.dial(), ENDS[flight.path.version][1], mark)

    def _send(self, flight: Flight, packet: bytes) -> None:
        vlan = flight.path.vlan
        mark = flow.live_mark(self._queue, vlan, 4) | flow.CANARY
        self._taps.send(frame(packet, self._macs, vlan), flight.leg, mark, tagged=bool(vlan))

    def _beat(self, flight: Flight, now: float) -> None:
        if self._alive(now):
            self._heart.beat(flight.path.port, flight.path.vlan, flight.path.version)
