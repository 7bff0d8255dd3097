"""What canaries need to fly, opened while there is privilege. Loads nothing beyond that: the process which holds the
queue is small."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from bridge.canary import Canaries, Flight, macs, paths
from bridge.divert import Place
from bridge.lane import PortLegs
from bridge.machine import seed
from bridge.proving import Prover, RawSockets
from bridge.taps import Taps

IPV6_FILE = Path("/proc/net/if_inet6")
Fly: TypeAlias = Callable[[RawSockets, Callable[[float], bool]], Prover]


def flying(legs: Iterable[PortLegs], vlans: Iterable[int], ports: Iterable[int], queue: int) -> Fly:
    """The canaries of this queue, with their sockets open."""
    legs, vlans = tuple(legs), tuple(vlans)
    versions = (4, 6) if IPV6_FILE.exists() else (4,)
    secret = macs(seed())
    links = {leg.wire: (leg.index, False) for leg in legs}
    if vlans:
        links |= {PortLegs(leg.port, leg.index, vlans[0]).wire: (leg.index, True) for leg in legs}
    taps = Taps(links, secret[0])
    canaries = Canaries(paths(vlans, versions, ports), tuple(leg.index for leg in legs), secrets.randbits)
    return lambda raw, alive: Prover(canaries, taps, raw, alive, macs=secret, queue=queue)


def arrivals(legs: Iterable[PortLegs], vlans: Iterable[int]) -> Mapping[int, Place]:
    """The ifindex of each leg's end in a lane → where it is."""
    vlans = tuple(vlans)
    places = [PortLegs(leg.port, leg.index, vlan) for leg in legs for vlan in (0, *vlans)]
    found: dict[int, Place] = {}
    for leg in places:
        with suppress(OSError):  # a lane that is not there
            found[socket.if_nametoindex(leg.lane)] = (leg.index, leg.vlan)
    return found


def told(flight: Flight, queue: int) -> dict[str, Any]:
    """What is known here of a canary that has not come back; where it was lost, the kernel's rules know."""
    about = {"name": f"{flight.path}, queue {queue + 1}", "path": str(flight.path), "sequence": flight.sequence}
    return {**about, "passes": flight.passes, "judged": flight.judged, "answered": flight.answered, "leg": flight.leg}
