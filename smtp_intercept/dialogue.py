"""The conversation as tables: what each command asks of the reader, and what each final reply does.

Pure. Knows no bytes in flight and no sockets; `session` walks the streams and asks here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from types import MappingProxyType

from smtp_intercept.answers import Answer
from smtp_intercept.direction import Direction, Protection, message_direction
from smtp_intercept.policy import Notes
from smtp_intercept.wire import Command, clip, parse_chunk, parse_count, parse_path, safe_text

# Commands whose replies are owed. A client that pipelines further waits: each costs memory while the server sleeps.
MAX_OUTSTANDING = 512
# Few addresses are so long; of the others a client has no need to send many before it has read a reply.
LONG_NAME, MAX_LONG_OUTSTANDING = 64, 32
OWED_BYTES = 256  # about what one takes


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
    LHLO = auto()
    BURL = auto()
    VERB = auto()
    XEXCH50 = auto()
    VERDICT = auto()  # no command: on one recipient, after the data (PRDR, LMTP)
    HELD = auto()  # no command: content that the server does not have; its reply is not the server's to give yet
    WEB = auto()
    OTHER = auto()


# A browser can be made to send a message to any port: its commands are in the body of a request.
WEB = frozenset(b"GET HEAD POST PUT PATCH DELETE OPTIONS CONNECT TRACE PRI".split())
VERBS: Mapping[bytes, Verb] = MappingProxyType(
    {
        b"HELO": Verb.HELO,
        b"EHLO": Verb.EHLO,
        b"LHLO": Verb.LHLO,  # LMTP, RFC 2033: a server's own choice, even on port 25
        b"MAIL": Verb.MAIL,
        b"SEND": Verb.MAIL,  # RFC 821 §3.4: these three begin a transaction too
        b"SOML": Verb.MAIL,
        b"SAML": Verb.MAIL,
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
        b"BURL": Verb.BURL,
        b"VERB": Verb.VERB,
        b"XEXCH50": Verb.XEXCH50,
    }
    | dict.fromkeys(WEB, Verb.WEB)
)


class Reading(Enum):
    """What the client's next octets are."""

    __hash__ = object.__hash__  # members are unique; Enum hashes their names, slowly

    COMMAND = auto()
    CREDENTIALS = auto()  # one line of an AUTH exchange
    DATA = auto()
    CHUNK = auto()
    OCTETS = auto()  # as many as a command announced, and no content
    OVERLONG = auto()  # the rest of a line that does not cross
    ASKED = auto()  # a command that somebody is to decide upon
    JUDGED = auto()  # content that somebody is to decide upon has ended
    WAITING = auto()  # the reply to the last command decides
    LAYER_OR_COMMAND = auto()  # after AUTH: the next octet tells whether there is a security layer
    HELD = auto()  # after STARTTLS, or before the end that we have decided upon
    FULL = auto()  # commands, but too many replies are owed, or one that decides
    HELLO = auto()  # TLS from the start, or a security layer, if the server's first octet says so
    HANDSHAKE = auto()  # of TLS; the server has nothing to say before the client (RFC 8446 §4.1)
    OPAQUE = auto()
    OVER = auto()


# What follows a command before its reply; a verb that is not here is followed by the next command, BDAT by its chunk.
AFTER: Mapping[Verb, Reading] = MappingProxyType(
    {
        Verb.DATA: Reading.WAITING,
        Verb.AUTH: Reading.WAITING,
        Verb.TURN: Reading.WAITING,
        Verb.XEXCH50: Reading.WAITING,
        Verb.WEB: Reading.WAITING,
        Verb.STARTTLS: Reading.HELD,
    }
)


