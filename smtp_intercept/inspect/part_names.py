"""What a field of a part (Content-Type, Content-Disposition) says that it is and is called, in every reading.

Pure, in time linear in the field: it is a stranger's. RFC 2045, 2047, 2183 and 2231, and what is written instead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from smtp_intercept.inspect.words import decoded, words

MAX_FIELD_BYTES = 16_384
MAX_NAME = 512  # letters of a name that are laid against patterns, from both of its ends
MAX_BOUNDARY = 256  # RFC 2046 §5.1.1 has 70
FOLD = "\n"  # where a field is folded: some programs see a space there, others nothing
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_COMMENT = re.compile(r"\([^()]*\)")
_MESSAGES = (".eml", ".mht", ".mhtml", ".nws")  # files that mail programs open as a message
_ANYWHERE = re.compile(r"((?:file)?name(?:\*[0-9]{0,4})?\*?)[ \t\n]*=[ \t\n]*\"?([^\";]*)", re.IGNORECASE)
_SECTIONED = re.compile(r"(?:\*([0-9]{1,4}))?\*?")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_SEPARATOR = re.compile(r"[/\\]")
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})


def media_type(value: str) -> str:
    """``application/zip``, in small letters."""
    return "".join(_seen(value.partition(";")[0]).split()).lower()[:MAX_NAME]


def boundaries(value: str) -> Iterator[bytes]:
    """Each that it may have; one that is longer than `MAX_BOUNDARY` cannot be looked for."""
    for text in _said(value, "boundary"):
        for each in {
            text,
            text.strip(),
            _percent(text),
            words(text),
            _seen(text),
            text.partition("\0")[0],
            _loose(text),
        }:
            if each:
                yield each.encode("utf-8", "replace")
                yield each.encode("latin-1", "replace")


def is_message(names: Iterable[str]) -> bool:
    """Whatever type it says that it is of."""
    return any(name.lower().endswith(_MESSAGES) for name in names)


def named(value: str) -> Iterator[str]:
    """The names of a file that a field has, as a person or a program may come to see them."""
    for key in ("filename", "name"):
        for text in _said(value, key):
            for reading in dict.fromkeys([text, words(text), _percent(text), words(_percent(text))]):
                for each in dict.fromkeys([reading, _loose(reading), reading.rstrip("/\\")]):
                    yield from filed(each)


def filed(text: str) -> Iterator[str]:
    """A name as a file would come to have it: without what nobody sees, without its path; up to a NUL or a colon."""
    seen = _seen(text)
    for each in dict.fromkeys([seen, _seen(text.partition("\0")[0]), seen.partition(":")[0]]):
        name = _SEPARATOR.split(each)[-1]
        name = name if len(name) <= 2 * MAX_NAME else name[:MAX_NAME] + name[-MAX_NAME:]
        yield from filter(None, dict.fromkeys([name.strip(), name.strip().rstrip(". \t\u00a0")]))


def _loose(text: str) -> str:
    """Folded text with a space where it was folded: `_seen` has it without."""
    return text.replace(FOLD, " ")


def _seen(text: str) -> str:
    return text if text.isprintable() else "".join(each for each in text if unicodedata.category(each) not in _UNSEEN)


def _said(value: str, key: str) -> Iterator[str]:
    """All that a parameter may say."""
    for said in dict.fromkeys([value, _COMMENT.sub("", value)]):
        for found in (parameters(said), _anywhere(said)):
            yield from _joined(found, key)


def _joined(found: Iterable[tuple[str, list[str]]], key: str) -> Iterator[str]:
    """Each, and its sections (RFC 2231 §3) together, as they are numbered and as they stand."""
    sections = list[tuple[int, str]]()
    for said, readings in found:
        name = _seen(said).lower()
        if not name.startswith(key) or (section := _SECTIONED.fullmatch(name, len(key))) is None:
            continue
        yield from readings
        if section[1] is not None:
            sections.append((int(section[1]), readings[0]))
    if len(sections) > 1:
        yield "".join(text for _, text in sections)
        yield "".join(text for _, text in sorted(sections, key=lambda each: each[0]))


def parameters(value: str) -> Iterator[tuple[str, list[str]]]:
    """Each with all that it may say. A quote may lack its end, and anything may stand behind it."""
    at = value.find(";")
    while 0 <= at < len(value):
        equals = value.find("=", at + 1)
        if equals < 0:
            return
        name = value[at + 1 : equals].rpartition(";")[2].strip()
        begin = equals + 1
        while value[begin : begin + 1].isspace():
            begin += 1
        if value[begin : begin + 1] == '"':
            end = _closing(value, begin + 1)
            at = value.find(";", end)
            inside, rest = value[begin + 1 : end], value[end + 1 : at if at >= 0 else len(value)].strip()
            yield name, [_ESCAPED.sub(r"\1", inside), inside, *([inside + rest, rest] if rest else [])]
        else:
            at = value.find(";", begin)
            whole = value[begin : at if at >= 0 else len(value)].strip()
            yield (
                name,
                [*dict.fromkeys([whole, whole.strip("\"'"), *whole.split(None, 1)[:1], whole.partition("(")[0]])],
            )


def _anywhere(value: str) -> Iterator[tuple[str, list[str]]]:
    """As if neither a quote nor a missing semicolon meant anything."""
    for found in _ANYWHERE.finditer(value):
        yield found[1], [found[2].strip("' \t\n")]


def _closing(value: str, at: int) -> int:
    while at < len(value) and value[at] != '"':
        at += 2 if value[at] == "\\" else 1
    return min(at, len(value))


def _percent(text: str) -> str:
    """RFC 2231 §4, with or without a character set."""
    charset, quoted, rest = text.partition("'")
    _, again, encoded = rest.partition("'")
    if "%" not in text and not again:
        return text
    octets = _PERCENT.sub(lambda found: bytes.fromhex(found[1].decode()), (encoded if again else text).encode())
    return decoded(octets, charset if quoted and charset else "utf-8")
