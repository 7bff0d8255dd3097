"""The messages that the matrix carries, as a table: name -> what it is, how it asks to be sent.

All lines end in CRLF: what bare CR and LF do is the smuggling tests' subject.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.tools import data

CPYTHON = "usr/lib/python3*/test/test_email/data/msg_*.txt"
SPAMASSASSIN = "usr/share/doc/spamassassin/examples/sample-*.txt"
# Ways to send chunks: one after the other, as BINARYMIME where that is offered, and all at once.
CHUNKED: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("bdat", (), False),
    ("binary", ("BODY=BINARYMIME",), False),
    ("ahead", (), True),
)
BIG_BYTES = 50_000_000
SEGMENT_BYTES = 1448  # of TCP on Ethernet


@dataclass(frozen=True, slots=True)
class Mail:
    """One message to send. ``options`` are MAIL parameters; it is left out where the server does not offer them."""

    name: str
    content: bytes
    sender: str
    recipient: str  # its local part
    options: tuple[str, ...] = ()
    bdat_bytes: int = 0  # sent by BDAT in chunks of so many octets; 0: by DATA
    pipelined: bool = False  # envelope and chunks at once (RFC 3030 §4.2), the last one not empty


def mail(name: str, content: bytes, *options: str, sender: str = "", recipient: str = "user") -> Mail:
    return Mail(name, crlf(content), f"{sender or name}@sender.test", recipient, options)


def crlf(content: bytes) -> bytes:
    """The content with CRLF at every line's end and at its own."""
    text = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    return text if text.endswith(b"\r\n") else text + b"\r\n"


def packaged() -> list[Mail]:
    """The mails of CPython's test_email and SpamAssassin's samples."""
    return [_packaged(path) for pattern in (CPYTHON, SPAMASSASSIN) for path in data(pattern)]


def _packaged(path: Path) -> Mail:
    content = path.read_bytes()
    return mail(path.stem, content, *(() if content.isascii() else ("BODY=8BITMIME",)))


def made() -> list[Mail]:
    """What the collections lack."""
    head = b"Subject: made for the matrix\n\n"
    return [
        mail("lone-dot", head + b".\n"),
        mail("only-dots", head + b"".join(b"." * n + b"\n" for n in range(40))),
        mail("no-header", b"no header at all\n"),
        mail("empty-lines", head + b"\n" * 500),
        mail("dots-at-borders", head + b"".join(dots_at_borders())),
        mail("eight-bit", head + bytes(range(128, 256)) + b"\n" + "Grüße, Καλημέρα, 早安\n".encode(), "BODY=8BITMIME"),
        mail("controls", head + bytes(n for n in range(1, 128) if n not in b"\r\n") + b"\n"),
        mail("nul", head + b"before\0after\n"),
        mail("line-of-998", head + b"x" * 998 + b"\n"),
        mail("line-of-5000", head + b"y" * 5000 + b"\n"),
        mail("utf8", head + b"to an address in UTF-8\n", "SMTPUTF8", sender="grüße", recipient="pelé"),
        mail("utf8-header", "Subject: Ελλάδα\n\n早安\n".encode(), "SMTPUTF8", "BODY=8BITMIME"),
        mail("sized", head + b"with its size\n", "SIZE=1000"),
        mail("dsn", head + b"with parameters of RFC 3461\n", "RET=HDRS", "ENVID=QQ314159"),
        mail("commands", head + b"QUIT\nRSET\n.QUIT\nMAIL FROM:<x@sender.test>\nDATA\n354 go\n250 ok\n"),
    ]


def dots_at_borders() -> Iterator[bytes]:
    """Lines that are a dot, or begin with one, at every offset of a segment, and so of every read."""
    for offset in range(SEGMENT_BYTES):
        yield b"a" * (offset % 89) + b"\n.\n..\n"


def big() -> Mail:
    """50 MB, with a line of a dot now and then."""
    noise = random.Random(50)
    lines = [noise.randbytes(480).hex().encode() + b"\n" for _ in range(50)]
    block = b"".join(lines) + b".\n"
    return mail("big", b"Subject: 50 MB\n\n" + block * (BIG_BYTES // len(block) + 1))


def chunked() -> list[Mail]:
    """For servers that offer CHUNKING: octets of every value and CRLF.CRLF, which only BDAT can carry."""
    noise = b"Subject: binary\r\n\r\n" + random.Random(1).randbytes(50_000) + b"\r\n.\r\nafter the dot\r\n.\r\n"
    dots = b"Subject: dots\r\n\r\n" + b"\r\n.\r\n" * 60
    sizes = {"noise": (noise, (70_000, 1_000, 16_384)), "dots": (dots, (1, 2, 3, 4, 5, 7))}
    return [
        Mail(f"{how}-{name}-{size}", content, f"{how}-{name}-{size}@sender.test", "user", options, size, pipelined)
        for name, (content, all_sizes) in sizes.items()
        for size in all_sizes
        for how, options, pipelined in CHUNKED
    ]