class Effect(Enum):
    """What a final reply does."""

    __hash__ = object.__hash__  # members are unique; Enum hashes their names, slowly

    NOTHING = auto()
    WELCOME = auto()  # the banner, whatever it says
    GREET = auto()  # HELO, EHLO, LHLO: a new start under a name
    RESTART = auto()  # XCLIENT: a new start without one
    MAIL = auto()
    RECIPIENT = auto()
    SEND_CONTENT = auto()
    REFUSE_CONTENT = auto()
    END_MESSAGE = auto()
    JUDGE_RECIPIENTS = auto()  # PRDR: one reply for each, then the message's own
    VERDICT = auto()  # one of them
    TAKE_CHUNK = auto()
    REFUSE_CHUNK = auto()
    TAKE_PART = auto()  # BURL
    REFUSE_PART = auto()
    SEND_OCTETS = auto()
    SEND_CREDENTIALS = auto()
    AUTHENTICATE = auto()
    BE_VERBOSE = auto()
    LEAVE_WEB = auto()
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
        Verb.CONTENT: (Effect.END_MESSAGE, Effect.JUDGE_RECIPIENTS, Effect.END_MESSAGE, Effect.END_MESSAGE),
        Verb.VERDICT: (Effect.VERDICT, _D, Effect.VERDICT, Effect.VERDICT),
        Verb.BDAT: (Effect.TAKE_CHUNK, Effect.JUDGE_RECIPIENTS, Effect.REFUSE_CHUNK, Effect.REFUSE_CHUNK),
        Verb.BURL: (Effect.TAKE_PART, Effect.JUDGE_RECIPIENTS, Effect.REFUSE_PART, Effect.REFUSE_PART),
        Verb.AUTH: (Effect.AUTHENTICATE, Effect.SEND_CREDENTIALS, Effect.RESUME, Effect.RESUME),
        Verb.STARTTLS: (Effect.START_TLS, _D, Effect.REFUSE_TLS, Effect.REFUSE_TLS),
        Verb.RSET: (Effect.RESET, _D, _N, _N),
        Verb.QUIT: (Effect.QUIT, _D, _N, _N),
        Verb.XCLIENT: (Effect.RESTART, _D, _N, _N),
        Verb.TURN: (_D, _D, Effect.RESUME, Effect.RESUME),
        Verb.LHLO: (Effect.GREET, _D, _N, _N),
        Verb.VERB: (Effect.BE_VERBOSE, _D, _N, _N),
        Verb.XEXCH50: (Effect.RESUME, Effect.SEND_OCTETS, Effect.RESUME, Effect.RESUME),
        Verb.HELD: (_D, _D, _D, _D),  # never asked: `matching` knows that it is nobody's yet
        Verb.WEB: (Effect.LEAVE_WEB, _D, Effect.LEAVE_WEB, Effect.LEAVE_WEB),
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
    host of HELO and EHLO; ``size_bytes`` of BDAT and XEXCH50 is None if its argument could not be read. ``last``: a
    message ends with it, and the end has crossed if ``ended``. ``silent``: the command was ours, so is the reply.
    ``prdr``: MAIL asked for a reply to each recipient. ``late``: the client heard 354 long ago. ``notes`` are the
    envelope's; ``token`` is the judge's for a recipient."""

    verb: Verb
    sent_at: float
    name: str = ""
    direction: Direction = Direction.OUTGOING
    size_bytes: int | None = None
    last: bool = False
    answer: Answer | None = None
    silent: bool = False
    ended: bool = False
    prdr: bool = False
    late: bool = False
    notes: Notes | None = None
    token: Hashable = None


def _owe_mail(verb: Verb, argument: bytes, protection: Protection, now: float) -> Owed:
    """Servers read parameters from the end, or from the path on, and those may have brackets too: wherever the word
    stands, it may have been meant."""
    owed, upper = Owed(verb, now, clip(parse_path(argument))), argument.upper()
    if b"PRDR" in upper:
        owed.prdr = b"PRDR" in upper.split()
    return owed


def _owe_recipient(verb: Verb, argument: bytes, protection: Protection, now: float) -> Owed:
    mailbox = parse_path(argument)
    return Owed(verb, now, clip(mailbox), message_direction(mailbox, protection))


def _owe_greeting(verb: Verb, argument: bytes, protection: Protection, now: float) -> Owed:
    return Owed(verb, now, clip(safe_text(argument)))


def _owe_chunk(verb: Verb, argument: bytes, protection: Protection, now: float) -> Owed:
    chunk = parse_chunk(argument)
    return Owed(verb, now, size_bytes=chunk.size_bytes, last=chunk.last) if chunk else Owed(verb, now)


def _owe_url(verb: Verb, argument: bytes, protection: Protection, now: float) -> Owed:
    last = argument.upper().split()[1:] == [b"LAST"]  # RFC 4468 §3
    return Owed(verb, now, last=last, ended=last)


def _owe_octets(verb: Verb, argument: bytes, protection: Protection, now: float) -> Owed:
    return Owed(verb, now, size_bytes=parse_count(argument))


# Of their arguments something is kept.
_ARGUED: Mapping[Verb, Callable[[Verb, bytes, Protection, float], Owed]] = {
    Verb.MAIL: _owe_mail,
    Verb.RCPT: _owe_recipient,
    Verb.HELO: _owe_greeting,
    Verb.EHLO: _owe_greeting,
    Verb.LHLO: _owe_greeting,
    Verb.BDAT: _owe_chunk,
    Verb.BURL: _owe_url,
    Verb.XEXCH50: _owe_octets,
}
_OTHER, _VERBS = Verb.OTHER, dict(VERBS)  # asked for with every command: see `session`


def owe(command: Command, protection: Protection, now: float) -> Owed:
    """The reply that the server owes to a command."""
    verb = _VERBS.get(command.verb, _OTHER)
    argued = _ARGUED.get(verb)
    return Owed(verb, now) if argued is None else argued(verb, command.argument, protection, now)
