"""The conversation as tables: what each command asks of the reader, and what each final reply does.

Pure. Knows no bytes in flight and no sockets; `session` walks the streams and asks here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from types import MappingProxyType

from smtp_intercept.answers import Answer
from smtp_intercept.direction import Direction, Protection, message_direction
from smtp_intercept.wire import Command, clip, parse_chunk, parse_path, safe_text

# Commands whose replies are owed. A client that pipelines further waits: each costs memory while the server sleeps.
MAX_OUTSTANDING = 2_000


class Verb(Enum):
    """What can be owed a reply. CONNECT and CONTENT are no commands: the banner, and the end of data."""

    __hash__ = object.__hash__  # members are unique; Enum hashes their names, slowly

    CONNECT = auto()
    HELO = auto()
    EHLO = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    CONTENT = auto()
    BDAT = auto()
    AUTH = auto()
    STARTTLS = auto()
    RSET = auto()
    QUIT = auto()
    XCLIENT = auto()
    TURN = auto()
    OTHER = auto()


VERBS: Mapping[bytes, Verb] = MappingProxyType(
    {
        b"HELO": Verb.HELO,
        b"EHLO": Verb.EHLO,
        b"MAIL": Verb.MAIL,
        b"RCPT": Verb.RCPT,
        b"DATA": Verb.DATA,
        b"BDAT": Verb.BDAT,
        b"AUTH": Verb.AUTH,
        b"X-EXPS": Verb.AUTH,  # Exchange's name for it
        b"STARTTLS": Verb.STARTTLS,
        b"X-ANONYMOUSTLS": Verb.STARTTLS,  # Exchange's own, between its hubs
        b"RSET": Verb.RSET,
        b"QUIT": Verb.QUIT,
        b"XCLIENT": Verb.XCLIENT,
        b"TURN": Verb.TURN,
        b"ATRN": Verb.TURN,  # RFC 2645: after a 250 the server speaks as the client
    }
)


class Reading(Enum):
    """What the client's next octets are."""

    __hash__ = object.__hash__  # members are unique; Enum hashes their names, slowly

    COMMAND = auto()
    CREDENTIALS = auto()  # one line of an AUTH exchange
    DATA = auto()
    CHUNK = auto()
    WAITING = auto()  # the reply to the last command decides
    CHUNK_OR_COMMAND = auto()  # likewise, after a BDAT that the server did not offer: the octets cross meanwhile
    HELD = auto()  # after STARTTLS, or before the end that we have decided upon
    FULL = auto()  # commands, but too many replies are owed
    HANDSHAKE = auto()  # of TLS; the server has nothing to say before the client (RFC 8446 §4.1)
    OPAQUE = auto()
    OVER = auto()


# What follows a command before its reply; a verb that is not here is followed by the next command. BDAT is followed
# by its chunk if the server offered CHUNKING.
AFTER: Mapping[Verb, Reading] = MappingProxyType(
    {
        Verb.DATA: Reading.WAITING,
        Verb.BDAT: Reading.CHUNK_OR_COMMAND,
        Verb.AUTH: Reading.WAITING,
        Verb.TURN: Reading.WAITING,
        Verb.STARTTLS: Reading.HELD,
    }
)


class Effect(Enum):
    """What a final reply does."""

    __hash__ = object.__hash__  # members are unique; Enum hashes their names, slowly

    NOTHING = auto()
    WELCOME = auto()  # the banner, whatever it says
    GREET = auto()  # HELO, EHLO: a new start under a name
    RESTART = auto()  # XCLIENT: a new start without one
    MAIL = auto()
    RECIPIENT = auto()
    SEND_CONTENT = auto()
    REFUSE_CONTENT = auto()
    END_MESSAGE = auto()
    TAKE_CHUNK = auto()
    REFUSE_CHUNK = auto()
    SEND_CREDENTIALS = auto()
    RESUME = auto()  # the next octets are commands after all
    START_TLS = auto()
    REFUSE_TLS = auto()
    RESET = auto()
    QUIT = auto()
    DOUBT = auto()


