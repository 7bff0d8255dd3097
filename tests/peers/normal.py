"""What two runs of the same mail may differ in: the dates and ids that the servers give. Nothing else is forgiven.

Each row: what it is, where it stands, and what is kept of it (the groups; a date or an id stood between them).
"""

from __future__ import annotations

import hashlib
import re

_DATE = r"\w{3}, [ \d]?\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}"
_FOLD = r"\r?\n\t"


def _row(name: str, pattern: str) -> tuple[str, re.Pattern[bytes], bytes]:
    compiled = re.compile(pattern.replace("DATE", _DATE).replace("FOLD", _FOLD).encode(), re.M)
    return name, compiled, b"<>".join(b"\\%d" % (number + 1) for number in range(compiled.groups))


NORMAL = (
    # in the Received fields of these tests' own servers, stored or on the way
    _row(
        "Postfix's trace",
        r"(by (?:relay\.)?postfix\.test \(Postfix\) with \w+ id )[0-9A-F]+"
        r"((?:FOLDfor <[^>]*>)?;(?: |FOLD))DATE( \(\w+\))",
    ),
    _row(
        "Exim's trace",
        r"(by exim\.test with \w+ (?: \(TLS[\d.]+\) tls \w+FOLD)?"
        r"\(Exim [\d.]+\)FOLD\(envelope-from <[^>]*>\)FOLDid )[\w-]{16,23}"
        r"((?:FOLDfor [^;]+)?;FOLD)DATE()",
    ),
    _row(
        "OpenSMTPD's trace",
        r"(by opensmtpd\.test \(OpenSMTPD\) with \w+ id )[0-9a-f]{8}((?:FOLDfor <[^>]*>)?;FOLD)DATE( \(\w+\))",
    ),
    _row("smtp-sink's trace", r"(by smtp-sink \(smtp-sink\) with \w+ id )[0-9a-f]+(;FOLD)DATE( \(\w+\))"),
    # in the servers' replies
    _row("Exim's banner", r"^(220 exim\.test ESMTP Exim [\d.]+ )DATE()"),
    _row("Postfix's acceptance", r"^(250 2\.0\.0 Ok: (?:\d+ bytes )?queued as )[0-9A-F]+()"),
    _row("Exim's acceptance", r"^(250 OK id=)[\w-]{16,23}()"),
    _row("OpenSMTPD's acceptance", r"^(250 2\.0\.0 )[0-9a-f]{8}( Message accepted for delivery)"),
)


def normal(content: bytes) -> bytes:
    """The content without all that the table names."""
    for _, pattern, kept in NORMAL:
        content = pattern.sub(kept, content)
    return content


HEAD_BYTES = 8192  # more than what the servers put above a message
LARGE_BYTES = 1 << 20


def condensed(content: bytes) -> bytes:
    """A stored message in normal form; of a large one all but the beginning as its size and hash."""
    head, rest = normal(content[:HEAD_BYTES]), content[HEAD_BYTES:]
    if len(rest) > LARGE_BYTES:
        rest = f"<{len(rest)} octets, {hashlib.sha256(rest).hexdigest()}>".encode()
    return head + rest
