"""Our Received: line, and how many there were before: where a message has been (RFC 5321 §4.4, §6.3).

Pure. What a client says goes into a clause only if it is what the clause may hold; nothing else of the header is read.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from smtp_intercept.mta.envelope import Envelope, Origin

# RFC 3848, RFC 6531 §4.3, by (extended, encrypted, internationalized). HELO inside TLS has no word of its own.
_WITH = {
    (False, False, False): "SMTP",
    (False, True, False): "ESMTPS",
    (True, False, False): "ESMTP",
    (True, True, False): "ESMTPS",
    (True, False, True): "UTF8SMTP",
    (True, True, True): "UTF8SMTPS",
}
# RFC 5321 §2.3.5, §4.1.3; underscores and single labels are what hosts do say.
_LABEL = r"[A-Za-z0-9_]++(?:-++[A-Za-z0-9_]++)*"
_DOMAIN = re.compile(rf"(?=.{{1,255}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_LITERAL = re.compile(r"\[[A-Za-z0-9:.]{2,64}\]")
_UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
MAX_SAID_CHARACTERS = 64  # of a name that is none
MAX_FOR_OCTETS = 900  # RFC 5322 §2.1.1: a line has at most 998

_FIELD = re.compile(rb"\nreceived[ \t]{0,8}:", re.IGNORECASE)
_END = re.compile(rb"\n\r?\n")
_OVERLAP = len(b"\nreceived:") + 8


def received_line(origin: Origin, envelope: Envelope, *, hostname: str, extended: bool, name: str, date: str) -> bytes:
    """With its CRLF. ``name`` is ours for the message; ``date`` as in RFC 5322 §3.3. The recipient is told only if it
    is the only one: the others are nobody's business (RFC 5321 §7.2)."""
    protocol = _WITH[extended or envelope.smtputf8, bool(origin.tls), envelope.smtputf8]
    tls = f" ({_UNSAFE.sub('?', origin.tls)})" if origin.tls else ""
    lines = [f"Received: from {_from(origin)}", f"by {hostname} with {protocol}{tls} id {name}"]
    if len(envelope.recipients) == 1:
        clause = f"for <{envelope.recipients[0].address}>"
        lines += [clause] if len(clause.encode()) <= MAX_FOR_OCTETS else []
    return ("\r\n\t".join(lines) + f"; {date}\r\n").encode()


def _from(origin: Origin) -> str:
    """RFC 5321 §4.4, Extended-Domain: what the client called itself, and in the comment what is known of it."""
    literal = _literal(origin.client[0])
    helo = origin.helo
    if _DOMAIN.fullmatch(helo) or _LITERAL.fullmatch(helo):
        return f"{helo} ({literal})"
    said = _UNSAFE.sub("?", helo)[:MAX_SAID_CHARACTERS]
    return f"{literal} ({literal}) (said {said})" if said else f"{literal} ({literal})"


def _literal(address: str) -> str:
    """RFC 5321 §4.1.3; without a zone, and an IPv4 address in IPv6's clothes as what it is."""
    ip = ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return f"[IPv6:{ip}]" if ip.version == 6 and mapped is None else f"[{mapped or ip}]"


class HopCount:
    """The Received: fields of a header that passes in pieces of any size; keeps a few octets of it."""

    __slots__ = ("_tail", "ended", "hops")

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the header begins at the beginning of a line
        self.hops, self.ended = 0, False

    def feed(self, data: bytes) -> None:
        """The next octets of the message; those behind its header are not looked at."""
        if self.ended or not data:
            return
        text, old = self._tail + data, len(self._tail)
        end = _END.search(text)
        stop = end.start() + 1 if end else len(text)
        self.hops += sum(found.end() > old for found in _FIELD.finditer(text, 0, stop))
        self.ended = end is not None
        self._tail = text[-_OVERLAP:]
