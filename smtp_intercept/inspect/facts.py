"""What is known of a session and its message when rules are asked: it grows from stage to stage.

Pure data. What is not known yet is None; nobody guesses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from smtp_intercept.direction import Direction
from smtp_intercept.inspect.patterns import Mailbox

MINUTES_A_DAY = 24 * 60
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Known(IntEnum):
    """When something is known, in the order of a session. Everything known at one stage is known at the next."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3  # of one recipient
    DATA = 4  # all recipients have been named
    MESSAGE = 5  # the content has come whole


@dataclass(frozen=True, slots=True)
class Connection:
    """``client`` and ``server`` are packed addresses; ``minute`` counts from Monday 0:00, in the box's own time."""

    direction: Direction
    client: bytes
    server: bytes
    port: str = ""
    vlan: int = 0
    minute: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """``header`` has the decoded values of each field, by its name in small letters; ``size_bytes`` is as sent."""

    header: Mapping[str, tuple[str, ...]]
    size_bytes: int


@dataclass(slots=True)  # not frozen: a judge writes down what it learns
class Facts:
    """``recipient`` and ``message`` (its direction) are of the one recipient that is looked at; ``recipients`` is how
    many there are; ``declared_bytes`` is MAIL's SIZE; ``user`` is "" for nobody."""

    connection: Connection
    helo: str | None = None
    authenticated: bool | None = None
    sender: Mailbox | None = None
    declared_bytes: int | None = None
    recipient: Mailbox | None = None
    message: Direction | None = None
    recipients: int | None = None
    content: Content | None = None
    user: str | None = None
