"""The names and types of a message's parts, as any mail program might read them.

Pure. Does not follow the tree that a message says it is, for programs disagree about it: every line that any boundary
begins is one. What a name may be read as, it is. Content is looked at where it lies.
"""

from __future__ import annotations

import binascii
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from smtp_intercept.inspect.archive import archived, may_be_archive
from smtp_intercept.inspect.part_names import (
    FOLD,
    MAX_BOUNDARY,
    MAX_FIELD_BYTES,
    boundaries,
    filed,
    is_message,
    media_type,
    named,
)

MAX_PARTS = 1_000
MAX_BOUNDARIES = 100  # how deep it may be
MAX_NAMES = 20_000  # in all readings
MAX_FIELDS = 100  # of one part, of those that count
MAX_HEADER_BYTES = 1_048_576  # of one part
MAX_NESTED = 4  # messages that are encoded, in one another
MAX_DECODED_BYTES = 67_108_864  # of one part
_PIECE_BYTES, _LINES_BYTES = 1 << 20, 8_192
_LONGEST_LINE = 998  # RFC 5322 §2.1.1: a delimiter is shorter
_LONGEST_NAME = 64  # of a field
_CHECK_EVERY = 500
_FIELDS = frozenset({b"content-type", b"content-disposition", b"content-transfer-encoding"})
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_UUENCODED = re.compile(rb"begin(?:-base64)? [0-7]{3,4} ([^\r\n]{1,255})")
_ZIPPED = (b"UEsDB", b"UEsBA", b"UEsFB", b"UEsHC", b"UEswMFBL")  # what archives begin with, in base64
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
    digested: bool = False  # RFC 2046 §5.1.5: what has no type of its own in a digest is a message

    def values(self, name: bytes) -> list[str]:
        return [value for each, value in self.fields if each == name]

    @property
    def types(self) -> list[str]:
        return [media_type(value) for value in self.values(b"content-type")]

    @property
    def encodings(self) -> list[str]:
        """Each that it names, with comments and whatever else stands beside it."""
        said = " ".join(self.values(b"content-transfer-encoding")).lower()
        return [each for each in _DECODERS if each in said]

    @property
    def names(self) -> Iterator[str]:
        """Of the file that it is."""
        for value in (*self.values(b"content-type"), *self.values(b"content-disposition")):
            yield from named(value)

    def is_a(self, kinds: tuple[str, ...]) -> bool:
        """By any of its types."""
        return any(each.startswith(kinds) for each in self.types)

    @property
    def is_message(self) -> bool:
        """With a header of its own behind this one."""
        return self.is_a(("message/",)) or (self.digested and not any(self.types)) or is_message(self.names)


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
    while True:
        headers = _begin(content, at, found, known)
        stop, at = _next_delimiter(content, headers[-1].end, found, known)
        for header in headers:
            if header is headers[-1] or header.encodings:
                _leaf(content, header, stop, found, dotted=dotted, nested=nested)
        if stop == len(content):
            return


def _begin(content: Octets, at: int, found: Parts, known: set[bytes]) -> list[_Header]:
    """A part, and if it is a message those that begin in it."""
    headers = list[_Header]()
    while True:
        found.check()
        found.number += 1
        if found.number > MAX_PARTS:
            raise UnreadableError(f"more than {MAX_PARTS} parts")
        headers.append(header := _header(content, at, known, digested="multipart/digest" in found.types))
        _describe(header, found, known)
        if not header.is_message or header.end >= len(content):
            return headers
        first, at = _first_line(content, header.end)
        if header.encodings and not _name(first):
            return headers


def _first_line(content: Octets, at: int) -> tuple[bytes, int]:
    """Of a message, and where it is: some programs see no end of its header in empty lines in front of it."""
    for line, _, after in itertools.islice(_lines(content, at), _LOST_LINES):
        if line:
            return line, at
        at = after
    return b"", at


def _describe(header: _Header, found: Parts, known: set[bytes]) -> None:
    values = header.values(b"content-type")
    found.types.update(dict.fromkeys(filter(None, header.types)))
    limits = {boundary for value in values for boundary in boundaries(value)}
    if not limits and header.is_a(("multipart/",)):  # some programs guess
        found.unreadable = "a multipart without a boundary"
    if max(map(len, limits), default=0) > MAX_BOUNDARY:
        found.unreadable = f"a boundary of more than {MAX_BOUNDARY} octets"
    if header.is_a(("message/partial",)):
        found.unreadable = "a piece of a message"
    known |= {each for each in limits if len(each) <= MAX_BOUNDARY}
    if len(known) > MAX_BOUNDARIES:
        raise UnreadableError(f"more than {MAX_BOUNDARIES} boundaries")
    found.add(header.names)


def _header(content: Octets, at: int, known: set[bytes], *, digested: bool) -> _Header:
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
    return _Header(fields, end, digested)


def _keep(kept: list[bytes], line: bytes) -> None:
    """One line more of a header. What lacks its indentation continues a field too; what continues one that is nothing
    to us is nothing."""
    continues = line[:1] in (b" ", b"\t") or not _name(line) or (kept and kept[-1].rstrip().endswith(b";"))
    if continues and kept and kept[-1]:
        kept[-1] += FOLD.encode() + line.lstrip(b" \t")
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
    before, colon, _ = line[:_LONGEST_LINE].partition(b":")
    name = before.replace(b"\0", b"").strip().lower()
    return name if colon and len(name) <= _LONGEST_NAME else b""


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


def _next_delimiter(content: Octets, at: int, found: Parts, known: set[bytes]) -> tuple[int, int]:
    """(where it is, where its line ends); the content's end if there is none. One that says that nothing follows is one
    like any other: programs do not agree about what it looks like."""
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
                return at + seen.start(), at + seen.end() + (ending.end() if ending else len(rest))
        if at + len(piece) >= size:
            break
        at += len(piece) - len(b"\n--")
    return size, size


def _leaf(content: Octets, header: _Header, end: int, found: Parts, *, dotted: bool, nested: int) -> None:
    """What is in a part, in whatever encoding it may be."""
    begin, encodings = header.end, header.encodings
    if not encodings and content[begin : min(end, begin + _LINES_BYTES)].lstrip().startswith(_ZIPPED):
        encodings = ["base64"]
    for encoding in ("", *encodings):
        octets = _decoded(content, begin, end, encoding, dotted=dotted)
        found.check()
        if encoding and (header.is_message or header.is_a(("multipart/",))):
            if nested >= MAX_NESTED:
                raise UnreadableError(f"more than {MAX_NESTED} messages in one another")
            _look(_within(header, octets), found, dotted=False, nested=nested + 1)
        _find_files(octets, found)


def _find_files(octets: bytes, found: Parts) -> None:
    """In an archive, and uuencoded."""
    if may_be_archive(octets):
        names, why_more = archived(octets)
        found.add(reading for name in names for reading in filed(name))
        if why_more:
            raise UnreadableError(why_more)
    found.add(
        reading
        for each in _UUENCODED.finditer(octets)
        if octets[max(0, each.start() - 1) : each.start()] in (b"", b"\r", b"\n")
        for reading in filed(_text(each[1]))
    )


def _within(header: _Header, body: bytes) -> bytes:
    """What was encoded: a message has a header of its own, parts have that of who they are in."""
    if header.is_message:
        return body
    own = b"".join(b"Content-Type: " + value.encode() + b"\r\n" for value in header.values(b"content-type"))
    return own + b"\r\n" + body


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
