"""A mail server that takes what some server once took: loose line ends, loose ends of data, cut lines, narrow numbers.

Pure: octets in, replies out; ``taken`` are the envelopes of the messages that it has answered 250.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

LOOSE_ENDS = (
    *(b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r", b"\r.\n"),
    *(b"\r\n.\0\r\n", b"\r\n\0.\r\n", b"\r\n.\r\r\n", b"\n\0.\n"),
)
TRAP = "trap@"
_PATH = re.compile(rb"(?:FROM|TO):\s*<([^>]*)>", re.IGNORECASE)
_CHUNK = re.compile(rb"\s*(\d+)\s*(\S*)")


@dataclass(frozen=True)
class Quirks:
    """``lf``, ``cr``: end a command too. ``nul`` is "keep", "drop" or "end" (of the command). ``cut_at``: octets of a
    line that are one command, the rest is the next. ``deaf``: what comes before the banner is thrown away. ``bits`` of
    a number. ``reads_refused``: the octets of a refused chunk are commands. ``discards`` mail for `TRAP` behind a 250,
    and has no verdict on it where PRDR asks for one."""

    lf: bool = True
    cr: bool = False
    nul: str = "keep"
    ends: tuple[bytes, ...] = ()
    cut_at: int = 0
    deaf: bool = False
    bits: int = 64
    lenient: bool = False
    chunking: str = "offered"  # or "known", "unknown"
    reads_refused: bool = False
    size: int = 0
    discards: bool = False
    offers: tuple[bytes, ...] = ()

    @classmethod
    def by(cls, chance: random.Random) -> Quirks:
        """Any."""
        often = chance.random
        return cls(
            lf=often() < 0.8,
            cr=often() < 0.3,
            nul=chance.choice(["keep", "drop", "end"]),
            ends=tuple(end for end in LOOSE_ENDS if often() < 0.5),
            cut_at=chance.choice([0, 0, 0, 16_384]),
            deaf=often() < 0.2,
            bits=chance.choice([64, 32, 31]),
            lenient=often() < 0.4,
            chunking=chance.choice(["offered", "offered", "known", "unknown"]),
            reads_refused=often() < 0.3,
            size=chance.choice([0, 0, 40]),
            discards=often() < 0.3,
            offers=tuple(
                each for each in (b"PRDR", b"XEXCH50", b"BURL", b"VERB", b"AUTH GSSAPI", b"XSECRET") if often() < 0.5
            ),
        )


class LooseServer:
    """``greet`` gives the banner, when it is time; `hear` all other replies."""

    def __init__(self, quirks: Quirks, *, lmtp: bool = False) -> None:
        self._quirks, self._lmtp = quirks, lmtp
        self._buffer = b""
        self._greeted = self._gone = self._verbose = False
        self._reading = "command"
        self._left, self._last, self._wanted = 0, False, True
        self._prdr = self._after_cr = False
        self._forget()
        self.taken: list[tuple[str, tuple[str, ...]]] = []

    def greet(self) -> bytes:
        """Now."""
        self._greeted = True
        if self._quirks.deaf:
            self._buffer = b""
        return b"220 loose\r\n" + self.hear(b"")

    def hear(self, data: bytes) -> bytes:
        """What it replies."""
        self._buffer += data.replace(b"\0", b"") if self._quirks.nul == "drop" else data
        replies = b""
        while self._greeted and not self._gone and (reply := self._step()) is not None:
            replies += reply
        return replies

    def _forget(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._refused = self._trapped = False

    def _step(self) -> bytes | None:
        steps = {"command": self._command, "data": self._data, "chunk": self._chunk, "octets": self._octets}
        return {**steps, "credentials": self._credentials}[self._reading]()

    # Lines.

    def _line(self) -> bytes | None:
        quirks = self._quirks
        ends = [b"\r\n", *([b"\n"] if quirks.lf else []), *([b"\r"] if quirks.cr else [])]
        found = [(at, -len(end)) for end in ends if (at := self._buffer.find(end)) >= 0]
        at, length = min(found, default=(-1, 0))
        if quirks.cut_at and (at >= quirks.cut_at or (at < 0 and len(self._buffer) >= quirks.cut_at)):
            at, length = quirks.cut_at, 0
        if at < 0 or (quirks.cr and self._buffer[at:] == b"\r"):
            return None
        line, self._buffer = self._buffer[:at], self._buffer[at - length :]
        return line

    def _command(self) -> bytes | None:
        if self._after_cr and self._buffer:  # CR or CRLF, it is one line end
            self._after_cr, self._buffer = False, self._buffer.removeprefix(b"\n")
        line = self._line()
        if line is None:
            return None
        if self._quirks.nul == "end":
            line = line.partition(b"\0")[0]
        words = line.strip().split(None, 1)
        verb, argument = (words[0].upper(), words[1] if words[1:] else b"") if words else (b"", b"")
        act = getattr(self, f"_do_{verb.decode('ascii', 'replace').lower()}", None)
        return b"500 what\r\n" if act is None else act(argument)

    def _do_ehlo(self, argument: bytes) -> bytes:
        self._forget()
        offers = [b"loose", *self._quirks.offers]
        offers += [b"CHUNKING"] if self._quirks.chunking == "offered" else []
        offers += [b"SIZE %d" % self._quirks.size] if self._quirks.size else []
        return b"".join(b"250-" + each + b"\r\n" for each in offers) + b"250 HELP\r\n"

    def _do_helo(self, argument: bytes) -> bytes:
        self._forget()
        return b"250 loose\r\n"

    def _do_noop(self, argument: bytes) -> bytes:
        return b"250 ok\r\n"

    def _do_rset(self, argument: bytes) -> bytes:
        self._forget()
        return b"250 reset\r\n"

    def _do_quit(self, argument: bytes) -> bytes:
        self._gone = True
        return b"221 bye\r\n"

    def _do_starttls(self, argument: bytes) -> bytes:
        return b"454 no\r\n"

    def _do_verb(self, argument: bytes) -> bytes:
        if b"VERB" not in self._quirks.offers:
            return b"502 no\r\n"
        self._verbose = True
        return b"250 verbose\r\n"

    def _do_auth(self, argument: bytes) -> bytes:
        if b"AUTH GSSAPI" not in self._quirks.offers or not argument:
            return b"503 no\r\n"
        if len(argument.split()) > 1:
            return b"235 ok\r\n"
        self._reading = "credentials"
        return b"334 \r\n"

    def _credentials(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        self._reading = "command"
        return b"501 cancelled\r\n" if line == b"*" else b"235 ok\r\n"

    def _do_xexch50(self, argument: bytes) -> bytes:
        found = _CHUNK.match(argument)
        if b"XEXCH50" not in self._quirks.offers or not found:
            return b"500 what\r\n"
        self._reading, self._left = "octets", self._narrow(int(found[1]))
        return b"354 send\r\n"

    def _do_xsecret(self, argument: bytes) -> bytes:
        """Nobody else knows it."""
        if b"XSECRET" not in self._quirks.offers:
            return b"500 what\r\n"
        self._reading, self._left = "octets", 40
        return b"334 send\r\n"

    def _octets(self) -> bytes | None:
        if len(self._buffer) < self._left:
            return None
        self._buffer, self._reading = self._buffer[self._left :], "command"
        return b"250 so many\r\n"

    # Mail.

    def _do_mail(self, argument: bytes) -> bytes:
        found = _PATH.match(argument)
        if self._sender is not None or not found:
            return b"503 no\r\n"
        self._sender = found[1].decode("latin-1")
        self._prdr = b"PRDR" in self._quirks.offers and b"PRDR" in argument.upper()
        return b"250 ok\r\n"

    _do_saml = _do_mail

    def _do_rcpt(self, argument: bytes) -> bytes:
        found = _PATH.match(argument)
        if self._sender is None or not found:
            return b"503 no\r\n"
        if found[1].startswith(b"nobody"):
            return b"550 nobody\r\n"
        if self._quirks.discards and found[1].startswith(TRAP.encode()):
            self._trapped = True
        else:
            self._recipients.append(found[1].decode("latin-1"))
        return b"250 ok\r\n"

    @property
    def _addressed(self) -> bool:
        return bool(self._recipients) or self._trapped

    def _do_data(self, argument: bytes) -> bytes:
        if not self._addressed or self._refused:
            return b"503 no\r\n"
        self._reading, self._buffer = "data", b"\r\n" + self._buffer
        return b"354 go\r\n"

    def _data(self) -> bytes | None:
        found = [(at, -len(end)) for end in (b"\r\n.\r\n", *self._quirks.ends) if (at := self._buffer.find(end)) >= 0]
        if not found:
            return None
        at, length = min(found)
        self._after_cr = self._buffer[at - length - 1 : at - length] == b"\r"
        content, self._buffer, self._reading = self._buffer[:at], self._buffer[at - length :], "command"
        return self._take(content)

    def _do_burl(self, argument: bytes) -> bytes:
        if b"BURL" not in self._quirks.offers or not self._addressed:
            return b"503 no\r\n"
        return self._take(b"") if argument.upper().split()[1:] == [b"LAST"] else b"250 more\r\n"

    def _narrow(self, number: int) -> int:
        return number % (1 << self._quirks.bits)

    def _do_bdat(self, argument: bytes) -> bytes:
        found, quirks = _CHUNK.match(argument), self._quirks
        if quirks.chunking == "unknown":
            return b"500 what\r\n"
        if not found or (not quirks.lenient and (found[2].upper() not in (b"", b"LAST") or b"\0" in argument)):
            return b"501 no size\r\n"
        self._left, self._last = self._narrow(int(found[1])), found[2].upper() == b"LAST"
        self._wanted = self._addressed and not self._refused
        if not self._wanted and quirks.reads_refused:
            return b"503 no\r\n"
        self._reading = "chunk"
        return b""

    def _chunk(self) -> bytes | None:
        if len(self._buffer) < self._left:
            return None
        content, self._buffer, self._reading = self._buffer[: self._left], self._buffer[self._left :], "command"
        if not self._wanted:
            return b"503 no\r\n"
        if self._last:
            return self._take(content)
        return b"250 so far\r\n"

    def _take(self, content: bytes) -> bytes:
        sender, recipients, prdr = self._sender, tuple(self._recipients), self._prdr and len(self._recipients) > 1
        self._forget()
        noise = b"050 looking\r\n" if self._verbose else b""
        if b"refuse" in content:
            return noise + b"550 not that\r\n"
        assert sender is not None
        if prdr:
            self.taken.append((sender, recipients[:1]))
            said = [b"%d PRDR R=<%b> so\r\n" % (550 if n else 250, r.encode()) for n, r in enumerate(recipients)]
            return noise + b"353 each\r\n" + b"".join(said) + b"250 id=1vQk2r-0007Xy-1d message accepted\r\n"
        if recipients:
            self.taken.append((sender, recipients))
        return noise + b"250 taken\r\n"
