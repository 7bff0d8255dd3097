"""What canaries need to fly, opened while there is privilege; and one trial of a lane that no daemon serves yet."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from bridge.canary import Canaries, Flight, macs, paths
from bridge.divert import Diverter, Place
from bridge.flow import Action, Verdict
from bridge.host import seed
from bridge.lane import PortLegs
from bridge.links import Links
from bridge.proving import Prover, RawSockets
from bridge.taps import Taps
from smtp_intercept.app import listening, lost, watching
from smtp_intercept.app.config import Config

IPV6_FILE = Path("/proc/net/if_inet6")
# A canary that is going to come back has done so: in this time, and in so many turns, for while this process stands
# still none comes any further.
TRIAL_S, TRIAL_TURNS = 2.5, 25
TRIAL_SYNS = 64  # nobody else's are let in meanwhile

_PASS = Verdict(Action.PASS)
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
    with Links() as links:
        found = {links.index(leg.lane): (leg.index, leg.vlan) for leg in places}
    return {index: place for index, place in found.items() if index is not None}


def told(flight: Flight, queue: int) -> dict[str, Any]:
    """What is known here of a canary that has not come back; where it was lost, the kernel's rules know."""
    about = {"name": f"{flight.path}, queue {queue + 1}", "path": str(flight.path), "sequence": flight.sequence}
    return {**about, "passes": flight.passes, "judged": flight.judged, "answered": flight.answered, "leg": flight.leg}


class _OverError(Exception):
    """The trial is over."""


def in_the_way(settings: Config, legs: Iterable[PortLegs], vlans: Iterable[int]) -> list[str]:
    """What lies in mail's way, found out before any mail, in words."""
    try:
        return [*watching.losses(trial(settings, legs, vlans))]
    except OSError as error:
        return [f"nothing can be sent through the lane: {listening.reason(error, settings)}"]


def trial(settings: Config, legs: Iterable[PortLegs], vlans: Iterable[int]) -> list[dict[str, str]]:
    """Canaries through lanes that nobody serves, where the process is: those that were lost, as `lost.told` tells of
    them. Lets no mail in: no beat is sent. OSError: the lane's listeners or sockets cannot be had."""
    legs, vlans, began_at = tuple(legs), tuple(vlans), time.monotonic()
    with ExitStack() as open_now:
        for listener in listening.listeners(settings, vlans):
            open_now.callback(listener.close)
        diverter = Diverter(
            decide=lambda syn, place: _PASS,
            arrivals=arrivals(legs, vlans),
            fly=flying(legs, vlans, settings.intercept.ports, 0),
            queue_length=TRIAL_SYNS,
            block=False,
        )
        canaries, turns = diverter.prover.canaries, count(1)

        def enough() -> None:
            now, turn = time.monotonic(), next(turns)
            if not canaries.unproven(now) or (now - began_at > TRIAL_S and turn >= TRIAL_TURNS):
                raise _OverError

        try:
            diverter.run({}, enough)
        except _OverError:
            return lost.told(told(flight, 0) for flight in canaries.unproven(time.monotonic()))
    raise AssertionError("it runs until it is over")


_PASS = Verdict(Action.PASS)
