"""The limits of one session and the time that each of its phases may take, each with its reason.

Pure data. They protect the box: what only a server would mind is the server's to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

# Client octets kept while a reply decides what they are. A client may send a whole message behind DATA; with this
# much unread it is made to wait (`Session.wants_client`). No line may be longer.
LOOK_AHEAD_BYTES = 65_536


class Phase(Enum):
    """What a session waits for, and from whom."""

    __hash__ = object.__hash__  # members are unique; Enum hashes their names, slowly

    BANNER = "the banner"  # server
    REPLY = "a reply"  # server
    DATA_REPLY = "the reply to DATA"  # server
    END_REPLY = "the reply to a message"  # server
    COMMAND = "a command"  # client, a whole one
    BLOCK = "message data"  # client, as much of it as `Limits.block_bytes_per_min`


# RFC 5321 §4.5.3.2, the least that a client must wait for a server, and the other way round for the last two.
RFC_SECONDS: Mapping[Phase, int] = MappingProxyType(
    {
        Phase.BANNER: 300,
        Phase.REPLY: 300,
        Phase.DATA_REPLY: 120,
        Phase.END_REPLY: 600,
        Phase.COMMAND: 300,
        Phase.BLOCK: 180,
    }
)
# Twice that and more: both ends have clocks of their own, and where they keep them theirs must run out first.
PATIENCE_S: Mapping[Phase, float] = MappingProxyType(
    {
        Phase.BANNER: 660.0,
        Phase.REPLY: 660.0,
        Phase.DATA_REPLY: 660.0,  # servers look up half the world before they say 354
        Phase.END_REPLY: 1_500.0,  # a filter behind the server may take its time
        Phase.COMMAND: 900.0,  # a client that keeps its connection for the next mail; a line sent octet by octet
        Phase.BLOCK: 660.0,
    }
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one session; 0 is none."""

    # RFC 4954 §4: the longest line that any extension defines. Beyond it memory would not be bounded.
    command_line_bytes: int = 12_288
    # A Kerberos ticket with its groups has 48 KiB (Windows' MaxTokenSize), a third more in base64.
    auth_line_bytes: int = 65_536
    # Servers' replies have 512 by RFC 5321 §4.5.3.1.5; some of them repeat the whole command.
    reply_line_bytes: int = 16_384
    # A header is kept only while a policy waits for its end; Exim takes as much.
    header_bytes: int = 1_048_576
    # Content that must be looked at before it crosses is kept on disk. Exim takes as much, Postfix a fifth of it.
    held_message_bytes: int = 52_428_800
    # Exim takes as many; RFC 5321 §4.5.3.1.8 asks for 100. A client that hears 452 sends to the rest once more.
    recipients: int = 50_000
    # A client that says NOOP every minute holds its place for sixteen hours, then it must come again.
    commands_without_mail: int = 1_000
    # Whoever says something useless now and then holds a place otherwise for as long as that. Nobody's list of
    # recipients and no pool of connections needs two hours between two messages.
    without_mail_s: float = 7_200.0
    # Time that message data may take besides `Phase.BLOCK`'s; octet by octet would hold a place for years. Postfix 3.7
    # asks for 30,000 (smtpd_min_data_rate), a telephone with 9,600 bit/s has 72,000.
    block_bytes_per_min: int = 6_000
    # 5yz replies after which the session is closed. None by default: a list with many unknown addresses is mail too.
    errors: int = 0
    errors_free: int = 1  # of these nobody is slowed
    error_delay_s: float = 4.0  # behind the next one the client is not read for so long …
    error_delay_step_s: float = 4.0  # … and behind each further one for so much longer
    patience_s: Mapping[Phase, float] = field(default_factory=lambda: PATIENCE_S)

    def moved_at(self, before: float, size_bytes: int, now: float) -> float:
        """When message data last went on, if so much of it came now: as much later as it may take, never later than
        now. So its time is `Phase.BLOCK`'s for the whole of the pauses, not for each."""
        least = self.block_bytes_per_min
        return min(now, before + size_bytes * 60.0 / least) if least else now

    def penalty_s(self, errors: int) -> float:
        """How long a client is not read after so many errors."""
        over = errors - self.errors_free
        return self.error_delay_s + (over - 1) * self.error_delay_step_s if self.errors and over > 0 else 0.0


DEFAULT_LIMITS = Limits()
