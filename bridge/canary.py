"""The canary: a SYN that goes through a lane as mail does, and proves by coming back that mail would. Pure.

It begins on a leg's wire end and ends there: gate, queue, verdict, listener and the answer's way out, then the way out
of what servers are sent. Some are judged as mail that passes is, and prove that it crosses the lane. Ports, sequence
numbers and MACs are secrets of the box, and none of its frames is ever on a wire: nobody can forge one, or learn of
one. Takes no socket: time and chance are arguments.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TypeAlias

from bridge import flow
from bridge.flow import Syn
from bridge.segment import ACK, RST, SYN, segment

# Several to each time-out of the switch, so that one that is late is no failure.
EVERY_S = 0.4
PASSING_EVERY_S = 0.8  # what the switch does not wait for
# A path is failing when nothing has come back for so long: as long as the kernel keeps the switch closed.
FAILING_S = 2.0
PASSING_FAILS_S = 2.5
# No answer comes later than this.
FLIGHT_S = 5.0
# Nobody's: 192.0.0.0/24 is IETF protocol assignments of which none is these (RFC 6890), 100::/64 is for discarding
# (RFC 6666). By secret ports and sequence numbers a canary is known, not by these.
ENDS = {
    4: (bytes([192, 0, 0, 201]), bytes([192, 0, 0, 202])),
    6: (bytes.fromhex("0100") + bytes(12) + b"\x74\x01", bytes.fromhex("0100") + bytes(12) + b"\x74\x02"),
}
_ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
_8021Q = 0x8100
_WINDOW = 64240
DIAL = 0x8000_0000  # tells the sequence number of its dial from its own


def macs(seed: int) -> tuple[str, str]:
    """(client's, server's): locally administered, of this box alone, told apart by the last bit."""
    octets = hashlib.sha256(b"canary" + seed.to_bytes(4, "big")).digest()
    first = f"02:74:62:{octets[0] | 0x80:02x}:{octets[1]:02x}:"  # never one of the lane's own
    return f"{first}{octets[2] & 0xFE:02x}", f"{first}{octets[2] | 1:02x}"


@dataclass(frozen=True, slots=True, order=True)
class Path:
    """What is proven by itself, and beats by itself: a lane, an IP version, a port that mail comes to."""

    vlan: int
    version: int
    port: int

    def __str__(self) -> str:
        return f"{f'VLAN {self.vlan}, ' if self.vlan else ''}IPv{self.version}, port {self.port}"


@dataclass(slots=True)
class Flight:
    """One canary, on its way from the leg of port ``leg`` and back; or, where it ``passes``, to another leg."""

    path: Path
    leg: int
    client_port: int
    sequence: int
    began_at: float
    passes: bool = False
    judged: bool = False
    answered: bool = False
    back: bool = False

    @property
    def dial_sequence(self) -> int:
        return self.sequence ^ DIAL

    def syn(self) -> bytes:
        client, server = ENDS[self.path.version]
        return segment((client, server), (self.client_port, self.path.port), SYN, self.sequence, window=_WINDOW)

    def reset(self) -> bytes:
        """Has the listener forget it."""
        client, server = ENDS[self.path.version]
        return segment((client, server), (self.client_port, self.path.port), RST, self.sequence + 1 & 0xFFFF_FFFF)

    def dial(self) -> bytes:
        """As the server would be dialled."""
        client, server = ENDS[self.path.version]
        return segment((client, server), (self.client_port, self.path.port), SYN, self.dial_sequence, window=_WINDOW)


def frame(packet: bytes, ends: tuple[str, str], vlan: int) -> bytes:
    """As the leg of tagged mail carries it, or of untagged; ``ends`` are `macs`."""
    client, server = (bytes.fromhex(mac.replace(":", "")) for mac in ends)
    tag = struct.pack("!HH", _8021Q, vlan) if vlan else b""
    return server + client + tag + _ETHERTYPE[packet[0] >> 4] + packet


_Kind: TypeAlias = tuple[Path, bool]  # and whether it passes
_Ends: TypeAlias = tuple[bytes, bytes]
# passes → how often, and after how long without one it is told of.
_TIMES = {False: (EVERY_S, FAILING_S), True: (PASSING_EVERY_S, PASSING_FAILS_S)}


@dataclass(slots=True)
class Canaries:
    """Those of one diverter. ``legs`` are the indices of the ports, ``chance`` gives so many secret bits; before
    ``began_at`` nobody was there to answer, and none is failing."""

    paths: tuple[Path, ...]
    legs: tuple[int, ...]
    chance: Callable[[int], int]
    began_at: float = inf
    _flights: dict[int, Flight] = field(default_factory=dict)
    _last: dict[_Kind, Flight] = field(default_factory=dict)
    _proven: dict[_Kind, float] = field(default_factory=dict)
    _turn: int = 0

    @property
    def _kinds(self) -> list[_Kind]:
        return [(path, passes) for passes in _TIMES for path in self.paths]

    def begin(self, now: float) -> None:
        """An interceptor lives: since now, if none did before."""
        self.began_at = min(self.began_at, now)

    def due(self, now: float) -> list[Flight]:
        """Those that start now, each path's from one leg after the other."""
        return [self._start(*kind, now) for kind in self._kinds if self._is_due(kind, now)]

    def _is_due(self, kind: _Kind, now: float) -> bool:
        every_s, _ = _TIMES[kind[1]]
        return kind not in self._last or now - self._last[kind].began_at >= every_s

    def _start(self, path: Path, passes: bool, now: float) -> Flight:
        for sequence, flight in list(self._flights.items()):
            if now - flight.began_at <= FLIGHT_S:
                break
            del self._flights[sequence]
        self._turn += 1
        port, sequence = 1024 + self.chance(16) % 64_000, self.chance(32)
        started = Flight(path, self.legs[self._turn % len(self.legs)], port, sequence, now, passes)
        self._flights[sequence] = self._last[path, passes] = started
        return started

    def judge(self, syn: Syn, place: tuple[int, int]) -> Flight | None:
        """The canary that a SYN in the queue is, in its place; None for anybody else's."""
        flight = self._flights.get(syn.sequence)
        if flight is None or (syn.client, syn.server) != ENDS[flight.path.version]:
            return None
        there = (flight.client_port, flight.path.port, flight.leg, flight.path.vlan)
        if there != (syn.client_port, syn.server_port, *place):
            return None
        flight.judged = True
        return flight

    def hear(self, seen: bytes, leg: int, now: float) -> Flight | None:
        """A frame that has come out of that leg. A flight whose answer it is, or that is ``back`` with it."""
        found = _read(seen)
        if found is None:
            return None
        ends, ports, sequence, acknowledged, flags = found
        if flags & (SYN | ACK | RST) == SYN | ACK:
            flight = self._flights.get(acknowledged - 1 & 0xFFFF_FFFF)
            return flight if flight and self._answers(flight, ends, ports, leg) else None
        if flags & (SYN | ACK | RST) != SYN:
            return None
        flight = self._flights.get(sequence) or self._flights.get(sequence ^ DIAL)
        if flight is None or flight.passes is not (flight.sequence == sequence):
            return None
        return flight if self._crosses(flight, ends, ports, leg, now) else None

    def _answers(self, flight: Flight, ends: _Ends, ports: tuple[int, int], leg: int) -> bool:
        path = flight.path
        if (ends, ports) != (ENDS[path.version][::-1], (path.port, flight.client_port)):
            return False
        if flight.answered or flight.passes or not flight.judged or leg != flight.leg:
            return False
        flight.answered = True
        return True

    def _crosses(self, flight: Flight, ends: _Ends, ports: tuple[int, int], leg: int, now: float) -> bool:
        """Its dial, or itself where it passes, has come to another leg."""
        path = flight.path
        if (ends, ports) != (ENDS[path.version], (flight.client_port, path.port)):
            return False
        if flight.back or not flight.judged or leg == flight.leg or flight.answered is flight.passes:
            return False
        flight.back = True
        self._proven[path, flight.passes] = now
        return True

    def failing(self, now: float) -> list[Flight]:
        """The latest that has had its time, of each path of which none has come back lately. That one that passes has
        not been judged is what those say that do not pass."""
        late = [kind for kind in self._kinds if now - self._proven.get(kind, self.began_at) > _TIMES[kind[1]][1]]
        lost = [self._latest_lost(kind, now) for kind in late if kind in self._last]
        return [flight for flight in lost if flight.judged or not flight.passes]

    def unproven(self, now: float) -> list[Flight]:
        """The same, but of each path of which none has come back ever."""
        lost = [self._latest_lost(kind, now) for kind in self._kinds if kind not in self._proven and kind in self._last]
        return [flight for flight in lost if flight.judged or not flight.passes]

    def _latest_lost(self, kind: _Kind, now: float) -> Flight:
        had_time = [f for f in self._flights.values() if (f.path, f.passes) == kind and now - f.began_at > EVERY_S]
        return had_time[-1] if had_time else self._last[kind]

    def proven(self, now: float) -> int:
        """Paths that inspection has."""
        return sum(now - at <= FAILING_S for (_, passes), at in self._proven.items() if not passes)


def _read(seen: bytes) -> tuple[tuple[bytes, bytes], tuple[int, int], int, int, int] | None:
    """Addresses, ports, sequence number, acknowledged, flags of a bare TCP segment in a frame; None for all else."""
    packet = seen[14:]
    match seen[12:14]:
        case b"\x08\x00" if len(packet) >= 40 and packet[0] == 0x45 and packet[9] == flow.TCP:
            ends, tcp = (packet[12:16], packet[16:20]), packet[20:40]
        case b"\x86\xdd" if len(packet) >= 60 and packet[6] == flow.TCP:
            ends, tcp = (packet[8:24], packet[24:40]), packet[40:60]
        case _:
            return None
    source, destination, sequence, acknowledged, _, flags = struct.unpack_from("!HHIIBB", tcp)
    return ends, (source, destination), sequence, acknowledged, flags


def paths(vlans: Iterable[int], versions: Iterable[int], ports: Iterable[int]) -> tuple[Path, ...]:
    """All that is proven."""
    versions, ports = tuple(versions), tuple(ports)
    return tuple(Path(vlan, version, port) for vlan in (0, *vlans) for port in ports for version in versions)
