"""Replies matched to the commands that await them, the server's and ours, and the ends of messages and of sessions.

Pure. What a reply does is said in `replies`. Forwards nothing; what it cannot follow it gives up, and says why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Set

from smtp_intercept import answers
from smtp_intercept.answers import Answer
from smtp_intercept.data import DotEnd, DoubtfulEnd, OctetEnd
from smtp_intercept.dialogue import LONG_NAME, MAX_LONG_OUTSTANDING, MAX_OUTSTANDING, OWED_BYTES, Owed, Reading, Verb
from smtp_intercept.events import SERVERS, Abort, Doubt, DropServer, Leave, Order, Pause, Side
from smtp_intercept.look import Look
from smtp_intercept.offer import Offer
from smtp_intercept.opening import begins_tls
from smtp_intercept.policy import Body
from smtp_intercept.rules import Rules
from smtp_intercept.sasl import FIRST_OCTET, Exchange
from smtp_intercept.screen import Screen
from smtp_intercept.transaction import Message, Transaction
from smtp_intercept.wire import ReplyLine, parse_reply_line

# EHLO keywords remembered; servers have about fifteen.
MAX_KEYWORDS = 64
# What a server may say unasked before it closes: RFC 5321 §3.8; Exchange's 451 4.7.0, when it has waited too long.
LAST_WORDS = frozenset({421, 451})
TAKEN_PART = "taken part in"  # `tls` of a session whose encrypted dialogue is read
# The doubtful reply reaches the client all the same: it is the word on a message, or on its own command.
_HEARD = frozenset({Doubt.EARLY, Doubt.WEB, Doubt.CUT})

# Asked for with every line: see `session`.
_OFFERING, _FULL, _LONG_REPLY = frozenset({Verb.EHLO, Verb.LHLO}), Reading.FULL, Doubt.LONG_REPLY
_COMMAND, _HELD = Reading.COMMAND, Verb.HELD
_NONE: frozenset[bytes] = frozenset()
_NO_EXCHANGE = Exchange(b"")
CONTENT = frozenset({Reading.DATA, Reading.CHUNK, Reading.OCTETS})
_STEERED = frozenset({Reading.OPAQUE, Reading.OVER})


class Matching:
    """For the session to take away: ``spoken``, our own replies; ``instead``, what crosses in the place of the
    server's line (None: the line); ``ended``, messages to be told; ``orders``, what the shell must do. ``moved_at`` is
    when the dialogue last went on, ``mail_at`` when a message was last accepted. ``welcomed``: the banner has come.
    ``alone``: the server's leg is gone. ``tls``: none, offered, stripped, refused, started or taken part in.
    ``layer``: a SASL security layer has begun; ``framed``: its client says so. ``doubted`` is to blame for the
    ``doubt``. ``ambiguous``: the client has sent what servers read in different ways; ``cut``: a line so long that to
    some it is two commands, with a reply more than is owed."""

    __slots__ = (
        "_asked_at",
        "_body",
        "_chunk",
        "_chunked",
        "_dot",
        "_doubtful",
        "_edit",
        "_errors",
        "_exchange",
        "_fate",
        "_held",
        "_keywords",
        "_lag_s",
        "_largest_bytes",
        "_lines",
        "_lmtp",
        "_longest_reply",
        "_look",
        "_midway",
        "_no_room",
        "_offer",
        "_owed",
        "_resume_at",
        "_rules",
        "_screen",
        "_server_at",
        "_swallowed",
        "_to_say",
        "_transaction",
        "_verbose",
        "ahead_bytes",
        "alone",
        "ambiguous",
        "cut",
        "doubt",
        "doubted",
        "encryption",
        "ended",
        "framed",
        "helo",
        "instead",
        "layer",
        "mail_at",
        "messages",
        "moved_at",
        "orders",
        "quitted",
        "reading",
        "spoken",
        "tls",
        "unknown",
        "user",
        "welcomed",
    )

    def __init__(self, rules: Rules, now: float) -> None:
        self._rules, self._screen = rules, Screen(rules)
        self._longest_reply = rules.limits.reply_line_bytes
        self._owed: deque[Owed] = deque([Owed(Verb.CONNECT, now)])
        self._lines: list[bytes] = []  # of the EHLO reply under way
        self._keywords: Set[bytes] = _NONE
        self._largest_bytes = 0  # SIZE; 0 is none
        self._lmtp = self._verbose = self._midway = False
        self._resume_at = 0  # replies owed with which commands are read again
        self._offer: Offer | None = None
        self._transaction: Transaction | None = None
        self._dot, self._doubtful, self._chunk = DotEnd(), DoubtfulEnd(), OctetEnd(0)
        self._look: Look | None = None  # at the content under way
        self._held = self._chunked = False  # the server has none of it yet; the client sends chunks
        self._edit: Callable[[bytes], bytes] | None = None  # of its header
        self._body: Body | None = None  # in its place
        self._to_say: deque[bytes] = deque()  # commands that make another envelope
        self._no_room = False  # for what is held
        self._asked_at = now  # when a judge was asked that has not answered
        self._server_at = now  # while content is held: when the server was last spoken to
        self._fate: Answer | None = None  # of the content under way, if the server does not get it
        self._swallowed: Owed | None = None  # the BDAT whose chunk is read and thrown away
        self._exchange = _NO_EXCHANGE
        self._errors = 0
        self.reading = _COMMAND
        self.ahead_bytes = self.messages = 0
        self.moved_at = self.mail_at = now
        self._lag_s = 0.0  # how long the client has kept the session waiting for message data, since the last message
        self.spoken = b""
        self.instead: bytes | None = None
        self.ended: list[Message] = []
        self.orders: list[Order] = []
        self.doubt: Doubt | None = None
        self.doubted: Side | None = None
        self.ambiguous = self.cut = False
        self.layer = self.framed = False
        self.unknown: Set[bytes] = _NONE  # keywords that the register does not have
        self.helo, self.tls, self.quitted, self.alone = "", "none", False, False
        self.user = ""  # who has given a password, if the mechanism tells
        self.encryption: dict[str, object] = {}  # what the log tells of it
        self.welcomed = False

    @property
    def held_bytes(self) -> int:
        """About what the envelope under way and the replies owed take."""
        transaction = self._transaction
        return OWED_BYTES * len(self._owed) + (transaction.kept_bytes if transaction else 0)

    @property
    def keeps(self) -> bool:
        """The server is still to have content that the client has sent."""
        return self._held or any(owed.late for owed in self._owed)

    @property
    def chunked(self) -> bool:
        """What is held came as BDAT."""
        return self._chunked

    @property
    def owes_word(self) -> bool:
        """A message's end has crossed, and the server has not answered it."""
        return any(owed.ended for owed in self._owed)

    def take_kept(self) -> bytes:
        """The line of an EHLO reply that waited for its next; it is not to be waited for any more."""
        offer, self._offer = self._offer, None
        return b"" if offer is None else offer.kept

    def find_reply_line(self, buffer: bytes, position: int, now: float) -> int:
        """The index past the line that begins at ``position``; 0 if it is not whole, or too long."""
        most = self._longest_reply
        end = buffer.find(b"\n", position, position + most) + 1
        if not end and len(buffer) - position >= most:
            self.give_up(_LONG_REPLY, now)
        return end

    def read_reply(self, line: bytes, now: float) -> None:
        """Give a whole line to the command that has waited longest. Sendmail's VERB has lines that answer nothing."""
        self.instead = None
        reply = parse_reply_line(line)
        if reply is None:
            self._read_odd_reply(line, now)
        elif self._owed and self._owed[0].verb is not _HELD:
            self._match(line, reply, now)
        elif reply.code not in LAST_WORDS and not self.quitted:
            self.give_up(Doubt.SURPLUS, now)

    def _read_odd_reply(self, line: bytes, now: float) -> None:
        """Empty lines, and what stands in the middle of a reply without a code, answer nothing either."""
        if self._offer is not None:
            self.instead, self._offer.kept = self._offer.kept + line, b""
        if not (self._midway or not line.strip() or (self._verbose and line.startswith(b"050"))):
            self.give_up(Doubt.GARBAGE, now)

    def _match(self, line: bytes, reply: ReplyLine, now: float) -> None:
        owed = self._owed[0]
        if owed.verb in _OFFERING:
            self._read_offer(line, reply)
        elif owed.silent and reply.code != 421:
            self.instead = b""
        if not reply.final:
            self._midway = True
            return
        self._midway = False
        self._owed.popleft()
        if self.reading not in CONTENT:  # its time is not won by replies to what came before
            self.moved_at = now
        self._apply(owed, reply, now)
        if self._owed:
            self.settle(now)

    def _read_offer(self, line: bytes, reply: ReplyLine) -> None:
        if len(self._lines) <= MAX_KEYWORDS:
            self._lines.append(reply.text)
        if self._rules.strip_starttls:
            self._offer = self._offer or Offer()
            self.instead = self._offer.cross(line, reply)
            if self._offer.stripped:
                self.tls = "stripped"

    def settle(self, now: float) -> None:
        """Give the answers whose turn it is."""
        while self._owed and (answer := self._owed[0].answer) is not None:
            owed = self._owed.popleft()
            if answer.holds and owed.verb is Verb.DATA and not (self._transaction and self._transaction.at_server):
                answer = answers.NO_RECIPIENTS  # the server has refused them all meanwhile
            self.spoken += answer.line
            if self.reading not in CONTENT:
                self.moved_at = now
            self._apply(owed, answer.reply, now)
            if answer.closes:
                self._leave_client(answer, now)
            elif answer.drops:
                self._drop_server()

    def _apply(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if self.reading is _FULL and len(self._owed) <= self._resume_at:
            self.reading = _COMMAND
        self._perform(owed, reply, now)
        if self._lines:
            self._lines.clear()
            self._offer = None
        if reply.code >= 500 and self._rules.limits.errors and not owed.silent:
            self._count_error(now)

    def _perform(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """What a final reply does."""
        raise NotImplementedError

    def _count_error(self, now: float) -> None:
        self._errors += 1
        if self.reading in _STEERED:
            return
        if self._errors >= self._rules.limits.errors:
            self._end_with(answers.TOO_MANY_ERRORS, now)
        elif pause_s := self._rules.limits.penalty_s(self._errors):
            self.orders.append(Pause(now + pause_s))

    # How it ends before the peers end it.

    def _leave_client(self, answer: Answer, now: float) -> None:
        self.leave(now)
        self._owed.clear()
        reason = "" if answer is answers.BYE else str(answer.reply)
        if answer is answers.IN_DOUBT and self.doubt:
            reason = f"in doubt: {self.doubt.value}"
        self._end_reading(Leave(answer.outcome, reason))

    def speak_early(self) -> None:
        """The server has sent octets in clear behind its reply to STARTTLS, before the client began: whoever put them
        there would have them taken for the encrypted session's."""
        self._abort("the server sent octets behind its reply to STARTTLS")

    def _abort(self, reason: str) -> None:
        self._end_reading(Abort(reason))

    def _end_reading(self, order: Abort | Leave) -> None:
        self.reading = Reading.OVER
        self.orders.append(order)

    def _drop_server(self) -> None:
        self.alone = True
        self._screen.leave(answers.UNWELCOME)
        self.orders.append(DropServer())

    def next_command(self, name_length: int = 0) -> Reading:
        """How commands are read: not at all while too many replies are owed."""
        most = MAX_OUTSTANDING if name_length <= LONG_NAME else MAX_LONG_OUTSTANDING
        if len(self._owed) < most:
            return _COMMAND
        self._resume_at = most // 2
        return _FULL

    def wait(self) -> Reading:
        """How commands are read if what is owed decides what the next octets are."""
        self._resume_at = 0
        return _FULL if self._owed else _COMMAND

    # The transaction's end.

    def _end(self, reply: ReplyLine, now: float, answer: Answer | None = None) -> None:
        """``answer``: ours, if it is that."""
        if reply.code < 300:
            self.mail_at, self._lag_s = now, 0.0
        if self._transaction:
            self._transaction.discarded = answer is not None and answer.discards
            self._tell(self._transaction.end(self.messages + 1, now, reply))

    def leave(self, now: float) -> None:
        """No more of the transaction under way, if there is one."""
        if self._transaction:
            self._tell(self._transaction.leave(self.messages + 1, now))

    def hear_first(self, octets: bytes, now: float) -> None:
        """The server's answer to a ClientHello, or to the first buffer of a security layer."""
        if not (octets[0] == FIRST_OCTET if self.framed else begins_tls(octets)):
            return self.give_up(Doubt.NO_LAYER if self.framed else Doubt.FOREIGN, now)
        self._owed.clear()
        self.layer, self.reading = self.framed, Reading.OPAQUE
        if not self.framed:
            self.tls = "started"
        return None

    def give_up(self, doubt: Doubt, now: float) -> None:
        """From here on the octets are opaque, or the session ends."""
        if self.doubt is not None:  # it is ending already, and waits for the reply to a message
            return self._stop_waiting(now) if doubt is _LONG_REPLY else None
        self.doubt = doubt
        self.doubted = Side.SERVER if doubt in SERVERS and not self.ambiguous else Side.CLIENT
        if self._ends(self.doubted):
            return self._close(doubt, now)
        self.reading = Reading.OPAQUE
        self._owed.clear()
        return self._lose(now)

    def _ends(self, side: Side) -> bool:
        closes = self._rules.close_in_doubt if side is Side.SERVER else not self._rules.pass_client_doubt
        return closes or self.alone or self._breaks_off()

    def _close(self, doubt: Doubt, now: float) -> None:
        """The client hears 421, in the doubtful reply's place if need be. Where the end of a message has crossed, the
        server may have accepted it: its reply is waited for, and reaches the client before."""
        if not self._ended_at():
            self._lose(now)
            if doubt not in _HEARD:
                self.instead = b""
        self._end_with(answers.IN_DOUBT, now)
        self.settle(now)

    def _stop_waiting(self, now: float) -> None:
        self._owed.clear()
        self._close(_LONG_REPLY, now)

    def _ended_at(self) -> int:
        """How many of the replies owed come up to the last that is a message's, whose end has crossed."""
        return max((number for number, owed in enumerate(self._owed, 1) if owed.ended), default=0)

    def _end_with(self, answer: Answer, now: float) -> None:
        """Read the client no more; say this behind the replies to messages that the server may have accepted."""
        self.reading = Reading.HELD
        for _ in range(len(self._owed) - self._ended_at()):
            self._owed.pop()
        self._owed.append(Owed(Verb.OTHER, now, answer=answer))

    def _lose(self, now: float) -> None:
        if self._transaction:
            self._tell(self._transaction.lose(self.messages + 1, now))

    def _breaks_off(self) -> bool:
        """Something has been kept from the server that the client believes it to have."""
        return (
            self._fate is not None
            or self._held
            or any(owed.late or (owed.answer and owed.answer.drops) for owed in self._owed)
        )

    def _tell(self, message: Message) -> None:
        self._transaction = None
        self.messages += 1
        self.ended.append(message)
