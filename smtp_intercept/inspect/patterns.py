"""The texts that rules compare with: networks, mailboxes and patterns, read from what an administrator writes.

Pure. Patterns have ``*`` and ``?`` and are no regular expressions: what they are laid against is a stranger's, and no
text of a stranger's may cost more than its length.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from smtp_intercept.direction import Network, normal_domain, recipient_domain, without_route
from smtp_intercept.names import read_domain

NULL_SENDER = "<>"
_WILD = re.compile(r"[*?]")
_STARS = re.compile(r"\*+")
_ESCAPED = re.compile(r"\\(.)|\"", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address taken apart, both parts in one spelling; no domain is "" (``postmaster``, the null sender)."""

    local: str
    domain: str


@dataclass(frozen=True, slots=True)
class Domain:
    """All mailboxes of a domain; ``below``: of its subdomains, and not of itself."""

    name: str
    below: bool = False


@dataclass(frozen=True, slots=True)
class Wild:
    """All texts that a pattern fits, in one spelling."""

    pattern: str

    def compiled(self) -> re.Pattern[str]:
        """As it is matched, whole, in time linear in the text."""
        return glob(self.pattern)


def fold(text: str) -> str:
    """One spelling of what people see as the same."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def glob(pattern: str) -> re.Pattern[str]:
    """A pattern that fits a whole folded text. Each piece between stars is taken where it is first found and never
    looked for again, so that no text makes it backtrack."""
    first, *rest = (_literally(piece) for piece in _STARS.split(fold(pattern)))
    if not rest:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>.*?{piece})" for piece in rest[:-1] if piece)
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def _literally(piece: str) -> str:
    return ".".join(map(re.escape, piece.split("?")))


def mailbox(path: str) -> Mailbox:
    """Of what stands between "<" and ">", as `wire.parse_path` gives it. Quotes and backslashes of the local part go,
    for ``"user"@example.com`` reaches the same mailbox (RFC 5321 §4.1.2)."""
    domain = recipient_domain(path)
    whole = without_route(path)
    local = whole if domain is None else whole.rpartition("@")[0]
    if '"' in local or "\\" in local:
        local = _ESCAPED.sub(lambda found: found[1] or "", local)
    return Mailbox(fold(local), domain or "")


def read_network(text: str) -> Network:
    """An address or a network. ValueError says why not."""
    return Network.of(text)


def read_mailbox(text: str) -> Mailbox | Domain | Wild:
    """An entry of a list of senders or recipients; ValueError says why not."""
    if text == NULL_SENDER:
        return Mailbox("", "")
    if not text or not text.isprintable() or any(letter in text for letter in "<>, "):
        raise ValueError(f"{text!r} is not an address, a domain or a pattern")
    if _WILD.search(text):
        if "@" not in text:
            raise ValueError(f"{text!r} is a pattern without @: write *@{text}, or .example.com for all below a domain")
        return Wild(fold(text))
    local, at, domain = text.rpartition("@")
    if not at and domain.startswith("."):
        return Domain(read_domain(domain[1:]), below=True)
    if domain.startswith("["):
        return Mailbox(fold(local), normal_domain(domain)) if local else Domain(normal_domain(domain))
    name = read_domain(domain)
    return mailbox(f"{local}@{name}") if local else Domain(name)


def read_text(text: str) -> Wild:
    """A pattern for names and values; ValueError says why not."""
    if not text or not text.isprintable():
        raise ValueError(f"{text!r} is empty, or has letters that cannot be seen")
    return Wild(fold(text))
