"""Lines, commands, replies and paths of SMTP, read from bytes.

Pure. Reads what real clients send, not only what RFC 5321 allows; never changes a byte and never judges one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What one address, name or reply may take of a log line; RFC 5321 §4.5.3.1 allows 256 (path) and 512 (reply).
MAX_LOGGED_CHARACTERS = 512

# The narrowest width that a server reads a number with: Exim's are 32 bits, and some of it has a sign.
MAX_COUNT = 2**31 - 1
# RFC 5321 §4.5.3.1.4 has 512 for a command, extensions add to it; servers have cut lines from 1,000 on.
PLAIN_BYTES = 1_000
# RFC 5321 §4.2.
_CODES = {b"%d" % code: code for code in range(200, 600)}
# How nearly every line of a reply begins: its code, and whether it is the last.
_HEADS = {b"%d%b" % (code, mark): (code, mark != b"-") for code in range(200, 600) for mark in (b" ", b"-", b"\t")}
_KEYWORD = re.compile(rb"\s*(?:FROM|TO)(?:\s*:|\s+(?=<))", re.IGNORECASE)
# Possessive are single characters only: Python before 3.11.5 loses its place in a possessive group that fails inside.
_QUOTED = rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_BARE = re.compile(rb"(?:" + _QUOTED + rb'|[^\s"<]++)*', re.DOTALL)
_BARE_MAILBOX = re.compile(
    rb"(?:" + _QUOTED + rb'|[^\s"<@]++)*@(?:' + _QUOTED + rb'|[^\s"<]++)*(?![^\s"])(?!' + _QUOTED + rb")", re.DOTALL
)
_ANGLED = re.compile(rb"<((?:" + _QUOTED + rb'|\\.|[^"\\>]++)*)>', re.DOTALL)
# From a bracket that closes nowhere to the first that stands inside of what was quoted behind it.
_TO_QUOTED = re.compile(rb'<(?:\\.|[^"\\]++|"(?:[^"\\<]++|\\[^<])*")*"(?:[^"\\<]++|\\[^<])*\\?(?=<)', re.DOTALL)
_ANGLED_OR_BROKEN = re.compile(rb"<([^>\s]*)")  # an unterminated quote or bracket: what stands before a blank
_SOURCE_ROUTE = re.compile(rb"(?:@(?:\[[^\]]*+\]|[^]\[@,:]++)+\s*+,?\s*+)+:")
# What nearly every client sends; `parse_path` reads it at a third of the cost, and in the same way.
_PLAIN = re.compile(rb"(?i:FROM|TO):<([A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-z0-9.-]*[a-z0-9-])>(?:[ \t]|\Z)")
_MAILBOX = re.compile(rb"(" + _QUOTED + rb'|[^"\\]*)@([^\s"\\@\[]*)', re.DOTALL)
_ESCAPED, _TO_ESCAPE = re.compile(rb"\\(.)", re.DOTALL), re.compile(rb'["\\]')
_DOT_STRING = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]++(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+)*")
_CHUNK = re.compile(rb"([0-9]{1,18})(?: +(LAST))?", re.IGNORECASE)
# No blank before it and none but spaces in it: what else some servers take for BDAT is no command to others.
_CHUNK_LINE = re.compile(rb"BDAT +[0-9]{1,18}(?: +LAST)? *\r\n", re.IGNORECASE)
_SENDER_VERB = re.compile(rb"MAIL|SEND|SOML|SAML")
_CREDENTIALS = re.compile(rb"(?:[A-Za-z-]+ +[A-Za-z0-9_-]+ +)?[A-Za-z0-9+/=]+\r\n")
_OFFER = re.compile(rb"^[ \t]*([^ \t\n]+)[ \t]*([^\n]*)", re.MULTILINE)
_COUNT = re.compile(rb"[0-9]{1,10}(?![^ ])")
# Exim's words behind PRDR: on one recipient, and the last one, with the identifier of either of its two lengths.
_ON_RECIPIENT = re.compile(rb"PRDR R=<([^>]*)> ")
_ON_MESSAGE = re.compile(rb"id=[0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4} message ")


@dataclass(slots=True)
class Command:
    """A client's line: the verb in capitals, and the rest without the blanks around it."""

    verb: bytes
    argument: bytes


