"""A client that wants to be misunderstood: random sessions, tricks before, between and inside messages, in any cut.

Pure: one seed, one session. Each message that it might get through has a sender of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from enum import Enum, auto
from itertools import count

from tests.fuzz.loose import LOOSE_ENDS


class End(Enum):
    """Of what the client says: it still listens, or it is gone."""

    HALF_CLOSE = auto()
    RESET = auto()


SYNC = None  # wait for all replies
Step = bytes | End | None
HELLO = b"\x16\x03\x01\x00\x10\x01\r\nNOOP\r\nNOOP\r\n."
# Where no command is looked for, or another one is.
INTERRUPTIONS = (
    *(
        b"RSET",
        b"RSET x",
        b"NOOP",
        b"NOOP " + b"x" * 994,
        b"EHLO d.example",
        b"HELO d.example",
        b"EHLO",
        b"LHLO d.example",
    ),
    *(
        b"MAIL FROM:<again@evil.test>",
        b"RCPT TO:<c@DOMAIN>",
        b"DATA x",
        b" DATA",
        b"DATA\0",
        b"BDAT",
        b"\tBDAT 3",
        b"",
    ),
    *(
        b"VRFY a",
        b"EXPN a",
        b"HELP",
        b"ETRN x",
        b"TURN",
        b"XCLIENT ADDR=192.0.2.1",
        b"XFORWARD ADDR=192.0.2.1",
        b"X-EXPS LOGIN",
    ),
    *(
        b"AUTH PLAIN AAAA",
        b"AUTH LOGIN\r\n*",
        b"AUTH EXTERNAL =",
        b"AUTH XOAUTH2 QUFB",
        b"*",
        b"STARTTLS x",
        b"BURL imap://x",
    ),
)
SIZES = (b"+%d", b"-%d", b"0%d", b"00000000000000000000%d", b"0x%x", b"%d.0", b"\t%d", b" %d ", b"%d,", b"", b"x%d")


def hello(body: bytes) -> bytes:
    """A ClientHello with this in it."""
    return b"\x16\x03\x01" + (1 + len(body)).to_bytes(2) + b"\x01" + body


class Hostile:
    """``steps`` are what it does; ``domain`` is its recipients'."""

    def __init__(self, seed: str, domain: str) -> None:
        self._chance, self._seed, self._domain, self._numbers = random.Random(seed), seed, domain, count()
        self._tricks = self._chance.random() < 0.9  # the others are anybody's: some mail must get through
        self.steps = list(self._session())
        if self._tricks and self._chance.random() < 0.12:
            self._leave()

    def _leave(self) -> None:
        """Anywhere, at once."""
        del self.steps[self._chance.randint(1, len(self.steps)) :]
        self.steps.append(self._chance.choice([End.HALF_CLOSE, End.RESET]))

    def _session(self) -> Iterator[Step]:
        chance = self._chance
        if not self._tricks or chance.random() < 0.6:
            yield SYNC
        for _ in range(chance.choice([0, 0, 0, 1, 2])):
            yield from self._trick()
        others = [b"HELO c.example", b"LHLO c.example"] if self._tricks else []
        yield from self._line(chance.choice([b"EHLO c.example"] * 6 + others))
        for _ in range(chance.randint(1, 3)):
            for _ in range(chance.choice([0, 0, 1, 2])):
                yield from self._trick()
            yield from self._message()
        if chance.random() < 0.7:
            yield from self._line(b"QUIT")

    def _maybe_sync(self) -> Iterator[Step]:
        if self._chance.random() < 0.5:
            yield SYNC

    def _line(self, line: bytes) -> Iterator[Step]:
        end = self._chance.choice([b"\r\n"] * 14 + ([b"\n", b"\r\r\n"] if self._tricks else []))
        yield from self._cut(line + end)
        yield from self._maybe_sync()

    def _cut(self, octets: bytes) -> Iterator[bytes]:
        """Mostly in one piece."""
        while octets and self._chance.random() < 0.15:
            size = self._chance.randint(1, len(octets))
            yield octets[:size]
            octets = octets[size:]
        if octets:
            yield octets

    # Messages.

    def _envelope(self) -> tuple[bytes, list[bytes]]:
        chance = self._chance
        sender = f"m{self._seed}.{next(self._numbers)}@evil.test"
        verb = chance.choice([b"MAIL"] * 9 + [b"SAML"] * self._tricks)
        parameters = chance.choice([b"", b"", b" PRDR", b" BODY=8BITMIME", b" PRDR AUTH=<>", b" AUTH=<> PRDR"])
        names = chance.sample(["a", "b", "c", "nobody", "trap"], chance.randint(1, 3))
        mail = b"%b FROM:<%b>%b" % (verb, sender.encode(), parameters if self._tricks else b"")
        return mail, [f"RCPT TO:<{name}@{self._domain}>".encode() for name in names]

    def _whole(self) -> bytes:
        """A transaction in one go, for where nobody should read one."""
        mail, recipients = self._envelope()
        return b"\r\n".join([mail, *recipients, b"DATA", b"Subject: x", b"", b"hidden", b".", b""])

    def _message(self) -> Iterator[Step]:
        mail, recipients = self._envelope()
        for line in (mail, *recipients):
            yield from self._line(line)
            yield from self._interrupt()
        if not self._tricks or self._chance.random() < 0.5:
            yield from self._by_data()
        else:
            yield from self._by_chunks()

    def _by_data(self) -> Iterator[Step]:
        yield from self._line(b"DATA")
        yield from self._cut(self._content())

    def _content(self) -> bytes:
        chance = self._chance
        parts = [
            b"Subject: x\r\n\r\n",
            chance.choice([b"text\r\n", b".\r\n" if chance.random() < 0.1 else b"..\r\n", b""]),
        ]
        if self._tricks and chance.random() < 0.5:
            parts += [b"x", chance.choice(LOOSE_ENDS), self._whole()]
        if chance.random() < 0.1:
            parts.append(b"refuse\r\n")
        return b"".join(parts) + b"\r\n.\r\n"

    def _by_chunks(self) -> Iterator[Step]:
        chance = self._chance
        for number in range(chance.randint(1, 3), 0, -1):
            chunk = chance.choice([b"", b"Subject: x\r\n\r\nx", self._whole(), b"QUIT\r\n", b"\r\n.\r\n"])
            size = len(chunk)
            if self._tricks and chance.random() < 0.2:
                size = chance.choice([0, 1, size + 2**32, size + 2**31, max(0, size - 1), 2**64 + size])
            last = b" LAST" if number == 1 else b""
            if self._tricks and chance.random() < 0.1:
                last = chance.choice([b" X", b" last", b"\0", b"\tLAST", b" LAST X"])
            form = chance.choice(SIZES) if self._tricks and chance.random() < 0.1 else b"%d"
            yield from self._line(b"BDAT %b%b" % (form % size if form else b"", last))
            yield from self._cut(chunk)
            yield from self._maybe_sync()
            yield from self._interrupt()

    # Tricks.

    def _interrupt(self) -> Iterator[Step]:
        if self._tricks and self._chance.random() < 0.08:
            line = self._chance.choice(INTERRUPTIONS)
            yield from self._line(line.replace(b"DOMAIN", self._domain.encode()))

    def _trick(self) -> Iterator[Step]:
        if not self._tricks:
            return
        trick = self._chance.choice(TRICKS)(self)
        yield from self._cut(trick)
        yield from self._maybe_sync()

    def _cut_line(self, first: bytes, at: int) -> bytes:
        """To a server that cuts its lines there, a transaction."""
        mail, recipients = self._envelope()
        pieces = [first, mail, recipients[0], b"DATA"]
        return b"".join(piece.ljust(at, b" ") for piece in pieces[:-1]) + b"DATA\r\n"

    def _long(self) -> bytes:
        return b"NOOP " + b"x" * self._chance.choice([990, 12_281, 12_283, 20_000]) + b"\r\n" + self._odd()

    def _odd(self) -> bytes:
        return self._chance.choice([b"", b"NOOP\r\n", b"\xff\xfe\r\n", b"\0\r\n", b"\r\n", b"VRFY x\r\n"])

    def _hidden_in(self, opener: bytes) -> bytes:
        return opener + self._whole()

    def _inside_cr(self) -> bytes:
        return b"NOOP\r" + self._whole().replace(b"\r\n", b"\r") + b"\r\n"

    def _credentials(self) -> bytes:
        return self._chance.choice(
            [
                b"AUTH GSSAPI\r\n" + b"QUFB" * 10 + b"\r\n",
                b"AUTH GSSAPI QUFB\r\n\0\0\0\x40" + self._whole(),
                b"AUTH GSSAPI\r\n" + b"A" * 16_384 + b"DATA\r\n",
                b"AUTH GSSAPI " + b"A" * (16_384 - 12) + b"DATA\r\n",
                self._cut_line(b"AUTH GSSAPI QUFB", 16_384),
                b"AUTH GSSAPI\r\n" + self._cut_line(b"QUFB", 16_384),
            ]
        )


