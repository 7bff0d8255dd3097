"""What receiving needs from the rest of the MTA, and the limits of what it takes. Does nothing itself."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from smtp_intercept.answers import Answer
from smtp_intercept.direction import Direction
from smtp_intercept.inspect.held import nowhere
from smtp_intercept.limits import DEFAULT_LIMITS, Limits
from smtp_intercept.milter.course import Course
from smtp_intercept.mta.envelope import Envelope, Origin
from smtp_intercept.passage import Passage
from smtp_intercept.policy import NOT_DECIDED, Decider, Ruling


class Draft(Protocol):
    """Content being written; from one thread at a time."""

    def write(self, data: bytes) -> None:
        """May wait for the disk; a temporary `SpoolError`: abandon it."""

    def abandon(self) -> None:
        """Nothing is left of it. Safe to repeat; never behind `Spool.enqueue`, whose the content is then."""


class Spool(Protocol):
    """Where messages are kept."""

    def draft(self) -> Draft:
        """`SpoolFullError` if there is no room."""

    async def enqueue(self, draft: Any, origin: Origin, envelope: Envelope, now: float) -> str:
        """The message's id once it is safe; a temporary `SpoolError` otherwise. ``draft``, one of its own, is used up
        either way."""


@dataclass(frozen=True, slots=True)
class Intake:
    """What a message may be; 0 is no limit, except for hops."""

    # Postfix takes 10 MB, Exim 50: what the server behind us refuses comes back to the sender as a bounce.
    size_bytes: int = 52_428_800
    hops: int = 100  # RFC 5321 §6.3
    reject_bare_newline: bool = True  # an end that other servers may see where we see none: SMTP smuggling
    # However slowly it comes: beyond it an octet now and then would hold a session for weeks.
    content_s: float = 10_800.0
    # The rest of content that is refused already; then the client hears so, and the connection is closed.
    swallow_s: float = 120.0


async def _unverified(origin: Origin, mailbox: str) -> None:
    """Nobody is asked."""


@dataclass(frozen=True, slots=True)
class Services:
    """What a session needs. ``admission``: the refusal of a recipient, None if it is taken; ``verify``: that of one
    which is, by the server that would get it. ``direction`` of a message
    to one, for the log. ``room_bytes``: how large a message would still fit. ``balancer``: this client's PROXY
    protocol is believed. ``clock`` gives UTC seconds. ``judge`` gives who decides about a connection's mail,
    ``silence`` is their answer that does not come; ``course`` adds the filters that they name; ``spill`` opens a file
    for content that must be seen first."""

    spool: Spool
    admission: Callable[[Origin, str], Answer | None]
    direction: Callable[[Origin, str], Direction]
    hostname: str
    log: Callable[[dict[str, Any]], None]
    balancer: Callable[[str], bool] = lambda address: False
    certificate: ssl.SSLContext | None = None
    room_bytes: Callable[[], float] = lambda: float("inf")
    intake: Intake = Intake()
    limits: Limits = DEFAULT_LIMITS
    clock: Callable[[], float] = time.time
    verify: Callable[[Origin, str], Awaitable[Answer | None]] = _unverified
    judge: Callable[[Passage], Decider] | None = None
    silence: Ruling = NOT_DECIDED
    course: Callable[[Passage, Decider], Course] | None = None
    spill: Callable[[], int] = nowhere
