"""One SMTP conversation followed: commands and content on one side, replies on the other, matched in order.

Pure. This is the client's half, its lines; content is read in `transfer`, and the server's half is in `replies`. Reads
what `session` shows it; forwards nothing, but says what must not cross.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from smtp_intercept import answers
from smtp_intercept.answers import Answer
from smtp_intercept.dialogue import AFTER, MAX_LONG_OUTSTANDING, VERBS, Owed, Reading, Verb, owe
from smtp_intercept.direction import Protection
from smtp_intercept.events import Announced, Doubt, Encrypt
from smtp_intercept.limits import LOOK_AHEAD_BYTES, Phase
from smtp_intercept.matching import CONTENT, TAKEN_PART
from smtp_intercept.opening import UNFINISHED, Header, Hello, Opening
from smtp_intercept.policy import Need, Stage
from smtp_intercept.rules import Rules
from smtp_intercept.sasl import FIRST_OCTET, Exchange, first_frame
from smtp_intercept.transfer import Transfer
from smtp_intercept.wire import (
    MAX_COUNT,
    PLAIN_BYTES,
    Command,
    is_broken,
    is_chunk_line,
    is_credentials,
    line_end,
    parse_command,
    parse_count,
)

_CANCEL = b"*\r\n"  # RFC 4954 §4
# Asked for with every command: see `session`.
_PARTS = frozenset({Verb.BDAT, Verb.BURL})  # of a message
_ENVELOPE = frozenset({Verb.MAIL, Verb.RCPT, Verb.DATA})
_COMMAND = Reading.COMMAND
_BDAT, _BURL, _AUTH, _AFTER = Verb.BDAT, Verb.BURL, Verb.AUTH, dict(AFTER)
_AUTH_VERBS = tuple(name for name, verb in VERBS.items() if verb is Verb.AUTH)
_LONGEST_VERB = max(map(len, _AUTH_VERBS)) + 1
# What an owed reply means for whoever waits for it; one that is not here is a reply like any other.
_PHASES: Mapping[Verb, Phase] = MappingProxyType(
    {Verb.CONNECT: Phase.BANNER, Verb.DATA: Phase.DATA_REPLY, Verb.CONTENT: Phase.END_REPLY}
)


class Conversation(Transfer):
    """What is known of the dialogue. ``ahead_bytes`` is kept by the session: client octets that have come behind the
    last command understood. ``at_end``: the client sends no more, and what it has sent last is a line even without its
    end."""

    __slots__ = (
        "_longest_command",
        "_may_open",
        "_opening",
        "_overlong",
        "_protection",
        "at_end",
    )

    def __init__(self, protection: Protection, rules: Rules, now: float = 0.0) -> None:
        super().__init__(rules, now)
        self._protection = protection
        self._longest_command = rules.limits.command_line_bytes
        self.at_end = False
        self._opening: Opening | None = None  # while the client speaks before the banner
        self._may_open = True
        self._overlong = b""  # what crosses in the place of the line whose rest is being read

    @property
    def phase(self) -> Phase | None:
        """What the session waits for; None while it cannot know."""
        if self.reading in _UNREADABLE:
            return None
        if self.reading in CONTENT:
            return Phase.BLOCK
        if not self._owed:
            return Phase.COMMAND
        first = self._owed[0]
        return Phase.END_REPLY if first.ended else _PHASES.get(first.verb, Phase.REPLY)

    def connect(self, now: float) -> None:
        """Both peers are there."""
        self.moved_at = self.mail_at = now
        if not self._rules.balancer:  # whose clients have not been named yet
            self.admit(now)

    def admit(self, now: float) -> None:
        """The first thing to be decided. While it is not, no side is read."""
        answer = self._screen.ask(Stage.CONNECT)
        if answer is answers.ASKED:
            self.wait_for_judge(now)
        elif answer is not None:
            self._answer_last(answer, now)
        elif self._rules.tls_first:
            self.tls, self.reading = "started", Reading.HANDSHAKE
            self.orders.append(Encrypt())

    @property
    def at_the_door(self) -> bool:
        """Nobody has decided yet whether the client may come in."""
        return self.reading is Reading.ASKED and self._screen.question.stage is Stage.CONNECT

    def time_out(self, now: float) -> None:
        """What the session waits for does not come."""
        self._owed.appendleft(Owed(Verb.OTHER, now, answer=answers.TIMED_OUT))
        self.settle(now)

    def turn_away(self, answer: Answer, now: float) -> None:
        """Nothing more is read; the words on messages that the server may have accepted come first."""
        self._end_with(answer, now)
        self.settle(now)

    # Each reader takes (buffer, position, now) and gives the position that it has read up to.

    def read_client(self, buffer: bytes, now: float) -> int:
        """Understand as much of the client's octets as can be: the position of the rest."""
        position = 0
        while position < len(buffer) and (read := _READERS.get(reading := self.reading)):
            before, position = position, read(self, buffer, position, now)
            if position == before and self.reading is reading:
                break
        return position

    def _read_command(self, buffer: bytes, position: int, now: float) -> int:
        if self._may_open and (begun := self._open(buffer, position, now)) is not None:
            return begun
        end = buffer.find(b"\n", position, position + self._longest_command) + 1
        if not end:
            if not (end := self._end_odd_line(buffer, position)):
                return position
            if end < 0:
                return self._skip_line(buffer, position, b"", now)
        line = buffer[position:end]
        if self._opening is not None and (doubt := self._opening.line(line)):
            self.give_up(doubt, now)
            return position
        command = parse_command(line)
        owed = owe(command, self._protection, now)
        part = owed.verb is _BDAT or owed.verb is _BURL
        if part and not self._part_may_cross(now):
            return position
        if self._rules.ask is not None and owed.verb in _ENVELOPE and any(each.last for each in self._owed):
            self.reading = self.wait()  # whether the transaction before is over
            return position
        self.moved_at = now
        # Every server reads these octets as one command: no CR but before the LF, no NUL, not so long that it is cut.
        plain = 0 <= line.find(b"\r") == end - position - 2 < PLAIN_BYTES and b"\0" not in line
        if plain and not part:
            answer = self._screen.judge(owed.verb, command)
        else:
            answer = self._judge_odd(owed, command, line, plain)
        if self._rules.ask is not None:
            if answer is answers.ASKED:
                self.wait_for_judge(now)
                return position
            self._annotate(owed, answer, now)
            if answer is None and self._screen.unsure and owed.verb is Verb.MAIL:
                self._reset_server(position, now)
        if answer is not None:
            self.cuts.append((position, end, b""))
            self._answer(owed, answer, end, now)
        elif part and owed.verb is _BDAT and owed.size_bytes is not None:
            self._cross_chunk(owed, now)
        else:
            self._cross(owed, command, line, plain)
        return end

    def _annotate(self, owed: Owed, answer: Answer | None, now: float) -> None:
        """With what the judge has said besides."""
        screen = self._screen
        if owed.verb is Verb.MAIL:
            owed.notes = screen.notes
        elif owed.verb is Verb.RCPT:
            owed.token = screen.token
        if self._look is not None and not screen.chunking:
            self.drop_held()
        elif self._look is None and owed.verb is _BDAT:
            held = answer is answers.CHUNK_HELD
            if held or (answer is None and screen.need is Need.LOOK):
                self.begin_look(now, held=held)

    def _open(self, buffer: bytes, position: int, now: float) -> int | None:
        """Before the banner: the position behind what is no line; None: a line begins there."""
        if self.welcomed or self.tls == TAKEN_PART:  # in there nobody begins with anything but lines
            self._opening, self._may_open = None, False
            return None
        self._opening = self._opening or Opening(self._rules.balancer)
        match self._opening.begin(buffer, position):
            case Header() as header if header is UNFINISHED:
                return None if self.at_end else position
            case Hello(size_bytes) if not self._rules.strip_starttls:
                self._opening, self._may_open, self.reading = None, False, Reading.HELLO
                return position + size_bytes
            case Hello():
                self.give_up(Doubt.FOREIGN, now)
                return position
            case Header(size_bytes, client):
                self._opening, self._may_open = None, False
                self.ambiguous = True  # to a server that does not know it these are lines
                if client:
                    self.orders.append(Announced(client))
                    self._screen.speaks_for(client[0])
                return position + size_bytes
            case Doubt() as doubt:
                self.give_up(doubt, now)
                return position
        return None

    def _end_odd_line(self, buffer: bytes, position: int) -> int:
        """Of a line that has no end, or none that is near enough: where it ends, 0 if that cannot be told yet, -1 if it
        is too long."""
        end = line_end(buffer, position, self._longest_command)
        if end < 0 and self._may_authenticate():
            words = buffer[position : position + _LONGEST_VERB].upper().split(None, 1)
            if words and words[0] in _AUTH_VERBS:
                end = self._end_long_line(buffer, position)
        return len(buffer) if end == 0 and self.at_end else end

    def _may_authenticate(self) -> bool:
        """Not in a transaction (RFC 4954 §4): nothing that a server could cut from so long a line is then of use."""
        idle = not (self._transaction and self._transaction.opened)
        idle = idle and not any(owed.verb is Verb.MAIL for owed in self._owed)
        return idle and any(name.startswith(_AUTH_VERBS) for name in self._keywords)

    def _end_long_line(self, buffer: bytes, position: int) -> int:
        """Of credentials: longer than some servers' lines, what these take for the next command is no more than a word
        in base64 (Exim, behind 16,384 octets)."""
        end = line_end(buffer, position, self._rules.limits.auth_line_bytes)
        if end - position <= self._longest_command:
            return end
        if not is_credentials(buffer[position:end]):
            return -1
        self.ambiguous = self.cut = True
        return end

    def _part_may_cross(self, now: float) -> bool:
        """The replies to a greeting and to an envelope tell whether a chunk is wanted, and will be read as one."""
        if self.alone:
            return True
        if self.cut:
            self.give_up(Doubt.CUT, now)
            return False
        if self._owed and any(owed.verb is not _BDAT or owed.last for owed in self._owed):
            self.reading = self.wait()
            return False
        return True

    def _judge_odd(self, owed: Owed, command: Command, line: bytes, plain: bool) -> Answer | None:
        answer = None
        if not plain and is_broken(line):
            answer = answers.BROKEN_LINE
        elif owed.verb is _BDAT and not self.alone:
            answer = self._judge_chunk(owed, command, line)
        answer = answer or self._screen.judge(owed.verb, command)
        passes = answer is None or answer is answers.CHUNK_HELD
        if passes and owed.verb in _PARTS and not (self._transaction and self._transaction.at_server):
            return answers.NO_RECIPIENTS
        if passes and owed.verb is _BURL and owed.last:  # the message ends with it
            self._screen.forget()
        return answer

    def _judge_chunk(self, owed: Owed, command: Command, line: bytes) -> Answer | None:
        """What follows is taken for octets as soon as BDAT has crossed: nobody may read it otherwise."""
        if owed.size_bytes is None or not is_chunk_line(line):
            owed.size_bytes = parse_count(command.argument)
            return answers.BAD_CHUNK
        if owed.size_bytes > MAX_COUNT:
            return answers.WIDE_CHUNK
        if b"CHUNKING" not in self._keywords:
            return answers.NO_CHUNKING
        return answers.LARGE_CHUNK if 0 < self._largest_bytes < owed.size_bytes else None

    def _answer(self, owed: Owed, answer: Answer, end: int, now: float) -> None:
        """The server does not hear of it. The answer to BDAT comes when its chunk has been read."""
        owed = replace(owed, answer=answer)
        if owed.verb is _BDAT and not answer.closes:
            self._swallowed = owed if owed.size_bytes else None
            self.begin_chunk(owed.size_bytes or 0)
            if not owed.size_bytes:
                self._answer_chunk(owed, end, now)
            return
        self._owed.append(owed)
        self.reading = Reading.HELD if answer.closes else AFTER.get(owed.verb) or self.next_command()
        self.settle(now)

    def _measure(self, line: bytes) -> None:
        self.ambiguous = self.ambiguous or len(line) > PLAIN_BYTES

    def _cross(self, owed: Owed, command: Command, line: bytes, plain: bool) -> None:
        """Servers that throw away what comes before their banner answer less than is counted here. Those that end lines
        otherwise might take what follows for something else: it waits until this is answered."""
        self._owed.append(owed)
        if not (plain and self.welcomed):
            self._measure(line)
            self.ambiguous = True
        if after := _AFTER.get(owed.verb):
            self.reading = after
            if owed.verb is _AUTH:
                self._exchange = Exchange(command.argument)
        elif self._screen.undecided is not None:
            self.reading = self.wait()
        else:
            # Most often nothing is owed but this: what `next_command` would say.
            self.reading = _COMMAND if plain and len(self._owed) < MAX_LONG_OUTSTANDING else self._next(owed, plain)

    def _next(self, owed: Owed, plain: bool) -> Reading:
        return self.next_command(len(owed.name)) if plain else self.wait()

    def _cross_chunk(self, owed: Owed, now: float) -> None:
        self._owed.append(owed)
        self._last_chunk = owed.last
        if self._lmtp and owed.last and self._transaction:  # its reply is waited for as that to data is
            self._transaction.size_bytes += owed.size_bytes or 0
            self._owed.pop()
            self._owe_verdicts(self._transaction.at_server - 1, now)
            self._owed.append(Owed(Verb.CONTENT, now))
        self.begin_chunk(owed.size_bytes or 0)
        if owed.last and not owed.size_bytes:
            self._end_chunks()

    def _read_credentials(self, buffer: bytes, position: int, now: float) -> int:
        end = self._end_long_line(buffer, position)
        if not end and self.at_end:
            end = len(buffer)
        if end < 0 or (end and is_broken(buffer[position:end])):
            return self._skip_line(buffer, position, _CANCEL, now)
        if end:
            self._exchange.hear(buffer[position:end])
            self._measure(buffer[position:end])
            self._owe_credentials(now)
        return end or position

    def _owe_credentials(self, now: float) -> None:
        self._owed.append(Owed(Verb.AUTH, now))
        self.reading, self.moved_at = Reading.WAITING, now

    def _read_first_octet(self, buffer: bytes, position: int, now: float) -> int:
        """A security layer has lengths, none of which fills its first octet; a command begins with a letter. What is
        said to be the layer's first buffer crosses alone: the server's answer is one too, or there is no layer."""
        size_bytes = first_frame(buffer[position : position + LOOK_AHEAD_BYTES], LOOK_AHEAD_BYTES)
        if buffer[position] != FIRST_OCTET or (self.at_end and not size_bytes):
            self.reading = self.next_command()
        elif size_bytes is None:
            self.give_up(Doubt.NO_LAYER, now)
        elif size_bytes:
            self.reading, self.framed = Reading.HELLO, True
            return position + size_bytes
        return position

    def _read_octets(self, buffer: bytes, position: int, now: float) -> int:
        end = self._chunk.find(buffer, position)
        self._go_on(end - position, now, ended=not self._chunk.left_bytes)
        if not self._chunk.left_bytes:
            self.reading = self.next_command()
        return end

    # Lines that do not cross.

    def _skip_line(self, buffer: bytes, position: int, instead: bytes, now: float) -> int:
        """One that is too long, or broken where the server waits for credentials: these are cancelled."""
        self._overlong, self.reading = instead, Reading.OVERLONG
        self.cuts.append((position, position, instead))
        return self._read_overlong(buffer, position, now)

    def _read_overlong(self, buffer: bytes, position: int, now: float) -> int:
        end = buffer.find(b"\n", position) + 1
        upto = end or len(buffer)
        self.cuts.append((position, upto, b""))
        if not end and not self.at_end:
            return upto
        if self._overlong:
            self._owe_credentials(now)
        else:
            self.moved_at = now
            answer = self._screen.judge(Verb.OTHER, _NO_COMMAND) or answers.LINE_TOO_LONG
            self._answer(Owed(Verb.OTHER, now), answer, upto, now)
        return upto


_NO_COMMAND = Command(b"", b"")
# There is no telling what the next octets are.
_UNREADABLE = frozenset({Reading.HANDSHAKE, Reading.OPAQUE, Reading.OVER})
_READERS: Mapping[Reading, Callable[[Conversation, bytes, int, float], int]] = {
    Reading.COMMAND: Conversation._read_command,
    Reading.CREDENTIALS: Conversation._read_credentials,
    Reading.LAYER_OR_COMMAND: Conversation._read_first_octet,
    Reading.OCTETS: Conversation._read_octets,
    Reading.OVERLONG: Conversation._read_overlong,
    Reading.DATA: Conversation._read_data,
    Reading.CHUNK: Conversation._read_chunk,
}
