"""When the diverter may say that the gateway is alive, and what a SYN meets when it is not. Pure: time is an argument.

The kernel forgets a beat after `bridge.lane.LIVE_TIMEOUT_S`; a beat is sent only for a canary that has come back, and
only while both processes have proven themselves by turning their own loops.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PROOF_MAX_AGE_S = 1.0  # the interceptor proves itself five times in this
STALL_S = 1.0  # a SYN that waited longer has been repeated by its client, perhaps past us

NEVER = float("-inf")


@dataclass(slots=True)
class DeadMansSwitch:
    """Times in seconds of one monotonic clock that all processes share. The interceptor may be several ``worker``s
    that accept from the same listeners: while one of them is alive, every connection is served."""

    _proofs: dict[int, tuple[float, bool]] = field(default_factory=dict)
    _turned_at: float = NEVER

    def prove(self, at: float, *, accepting: bool, worker: int = 0) -> None:
        """The interceptor turned its loop ``at`` that time, and says whether it can take a connection."""
        if at >= self._proofs.get(worker, (NEVER, False))[0]:
            self._proofs[worker] = at, accepting

    def turn(self, now: float) -> bool:
        """The diverter turned its own loop. True if it had stood still: what waited in the queue is stale."""
        stalled = self._turned_at is not NEVER and now - self._turned_at > STALL_S
        self._turned_at = now
        return stalled

    def alive(self, now: float) -> bool:
        """Whether the interceptor has proven itself of late."""
        return any(now - at <= PROOF_MAX_AGE_S for at, _ in self._proofs.values())

    def accepting(self, now: float) -> bool:
        """Whether one that is alive can take a connection."""
        return any(accepting and now - at <= PROOF_MAX_AGE_S for at, accepting in self._proofs.values())
