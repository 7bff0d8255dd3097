"""What a filter may say: verdicts, and changes to the message, read from the packets of the protocol.

Pure. What would let a filter's text begin another header field, another command or another line is no reply.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TypeAlias

from smtp_intercept.milter.packets import MilterError, read_strings
from smtp_intercept.policy import MAX_TEXT_CHARACTERS

_INDEX = struct.Struct("!I")
_NAME = re.compile(rb"[!-9;-~]{1,200}")  # RFC 5322 §2.2; as `inspect.message` reads it
_CODE = re.compile(rb"([45][0-9]{2})(?:[- ](.*))?", re.DOTALL)
_ADDRESS = re.compile(rb"[^\x00-\x20\x7f<>]{1,1000}|\"[^\x00-\x1f\x7f\"]{1,200}\"@[^\x00-\x20\x7f<>]{1,500}")
_ARGUMENT = re.compile(rb"[!-~]{1,500}")  # RFC 5321 §4.1.2: esmtp-param
_LINE_END = re.compile(rb"\r\n|\r|\n")
_ODD_FOLD = re.compile(rb"\n(?![ \t])")


class Word(Enum):
    """Replies that have no text."""

    CONTINUE = b"c"
    ACCEPT = b"a"
    REJECT = b"r"
    TEMPFAIL = b"t"
    DISCARD = b"d"
    SKIP = b"s"
    PROGRESS = b"p"
    SHUTDOWN = b"4"
    CONN_FAIL = b"f"


@dataclass(frozen=True, slots=True)
class ReplyCode:
    """What the client is to hear: 4yz or 5yz, and one line of text."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class AddHeader:
    """Behind the others. A value has LF for its line ends."""

    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class InsertHeader:
    """At this place, counted from 0, the MTA's own Received: included."""

    index: int
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class ChangeHeader:
    """The one of this name that has this number, counted from 1; an empty value removes it."""

    index: int
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class ReplaceBody:
    """The next octets of another body."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class ChangeSender:
    """Without brackets; "" is the null path. ``arguments`` are ESMTP's."""

    address: bytes
    arguments: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class AddRecipient:
    """As `ChangeSender`."""

    address: bytes
    arguments: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteRecipient:
    """Without brackets."""

    address: bytes


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The message is to be kept, and nobody is to get it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Symbols:
    """The macros that the filter wants at a stage (`macros.STAGES`)."""

    stage: int
    names: tuple[str, ...]


Change: TypeAlias = (
    AddHeader | InsertHeader | ChangeHeader | ReplaceBody | ChangeSender | AddRecipient | DeleteRecipient | Quarantine
)
Reply: TypeAlias = Word | ReplyCode | Change | Symbols


def read_reply(letter: bytes, payload: bytes) -> Reply:
    """`MilterError` says what is wrong with it."""
    if reader := _READERS.get(letter):
        return reader(payload)
    try:
        return Word(letter)
    except ValueError:
        raise MilterError(f"a packet {letter!r}, which is no reply") from None


def _reply_code(payload: bytes) -> ReplyCode:
    """Of several lines one is made. libmilter's callers double the percent sign."""
    lines = [_CODE.fullmatch(line) for line in _LINE_END.split(read_strings(payload)[0]) if line]
    if not lines or None in lines or len({line[1] for line in lines if line}) != 1:
        raise MilterError("a reply to the client without a code of 4yz or 5yz")
    whole = b" ".join(line[2].strip() for line in lines if line and line[2]).replace(b"%%", b"%")
    text = "".join(c if c.isprintable() else "?" for c in whole.decode("ascii", "replace").replace("\ufffd", "?"))
    code = lines[0][1] if lines[0] else b""
    return ReplyCode(int(code), text[:MAX_TEXT_CHARACTERS] or "5.7.1 Command rejected")


def _index(payload: bytes) -> tuple[int, bytes]:
    if len(payload) < _INDEX.size:
        raise MilterError("a number that is not whole")
    return int(_INDEX.unpack_from(payload)[0]), payload[_INDEX.size :]


def _field(payload: bytes) -> tuple[bytes, bytes]:
    """No line of the value can be taken for another field."""
    name, value = read_strings(payload, 2)[:2]
    if not _NAME.fullmatch(name):
        raise MilterError(f"{name[:40]!r} is not the name of a header field")
    return name, _ODD_FOLD.sub(b"\n\t", _LINE_END.sub(b"\n", value).rstrip(b"\n"))


def _add_header(payload: bytes) -> AddHeader:
    return AddHeader(*_field(payload))


def _insert_header(payload: bytes) -> InsertHeader:
    index, rest = _index(payload)
    return InsertHeader(index, *_field(rest))


def _change_header(payload: bytes) -> ChangeHeader:
    index, rest = _index(payload)
    return ChangeHeader(max(1, index), *_field(rest))


def _address(text: bytes) -> bytes:
    """Nothing in it may end the command that it will stand in."""
    bare = text.strip()
    bare = bare[1:-1] if bare.startswith(b"<") and bare.endswith(b">") else bare
    if bare and not _ADDRESS.fullmatch(bare):
        raise MilterError(f"{bare[:60]!r} is not an address")
    return bare


def _arguments(texts: list[bytes]) -> tuple[bytes, ...]:
    found = tuple(word for text in texts for word in text.split())
    if not all(map(_ARGUMENT.fullmatch, found)):
        raise MilterError("arguments that no command has")
    return found


def _change_sender(payload: bytes) -> ChangeSender:
    address, *rest = read_strings(payload)
    return ChangeSender(_address(address), _arguments(rest))


def _add_recipient(payload: bytes) -> AddRecipient:
    address, *rest = read_strings(payload)
    if not _address(address):
        raise MilterError("a recipient without an address")
    return AddRecipient(_address(address), _arguments(rest))


def _delete_recipient(payload: bytes) -> DeleteRecipient:
    return DeleteRecipient(_address(read_strings(payload)[0]))


def _quarantine(payload: bytes) -> Quarantine:
    reason = read_strings(payload)[0].decode("ascii", "replace")
    return Quarantine("".join(c if c.isascii() and c.isprintable() else "?" for c in reason)[:MAX_TEXT_CHARACTERS])


def read_symbols(payload: bytes) -> Symbols:
    """SMFIR_SETSYMLIST, and each of those behind the answer to the negotiation."""
    stage, rest = _index(payload)
    return Symbols(stage, tuple(read_strings(rest)[0].decode("ascii", "replace").split()))


_READERS: Mapping[bytes, Callable[[bytes], Reply]] = MappingProxyType(
    {
        b"y": _reply_code,
        b"h": _add_header,
        b"i": _insert_header,
        b"m": _change_header,
        b"b": ReplaceBody,
        b"e": _change_sender,
        b"+": _add_recipient,
        b"2": _add_recipient,
        b"-": _delete_recipient,
        b"q": _quarantine,
        b"l": read_symbols,
    }
)
