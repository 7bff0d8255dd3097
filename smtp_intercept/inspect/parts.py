"""The names and types of a message's parts, as any mail program might read them.

Pure. Does not follow the tree that a message says it is, for programs disagree about it: every line that any boundary
begins is one. What a name may be read as, it is. Content is looked at where it lies.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from smtp_intercept.inspect.archive import BEGINNINGS, archived
from smtp_intercept.inspect.part_names import MAX_FIELD_BYTES, boundaries, filed, media_type, named

MAX_PARTS = 1_000
MAX_BOUNDARIES = 100  # how deep it may be
MAX_NAMES = 20_000  # in all readings
MAX_FIELDS = 100  # of one part, of those that count
MAX_HEADER_BYTES = 1_048_576  # of one part
MAX_NESTED = 4  # messages that are encoded, in one another
MAX_DECODED_BYTES = 67_108_864  # of one part
_PIECE_BYTES, _LINES_BYTES = 1 << 20, 8_192
_LONGEST_LINE = 998  # RFC 5322 §2.1.1: a delimiter is shorter
_CHECK_EVERY = 500
_FIELDS = frozenset({b"content-type", b"content-disposition", b"content-transfer-encoding"})
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_UUENCODED = re.compile(rb"(?:^|[\r\n])begin(?:-base64)? [0-7]{3,4} ([^\r\n]{1,255})")
_CONTINUED = re.compile(rb"[ \t]*(?:file)?name|[ \t]", re.IGNORECASE)
_LOST_LINES = 8
_LINE_END = re.compile(rb"\r\n|\n|\r")
_DELIMITER = re.compile(rb"(?:^|[\r\n])--")


class Octets(Protocol):
    """A whole message: bytes, or a file mapped into memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: slice, /) -> bytes: ...


class UnreadableError(Exception):
    """There may be more; the message says why."""


@dataclass(slots=True)
class Parts:
    """``names`` are in every reading; ``unreadable``: why there may be more, "" if not. ``late``: the time is over."""

    late: Callable[[], bool] = lambda: False
    names: dict[str, None] = field(default_factory=dict)
    types: dict[str, None] = field(default_factory=dict)
    unreadable: str = ""
    number: int = 0

    def check(self) -> None:
        """`UnreadableError`: it takes too long."""
        if self.late():
            raise UnreadableError("it took too long")

    def add(self, names: Iterable[str]) -> None:
        """More of them."""
        for number, name in enumerate(names):
            self.names[name] = None
            if number % _CHECK_EVERY == 0:
                self.check()
            if len(self.names) > MAX_NAMES:
                raise UnreadableError(f"more than {MAX_NAMES} names")


@dataclass(frozen=True, slots=True)
class _Header:
    """Of one part: the fields that count, each as often as it is there, and where its body begins."""

    fields: tuple[tuple[bytes, str], ...]
    end: int

    def values(self, name: bytes) -> list[str]:
        return [value for each, value in self.fields if each == name]

    @property
    def types(self) -> list[str]:
        return [media_type(value) for value in self.values(b"content-type")]

    @property
    def encoding(self) -> str:
        """Of several the first that is one."""
        words = (value.strip("\"'; \t").lower() for value in self.values(b"content-transfer-encoding"))
        return next((word for word in words if word in _DECODERS), "")

    def is_a(self, kinds: tuple[str, ...]) -> bool:
        """By any of its types."""
        return any(each.startswith(kinds) for each in self.types)


def look(content: Octets, late: Callable[[], bool] = lambda: False, *, dotted: bool = False) -> Parts:
    """``dotted``: as DATA has it. What was found so far counts, whatever happens."""
    found = Parts(late)
    try:
        _look(content, found, dotted=dotted, nested=0)
    except UnreadableError as error:
        found.unreadable = str(error)
    return found


def _look(content: Octets, found: Parts, *, dotted: bool, nested: int) -> None:
    known, at = set[bytes](), 0
    header: _Header | None = _begin(content, 0, found, known)
    while True:
        stop, after, closing = _next_delimiter(content, header.end if header else at, found, known)
        if header is not None:
            _leaf(content, header, stop, found, dotted=dotted, nested=nested)
        if stop == len(content):
            return
        at, header = after, None if closing else _begin(content, after, found, known)


