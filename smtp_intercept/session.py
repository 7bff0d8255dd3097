"""A live proxied session: what both sides sent comes in, what goes out to both sides comes out, and every message
is told when it ends.

Pure. Holds no message. Outside messages every octet of the client's is part of a line: it crosses when it is whole, or
is answered here, and what follows is read as the replies say. Content crosses at once. A dialogue that cannot be
followed any more ends, or crosses unread, as `Rules` say of who is to blame for the `Doubt`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from smtp_intercept.answers import Answer
from smtp_intercept.conversation import Conversation
from smtp_intercept.dialogue import Reading
from smtp_intercept.direction import Protection
from smtp_intercept.events import Doubt, EndClient, EndServer, Leave, MessageDone, Out, Side, ToClient, ToServer
from smtp_intercept.limits import LOOK_AHEAD_BYTES, Limits, Phase
from smtp_intercept.matching import CONTENT, TAKEN_PART
from smtp_intercept.policy import Notes, Question, Ruling
from smtp_intercept.rules import TRANSPARENT, Rules

# The octets that have come wait for a reply; without one they never cross, not even at the stream's end.
_KEPT = frozenset(
    {Reading.WAITING, Reading.HELD, Reading.FULL, Reading.HELLO, Reading.OVER, Reading.ASKED, Reading.JUDGED}
)
# Nobody sends a message, and none waits for its reply.
_BETWEEN_MAIL = frozenset({Phase.BANNER, Phase.COMMAND, Phase.REPLY, Phase.DATA_REPLY})
_BULK = CONTENT | {Reading.OPAQUE, Reading.OVER}
_ENCRYPTED = frozenset({Reading.HANDSHAKE, Reading.OPAQUE})
# A member is found in its class at ten times the cost of a name here (EnumType has a `__getattr__` in Python 3.11).
_OPAQUE, _OVER = Reading.OPAQUE, Reading.OVER
# What the server sends is not read as replies.
_UNREAD = frozenset({Reading.HELLO, Reading.HANDSHAKE, Reading.OPAQUE, Reading.OVER})


class Session:
    """One client, one server. Times are seconds of any steady clock. ``wants_client`` is False while the client should
    not be read: it is as far ahead of the server's replies as it may be."""

    __slots__ = (
        "_partial",
        "_rules",
        "_server_told",
        "_talk",
        "_unread",
        "bytes_from_client",
        "bytes_from_server",
        "wants_client",
    )

    def __init__(self, protection: Protection, rules: Rules = TRANSPARENT, now: float = 0.0) -> None:
        self._talk, self._rules = Conversation(protection, rules, now), rules
        self._unread = b""  # from the client
        self._partial = b""  # from the server: a line that is not whole
        self._server_told = False
        self.wants_client = True
        self.bytes_from_client = self.bytes_from_server = 0

    @property
    def ahead_bytes(self) -> int:
        """Client octets that wait for a reply of the server's."""
        return len(self._unread)

    @property
    def held_bytes(self) -> int:
        """About what is kept of both peers' octets."""
        return len(self._unread) + len(self._partial) + self._talk.held_bytes

    @property
    def client_in_bulk(self) -> bool:
        """What the client sends is not read line by line."""
        return self._talk.reading in _BULK

    @property
    def server_in_bulk(self) -> bool:
        """What the server sends is not."""
        return self._talk.reading is _OPAQUE

    @property
    def shortest_wait_s(self) -> float:
        """The least after which `check_time` may have something to say."""
        limits = self.limits
        decide_s = limits.decide_s if self._rules.later else math.inf
        return min(*limits.patience_s.values(), limits.without_mail_s or math.inf, decide_s)

    @property
    def limits(self) -> Limits:
        """Those that it has."""
        return self._rules.limits

    @property
    def quitted(self) -> bool:
        """The server has answered QUIT."""
        return self._talk.quitted

    @property
    def doubt(self) -> Doubt | None:
        """Why the dialogue is not followed any more."""
        return self._talk.doubt

    @property
    def doubted(self) -> Side | None:
        """Who is to blame for the doubt."""
        return self._talk.doubted

    @property
    def unread(self) -> bool:
        """Both sides' octets cross, or did at the end, for a doubt."""
        return self._talk.reading is _OPAQUE and self._talk.doubt is not None

    @property
    def chunked(self) -> bool:
        """The content that is held came as BDAT."""
        return self._talk.chunked

    @property
    def layer(self) -> bool:
        """A SASL security layer has begun."""
        return self._talk.layer

    @property
    def unknown_keywords(self) -> frozenset[bytes]:
        """Of EHLO replies that crossed: those that the register of extensions does not have."""
        return frozenset(self._talk.unknown)

    @property
    def notes(self) -> Notes:
        """Of rules that came into play before any message."""
        return self._talk.session_notes

    @property
    def owes_word(self) -> bool:
        """A message's end has crossed, and the server has not answered it."""
        return self._talk.owes_word

    @property
    def tls(self) -> str:
        """none, offered, stripped, refused, started or taken part in."""
        return self._talk.tls

    def opened(self, now: float) -> list[Out]:
        """Both peers are there; nothing has been read."""
        out: list[Out] = []
        self._talk.connect(now)
        self._speak(out)
        return out

    def waits_for(self, question: Question) -> bool:
        """Its answer has not come, and may still do so."""
        return self._talk.waits_for(question)

    def told(self, ruling: Ruling, now: float) -> list[Out]:
        """The answer to `Asking`, which comes once; nothing if the session has gone on to its end without it."""
        out: list[Out] = []
        talk = self._talk
        if talk.reading is Reading.ASKED:
            at_the_door = talk.at_the_door
            talk.told(ruling)
            if at_the_door:
                talk.admit(now)
                self._speak(out)
                partial, self._partial = self._partial, b""
                self._follow_server(partial, now, out)
            self._follow_client(b"", now, out)
        return out

    def encrypted(self, facts: dict[str, object], *, verified: bool, now: float) -> list[Out]:
        """The answer to `Encrypt`: what is said from now on is read, and begins with EHLO. ``facts`` are for the log;
        ``verified``: the server is who it says."""
        self._talk.moved_at = now
        self._talk.seal(facts, verified=verified)
        return []

    def left_alone(self, why: str) -> None:
        """The other answer: both sides' octets cross as they come."""
        self._talk.encryption = {"left_alone": why}

    def broken(self, reason: str) -> list[Out]:
        """The third: there will be no session."""
        self._talk.reading, self._talk.encryption = _OVER, {"failed": reason}
        return [Leave("aborted", f"TLS: {reason}")]

    @property
    def wordless(self) -> bool:
        """In an encrypted dialogue the client has not been greeted."""
        return self._talk.tls == TAKEN_PART and not self._talk.helo

    def ask_later(self, question: Question, told: Callable[[Ruling], None]) -> None:
        """Of whoever answers what could not be answered at once."""
        assert self._rules.later is not None
        self._rules.later(question, told)

    def lacks_room(self) -> None:
        """What was to be held could not be."""
        self._talk.lack_room()

    def client_sent(self, data: bytes, now: float) -> list[Out]:
        """Octets from the client, in any cut."""
        self.bytes_from_client += len(data)
        if self._talk.reading in _ENCRYPTED and data:
            self._talk.reading = _OPAQUE
            return [ToServer(data)]
        out: list[Out] = []
        self._follow_client(data, now, out)
        return out

    def server_sent(self, data: bytes, now: float) -> list[Out]:
        """Octets from the server, in any cut."""
        self.bytes_from_server += len(data)
        talk = self._talk
        out: list[Out] = []
        if talk.at_the_door:
            self._partial += data
            if len(self._partial) > self.limits.reply_line_bytes:
                talk.give_up(Doubt.LONG_REPLY, now)
                self._speak(out)
        elif talk.reading not in _UNREAD:
            if not talk.alone:
                self._follow_server(data, now, out)
        elif talk.reading is _OPAQUE:
            out.append(ToClient(data))
        elif talk.reading is Reading.HELLO and data:
            self._hear_first(data, now, out)
        elif talk.reading is Reading.HANDSHAKE and data:
            talk.speak_early()
            self._speak(out)
        return out

    def _hear_first(self, data: bytes, now: float, out: list[Out]) -> None:
        self._talk.hear_first(data, now)
        if self._talk.reading is _OPAQUE:
            out.append(ToClient(data))
            self._follow_client(b"", now, out)
        self._speak(out)

    def client_closed(self, now: float) -> list[Out]:
        """The client has sent all it will; replies may still come."""
        self._talk.at_end = True
        out: list[Out] = []
        self._follow_client(b"", now, out)
        return out

    def server_closed(self, now: float) -> list[Out]:
        """The server has sent all it will; the client may still send. No reply will come that could tell anything: what
        waits for one does not cross any more, nor what might have to be answered here."""
        out: list[Out] = []
        if self._talk.alone:
            return out
        if self._must_end():
            self._talk.reading, self._unread, self.wants_client = _OVER, b"", True
        self._to_client_unread(out)
        out.append(EndClient())
        return out

    def _must_end(self) -> bool:
        reading = self._talk.reading
        if self._rules.guarded:
            return reading is not _OPAQUE
        return reading in _KEPT or (self._rules.reject_bare_newline and reading is Reading.DATA)

    def check_time(self, now: float) -> list[Out]:
        """To be asked now and then: the end, if what the session waits for has not come in its time."""
        talk, limits, out = self._talk, self.limits, list[Out]()
        if talk.overdue(now):
            return self.told(self._rules.silence, now)
        phase = talk.phase
        talk.keep_server(now)
        late = phase is not None and now - talk.moved_at >= limits.patience_s[phase]
        if late or (phase in _BETWEEN_MAIL and 0 < limits.without_mail_s <= now - talk.mail_at):
            self._talk.time_out(now)
        self._speak(out)
        return out

    def turn_away(self, answer: Answer, now: float) -> list[Out]:
        """Its octets are too many: the end, with this word, behind the server's on what it may have accepted."""
        out: list[Out] = []
        self._talk.turn_away(answer, now)
        self._unread, self._talk.ahead_bytes = b"", 0
        self._speak(out)
        return out

    def finish(self, now: float) -> list[Out]:
        """The session is over, for whatever reason: the message under way, if there is one. To be called once."""
        out: list[Out] = []
        if self._rules.over is not None:
            self._rules.over()
        self._talk.leave(now)
        self._speak(out)
        return out

    def fields(self) -> dict[str, object]:
        """The fields of the session's log record that the dialogue knows."""
        return {
            "helo": self._talk.helo,
            "tls": self._talk.tls,
            **({"encryption": self._talk.encryption} if self._rules.takes_part else {}),
            "messages": self._talk.messages,
            "bytes_from_client": self.bytes_from_client,
            "bytes_from_server": self.bytes_from_server,
            "doubt": None if self.doubt is None else self.doubt.value,
            "doubted": None if self.doubted is None else self.doubted.value,
            "sasl_layer": self.layer,
            **({"user": self._talk.user} if self._talk.user else {}),
            **self.notes.fields(),
        }

    def _follow_client(self, data: bytes, now: float, out: list[Out]) -> None:
        """Understand as much as can be, forward as much as may be, keep the rest."""
        talk = self._talk
        if talk.reading is _OVER:
            return
        buffer = self._unread + data  # no copy if one of them is empty
        position = talk.read_client(buffer, now)
        if talk.reading is _OPAQUE:
            position = len(buffer)
        self._forward(buffer, position, out)
        self._speak(out)
        while talk.reading is Reading.JUDGED:
            talk.judge_content(now)
            self._speak(out)
            position = talk.read_client(self._unread, now)
            self._forward(self._unread, position, out)
            self._speak(out)

    def _forward(self, buffer: bytes, position: int, out: list[Out]) -> None:
        talk = self._talk
        if position == len(buffer) and not (talk.cuts or talk.at_end or talk.reading is _OPAQUE):
            # Nearly always: all of it is understood, and crosses.
            if buffer:
                out.append(ToServer(buffer))
            self._unread, talk.ahead_bytes, self.wants_client = b"", 0, True
            return
        if data := self._uncut(buffer, position) if talk.cuts else buffer[:position]:
            out.append(ToServer(data))
        if talk.reading is _OPAQUE:
            self._to_client_unread(out)
        lost = talk.reading is _OVER or (talk.at_end and talk.reading not in _KEPT)  # half an end of data: never one
        self._unread = b"" if lost else buffer[position:]
        talk.ahead_bytes = len(self._unread)
        self.wants_client = talk.ahead_bytes < LOOK_AHEAD_BYTES
        if talk.at_end and not (self._server_told or self._unread or talk.alone or talk.keeps):
            self._server_told = True
            out.append(EndServer())

    def _uncut(self, buffer: bytes, upto: int) -> bytes:
        """What crosses of the buffer, its cuts left out."""
        pieces, at = list[bytes](), 0
        for start, end, instead in self._talk.cuts:
            pieces += [buffer[at:start], instead]
            at = end
        self._talk.cuts.clear()
        return b"".join(pieces) + buffer[at:upto]

    def _to_client_unread(self, out: list[Out]) -> None:
        if kept := self._talk.take_kept() + self._partial:
            out.append(ToClient(kept))
        self._partial = b""

    def _follow_server(self, data: bytes, now: float, out: list[Out]) -> None:
        """Match every whole line; it crosses once it has been understood. Our own replies take their places among
        them, and the client's octets that waited for one are understood before the next."""
        talk = self._talk
        buffer, sent, position = self._partial + data, 0, 0
        self._partial = b""
        while position < len(buffer) and (end := talk.find_reply_line(buffer, position, now)):
            talk.read_reply(buffer[position:end], now)
            if talk.instead is not None:
                self._reply(buffer[sent:position] + talk.instead, out)
                sent = end
            position = end
            if talk.spoken or self._unread:
                self._reply(buffer[sent:position], out)
                sent = position
                self._speak(out)
                self._follow_client(b"", now, out)
            if talk.reading in _UNREAD or talk.alone:
                break
        if talk.reading is _OPAQUE:
            self._follow_client(b"", now, out)
            position = len(buffer)
        self._reply(buffer[sent:position], out)
        if position < len(buffer) and not talk.alone:
            self._keep_line(buffer[position:])
        self._speak(out)
        if talk.at_end and not self._server_told:
            self._follow_client(b"", now, out)

    def _keep_line(self, rest: bytes) -> None:
        """Until it is whole."""
        if self._talk.reading is Reading.HANDSHAKE:
            self._talk.speak_early()
        elif self._talk.reading is not _OVER:
            self._partial = rest

    def _speak(self, out: list[Out]) -> None:
        """What the conversation has to say besides."""
        talk = self._talk
        if talk.spoken or talk.ended:
            self._reply(talk.spoken, out)
            talk.spoken = b""
        if talk.orders:
            out.extend(talk.orders)
            talk.orders.clear()

    def _reply(self, data: bytes, out: list[Out]) -> None:
        """What a message has come to is told before the client hears of it: whatever ends this process between the
        two, no message that its client holds for accepted is missing in the log."""
        if self._talk.ended:
            out.extend(map(MessageDone, self._talk.ended))
            self._talk.ended.clear()
        if data:
            out.append(ToClient(data))
