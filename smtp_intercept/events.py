"""What a session tells its shell to do, and why it may stop following a dialogue.

Pure data. Not frozen, those that come with every read, nor the records that they are made of: a frozen dataclass sets
its fields by `object.__setattr__`, at three times the cost. Nobody changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from smtp_intercept.policy import Body, Question
from smtp_intercept.transaction import Message


class Side(Enum):
    """Who is to blame for a doubt."""

    CLIENT = "client"
    SERVER = "server"


class Doubt(Enum):
    """Why a dialogue cannot be followed any more."""

    # The client's: it began what has no lines, or brought the server to it.
    FOREIGN = "client speaks first and not SMTP"
    PROXIED = "PROXY protocol from an address that is not in intercept.balancers, or a broken header"
    WEB = "client speaks HTTP"
    UNEXPECTED = "reply that its command does not have"
    EARLY = "message accepted before its end"
    CUT = "message behind credentials so long that some servers cut them"
    NO_LAYER = "security layer that the server does not have"
    # The server's, unless the client had sent what servers read in different ways.
    LONG_REPLY = "reply line too long"
    GARBAGE = "reply without a code"
    SURPLUS = "reply without a command"
    BANNER = "banner that is none"


# The client speaks another protocol.
FOREIGNERS = frozenset({Doubt.FOREIGN, Doubt.PROXIED, Doubt.WEB})
SERVERS = frozenset({Doubt.LONG_REPLY, Doubt.GARBAGE, Doubt.SURPLUS, Doubt.BANNER})


@dataclass(slots=True)
class ToServer:
    data: bytes


@dataclass(slots=True)
class ToClient:
    data: bytes


@dataclass(frozen=True, slots=True)
class EndServer:
    """The client has sent its last octet: half-close the server's leg."""


@dataclass(frozen=True, slots=True)
class EndClient:
    """The server has sent its last octet: half-close the client's leg."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Reset both legs; the session takes no more events but `Session.finish`."""

    reason: str


@dataclass(frozen=True, slots=True)
class DropServer:
    """Reset the server's leg; the session goes on with the client alone."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The client has been told all: half-close its leg, take what it still sends and throw it away, reset the server's.
    The session takes no more events but `Session.finish`."""

    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Do not read the client before then."""

    until_at: float


@dataclass(frozen=True, slots=True)
class Announced:
    """A balancer says for whom it speaks: address and port."""

    client: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Asking:
    """Nobody has answered this at once: `Session.told` is waited for."""

    question: Question


@dataclass(slots=True)
class Hold:
    """Keep this behind what is kept already: content that nobody has but the box."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Release:
    """Send the server what is kept, its header as ``edit`` makes it, with another ``body`` if there is one;
    ``chunked``: as one BDAT, which is said first. What is sent afterwards comes behind it."""

    edit: Callable[[bytes], bytes] | None
    chunked: bool
    body: Body | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """Nobody will have what is kept."""


@dataclass(frozen=True, slots=True)
class Encrypt:
    """The client may begin its handshake, or has begun: `Session.encrypted`, `left_alone` or `broken` is waited for,
    and none of its octets are the session's until then."""

    hello: bytes = b""


@dataclass(slots=True)
class MessageDone:
    record: Message


Order: TypeAlias = (
    Abort | Announced | DropServer | Leave | Pause | Asking | Hold | Release | Forget | Encrypt | ToServer
)  # of a conversation's
Out: TypeAlias = Order | ToClient | EndServer | EndClient | MessageDone
