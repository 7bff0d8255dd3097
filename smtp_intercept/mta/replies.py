"""The MTA's replies as a server, and aiosmtpd's in the words of RFC 2034. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from smtp_intercept.answers import Answer

HELO_FIRST = Answer(503, "5.5.1 Say EHLO first")
NO_TLS = Answer(502, "5.5.1 STARTTLS is not available")
INJECTED = Answer(554, "5.5.1 Commands behind STARTTLS", closes=True)
VERIFIED = Answer(252, "2.5.2 Send some mail and see")  # RFC 5321 §3.5.3
TOO_LARGE = Answer(552, "5.3.4 Message too large")  # RFC 1870 §6.1
NO_ROOM = Answer(452, "4.3.1 No room for mail now")
NOT_KEPT = Answer(451, "4.3.0 Mail cannot be kept now")
TOO_MANY_HOPS = Answer(554, "5.4.6 Too many hops")  # RFC 5321 §6.3
DOUBTFUL = Answer(554, "5.5.2 CR or LF alone beside a lone dot")
NO_ARGUMENT = Answer(501, "5.5.4 DATA takes no argument")
TOO_MANY_UNKNOWN = Answer(421, "4.7.0 Too many unknown commands", closes=True)
STOPPING = Answer(421, "4.3.2 Shutting down, come again", closes=True, outcome="stopped")

_PLAIN = re.compile(r"([245][0-9]{2}) (?![245]\.)")
# RFC 3463, by the reply's code; a banner has none (RFC 2034 §4).
_ENHANCED: Mapping[str, str] = MappingProxyType(
    {"250": "2.0.0", "500": "5.5.2", "501": "5.5.4", "502": "5.5.1", "503": "5.5.1"}
)


def enhanced(status: str) -> bytes:
    """A reply of aiosmtpd's in one line, as it is sent."""
    if status.startswith("500 Error: command"):  # and it says the client's word again
        return b"500 5.5.1 Command unknown\r\n"
    found = _PLAIN.match(status)
    code = _ENHANCED.get(found[1], "") if found else ""
    return f"{status[:4]}{code} {status[4:]}\r\n".encode() if code else f"{status}\r\n".encode()
