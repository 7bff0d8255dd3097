"""The server's half of a conversation: what each final reply does, as a table of effects.

Pure. Which command a reply belongs to is found in `matching`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

from smtp_intercept import answers
from smtp_intercept.data import DotEnd, DoubtfulEnd, OctetEnd
from smtp_intercept.dialogue import Effect, Owed, Reading, Verb, effect
from smtp_intercept.events import Doubt, Encrypt
from smtp_intercept.extensions import read_offer
from smtp_intercept.matching import MAX_KEYWORDS, TAKEN_PART, Matching
from smtp_intercept.policy import Need
from smtp_intercept.transaction import Recipient, Transaction
from smtp_intercept.wire import ReplyLine, is_last_verdict

# Asked for with every message: see `session`.
_COMMAND, _DATA, _CONTENT = Reading.COMMAND, Reading.DATA, Verb.CONTENT
_JUDGING = 353  # draft-hall-prdr: the replies to the recipients follow


class Replies(Matching):
    """A conversation as far as the server's words move it."""

    __slots__ = ()

    def _perform(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        _effect_of(owed.verb, reply.code)(self, owed, reply, now)
        if self._screen.undecided is not None and not self._owed:
            self._decide(reply.code < 300)

    def _decide(self, accepted: bool) -> None:
        """Whether everything begins anew; nothing has been read behind the command that asked for it."""
        self._screen.decided(accepted)
        if accepted and self._look is not None:
            self.drop_held()

    # What `holding` does with content that is kept.

    def begin_look(self, now: float, *, held: bool) -> None:
        """Content begins that somebody must have seen."""
        raise NotImplementedError

    def drop_held(self) -> None:
        """The client has begun anew in the middle of it."""
        raise NotImplementedError

    def _release(self, now: float, owed: Owed) -> None:
        raise NotImplementedError

    def _refuse_late(self, reply: ReplyLine, now: float) -> None:
        raise NotImplementedError

    def answer_rewriting(self, reply: ReplyLine, now: float) -> None:
        """The server's word on a command of another envelope."""
        raise NotImplementedError

    # The effects.

    def _nothing(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if owed.late:
            self.answer_rewriting(reply, now)

    def _welcome(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.welcomed = True

    def _greet(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.leave(now)
        offer = read_offer(b"\n".join(self._lines[1:]))
        self.helo, self._keywords, self._largest_bytes = owed.name, offer.keywords, offer.size_bytes
        self._lmtp = owed.verb is Verb.LHLO
        if offer.unknown and len(self.unknown) < MAX_KEYWORDS:
            self.unknown = self.unknown | offer.unknown
        if self.tls == "none" and b"STARTTLS" in self._keywords:
            self.tls = "offered"

    def _restart(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.leave(now)
        self._keywords = frozenset()

    def _reset(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.leave(now)

    def _quit(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.leave(now)
        self.quitted = True

    def _mail(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """A MAIL refused inside a transaction (503) leaves that one as it is."""
        accepted = reply.code < 300
        if owed.answer is None:
            self._screen.mail_answered(reply.code, owed.notes)
        if accepted or self._transaction is None or not self._transaction.opened:
            self.leave(now)
            self._transaction = Transaction(owed.name, owed.sent_at, accepted, None if accepted else reply)
            self._transaction.prdr = owed.prdr
            self._transaction.notes = owed.notes or self._transaction.notes

    def _recipient(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if self._transaction:
            self._transaction.add(Recipient(owed.name, owed.direction, reply, owed.answer is not None))
            if owed.token is not None and owed.answer is None and reply.code < 300:
                self._transaction.tokens.add(owed.token)

    def _send_content(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if owed.late:
            self.instead = b""
            self._release(now, Owed(Verb.CONTENT, now, ended=True))
            return
        self._transaction = self._transaction or Transaction("", owed.sent_at)
        self._transaction.refusal = None  # of another attempt
        self._dot, self._doubtful, self.reading = DotEnd(), DoubtfulEnd(), _DATA
        self.moved_at = now - self._lag_s
        self._fate = answers.TAKEN if owed.answer and not owed.answer.holds else None
        if owed.answer and owed.answer.holds:
            self.begin_look(now, held=True)
            self._owed.append(Owed(Verb.HELD, now))
            return
        self.ambiguous = self.ambiguous or not self._rules.reject_bare_newline
        if self._screen.need is Need.LOOK and not owed.answer:
            self.begin_look(now, held=False)
        if self._lmtp and not owed.answer:
            self._owe_verdicts(self._transaction.at_server - 1, now)
        self._owed.append(Owed(_CONTENT, now))

    def _owe_verdicts(self, number: int, now: float) -> None:
        """Behind what is owed."""
        self._owed.extend(Owed(Verb.VERDICT, now) for _ in range(number))

    def _refuse_content(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if owed.late:
            self._refuse_late(reply, now)
            return
        if self._transaction:
            self._transaction.refuse(reply)
        if owed.answer is None and self._screen.server_waits:
            self._screen.doubt_server()
        self.reading = self.next_command()
        if self.cut:  # was that DATA's own reply, or is the server waiting for content?
            self.give_up(Doubt.CUT, now)

    def _end_message(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """A refusal may come early; the client reads it at the end of its data. An early acceptance means that
        server and client do not agree on where the message ends: smuggling, or our mistake."""
        if self._lmtp and self._transaction:
            reply = self._transaction.judge(reply)
        if self.reading is _COMMAND or not self._under_way():
            self._end(reply, now, owed.answer)
        elif reply.code < 300:
            self._end(reply, now)
            self.give_up(Doubt.EARLY, now)
        elif self._transaction:
            self._transaction.refuse(reply)

    def _judge_recipients(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """The end of the data has a reply for each recipient that the server has accepted, then one of its own. Exim
        has none for those that it has discarded: until all have come no command crosses whose reply could be one.
        """
        if reply.code != _JUDGING or not owed.ended or not (self._transaction and self._transaction.prdr):
            return self._doubt(owed, reply, now)
        self._transaction.size_bytes += owed.size_bytes or 0
        self._owed.appendleft(Owed(_CONTENT, now, ended=True))
        self._owed.extendleft(Owed(Verb.VERDICT, now) for _ in range(self._transaction.at_server))
        if self.reading is _COMMAND:
            self.reading = self.wait()
        return None

    def _under_way(self) -> bool:
        """What has just been answered has not crossed whole."""
        return self.reading is _DATA or (self.reading is Reading.CHUNK and not self._owed and self._swallowed is None)

    def _verdict(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if self._transaction and self._transaction.prdr and is_last_verdict(reply.text):
            self._end(reply, now)
            for each in self._owed:  # whether they will come nobody knows
                each.ended = False
        elif self._transaction:
            self._transaction.judge(reply)
        if reply.code < 300 and self.reading is _DATA:
            self._end(reply, now)
            self.give_up(Doubt.EARLY, now)

    def _take_chunk(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if self._transaction:
            self._transaction.size_bytes += owed.size_bytes or 0
        if owed.last:
            self._end_message(owed, reply, now)
        elif self._under_way():
            self.give_up(Doubt.EARLY, now)

    def _refuse_chunk(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """The message has failed (RFC 3030 §2), with the first refusal; the transaction is there until RSET. To some
        servers the octets of a refused chunk were commands."""
        self.ambiguous = True
        if owed.answer is None:
            self._screen.doubt_server()
        if self._transaction and self._transaction.refusal is None:
            self._transaction.refuse(reply)

    def _take_part(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if owed.last:
            self._end_message(owed, reply, now)

    def _refuse_part(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self._refuse_chunk(owed, reply, now)

    def begin_chunk(self, size_bytes: int) -> None:
        """So many octets of the client's are no commands."""
        self._chunk = OctetEnd(size_bytes)
        self.reading = Reading.CHUNK if size_bytes else self.next_command()
        self.moved_at -= self._lag_s if size_bytes else 0.0

    def _send_octets(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        if owed.size_bytes is None:
            return self._doubt(owed, reply, now)
        self._chunk, self.moved_at = OctetEnd(owed.size_bytes), now - self._lag_s
        self.reading = Reading.OCTETS if owed.size_bytes else self.next_command()
        self._owed.append(Owed(Verb.OTHER, now))
        return None

    def _be_verbose(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self._verbose = True

    def _leave_web(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """Whatever the server makes of the next lines, they are not a mail client's."""
        self.give_up(Doubt.WEB, now)

    def _send_credentials(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.reading = Reading.CREDENTIALS

    def _authenticate(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.user = self._exchange.user
        self._screen.authenticated(self.user)
        self.reading = Reading.LAYER_OR_COMMAND if self._exchange.layered else self.next_command()

    def _resume(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.reading = self.next_command()

    def _start_tls(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        """Octets sent in clear behind STARTTLS would be taken for the encrypted session's (RFC 3207 §6)."""
        if self.ahead_bytes:
            self.instead = b""
            self._end_with(answers.INJECTED, now)
            return
        self.leave(now)
        self.tls, self.reading = "started", Reading.HANDSHAKE
        if self._rules.takes_part:
            self.orders.append(Encrypt())

    def seal(self, facts: dict[str, object], *, verified: bool) -> None:
        """Both legs are encrypted, and what is said in there is read: the dialogue begins again (RFC 3207 §4.2)."""
        self.tls, self.encryption, self.reading = TAKEN_PART, facts, _COMMAND
        self.helo, self.user, self._keywords, self._largest_bytes, self._lmtp = "", "", frozenset(), 0, False
        self.ambiguous = self.cut = False
        self._screen.seal(verified=verified)

    def _refuse_tls(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.reading = self.next_command()
        if owed.answer is None:
            self.tls = "refused"

    def _doubt(self, owed: Owed, reply: ReplyLine, now: float) -> None:
        self.give_up(Doubt.BANNER if owed.verb is Verb.CONNECT else Doubt.UNEXPECTED, now)


_EFFECTS: Mapping[Effect, Callable[[Replies, Owed, ReplyLine, float], None]] = MappingProxyType(
    {each: getattr(Replies, "_" + each.name.lower()) for each in Effect}
)


@cache
def _effect_of(verb: Verb, code: int) -> Callable[[Replies, Owed, ReplyLine, float], None]:
    return _EFFECTS[effect(verb, code)]
