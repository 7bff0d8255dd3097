"""The vocabulary of a rule's ``then``: what ends the matter for a message, and what is done to it besides.

Pure data. Those that nothing does yet are here too, so that a configuration that names one hears why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from smtp_intercept.policy import MAX_TEXT_CHARACTERS, Close, Defer, Discard, Pass, Refuse, Verdict

_REPLY = re.compile(r"([0-9]{3})(?: (?:([0-9])\.[0-9]{1,3}\.[0-9]{1,3} )?(?=\S).*)", re.DOTALL)
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 §2.2
MAX_VALUE_CHARACTERS = 900  # RFC 5322 §2.1.1: a line of 998 with the name


class Unknown(StrEnum):
    """What a rule makes of a criterion that nobody can tell: it does not hold, it does, or the client comes again."""

    NO = "no"
    YES = "yes"
    DEFER = "defer"


CANNOT_TELL = Defer(451, "4.4.3 Cannot be decided now, come again later")


@dataclass(frozen=True, slots=True)
class AddHeader:
    """A field more, in front of the others."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ReplaceHeader:
    """Every field of the name gives way to one."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class RemoveHeader:
    """Every field of the name goes."""

    name: str


@dataclass(frozen=True, slots=True)
class TagSubject:
    """The text stands in front of the subject, unless it does already."""

    text: str


Edit: TypeAlias = AddHeader | ReplaceHeader | RemoveHeader | TagSubject

SPOKEN: Mapping[str, type[Refuse | Defer | Close]] = MappingProxyType(
    {"refuse": Refuse, "defer": Defer, "close": Close}
)
_CLASSES: Mapping[str, tuple[int, ...]] = MappingProxyType({"refuse": (5,), "defer": (4,), "close": (4, 5)})
SILENT: Mapping[str, Verdict] = MappingProxyType({"accept": Pass(), "discard": Discard()})
ENDING = ("accept", "refuse", "defer", "discard", "close")
EDITS = ("tag_subject", "add_header", "replace_header", "remove_header")
AWAITED: Mapping[str, str] = MappingProxyType(
    {
        "quarantine": "a quarantine",
        "redirect": "a next hop that rules choose",
        "copy_to": "a next hop that rules choose",
        "slow_down_s": "what is remembered between sessions",
    }
)


def read_reply(action: str, text: str) -> Refuse | Defer | Close:
    """``550 5.7.1 no``: the code, then what the client is told. ValueError says why not."""
    found = _REPLY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no reply: a code of three digits and a text")
    if found[2] is not None and found[2] != found[1][0]:  # RFC 2034 §4
        raise ValueError(f"{text!r} has an enhanced code of another class than {found[1]}")
    if int(found[1]) // 100 not in _CLASSES[action]:
        raise ValueError(f"{text!r} does not {action}: that is {' or '.join(f'{n}yz' for n in _CLASSES[action])}")
    if not (text.isascii() and text.isprintable()) or len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"{text!r} is not one line of ASCII of at most {MAX_TEXT_CHARACTERS} characters")
    return SPOKEN[action](int(found[1]), text[4:])


def read_field(name: str, value: str) -> tuple[str, str]:
    """A header field. ValueError says why not: nothing that a value holds may begin another field."""
    if not _FIELD_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header field")
    if not value.isprintable() or not value.isascii() or not 0 < len(value) <= MAX_VALUE_CHARACTERS:
        raise ValueError(f"{value!r} is not a header's value: ASCII in one line, at most {MAX_VALUE_CHARACTERS}")
    return name, value
