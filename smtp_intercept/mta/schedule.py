"""When a message in the queue is tried again, when its sender hears that it is late, and when the box gives up.

Pure. The clock and chance are arguments; whether a destination is worth an attempt is `destinations`' to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from smtp_intercept.mta.envelope import Entry, Notify, Queued


@dataclass(frozen=True, slots=True)
class Schedule:
    """Times in seconds from the message's arrival, waits from an attempt to the next."""

    first_s: float = 1_620.0  # 27 min, the reference's
    most_s: float = 14_400.0  # 4 h: a server that comes back in the morning has its mail by noon
    factor: float = 1.5  # Exim's: about 30 attempts in five days
    jitter: float = 0.1  # of the wait, on top: mail that failed together does not come back together
    delay_notice_s: float = 14_400.0  # 0: none
    give_up_s: float = 432_000.0  # 5 days, RFC 5321 §4.5.4.1
    dsn_give_up_s: float = 432_000.0  # for null reverse-paths; 0: one attempt

    @property
    def longest_s(self) -> float:
        """No wait is longer."""
        return max(self.first_s, self.most_s) * (1 + self.jitter)

    def expires_at(self, entry: Entry) -> float:
        """A temporary failure at or after this time is for good."""
        return entry.received_at + (self.give_up_s if entry.envelope.reverse_path else self.dsn_give_up_s)

    def notice_at(self, entry: Entry) -> float:
        """From this time on the sender is told that the message is late; infinity if never."""
        told = self.delay_notice_s and entry.envelope.reverse_path
        return entry.received_at + self.delay_notice_s if told else math.inf

    def is_late(self, entry: Entry, queued: Queued, now: float) -> bool:
        """Whether this recipient's sender has to hear of the delay now; once for each recipient."""
        asked = Notify.DELAY in queued.recipient.notify
        return asked and not queued.delay_told and now >= self.notice_at(entry)

    def wait_s(self, attempts: int, fraction: float) -> float:
        """After so many attempts (from 1); ``fraction`` in [0, 1) is chance."""
        # The exponent is bounded: a float overflows beyond 1.5^1750.
        grown = self.first_s * self.factor ** min(max(attempts, 1) - 1, 64)
        return min(grown, self.most_s) * (1 + self.jitter * fraction)

    def next_at(self, entry: Entry, attempts: int, now: float, fraction: float) -> float | None:
        """When to try again after a temporary failure at ``now``; None: give up."""
        return self.put_off(entry, now + self.wait_s(attempts, fraction), now)

    def put_off(self, entry: Entry, until_at: float, now: float) -> float | None:
        """``until_at``, but nobody waits past the time of the delay notice or of the end: there is an attempt then, and
        the one at the end is the last. None: that was it."""
        if now >= self.expires_at(entry):
            return None
        ahead = (at for at in (self.notice_at(entry), self.expires_at(entry)) if at > now)
        return min(until_at, *ahead)
