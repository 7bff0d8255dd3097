"""A pair of ports as one cable: when one loses its carrier the other is taken down, and brought back with it.

Pure: carriers and the time in, orders out. Each port is 0 or 1. A port that is down has no carrier of its own to lose,
so at most one is held, and the other alone is watched until it is back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# From a port's being up to its carrier: 1000BASE-T negotiates 2 to 4 s, some SFPs longer. Till then nothing is lost.
SETTLE_S = 6.0


@dataclass(frozen=True, slots=True)
class Pair:
    """``held`` is the port that is kept down. ``up_at``: when each was last brought up; ``seen``: whether it has had a
    carrier since."""

    up_at: tuple[float, float]
    held: int | None = None
    seen: tuple[bool, bool] = (False, False)


@dataclass(frozen=True, slots=True)
class Order:
    port: int
    up: bool


def start(now: float) -> Pair:
    """Both ports up, nothing known of their carriers."""
    return Pair((now, now))


def follow(pair: Pair, carriers: tuple[bool, bool], now: float) -> tuple[Pair, Order | None]:
    """What to do now, if anything. The carrier of a held port is not looked at."""
    if pair.held is not None:
        other = 1 - pair.held
        return _released(pair, now) if carriers[other] else (pair, None)
    pair = replace(pair, seen=(pair.seen[0] or carriers[0], pair.seen[1] or carriers[1]))
    lost = [port for port in (0, 1) if not carriers[port] and (pair.seen[port] or now >= pair.up_at[port] + SETTLE_S)]
    match lost:
        case [port] if carriers[1 - port]:
            return replace(pair, held=1 - port), Order(1 - port, up=False)
        case _:  # with neither there is nobody to tell
            return pair, None


def _released(pair: Pair, now: float) -> tuple[Pair, Order]:
    """The port that was held is given the time that a carrier takes; the other one has its own."""
    port = pair.held
    assert port is not None
    up_at = (now, pair.up_at[1]) if port == 0 else (pair.up_at[0], now)
    seen = (False, True) if port == 0 else (True, False)
    return Pair(up_at, None, seen), Order(port, up=True)
