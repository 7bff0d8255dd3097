"""Which messages of the queue, and what is shown of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Standing(Enum):
    """Of a message as a whole."""

    QUEUED = "queued"
    HELD = "held"  # by an administrator
    RETURNING = "returning"  # its sender will be told that it failed
    DEAD = "dead"  # nothing more to try, and nobody could be told


@dataclass(frozen=True, slots=True)
class Filter:
    """All that is given must fit. Addresses may hold `*`; case does not matter. ``before_at`` is of the arrival."""

    ids: tuple[str, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    standing: Standing | None = None
    before_at: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt for one recipient, as its `Outcome` said."""

    number: int
    at: float
    state: str
    code: int
    status: str
    reply: str
    host: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The queue in numbers. ``oldest_at`` is None when it is empty."""

    messages: int
    recipients: int
    content_bytes: int
    held: int
    dead: int
    oldest_at: float | None
