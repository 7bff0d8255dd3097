"""Delivery status notifications: what a sender is told about recipients (RFC 3464, 3461, 6533).

Pure. Composes a message; never decides when. Whatever strangers wrote - addresses, replies, headers, the whole
original - comes out clean and bounded, and adds no header of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from smtp_intercept.mta.envelope import Envelope, Recipient


class Action(Enum):
    """RFC 3464 §2.3.3. Relayed: handed to a host that will not tell the sender (RFC 3461 §5.2.1)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class Fate:
    """Of one recipient. ``host``, ``code``, ``status`` and ``reply`` are its last attempt's (`Outcome`), ``attempts``
    how many there were; ``retry_until_at`` for DELAYED only; ``gave_up``: failed by age alone."""

    recipient: Recipient
    action: Action
    status: str
    code: int
    reply: str
    host: str
    attempts: int
    tried_at: float
    retry_until_at: float = 0.0
    gave_up: bool = False


@dataclass(frozen=True, slots=True)
class Original:
    """The message spoken of. ``head`` is the beginning of its content, `HEAD_BYTES` at least if there is as much;
    ``content_bytes`` its whole size."""

    id: str
    received_at: float
    helo: str
    envelope: Envelope
    head: bytes
    content_bytes: int


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who speaks: ``address`` is MAILER-DAEMON@hostname if empty."""

    hostname: str
    address: str = ""
    name: str = "Mail Delivery System"


@dataclass(frozen=True, slots=True)
class Notice:
    """Ready for the queue: the null reverse-path, one recipient."""

    content: bytes
    envelope: Envelope


def wanted(envelope: Envelope, recipient: Recipient, action: Action) -> bool:
    """Whether the sender wants to hear of this (RFC 3461 §4.1); the null one never does (RFC 5321 §4.5.5)."""
    raise NotImplementedError


def bytes_needed(envelope: Envelope, content_bytes: int, fates: Sequence[Fate]) -> int:
    """How much of the content's beginning `compose` would like to have."""
    raise NotImplementedError


def compose(original: Original, fates: Sequence[Fate], reporter: Reporter, token: str, now: float) -> Notice:
    """One message to the sender about all ``fates`` (not empty). ``token``: letters and digits that nobody guesses, for
    the Message-ID and the boundaries."""
    raise NotImplementedError
