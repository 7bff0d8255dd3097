"""Encoded words (RFC 2047) and character sets, as leniently as mail programs read them.

Pure, in time linear in the text, which is a stranger's: `email.header` is not, nor are some of Python's codecs.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

_BEGIN = re.compile(r"=\?([^?\s*]{1,64})(?:\*[^?\s]{0,64})?\?([bBqQ])\?")
_END = "?="
# Of domain names, or Python's own: their cost grows with the square, and no program has mail in them.
_NO_CHARSETS = frozenset({"punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined"})


def decoded(octets: bytes, charset: str) -> str:
    """In that character set; of one that nobody knows, or that it is not in, what is there."""
    if charset.lower().replace("_", "-") not in _NO_CHARSETS:
        try:
            return octets.decode(charset)
        except (LookupError, ValueError):
            pass
    return octets.decode("latin-1")


def words(text: str) -> str:
    """With its encoded words decoded, wherever they stand. A letter may be in two of them."""
    if "=?" not in text:
        return text
    said, charset, octets = list[str](), "", b""
    for piece, of, content in _pieces(text):
        if octets and (piece or of != charset):
            said.append(decoded(octets, charset))
            octets = b""
        if piece:
            said.append(piece)
        charset, octets = of, octets + content
    return "".join([*said, decoded(octets, charset)] if octets else said)


def _pieces(text: str) -> Iterator[tuple[str, str, bytes]]:
    """What stands before each word, its character set, its octets; white space between two words is nothing."""
    at, behind_word = 0, False
    while (begin := _BEGIN.search(text, at)) and (end := text.find(_END, begin.end())) >= 0:
        octets = _octets(begin[2].lower(), text[begin.end() : end])
        before = text[at : begin.start()]
        if octets is None:
            yield text[at : end + len(_END)], "", b""
        else:
            yield "" if behind_word and before.isspace() else before, begin[1].lower(), octets
        at, behind_word = end + len(_END), octets is not None
    yield text[at:], "", b""


def _octets(encoding: str, text: str) -> bytes | None:
    try:
        if encoding == "q":
            return binascii.a2b_qp(text.encode("ascii", "replace"), header=True)
        return binascii.a2b_base64(text.encode("ascii", "replace") + b"==")
    except binascii.Error:
        return None
