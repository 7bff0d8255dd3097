"""What is said again and again is said so often a minute, and then counted.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from bridge.client import client_of

WINDOW_S = 60.0
KEYS = 4096  # that are told apart in one window; what comes beyond them is one together
OTHERS = "others"
# Outcomes of messages that nobody has, and nobody may have.
_NOTHING = frozenset({"rejected", "deferred", "aborted"})


@dataclass(slots=True)
class Repetition:
    """``each`` of one key in a window, ``together`` of all; 0 is without bound."""

    each: int
    together: int = 0
    _began_at: float = 0.0
    _seen: Counter[str] = field(default_factory=Counter)
    _passed: int = 0
    _kept_back: Counter[str] = field(default_factory=Counter)

    def admits(self, key: str, now: float) -> bool:
        """Whether it is to be said; else it is counted."""
        if now - self._began_at >= WINDOW_S and not self._kept_back:
            self._begin(now)
        if key not in self._seen and len(self._seen) >= KEYS:
            key = OTHERS
        self._seen[key] += 1
        if (self.each and self._seen[key] > self.each) or (self.together and self._passed >= self.together):
            self._kept_back[key] += 1
            return False
        self._passed += 1
        return True

    def over(self, now: float) -> dict[str, int]:
        """How many of each key were kept back in a window that has ended; once."""
        if now - self._began_at < WINDOW_S or not self._kept_back:
            return {}
        found = dict(self._kept_back)
        self._begin(now)
        return found

    def _begin(self, now: float) -> None:
        self._began_at, self._passed = now, 0
        self._seen, self._kept_back = Counter(), Counter()


class Weight(Enum):
    """A record of the mail log that came to nothing; one that may be all that is known of mail; one that matters."""

    TRIFLE = auto()
    MAYBE = auto()
    MATTER = auto()


# Of what may be all that is known of mail, so many times as many are written as of trifles: no network has a hundred
# encrypted sessions a second of its own, but who presses.
MAYBE_TIMES = 10


class Worth:
    """Tells records of the mail log that matter from those of which anybody can make any number."""

    def __init__(self) -> None:
        self._carried = set[str]()  # sessions that have had a message accepted

    def of(self, record: Mapping[str, Any]) -> tuple[Weight, str]:
        """With of whom and what it is one more; "" for one that matters: of an accepted message, of its session, of a
        delivery, of a notice."""
        match record.get("type"):
            case "message" if record["outcome"] in _NOTHING:
                return Weight.TRIFLE, f"message {record['session']} {record['outcome']}"
            case "message":
                self._carried.add(record["session"])
            case "session" if record["session"] in self._carried:
                self._carried.remove(record["session"])
            case "session" if record["handler"] == "proxy" and (record["tls"] == "started" or record["sasl_layer"]):
                return Weight.MAYBE, _session(record)  # all that is ever known of its messages
            case "session":
                return Weight.TRIFLE, _session(record)
        return Weight.MATTER, ""


def _session(record: Mapping[str, Any]) -> str:
    return f"session {client_of(record['client']['address']).network} {record['outcome']}"
