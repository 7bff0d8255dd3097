"""The seam between a session and whoever decides about its mail: what is asked at each stage, and what may be answered.

Pure. A judge may answer at once, or later: until then the session reads on within bounds, and nothing that the answer
may stop goes any further.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from types import MappingProxyType
from typing import Protocol, TypeAlias

from smtp_intercept import answers
from smtp_intercept.answers import Answer

# RFC 5321 §4.5.3.1.5: a reply line of 512 octets with code and CRLF.
MAX_TEXT_CHARACTERS = 500
MAX_NAMED = 20  # rules that one record of the mail log names


class Stage(Enum):
    """When a judge is asked."""

    __hash__ = object.__hash__  # members are unique; Enum hashes their names, slowly

    CONNECT = auto()
    HELO = auto()  # HELO and EHLO
    MAIL = auto()
    RCPT = auto()  # once for each
    DATA = auto()  # or the first BDAT
    MESSAGE = auto()  # the end has come


class Need(IntEnum):
    """What of a message's content the judge must have."""

    NOTHING = 0
    LOOK = 1  # in passing: nothing will come of it
    HOLD = 2  # before the server has any of it


@dataclass(slots=True)  # not frozen, as what comes with every command: see `events`
class Question:
    """What is known at a stage; what is not known yet is empty. ``client`` is who a balancer speaks for; ``parameters``
    are MAIL's, in capitals; ``argument`` is MAIL's or RCPT's as it came; ``tokens`` are the judge's own for the
    recipients that the server has accepted, at DATA for all that may be; ``recipients`` is how many were named, this
    one included. ``header`` is as it was written (dots single); ``size_bytes`` as sent; ``content`` gives the whole,
    dots single, in pieces, where it is held, ``lend`` opens it as it is held: ``dotted`` as DATA has it. ``user`` is
    who has given a password, if it was seen."""

    stage: Stage
    client: str = ""
    helo: str = ""
    authenticated: bool = False
    sender: str = ""
    parameters: bytes = b""
    recipient: str = ""
    recipients: int = 0
    tokens: frozenset[Hashable] = frozenset()
    header: bytes = b""
    size_bytes: int = 0
    user: str = ""
    argument: bytes = b""
    content: Callable[[], Iterator[bytes]] | None = field(default=None, compare=False)  # where, not what
    lend: Callable[[], int] | None = field(default=None, compare=False)
    dotted: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """As if nobody had been asked."""


@dataclass(frozen=True, slots=True)
class _Spoken:
    code: int
    text: str

    def __post_init__(self) -> None:
        if not (self.code // 100 in _CODES[type(self)] and self.text.isascii() and self.text.isprintable()):
            raise ValueError(f"{self.code} {self.text!r} is no reply of {type(self).__name__}")
        if len(self.text) > MAX_TEXT_CHARACTERS:
            raise ValueError(f"a reply of {len(self.text)} characters, more than {MAX_TEXT_CHARACTERS}")


@dataclass(frozen=True, slots=True)
class Refuse(_Spoken):
    """5yz, for good."""


@dataclass(frozen=True, slots=True)
class Defer(_Spoken):
    """4yz, the client comes again."""


@dataclass(frozen=True, slots=True)
class Close(_Spoken):
    """4yz or 5yz, and the session ends."""


@dataclass(frozen=True, slots=True)
class Discard:
    """The client hears that all is well, and the server never does."""


Verdict: TypeAlias = Pass | Refuse | Defer | Close | Discard

_CODES: Mapping[type, tuple[int, ...]] = MappingProxyType({Refuse: (5,), Defer: (4,), Close: (4, 5)})
# A stage that is not here has nothing to discard yet.
_DISCARDED: Mapping[Stage, Answer] = MappingProxyType(
    {
        Stage.MAIL: answers.MAIL_OK,
        Stage.RCPT: answers.RECIPIENT_OK,
        Stage.DATA: answers.SEND_CONTENT,
        Stage.MESSAGE: answers.TAKEN,
    }
)


class Body(Protocol):
    """What stands behind the blank line instead, as it is written; it ends with a line end, or is empty."""

    @property
    def size_bytes(self) -> int:
        """As it is written."""

    def octets(self) -> Iterator[bytes]:
        """In pieces."""

    def close(self) -> None:
        """Nobody will have it any more."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Another envelope: ``commands`` make it of the one that the server has. ``sender`` is MAIL's argument, None for
    the same; ``added`` are RCPT's; ``deleted`` are mailboxes, as `Question.recipient`."""

    commands: tuple[bytes, ...]
    sender: bytes | None = None
    added: tuple[bytes, ...] = ()
    deleted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ruling:
    """A judge's answer. ``by`` names the rules that did something, ``would`` those that are only observed. ``need`` is
    said at DATA, ``token`` at RCPT, ``edit`` (of the header, as it is written), ``body`` and ``envelope``, in the place
    of what came, at MESSAGE. ``filters`` are still to be asked, ``filtered`` says what has become of them."""

    verdict: Verdict = Pass()
    by: tuple[str, ...] = ()
    would: tuple[str, ...] = ()
    need: Need = Need.NOTHING
    token: Hashable = None
    edit: Callable[[bytes], bytes] | None = None
    body: Body | None = None
    envelope: Rewritten | None = None
    filters: tuple[str, ...] = ()
    filtered: tuple[tuple[str, str], ...] = ()


PASSED = Ruling()
# What a judge's silence is taken for.
NOT_DECIDED = Ruling(Defer(451, "4.7.1 Not decided in time, come again later"))
Ask: TypeAlias = Callable[[Question], Ruling | None]
Later: TypeAlias = Callable[[Question, Callable[[Ruling], None]], None]


@dataclass(frozen=True, slots=True)
class Decider:
    """Whoever decides about one connection: at once or, what it does not answer at once, ``later``."""

    ask: Ask
    later: Later | None = None


@dataclass(slots=True)
class Notes:
    """The names of rules that came into play for one message, or before any; of filters with what became of them.
    ``unjudged``: why rules that need the content were not asked."""

    by: dict[str, None] = field(default_factory=dict)
    would: dict[str, None] = field(default_factory=dict)
    filters: dict[str, str] = field(default_factory=dict)
    unjudged: str = ""

    def take(self, ruling: Ruling) -> None:
        """Some of them more."""
        if ruling.filtered:
            self.filters.update(ruling.filtered)
        if not (ruling.by or ruling.would):
            return
        for kept, names in ((self.by, ruling.by), (self.would, ruling.would)):
            for name in names[: MAX_NAMED - len(kept)]:
                kept[name] = None

    def fields(self) -> dict[str, object]:
        """Those of a log record: none where no rule came into play."""
        kept = {"rules": list(self.by), "would": list(self.would), "filters": self.filters, "unjudged": self.unjudged}
        return {name: noted for name, noted in kept.items() if noted}


def answer_to(verdict: Verdict, stage: Stage) -> Answer | None:
    """What the client is told; None: the server is asked. ValueError if the verdict has no meaning at this stage."""
    match verdict:
        case Pass():
            return None
        case Refuse(code, text) | Defer(code, text):
            # Who is not welcome leaves a server behind whose banner nobody has read.
            return Answer(code, text, drops=stage is Stage.CONNECT)
        case Close(code, text):
            return Answer(code, text, closes=True)
        case Discard() if stage in _DISCARDED:
            return _DISCARDED[stage]
    raise ValueError(f"{verdict} at {stage.name}")
