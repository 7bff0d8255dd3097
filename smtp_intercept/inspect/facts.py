"""What is known of a session and its message when rules are asked: it grows from stage to stage.

Pure data. What is not known yet is None; nobody guesses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, NamedTuple, TypeAlias

from smtp_intercept.direction import Direction, Network
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


class Source(Enum):
    """Who is asked for what a session does not say of itself, and what for. The values name them between processes."""

    CLIENT = "client"  # the forward-confirmed names of an address
    HOST = "host"  # whether a name has an address
    MAIL = "mail"  # whether a domain takes mail
    LIST = "list"  # the addresses of a name in a list's zone
    PARTS = "parts"  # what is in a message


@dataclass(frozen=True, slots=True)
class Lookup:
    """One question. ``wait_s``: without an answer for so long there is none. ``group``: those who may be slow together
    (a list's zone)."""

    source: Source
    name: str
    wait_s: float = field(default=5.0, compare=False)
    group: str = field(default="", compare=False)


# What was found, which may be nothing; None: nobody could say in time.
Reply: TypeAlias = tuple[str, ...] | None


class State(Enum):
    """Of an answer from outside."""

    KNOWN = "known"
    UNANSWERED = "not known in time"
    MISSING = "not asked yet"


class Told(NamedTuple):
    """An answer from outside: the values that there are, and whether there may be more; ``each``: of which entries."""

    values: tuple[Any, ...] = ()
    state: State = State.KNOWN
    each: Mapping[Any, State] = {}


@dataclass(frozen=True, slots=True)
class DnsList:
    """A list in the DNS (RFC 5782). ``answers``: of its addresses those that count."""

    zone: str
    answers: tuple[Network, ...]
    wait_s: float = 3.0


@dataclass(frozen=True, slots=True)
class Outside:
    """Who may be asked: lists by their names. ``wait_s`` is for a name, ``look_s`` for a look into a message."""

    lists: Mapping[str, DnsList] = field(default_factory=dict)
    wait_s: float = 5.0
    look_s: float = 30.0


NOBODY = Outside()


@dataclass(slots=True)  # not frozen: a judge writes down what it learns
class Facts:
    """``recipient`` and ``message`` (its direction) are of the one recipient that is looked at; ``recipients`` is how
    many there are; ``declared_bytes`` is MAIL's SIZE; ``replies`` are those from ``outside``;
    ``user`` is "" for nobody."""

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
    outside: Outside = NOBODY
    replies: Mapping[Lookup, Reply] = field(default_factory=dict)
