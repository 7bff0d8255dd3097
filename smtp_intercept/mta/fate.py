"""What became of recipients, and of which message: the words that notices and those who ask for them share. Pure."""

from __future__ import annotations

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

    @property
    def answer(self) -> str:
        """What the host said, its code in front."""
        return self.reply if self.reply.startswith(str(self.code)) else f"{self.code} {self.reply}"


@dataclass(frozen=True, slots=True)
class Original:
    """The message spoken of. ``head`` is the beginning of its content, `quoted.bytes_needed` octets of it if there are
    as many; ``content_bytes`` its whole size."""

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
