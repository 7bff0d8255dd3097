"""The messages of a soak: who sends which, how long it is and by which words it is offered, all from a number. Pure."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import StrEnum

SUBJECT = b"Subject: soak\r\n"
SENDERS = "senders.example"
# What servers put above a message (RFC 5321 §4.4), folded or not. No letter has such a field of its own.
TRACE = re.compile(rb"(?:(?:received|return-path):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)*", re.I)
KIB = 1024


class Words(StrEnum):
    """How a client offers its message."""

    DATA = "data"
    PIPELINED = "pipelined"
    BDAT = "bdat"
    TLS = "tls"


# Of a hundred messages. Large ones are few, as in real mail; ten or so are under way at any time all the same.
SHARES = {Words.DATA: 45, Words.PIPELINED: 25, Words.BDAT: 20, Words.TLS: 10}
SIZES = {(KIB // 2, 4 * KIB): 80, (20 * KIB, 100 * KIB): 19, (1000 * KIB, 1200 * KIB): 1}
LINE = b".a line that begins with a dot, as lines may\r\n"


@dataclass(frozen=True, slots=True)
class Letter:
    """One message. ``name`` is in its envelope and header, and nobody else's."""

    name: str
    words: Words
    octets: int

    @property
    def content(self) -> bytes:
        """With CRLF line ends, not stuffed."""
        head = SUBJECT + f"Message-ID: <{self.name}>\r\n\r\n".encode()
        filler = LINE + self.name.encode() + b"." * (70 - len(self.name)) + b"\r\n"
        return head + filler * max(1, (self.octets - len(head)) // len(filler))

    def sender(self, domain: str) -> str:
        return f"{self.name}@{domain}"


def letter(seed: int, prefix: str, number: int) -> Letter:
    """The same for the same arguments."""
    chance = random.Random(f"{seed} {prefix} {number}")
    (words,) = chance.choices([*SHARES], [*SHARES.values()])
    ((least, most),) = chance.choices([*SIZES], [*SIZES.values()])
    return Letter(f"{prefix}{number}", words, chance.randint(least, most))


def stuffed(content: bytes) -> bytes:
    """As after DATA: RFC 5321 §4.5.2, with the dot that ends it."""
    lines = content.replace(b"\r\n.", b"\r\n..")
    return (b"." if lines.startswith(b".") else b"") + lines + b".\r\n"


def below(content: bytes) -> bytes:
    """What its author wrote: all but the trace fields right at the top. Whatever else was put there is a change."""
    trace = TRACE.match(content)
    return content[trace.end() if trace else 0 :]


def name_of(sender: str) -> str:
    """ "" of a notice."""
    return sender.partition("@")[0]
