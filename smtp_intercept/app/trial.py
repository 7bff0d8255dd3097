"""One trial of a lane that no daemon serves yet: what would lie in the way of mail."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import count

from bridge.divert import Diverter
from bridge.flow import Action, Verdict
from bridge.lane import PortLegs
from smtp_intercept.app import listening, lost, watching
from smtp_intercept.app.config import Config
from smtp_intercept.app.flights import arrivals, flying, told

# A canary that is going to come back has done so: in this time, and in so many turns, for while this process stands
# still none comes any further.
TRIAL_S, TRIAL_TURNS = 2.5, 25
TRIAL_SYNS = 64  # nobody else's are let in meanwhile

_PASS = Verdict(Action.PASS)


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
