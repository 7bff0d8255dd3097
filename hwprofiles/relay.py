"""When a pair of ports is kept apart and when its relay may join them. The second dead-man's switch of the box.

Pure. The relay joins them by itself when its watchdog runs out, which is the point of it: this only says when to beat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Act(Enum):
    """What to tell the relay."""

    ARM = "arm"  # ports apart, watchdog running
    BEAT = "beat"
    BYPASS = "bypass"  # ports joined
    RELEASE = "release"  # ports apart, no watchdog: as a pair of ports that nobody keeps


BEATS_PER_WATCHDOG = 3  # two may be missed: one is noise


@dataclass(frozen=True, slots=True)
class Keeper:
    """``armed`` as far as we told it; ``beaten_at`` is the last beat. ``watchdog_ms`` 0: the relay has none."""

    watchdog_ms: int
    armed: bool = False
    beaten_at: float = 0.0

    @property
    def every_s(self) -> float:
        return self.watchdog_ms / 1000 / BEATS_PER_WATCHDOG


def keep(keeper: Keeper, *, alive: bool, now: float, joined: bool | None = None) -> tuple[Keeper, Act | None]:
    """``alive``: the box itself joins the ports, so that the relay need not. A keeper that is late finds its relay
    joined, for the watchdog has run out: it arms it anew, as it does when the relay says that it is ``joined``."""
    if not alive:
        return (replace(keeper, armed=False), Act.BYPASS) if keeper.armed or joined is False else (keeper, None)
    if not keeper.armed or joined or _late(keeper, now):
        return replace(keeper, armed=True, beaten_at=now), Act.ARM
    if keeper.watchdog_ms and now - keeper.beaten_at >= keeper.every_s:
        return replace(keeper, beaten_at=now), Act.BEAT
    return keeper, None


def _late(keeper: Keeper, now: float) -> bool:
    return bool(keeper.watchdog_ms) and now - keeper.beaten_at >= keeper.watchdog_ms / 1000
