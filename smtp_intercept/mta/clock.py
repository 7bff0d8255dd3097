"""The wall clock against one that cannot be set: a queue that lives for days must outlive every time it is set.

Pure. A clock that is set changes nothing about how long a message has waited; only the reading of its arrival.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from smtp_intercept.mta.envelope import Entry

# Shorter steps (a clock corrected at boot, a second too many) do no harm to mail that has days.
STEP_S = 3600.0
# No mail came before this software was made (2026-01-01): a clock that says so has not been set yet.
MADE_AT = 1_767_225_600.0


@dataclass(frozen=True, slots=True)
class Step:
    """The clock was set between ``before_at``, its last reading, and ``now``, the first one that was seen after it;
    ``by_s`` forward, or backward if negative. UTC seconds."""

    before_at: float
    now: float
    by_s: float

    def concerns(self, received_at: float) -> bool:
        """Whether this was read before the step: what came since reads as the new clock does."""
        since_at = min(self.before_at + self.by_s, self.now)
        return received_at <= self.before_at and not since_at <= received_at <= self.now


@dataclass(slots=True)
class Clocks:
    """Compares at every look. ``steady`` counts on while the box sleeps (CLOCK_BOOTTIME), and is never set."""

    _last: tuple[float, float] | None = None

    def step(self, wall: float, steady: float) -> Step | None:
        """The step since the last call, if there was one."""
        last, self._last = self._last, (wall, steady)
        if last is None:
            return None
        by_s = (wall - last[0]) - (steady - last[1])
        return Step(last[0], wall, by_s) if abs(by_s) >= STEP_S else None


def corrected(entry: Entry, steps: list[Step]) -> Entry:
    """The message as the new clock reads its arrival."""
    for step in steps:
        if step.concerns(entry.received_at):
            entry = replace(entry, received_at=entry.received_at + step.by_s)
    return entry
