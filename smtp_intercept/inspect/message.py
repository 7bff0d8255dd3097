"""The header of a message: what its fields say to people, and how it is changed.

Pure. What is not changed stays as it is to the octet, however odd; what is looked at is read as leniently as mail
programs do, for a rule must see what they show.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial

from smtp_intercept.inspect.actions import AddHeader, Edit, RemoveHeader, ReplaceHeader, TagSubject
from smtp_intercept.inspect.words import decoded, words

# Of one value; what people see is in its beginning, and a rule's pattern is laid against all of it.
MAX_VALUE_BYTES = 65_536
_FIELD = re.compile(rb"[^\n]*\n?(?:[ \t][^\n]*\n?)*")
_NAME = re.compile(rb"([!-9;-~]{1,200})[ \t]*:[ \t]*")
_FOLDS = re.compile(r"[\r\n]+[ \t]*")


def values(header: bytes, names: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """The decoded values of the fields of these names (in small letters), in order; what is not there is absent."""
    found: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for raw in fields(header):
        name = name_of(raw)
        if name in names:
            found[name] += (_decoded(raw),)
    return dict(found)


def fields(header: bytes) -> Iterator[bytes]:
    """Each with its line ends and continuation lines; what is no field comes as it is."""
    at = 0
    while at < len(header):
        found = _FIELD.match(header, at)
        assert found is not None
        yield found[0]
        at = found.end()


def name_of(field: bytes) -> str:
    """In small letters; "" of what is no field."""
    found = _NAME.match(field)
    return found[1].decode("ascii").lower() if found else ""


def _decoded(field: bytes) -> str:
    """RFC 2047, as far as it can be followed; of unknown or broken words what is there."""
    found = _NAME.match(field)
    assert found is not None
    octets = field[found.end() : found.end() + MAX_VALUE_BYTES].replace(b"\0", b"").rstrip(b"\r\n")
    return words(_FOLDS.sub(" ", decoded(octets, "utf-8"))).strip()


def edited(header: bytes, edits: Iterable[Edit]) -> bytes:
    """A header without its blank line, with these made one after the other."""
    lines = list(fields(header))
    if lines and not lines[-1].endswith(b"\n"):  # of a message that is a header alone
        lines[-1] += b"\r\n"
    for edit in edits:
        lines = _edit(lines, edit)
    return b"".join(lines)


def _edit(lines: list[bytes], edit: Edit) -> list[bytes]:
    match edit:
        case AddHeader(name, value):
            return [_field(name, value), *lines]
        case RemoveHeader(name):
            return [line for line in lines if name_of(line) != name.lower()]
        case ReplaceHeader(name, value):
            return _replaced(lines, name, _field(name, value))
        case TagSubject(text):
            return _tagged(lines, text)


def _field(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode("ascii")


def _replaced(lines: list[bytes], name: str, field: bytes) -> list[bytes]:
    """In the place of the first; the others of the name go."""
    places = [number for number, line in enumerate(lines) if name_of(line) == name.lower()]
    if not places:
        return [field, *lines]
    kept = [line for number, line in enumerate(lines) if number not in places[1:]]
    kept[places[0]] = field
    return kept


def _tagged(lines: list[bytes], text: str) -> list[bytes]:
    for number, line in enumerate(lines):
        if name_of(line) == "subject":
            return [*lines[:number], _tag(line, text), *lines[number + 1 :]]
    return [_field("Subject", text), *lines]


def _tag(field: bytes, text: str) -> bytes:
    """In front of what stands there, which may be encoded; not twice."""
    if _decoded(field).startswith(text):
        return field
    found = _NAME.match(field)
    assert found is not None
    return field[: found.end()] + text.encode("ascii") + b" " + field[found.end() :]


def editor(edits: tuple[Edit, ...]) -> partial[bytes] | None:
    """What makes these in any header; None for none."""
    return partial(edited, edits=edits) if edits else None