_N, _D = Effect.NOTHING, Effect.DOUBT
# By the first digit of the code, RFC 5321 §4.2.1: 2yz, 3yz, 4yz, 5yz.
_EFFECTS: Mapping[Verb, tuple[Effect, Effect, Effect, Effect]] = MappingProxyType(
    {
        Verb.CONNECT: (Effect.WELCOME, _D, Effect.WELCOME, Effect.WELCOME),
        Verb.HELO: (Effect.GREET, _D, _N, _N),
        Verb.EHLO: (Effect.GREET, _D, _N, _N),
        Verb.MAIL: (Effect.MAIL, _D, Effect.MAIL, Effect.MAIL),
        Verb.RCPT: (Effect.RECIPIENT, _D, Effect.RECIPIENT, Effect.RECIPIENT),
        Verb.DATA: (_D, Effect.SEND_CONTENT, Effect.REFUSE_CONTENT, Effect.REFUSE_CONTENT),
        Verb.CONTENT: (Effect.END_MESSAGE, _D, Effect.END_MESSAGE, Effect.END_MESSAGE),
        Verb.BDAT: (Effect.TAKE_CHUNK, _D, Effect.REFUSE_CHUNK, Effect.REFUSE_CHUNK),
        Verb.AUTH: (Effect.RESUME, Effect.SEND_CREDENTIALS, Effect.RESUME, Effect.RESUME),
        Verb.STARTTLS: (Effect.START_TLS, _D, Effect.REFUSE_TLS, Effect.REFUSE_TLS),
        Verb.RSET: (Effect.RESET, _D, _N, _N),
        Verb.QUIT: (Effect.QUIT, _D, _N, _N),
        Verb.XCLIENT: (Effect.RESTART, _D, _N, _N),
        Verb.TURN: (_D, _D, Effect.RESUME, Effect.RESUME),
        Verb.OTHER: (_N, _D, _N, _N),
    }
)
# A verb unknown to us that is answered "ready" may have begun a dialogue unknown to us.
_EXCEPTIONS: Mapping[tuple[Verb, int], Effect] = MappingProxyType({(Verb.OTHER, 220): _D})


@cache
def effect(verb: Verb, code: int) -> Effect:
    """What the final reply ``code`` (200-599) to ``verb`` does."""
    return _EXCEPTIONS.get((verb, code)) or _EFFECTS[verb][code // 100 - 2]


@dataclass(slots=True)
class Owed:
    """A command that awaits its reply: the server's, or our ``answer``. ``name`` is the mailbox of MAIL and RCPT or the
    host of HELO and EHLO; ``size_bytes`` of BDAT is None if its argument could not be read. ``silent``: the command was
    ours, so is the reply."""

    verb: Verb
    sent_at: float
    name: str = ""
    direction: Direction = Direction.OUTGOING
    size_bytes: int | None = None
    last: bool = False
    answer: Answer | None = None
    silent: bool = False


def _owe_mail(verb: Verb, argument: bytes, protection: Protection, now: float) -> Owed:
    return Owed(verb, now, clip(parse_path(argument)))


def _owe_recipient(verb: Verb, argument: bytes, protection: Protection, now: float) -> Owed:
    mailbox = parse_path(argument)
    return Owed(verb, now, clip(mailbox), message_direction(mailbox, protection))


def _owe_greeting(verb: Verb, argument: bytes, protection: Protection, now: float) -> Owed:
    return Owed(verb, now, clip(safe_text(argument)))


def _owe_chunk(verb: Verb, argument: bytes, protection: Protection, now: float) -> Owed:
    chunk = parse_chunk(argument)
    return Owed(verb, now, size_bytes=chunk.size_bytes, last=chunk.last) if chunk else Owed(verb, now)


# Of their arguments something is kept.
_ARGUED: Mapping[Verb, Callable[[Verb, bytes, Protection, float], Owed]] = MappingProxyType(
    {
        Verb.MAIL: _owe_mail,
        Verb.RCPT: _owe_recipient,
        Verb.HELO: _owe_greeting,
        Verb.EHLO: _owe_greeting,
        Verb.BDAT: _owe_chunk,
    }
)
_OTHER = Verb.OTHER


def owe(command: Command, protection: Protection, now: float) -> Owed:
    """The reply that the server owes to a command."""
    verb = VERBS.get(command.verb, _OTHER)
    argued = _ARGUED.get(verb)
    return Owed(verb, now) if argued is None else argued(verb, command.argument, protection, now)
