"""Why mail could not be handed over at all: for now or for good, and in which words.

Pure. What the DNS, a connection and a server's greeting have in common when they fail.
"""

from __future__ import annotations

from dataclasses import dataclass

from smtp_intercept.mta.envelope import Outcome, State


@dataclass(frozen=True, slots=True)
class Failure:
    """``state`` is QUEUED (try again later) or FAILED; ``status`` as RFC 3463; ``code`` the reply's, 0 without one;
    ``host`` whose failure it was."""

    state: State
    status: str
    reply: str
    code: int = 0
    host: str = ""

    def of(self, number: int) -> Outcome:
        """What it means for one recipient."""
        return Outcome(number, self.state, self.code, self.status, self.reply, self.host)


def for_now(status: str, reply: str, host: str = "") -> Failure:
    """Our own reason to try again later."""
    return Failure(State.QUEUED, status, reply, host=host)


def for_good(status: str, reply: str, host: str = "") -> Failure:
    """Our own reason to give up."""
    return Failure(State.FAILED, status, reply, host=host)