def _begin(content: Octets, at: int, found: Parts, known: set[bytes]) -> _Header:
    """A part, and if it is a message the one that begins in it."""
    while True:
        found.check()
        found.number += 1
        if found.number > MAX_PARTS:
            raise UnreadableError(f"more than {MAX_PARTS} parts")
        header = _header(content, at, known)
        _describe(header, found, known)
        if not header.is_a(("message/",)) or header.encoding or header.end >= len(content):
            return header
        at = header.end


def _describe(header: _Header, found: Parts, known: set[bytes]) -> None:
    values = header.values(b"content-type")
    found.types.update(dict.fromkeys(filter(None, header.types)))
    limits = {boundary for value in values for boundary in boundaries(value)}
    if not limits and header.is_a(("multipart/",)):  # some programs guess
        found.unreadable = "a multipart without a boundary"
    known |= limits
    if len(known) > MAX_BOUNDARIES:
        raise UnreadableError(f"more than {MAX_BOUNDARIES} boundaries")
    for value in (*values, *header.values(b"content-disposition")):
        found.add(named(value))


def _header(content: Octets, at: int, known: set[bytes]) -> _Header:
    """Up to the empty line or the next delimiter, whatever comes first."""
    kept, end = list[bytes](), at
    for line, ending, after in _lines(content, at):
        if (not line and b"\n" in ending) or (line[:2] == b"--" and _begun(line[2:], known) is not None):
            end = end if line else after
            break
        end = after
        if end - at > MAX_HEADER_BYTES:
            raise UnreadableError(f"a header of more than {MAX_HEADER_BYTES} octets")
        _keep(kept, line)
    lost, end = _broken_off(content, end, kept)
    for line in lost:
        _keep(kept, line)
    fields = tuple((_name(line), _text(line.partition(b":")[2])) for line in kept if line)
    if len(fields) > MAX_FIELDS:
        raise UnreadableError(f"more than {MAX_FIELDS} fields about one part")
    return _Header(fields, end)


def _keep(kept: list[bytes], line: bytes) -> None:
    """One line more of a header. What lacks its indentation continues a field too; what continues one that is nothing
    to us is nothing."""
    continues = line[:1] in (b" ", b"\t") or not _name(line) or (kept and kept[-1].rstrip().endswith(b";"))
    if continues and kept and kept[-1]:
        kept[-1] += b" " + line.lstrip(b" \t")
        if len(kept[-1]) > MAX_FIELD_BYTES:
            raise UnreadableError(f"a field of more than {MAX_FIELD_BYTES} octets")
    if line[:1] not in (b" ", b"\t") and (_name(line) or not kept):
        kept.append(line if _name(line) in _FIELDS and len(line) <= MAX_FIELD_BYTES else b"")
        if len(line) > MAX_FIELD_BYTES and _name(line) in _FIELDS:
            raise UnreadableError(f"a field of more than {MAX_FIELD_BYTES} octets")


def _broken_off(content: Octets, at: int, kept: list[bytes]) -> tuple[list[bytes], int]:
    """The rest of a header that an empty line stands in, where a field has no end yet: some programs read on."""
    lost = list[bytes]()
    if not next((line for line in reversed(kept) if line), b"").rstrip().endswith(b";"):
        return [], at
    for line, _, after in _lines(content, at):
        if not line:
            return lost, after if lost else at
        lost.append(line)
        if len(lost) > _LOST_LINES or not (_name(line).startswith(b"content-") or _CONTINUED.match(line)):
            break
    return [], at


def _name(line: bytes) -> bytes:
    return line[:64].partition(b":")[0].replace(b"\0", b"").strip().lower() if b":" in line[:64] else b""