@dataclass(slots=True)
class ReplyLine:
    """One line of a reply, its text cut to what a log may hold; the reply is whole with the line that is ``final``."""

    code: int
    final: bool
    text: bytes

    def __str__(self) -> str:
        return safe_text(b"%d %b" % (self.code, self.text)).rstrip()


@dataclass(slots=True)
class Chunk:
    """The argument of BDAT (RFC 3030 §2)."""

    size_bytes: int
    last: bool


def line_end(buffer: bytes, start: int, most_bytes: int) -> int:
    """The index past the LF of the line that begins at ``start``; 0 if its end is not there yet, -1 if the line is
    longer than it may be.

    A bare LF ends a line as well: every server known reads commands so, and waiting for a CR would stall the session.
    """
    end = buffer.find(b"\n", start, start + most_bytes) + 1
    return -1 if not end and len(buffer) - start >= most_bytes else end


def is_broken(line: bytes) -> bool:
    """A CR stands elsewhere than before the LF, so that to some servers these are two commands; or a NUL, which some
    drop and to others is the command's end."""
    return b"\r" in line.removesuffix(b"\n").removesuffix(b"\r") or b"\0" in line


def parse_command(line: bytes) -> Command:
    """From a whole line. Blanks before the verb are skipped and a NUL ends it, as C servers do: a STARTTLS must
    not hide from us that shows itself to the server."""
    words = line.split(None, 1)
    verb = words[0].upper() if words else b""
    if b"\0" in verb:
        verb = verb.partition(b"\0")[0]
    return Command(verb, words[1].strip() if len(words) > 1 else b"")


def parse_reply_line(line: bytes) -> ReplyLine | None:
    """From a whole line; None if it is no reply (RFC 5321 §4.2). Some servers send no text and no space after the
    code, some a tab, some more than one CR."""
    if head := _HEADS.get(line[:4]):
        return ReplyLine(*head, line[4:].rstrip(b"\r\n")[:MAX_LOGGED_CHARACTERS])
    code = _CODES.get(line[:3])
    return None if code is None or line[3:].strip(b"\r\n") else ReplyLine(code, True, b"")


def is_last_verdict(text: bytes) -> bool:
    """A reply behind PRDR says that it is on the whole message."""
    return _ON_MESSAGE.match(text) is not None


def judged_mailbox(text: bytes) -> str:
    """The recipient that a reply behind PRDR says it is on; "" if it names none."""
    found = _ON_RECIPIENT.match(text)
    return safe_text(found[1]) if found else ""


def parse_offers(lines: bytes) -> dict[bytes, bytes]:
    """Lines of the EHLO reply but the first: the keywords with their parameters, in capitals (RFC 5321 §4.1.1.1)."""
    return dict(_OFFER.findall(lines.upper()))


def begins_transaction(octets: bytes) -> bool:
    """A server that reads these as lines could find a message in them, whatever it skips between the two words or
    drops from within them."""
    lines = octets.replace(b"\0", b"").upper().split(b"\n")
    return any(b"FROM" in line and _begins(line, line.rindex(b"FROM")) for line in lines)


def _begins(line: bytes, upto: int) -> bool:
    return _SENDER_VERB.search(line, 0, upto) is not None


def is_credentials(line: bytes) -> bool:
    """AUTH with an initial response, or a line of the exchange (RFC 4954 §4): no blank in it that makes a command."""
    return _CREDENTIALS.fullmatch(line) is not None


def parse_chunk(argument: bytes) -> Chunk | None:
    """From the argument of BDAT; None if the server cannot know either how many octets follow."""
    found = _CHUNK.fullmatch(argument)
    return None if found is None else Chunk(int(found[1]), found[2] is not None)


