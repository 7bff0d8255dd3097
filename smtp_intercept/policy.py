"""The policy seam: what a session asks at each stage of a dialogue, and what it may be told.

Pure. A policy is a function without memory of the session; whoever makes one binds it to what it must know besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import TypeAlias

from smtp_intercept import answers
from smtp_intercept.answers import Answer

# RFC 5321 §4.5.3.1.5: a reply line of 512 octets with code and CRLF.
MAX_TEXT_CHARACTERS = 500


class Stage(Enum):
    """When a policy is asked."""

    CONNECT = auto()
    HELO = auto()  # HELO and EHLO
    MAIL = auto()
    RCPT = auto()  # once for each
    DATA = auto()  # or the first BDAT
    HEADERS = auto()  # the blank line has come, or the end without one
    MESSAGE = auto()  # the end has come and has not crossed


@dataclass(frozen=True, slots=True)
class Question:
    """What is known at a stage; what is not known yet is empty. ``header`` is as sent, dots doubled in DATA;
    ``size_bytes`` likewise."""

    stage: Stage
    helo: str = ""
    sender: str = ""
    recipient: str = ""
    header: bytes = b""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Pass:
    """As if there were no policy."""


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
Policy: TypeAlias = Callable[[Question], Verdict]

_CODES: Mapping[type, tuple[int, ...]] = MappingProxyType({Refuse: (5,), Defer: (4,), Close: (4, 5)})
# A stage that is not here has nothing to discard yet.
_DISCARDED: Mapping[Stage, Answer] = MappingProxyType(
    {
        Stage.MAIL: answers.MAIL_OK,
        Stage.RCPT: answers.RECIPIENT_OK,
        Stage.DATA: answers.SEND_CONTENT,
        Stage.HEADERS: replace(answers.TAKEN, drops=True),
        Stage.MESSAGE: replace(answers.TAKEN, drops=True),
    }
)
# From these stages on the server must be left: it has a connection that nobody wants, or half a message.
_DROPPING = frozenset({Stage.CONNECT, Stage.HEADERS, Stage.MESSAGE})


def ask(policy: Policy, question: Question) -> Answer | None:
    """What the client is told; None: the server is asked. ValueError if the verdict has no meaning at this stage."""
    stage = question.stage
    match policy(question):
        case Pass():
            return None
        case Refuse(code, text) | Defer(code, text):
            return Answer(code, text, drops=stage in _DROPPING)
        case Close(code, text):
            return Answer(code, text, closes=True)
        case Discard() if stage in _DISCARDED:
            return _DISCARDED[stage]
        case verdict:
            raise ValueError(f"{verdict} at {stage.name}")
