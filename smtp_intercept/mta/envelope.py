"""A message in the box's keeping: where it came from, its envelope, and what has become of each recipient.

Pure. The words that all parts of the MTA share; times are UTC seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto

from smtp_intercept.direction import Direction


class Notify(Flag):
    """When a recipient's sender wants to hear (RFC 3461 §4.1). `NEVER` excludes the others."""

    NEVER = 0
    SUCCESS = auto()
    FAILURE = auto()
    DELAY = auto()


# What a sender who asked for nothing gets (RFC 3461 §4.1 leaves DELAY to us).
USUAL = Notify.FAILURE | Notify.DELAY


class Body(Enum):
    """BODY= of MAIL (RFC 6152)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"


@dataclass(frozen=True, slots=True)
class Origin:
    """The connection that a message came by. ``client`` dialled ``server``, each (address, port); ``port`` is the one
    of arrival ("" if unknown), ``served`` the protected domains whose server was dialled. ``tls`` is the protocol's
    version, "" for none. ``away`` is the SO_MARK of a socket that dials ``server`` in the client's name, while the lane
    remembers the way; None: unknown. A message of our own (a DSN) has no client: `OURSELVES`."""

    client: tuple[str, int]
    server: tuple[str, int]
    direction: Direction
    port: str = ""
    served: tuple[str, ...] = ()
    helo: str = ""
    tls: str = ""
    away: int | None = None


OURSELVES = Origin(("", 0), ("", 0), Direction.LOCAL)


@dataclass(frozen=True, slots=True)
class Recipient:
    """``address`` is the mailbox without brackets and source route; ``original`` the ORCPT as it was given
    (RFC 3461 §4.2), or ""."""

    address: str
    notify: Notify = USUAL
    original: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """``reverse_path`` is "" for the null one. ``ret`` ("FULL", "HDRS" or "") and ``envid``: RFC 3461 §4.3, 4.4."""

    reverse_path: str
    recipients: tuple[Recipient, ...]
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


class State(Enum):
    """Of one recipient in the queue."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    FAILED = "failed"  # for good; its sender has been told, or was not to be
    DEAD = "dead"  # for good, and nobody could be told: kept until an administrator deletes it


@dataclass(frozen=True, slots=True)
class Queued:
    """One recipient in the queue. ``number`` is its place in the envelope, from 0; ``reply`` the last one from
    ``host``, in one line; ``next_at`` when it may be tried (again). A time before the message's arrival: an
    administrator wants it tried now, whatever is known of its destination."""

    number: int
    recipient: Recipient
    state: State
    attempts: int
    next_at: float
    reply: str = ""
    host: str = ""
    delay_told: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One message in the queue. ``content_bytes`` is the file's size, our Received: line included; ``held``: not tried
    until released; ``alternate``: a host ("name", "name:port", "[address]:port") that an administrator rerouted it to,
    or "". ``returning``: an administrator wants its queued recipients failed now, and the sender told. ``queued`` are
    all recipients when listed, those that are due when taken for delivery."""

    id: str
    received_at: float
    content_bytes: int
    origin: Origin
    envelope: Envelope
    queued: tuple[Queued, ...]
    held: bool = False
    alternate: str = ""
    returning: bool = False

    @property
    def due_at(self) -> float:
        """The place, among those taken for delivery, of one of them."""
        return 0.0 if self.returning else min(each.next_at for each in self.queued)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient at one attempt: ``code`` is the reply's (0: no reply, the network's or our own
    reason stands in ``reply``); ``status`` the enhanced one "x.y.z" (RFC 3463), ours where the server gave none.
    ``state`` is DELIVERED, FAILED, DEAD, or QUEUED for another attempt at ``next_at``. Without ``attempted`` nothing
    was tried: it is put off, or its sender told of the delay, and no attempt is counted or kept. ``dsn_taken``:
    delivered to a server that offers DSN, which tells the sender whatever was asked to be told (RFC 3461 §5.2.1)."""

    number: int
    state: State
    code: int
    status: str
    reply: str
    host: str = ""
    next_at: float = 0.0
    delay_told: bool = False
    attempted: bool = True
    dsn_taken: bool = False
