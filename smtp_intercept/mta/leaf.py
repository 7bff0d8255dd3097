"""A part of a message without parts of its own, written as it is given.

Pure. What `email` would do to it on the way - fold, take for encoded words, parse what is quoted - is what strangers
attack.
"""

from __future__ import annotations

from email.message import Message
from email.policy import Compat32
from email.quoprimime import body_encode


class _Verbatim(Compat32):
    """Header fields as they are: clean and short already."""

    def fold_binary(self, name: str, value: str) -> bytes:
        return f"{name}: {value}\r\n".encode()


VERBATIM = _Verbatim(linesep="\r\n", mangle_from_=False)


class Leaf(Message):
    """Whatever its type is called, its text is written line by line: `email` looks into those of message/*."""

    def get_content_maintype(self) -> str:
        return "text"

    def get_content_subtype(self) -> str:
        return "plain"


def leaf(kind: str, octets: bytes, encoding: str = "") -> Leaf:
    """``octets`` are lines ended by CRLF; ``encoding``: none, "8bit", or "quoted-printable" to be applied."""
    part = Leaf(policy=VERBATIM)
    part["Content-Type"] = kind
    if encoding:
        part["Content-Transfer-Encoding"] = encoding
    encoded = encoding == "quoted-printable"
    part.set_payload(_quoted_printable(octets) if encoded else octets.decode("ascii", "surrogateescape"))
    return part


def _quoted_printable(octets: bytes) -> str:
    """RFC 2045 §6.7; line ends stay line ends."""
    return body_encode(octets.decode("latin-1"), eol="\r\n")
