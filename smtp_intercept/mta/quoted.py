"""The original in a notice: its headers, or the whole of it where the sender asked (RFC 3461 §4.3).

Pure. What 7 bits cannot carry as it is goes as quoted-printable, what no 8-bit line can hold is not quoted whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from smtp_intercept.mta.envelope import Envelope
from smtp_intercept.mta.fate import Original
from smtp_intercept.mta.leaf import Leaf, leaf

HEADERS_BYTES = 65_536  # of the headers returned: Postfix's bounce_size_limit is about that
WHOLE_BYTES = 262_144  # above it RET=FULL gets the headers: a notice is built in memory

_END_OF_HEADERS = re.compile(rb"\r?\n(?=\r?\n)")
_NEWLINE = re.compile(rb"\r\n|\r|\n")
# RFC 5322 §2.1.1 and 2.3, RFC 6152 §2: lines, and no octet that a server may take for the end of one.
_LINES = re.compile(rb"(?:[^\r\n\0]{0,998}+\r\n)*[^\r\n\0]{0,998}+")


@dataclass(frozen=True, slots=True, eq=False)
class Quoted:
    """``whole``: not the headers alone. ``eight_bit``: the notice needs 8BITMIME."""

    part: Leaf
    whole: bool
    eight_bit: bool


def bytes_needed(envelope: Envelope, content_bytes: int, failed: bool) -> int:
    """Of the content's beginning, for `original_part`."""
    return content_bytes if _asked_whole(envelope, content_bytes, failed) else min(content_bytes, HEADERS_BYTES)


def original_part(original: Original, failed: bool) -> Quoted:
    """``failed``: for a recipient at least; else the whole is never returned (RFC 3461 §4.3)."""
    envelope, head = original.envelope, original.head
    asked = _asked_whole(envelope, original.content_bytes, failed) and len(head) >= original.content_bytes
    if asked and _LINES.fullmatch(head):
        return _whole(head, envelope.smtputf8)
    return Quoted(_headers(headers_of(head), envelope.smtputf8), whole=False, eight_bit=False)


def headers_of(head: bytes) -> bytes:
    """Without the empty line; `HEADERS_BYTES` at most, cut at a line's end, every line ended by CRLF."""
    found = _END_OF_HEADERS.search(head, 0, HEADERS_BYTES + 2)
    taken = head[: found.start()] if found else head[:HEADERS_BYTES]
    if not found and len(head) >= HEADERS_BYTES:
        taken = taken[: taken.rfind(b"\n") + 1] or taken
    return _NEWLINE.sub(b"\n", taken).rstrip(b"\n").replace(b"\n", b"\r\n") + b"\r\n"


def _asked_whole(envelope: Envelope, content_bytes: int, failed: bool) -> bool:
    return failed and envelope.ret.upper() == "FULL" and content_bytes <= WHOLE_BYTES


def _whole(content: bytes, international: bool) -> Quoted:
    if content.isascii():
        return Quoted(leaf("message/rfc822", content), whole=True, eight_bit=False)
    if international:  # RFC 6532 §3.7: this type may be encoded, message/rfc822 may not
        return Quoted(leaf("message/global", content, "quoted-printable"), whole=True, eight_bit=False)
    return Quoted(leaf("message/rfc822", content, "8bit"), whole=True, eight_bit=True)


def _headers(headers: bytes, international: bool) -> Leaf:
    kind = "message/global-headers" if international and not headers.isascii() else "text/rfc822-headers"
    fits = headers.isascii() and _LINES.fullmatch(headers)
    return leaf(kind, headers, "" if fits else "quoted-printable")