TRICKS: tuple[Callable[[Hostile], bytes], ...] = (
    Hostile._odd,
    Hostile._long,
    Hostile._inside_cr,
    Hostile._credentials,
    lambda it: it._cut_line(b"NOOP", 16_384),
    lambda it: it._hidden_in(b"XEXCH50 %d 2\r\n" % it._chance.choice([0, 40, 2**32 + 1, 10**12])),
    lambda it: it._hidden_in(b"XSECRET\r\n"),
    lambda it: it._hidden_in(b"BDAT %d LAST\r\n" % it._chance.choice([0, 1, 64, 2**32 + 1])),
    lambda it: it._hidden_in(b"NOOP\nBDAT 150 LAST\r\n"),
    lambda it: it._hidden_in(b"BURL imap://x LAST\r\n"),
    lambda it: it._hidden_in(b"POST / HTTP/1.1\r\nHost: mx\r\n\r\n"),
    lambda it: it._hidden_in(HELLO),
    lambda it: it._hidden_in(b"\x16\x03"),
    lambda it: it._hidden_in(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n"),
    lambda it: it._hidden_in(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)),
    lambda it: it._hidden_in(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    lambda it: hello(b"\r\nEHLO c.example\r\n" + it._whole()),
    lambda it: hello(
        b"\r\nEHLO c.example\r\n" + it._whole().replace(b" FROM", it._chance.choice([b"\0 FROM", b" \x1cFROM"]))
    ),
    lambda it: it._hidden_in(b"VERB\r\n"),
    lambda it: it._hidden_in(b"DATA\r\n"),
    lambda it: b"STARTTLS\r\n",
    lambda it: b"MAIL FROM:<lost@evil.test>\r\nRSET\r\n",
)
