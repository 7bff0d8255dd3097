"""A filter that has failed again and again is left alone for a while: nobody waits for it then.

Pure. Times are seconds of any steady clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """Whether a filter is asked."""

    CLOSED = "works"
    OPEN = "left alone"
    TRIED = "tried again"  # one message is under way, and the others do not wait for it


@dataclass(slots=True)
class Breaker:
    """After ``failures`` in a row nobody asks for ``rest_s``; then one does."""

    failures: int = 5
    rest_s: float = 30.0
    failed: int = 0
    until_at: float = 0.0
    state: State = State.CLOSED

    def admits(self, now: float) -> bool:
        """Whether to ask; a yes is to be followed by `works` or `fails`."""
        if self.state is State.CLOSED:
            return True
        if now < self.until_at:
            return False
        self.state, self.until_at = State.TRIED, now + self.rest_s  # who does not come back is not waited for either
        return True

    def works(self) -> None:
        """It has answered."""
        self.failed, self.state = 0, State.CLOSED

    def fails(self, now: float) -> None:
        """It has not, or not sensibly."""
        self.failed += 1
        if self.failed >= self.failures or self.state is State.TRIED:
            self.state, self.until_at = State.OPEN, now + self.rest_s
