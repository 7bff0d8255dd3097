"""What the box says itself, in a server's place, and what each of these replies does to the session.

Pure data. The server's own replies are never rewritten; these stand where the server was not asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from smtp_intercept.wire import ReplyLine


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply of ours. ``closes``: the session ends with it. ``drops``: the server's leg is reset, because nobody has
    heard its banner. ``discards``: the message goes nowhere. ``holds``: its content is kept until more is known.
    ``outcome`` is the session's in the mail log if it closes."""

    code: int
    text: str
    closes: bool = False
    drops: bool = False
    discards: bool = False
    holds: bool = False
    outcome: str = "refused"

    @property
    def line(self) -> bytes:
        """As it is sent."""
        return b"%d %b\r\n" % (self.code, self.text.encode("ascii"))

    @property
    def reply(self) -> ReplyLine:
        """As if it had been read."""
        return ReplyLine(self.code, True, self.text.encode("ascii"))


# RFC 5321 §4.2.4: 502 is "command not implemented".
NO_STARTTLS = Answer(502, "5.5.1 STARTTLS is not available")
TLS_ACTIVE = Answer(503, "5.5.1 TLS is active already")  # RFC 3207 §4
UNVERIFIED = Answer(550, "5.7.30 REQUIRETLS: the server's certificate is not verified")  # RFC 8689 §4.2.1
NO_MAIL = Answer(503, "5.5.1 Need MAIL first")
NESTED_MAIL = Answer(503, "5.5.1 Sender already given")
NO_RECIPIENTS = Answer(554, "5.5.1 No valid recipients")  # RFC 5321 §3.3
NO_CHUNKING = Answer(503, "5.5.1 CHUNKING was not offered")
BAD_CHUNK = Answer(501, "5.5.4 BDAT needs a size")
# Servers have read 2^32 + 1 octets as 1. What follows cannot be told from commands.
WIDE_CHUNK = Answer(501, "5.5.4 BDAT size out of range", closes=True)
LARGE_CHUNK = Answer(501, "5.3.4 BDAT size exceeds SIZE")
NO_BURL = Answer(502, "5.5.1 BURL is not available")  # its content would be seen by nobody
NO_BLOB = Answer(503, "5.5.1 Not inside a message")
MESSAGE_FAILED = Answer(503, "5.5.1 The message was refused; RSET first")  # RFC 3030 §2
# RFC 5321 §4.5.3.1.10: the client sends to the others in another transaction.
TOO_MANY_RECIPIENTS = Answer(452, "4.5.3 Too many recipients")
HEADER_TOO_LARGE = Answer(552, "5.3.4 Header too large")
MESSAGE_TOO_LARGE = Answer(552, "5.3.4 Message too large to be inspected")
LARGE_FOR_NOW = Answer(452, "4.3.1 Message too large to be inspected now")
NO_REWRITING = Answer(451, "4.3.5 A filter wants another envelope, which LMTP does not allow now")
# No room to keep what must be looked at first.
NO_ROOM = Answer(452, "4.3.1 Come again later")
LINE_TOO_LONG = Answer(500, "5.5.2 Line too long")  # RFC 5321 §4.5.3.1.9
BROKEN_LINE = Answer(500, "5.5.2 CR or NUL inside a line")
TOO_MANY_COMMANDS = Answer(421, "4.7.0 Too many commands without mail", closes=True)
TOO_MANY_ERRORS = Answer(421, "4.7.0 Too many errors", closes=True)
TIMED_OUT = Answer(421, "4.4.2 Timeout", closes=True, outcome="timeout")
BARE_NEWLINE = Answer(554, "5.5.2 CR or LF alone beside a lone dot", closes=True)
SEND_CONTENT = Answer(354, "End data with <CR><LF>.<CR><LF>")
TAKEN = Answer(250, "2.0.0 Ok", discards=True)
MAIL_OK = Answer(250, "2.1.0 Ok")
RECIPIENT_OK = Answer(250, "2.1.5 Ok")
CHUNK_OK = Answer(250, "2.0.0 Ok", discards=True)
HOLD_CONTENT = Answer(354, "End data with <CR><LF>.<CR><LF>", holds=True)
CHUNK_HELD = Answer(250, "2.0.0 Ok", holds=True)
# Never said: somebody has been asked, and has not answered yet.
ASKED = Answer(0, "")
IN_DOUBT = Answer(421, "4.7.0 Cannot follow this dialogue, closing", closes=True, outcome="aborted")
INJECTED = Answer(421, "4.7.0 Octets behind STARTTLS, closing", closes=True, outcome="aborted")  # RFC 3207 §6
NO_WEB = Answer(421, "4.7.0 Mail is spoken here, not HTTP", closes=True, outcome="foreign")
NO_BALANCER = Answer(421, "4.7.0 Broken PROXY protocol header", closes=True, outcome="foreign")
# After the server's leg is gone.
BYE = Answer(221, "2.0.0 Bye", closes=True, outcome="completed")
COME_AGAIN = Answer(421, "4.3.0 Come again on a new connection", closes=True)  # RFC 5321 §3.8
UNWELCOME = Answer(503, "5.5.1 No service here")  # RFC 5321 §3.1: until QUIT, behind a 554 banner
# Instead of a session.
BUSY = Answer(421, "4.3.2 Too many connections, come again")
BUSY_FOR_YOU = Answer(421, "4.7.0 Too many connections from you, come again")
HOLDS_TOO_MUCH = Answer(421, "4.3.1 Too much is kept for you, come again", closes=True, outcome="deferred")
# The MTA of the box does not work, and on_failure is "block".
UNAVAILABLE = Answer(421, "4.3.2 Service not available, come again")