def _lines(content: Octets, at: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Each without its end, its end, and the position behind that: a carriage return alone is one to some."""
    size = _LINES_BYTES
    while at < len(content):
        piece, begin = content[at : at + size], 0
        last = at + len(piece) >= len(content)
        for ending in _LINE_END.finditer(piece):
            if ending.end() == len(piece) and not last:  # a line feed may follow
                break
            yield piece[begin : ending.start()], ending[0], at + ending.end()
            begin = ending.end()
        if last:
            if begin < len(piece):
                yield piece[begin:], b"", at + len(piece)
            return
        size = size if begin else 2 * size
        at += begin


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _begun(rest: bytes, known: set[bytes]) -> bytes | None:
    """The longest boundary that a line begins with."""
    return max((each for each in known if rest.startswith(each)), key=len, default=None)


def _next_delimiter(content: Octets, at: int, found: Parts, known: set[bytes]) -> tuple[int, int, bool]:
    """(where it is, where its line ends, whether it says that nothing follows); the content's end if there is none."""
    size, at = len(content), max(0, at - 1)
    while at < size and known:
        piece = content[at : at + _PIECE_BYTES]
        for number, seen in enumerate(_DELIMITER.finditer(piece)):
            if number % _CHECK_EVERY == 0:
                found.check()
            if at and seen.start() == 0 and seen.end() == len(b"--"):
                continue  # the piece's beginning is no line's
            rest = content[at + seen.end() : at + seen.end() + _LONGEST_LINE]
            if (boundary := _begun(rest, known)) is not None:
                ending = _LINE_END.search(rest, len(boundary))
                after = at + seen.end() + (ending.end() if ending else len(rest))
                return at + seen.start(), after, rest[len(boundary) :].startswith(b"--")
        if at + len(piece) >= size:
            break
        at += len(piece) - len(b"\n--")
    return size, size, True


def _leaf(content: Octets, header: _Header, end: int, found: Parts, *, dotted: bool, nested: int) -> None:
    """What is in a part: the names of an archive, a message that is encoded, files in the old way."""
    begin, encoding = header.end, header.encoding
    if encoding and header.is_a(("message/", "multipart/")):
        if nested >= MAX_NESTED:
            raise UnreadableError(f"more than {MAX_NESTED} messages in one another")
        _look(
            _within(header, _decoded(content, begin, end, encoding, dotted=dotted)),
            found,
            dotted=False,
            nested=nested + 1,
        )
    elif _decoded(content, begin, min(end, begin + _LINES_BYTES), encoding, dotted=dotted).startswith(BEGINNINGS):
        names, why_more = archived(_decoded(content, begin, end, encoding, dotted=dotted))
        found.add(reading for name in names for reading in filed(name))
        if why_more:
            raise UnreadableError(why_more)
    if encoding != "base64":
        _find_uuencoded(content, begin, end, found)


def _within(header: _Header, body: bytes) -> bytes:
    """What was encoded: a message has a header of its own, parts have that of who they are in."""
    if header.is_a(("message/",)):
        return body
    own = b"".join(b"Content-Type: " + value.encode() + b"\r\n" for value in header.values(b"content-type"))
    return own + b"\r\n" + body


def _find_uuencoded(content: Octets, begin: int, end: int, found: Parts) -> None:
    while begin < end:
        found.check()
        piece = content[begin : min(end, begin + _PIECE_BYTES)]
        found.add(reading for each in _UUENCODED.finditer(piece) for reading in filed(_text(each[1])))
        begin += len(piece) if begin + len(piece) >= end else max(1, len(piece) - _LONGEST_LINE)


def _decoded(content: Octets, begin: int, end: int, encoding: str, *, dotted: bool) -> bytes:
    if end - begin > MAX_DECODED_BYTES:
        raise UnreadableError(f"a part of more than {MAX_DECODED_BYTES} octets")
    octets = content[begin:end]
    if dotted:
        octets = octets.replace(b"\n..", b"\n.")
    return _DECODERS[encoding](octets) if encoding else octets


def _base64(octets: bytes) -> bytes:
    """What is no letter of it is passed over, as programs do, and what stands behind its end is read too."""
    pieces = octets.translate(None, _NOT_BASE64).split(b"=")
    return b"".join(binascii.a2b_base64(_whole(piece)) for piece in pieces if piece)


def _whole(piece: bytes) -> bytes:
    rest = len(piece) % 4
    return piece[:-1] if rest == 1 else piece + b"=" * (-rest % 4)


_DECODERS: dict[str, Callable[[bytes], bytes]] = {"base64": _base64, "quoted-printable": binascii.a2b_qp}