def is_chunk_line(line: bytes) -> bool:
    """A whole line announces a chunk, and no server reads it otherwise."""
    return _CHUNK_LINE.fullmatch(line) is not None


def parse_count(argument: bytes) -> int | None:
    """The number that an argument begins with; None if there is none, or one that not every peer can read."""
    found = _COUNT.match(argument)
    count = int(found[0]) if found else MAX_COUNT + 1
    return count if count <= MAX_COUNT else None


def parse_path(argument: bytes) -> str:
    """The mailbox in the argument of MAIL or RCPT: without brackets, source route (RFC 5321 §3.6.1) and parameters.

    Tolerates blanks anywhere, missing brackets, a name before the brackets, quoted local parts and any octet.
    "" is the null reverse-path. In its `common_spelling`, whole and safe to log; `clip` it before it goes there.
    """
    if plain := _PLAIN.match(argument):
        return plain[1].decode("ascii")
    found = _KEYWORD.match(argument)
    rest = argument[found.end() if found else 0 :].strip()
    path = _bracketed(rest).lstrip(b"<").strip()
    route = _SOURCE_ROUTE.match(path)
    return common_spelling(path[route.end() if route else 0 :].strip())


def common_spelling(mailbox: bytes) -> str:
    """Of what servers take for the same mailbox, so that a rule meets it and a search in a log finds it: no quotes
    where none are needed (RFC 5321 §4.1.2), the domain in lower case (§2.4), no dot at its end. Safe to log."""
    found = _MAILBOX.fullmatch(mailbox)
    if found is None:
        return safe_text(mailbox)
    local, domain = found.groups()
    if local[:1] == b'"':
        meant = _ESCAPED.sub(rb"\1", local[1:-1])
        local = meant if _DOT_STRING.fullmatch(meant) else b'"' + _TO_ESCAPE.sub(rb"\\\g<0>", meant) + b'"'
    return safe_text(local + b"@" + domain.lower().removesuffix(b"."))


def _bracketed(rest: bytes) -> bytes:
    """What the brackets hold, or the first word if it is an address by itself."""
    if mailbox := _BARE_MAILBOX.match(rest):
        return mailbox[0]
    bare = _BARE.match(rest)
    word = bare[0] if bare else b""
    if closed := _angled(rest, rest.find(b"<", len(word))):
        return closed[1]
    if found := _ANGLED_OR_BROKEN.search(rest, len(word)):
        return found[1]
    return word or rest.partition(b" ")[0]


def _angled(rest: bytes, at: int) -> re.Match[bytes] | None:
    """The first bracket from ``at`` on that closes. Where one does not, none does that is read with the same quotes
    open; those that it has for quoted are left, and the first of these speaks for all of them: two looks at a line."""
    if at < 0 or rest.find(b">", at) < 0:
        return None
    if found := _ANGLED.match(rest, at):
        return found
    inside = _TO_QUOTED.match(rest, at)
    return _ANGLED.match(rest, inside.end()) if inside else None


def safe_text(octets: bytes) -> str:
    """Text for a log: UTF-8 where it is, backslash escapes for the rest and for what would act on a terminal
    (control characters, bidirectional overrides)."""
    text = octets.decode("utf-8", "surrogateescape")  # `backslashreplace` costs ten times as much
    if text.isprintable():
        return text
    shown = {c: c if c.isprintable() else _escaped(c) for c in set(text)}
    return "".join(map(shown.__getitem__, text))


def _escaped(character: str) -> str:
    """An octet that is no UTF-8 is a lone surrogate (PEP 383)."""
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode("ascii")


def clip(text: str) -> str:
    """At most `MAX_LOGGED_CHARACTERS`, the last one an ellipsis if some are missing."""
    return text if len(text) <= MAX_LOGGED_CHARACTERS else text[: MAX_LOGGED_CHARACTERS - 1] + "…"
