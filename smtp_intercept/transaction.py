"""One mail transaction and the message that it becomes in the mail log.

Pure. Keeps the envelope and the server's words on it; never a header, a body or a credential.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from types import MappingProxyType

from smtp_intercept.direction import Direction
from smtp_intercept.policy import Notes
from smtp_intercept.wire import ReplyLine, clip, judged_mailbox

# Recipients of one message in the log, so that its line stays bounded; RFC 5321 §4.5.3.1.8 asks servers for 100.
MAX_LOGGED_RECIPIENTS = 1_000
# And what they take in memory until then: so many with addresses and replies of usual length. Each may have 512
# characters of both.
MAX_KEPT_BYTES = 393_216
RECIPIENT_BYTES = 240  # besides its texts


class Outcome(Enum):
    """Of a message."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REJECTED = "rejected"
    ABORTED = "aborted"
    DISCARDED = "discarded"  # by policy; the client heard that it was accepted
    UNKNOWN = "unknown"  # the dialogue could not be followed to the message's end


_OUTCOMES: Mapping[int, Outcome] = MappingProxyType({2: Outcome.ACCEPTED, 4: Outcome.DEFERRED, 5: Outcome.REJECTED})


def outcome_of(reply: ReplyLine) -> Outcome:
    """What a final reply means for the message that it answers."""
    return _OUTCOMES[reply.code // 100]


@dataclass(slots=True)
class Recipient:
    """One RCPT that was answered; ``ours``: by the box. The reply to it gives way to the one after the data, if each
    recipient has its own."""

    address: str
    direction: Direction
    reply: ReplyLine
    ours: bool = False

    @property
    def thrown_away(self) -> bool:
        """The client believes that it is taken, and no server has heard of it."""
        return self.ours and self.reply.code < 300


@dataclass(slots=True)
class Message:
    """A transaction that has ended, as the mail log tells it. ``number`` counts from 1 in each session;
    ``size_bytes`` is as sent (dots doubled); ``seconds`` run from MAIL to the end."""

    number: int
    sender: str
    recipients: tuple[Recipient, ...]
    recipients_omitted: int
    size_bytes: int
    seconds: float
    reply: ReplyLine | None
    outcome: Outcome
    notes: Notes

    def fields(self) -> dict[str, object]:
        """The fields of the log record that the dialogue knows, but its number."""
        omitted = {"recipients_omitted": self.recipients_omitted} if self.recipients_omitted else {}
        return {
            "sender": self.sender,
            "recipients": [
                {
                    "address": r.address,
                    "direction": r.direction.value,
                    "reply": clip(str(r.reply)),
                    **({"discarded": True} if r.thrown_away else {}),
                }
                for r in self.recipients
            ],
            **omitted,
            "size_bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
            "reply": None if self.reply is None else clip(str(self.reply)),
            "outcome": self.outcome.value,
            **self.notes.fields(),
        }


@dataclass(slots=True)
class Transaction:
    """From the reply to MAIL (``opened``: it was accepted) to the end of the message. ``refusal``: of MAIL, of DATA or
    BDAT, or of the data before its end. ``prdr``: MAIL asked for a reply to each recipient after the data.
    ``at_server`` are the recipients that the server has accepted, ``tokens`` the judge's for them."""

    sender: str
    began_at: float
    opened: bool = True
    refusal: ReplyLine | None = None
    recipients: list[Recipient] = field(default_factory=list)
    recipients_omitted: int = 0
    recipients_accepted: int = 0
    at_server: int = 0
    size_bytes: int = 0
    kept_bytes: int = 0
    discarded: bool = False
    prdr: bool = False
    notes: Notes = field(default_factory=Notes)
    tokens: set[Hashable] = field(default_factory=set)
    _judged: int = 0
    _best: ReplyLine | None = None

    def add(self, recipient: Recipient) -> None:
        """A recipient with the server's word on it."""
        if recipient.reply.code < 300:
            self.recipients_accepted += 1
            self.at_server += not recipient.ours
        address = recipient.address
        wide = len(address) if address.isascii() else 4 * len(address)  # the widest character is the width of all
        kept_bytes = self.kept_bytes + RECIPIENT_BYTES + wide + len(recipient.reply.text)
        if len(self.recipients) < MAX_LOGGED_RECIPIENTS and kept_bytes <= MAX_KEPT_BYTES:
            self.recipients.append(recipient)
            self.kept_bytes = kept_bytes
        else:
            self.recipients_omitted += 1

    def judge(self, reply: ReplyLine) -> ReplyLine:
        """The server's word on the next of its recipients, or on the one that it names, after the data: the best of
        these words so far. Exim has none on those that it has discarded behind a 250."""
        if recipient := self._judged_recipient(judged_mailbox(reply.text).lower()):
            recipient.reply = reply
        if self._best is None or reply.code // 100 < self._best.code // 100:
            self._best = reply
        return self._best

    def _judged_recipient(self, named: str) -> Recipient | None:
        waiting = (
            number
            for number in range(self._judged, len(self.recipients))
            if self.recipients[number].reply.code < 300 and not self.recipients[number].ours
        )
        first = next(waiting, None)
        if first is None:
            return None
        meant = (number for number in chain((first,), waiting) if self.recipients[number].address.lower() == named)
        at = next(meant, first) if named else first
        self._judged = at + 1
        return self.recipients[at]

    def refuse(self, reply: ReplyLine) -> None:
        """The content is not wanted; what follows a refused MAIL tells nothing new."""
        if self.opened:
            self.refusal = reply

    def end(self, number: int, now: float, reply: ReplyLine) -> Message:
        """The message that the server has answered, or we instead."""
        return self._message(number, now, reply, Outcome.DISCARDED if self.discarded else outcome_of(reply))

    def leave(self, number: int, now: float) -> Message:
        """The message that was never answered, or not whole: refused before its content, or aborted by the client."""
        if self._best is not None and self.prdr:
            return self.lose(number, now)
        reply = self._last_word() if self._best is None else self._best
        return self._message(number, now, reply, Outcome.ABORTED if reply is None else outcome_of(reply))

    def lose(self, number: int, now: float) -> Message:
        """The message whose dialogue cannot be followed any more."""
        return self._message(number, now, None, Outcome.UNKNOWN)

    def _last_word(self) -> ReplyLine | None:
        """The refusal that ended it. If all recipients were refused, a temporary refusal outweighs permanent ones:
        the client will come again."""
        if self.opened and self.recipients and not self.recipients_accepted:
            return min((r.reply for r in self.recipients), key=lambda reply: reply.code // 100)
        return self.refusal

    def _message(self, number: int, now: float, reply: ReplyLine | None, outcome: Outcome) -> Message:
        seconds = now - self.began_at
        return Message(
            number,
            self.sender,
            tuple(self.recipients),
            self.recipients_omitted,
            self.size_bytes,
            seconds,
            reply,
            outcome,
            self.notes,
        )
