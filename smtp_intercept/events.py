"""What a session tells its shell to do, and why it may stop following a dialogue.

Pure data. Not frozen, those that come with every read, nor the records that they are made of: a frozen dataclass sets
its fields by `object.__setattr__`, at three times the cost. Nobody changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from smtp_intercept.transaction import Message


class Doubt(Enum):
    """Why a dialogue is not followed any more."""

    FOREIGN = "client speaks first and not SMTP"
    LONG_COMMAND = "command line too long"
    LONG_REPLY = "reply line too long"
    GARBAGE = "reply without a code"
    SURPLUS = "reply without a command"
    UNEXPECTED = "reply that its command does not have"
    EARLY = "message accepted before its end"
    CHUNK = "chunk that the server did not offer to take"


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


@dataclass(slots=True)
class MessageDone:
    record: Message


Out: TypeAlias = ToServer | ToClient | EndServer | EndClient | Abort | DropServer | Leave | Pause | MessageDone
