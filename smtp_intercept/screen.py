"""What a command meets before it crosses: the judge, the limits, and what has become of its transaction.

Pure. Follows the envelope as the client sends it, ahead of the server's replies; `replies` follows it as answered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Any

from smtp_intercept import answers
from smtp_intercept.answers import Answer
from smtp_intercept.dialogue import Verb
from smtp_intercept.extensions import ENCRYPTING
from smtp_intercept.policy import Need, Notes, Question, Ruling, Stage, answer_to
from smtp_intercept.rules import Rules
from smtp_intercept.wire import Command, parse_path, safe_text


class Fate(Enum):
    """Of a transaction, or of the chunks of a message."""

    NONE = auto()
    CROSSED = auto()
    REFUSED = auto()  # by us
    DISCARDED = auto()
    HELD = auto()  # its content is


# Asked for with every command: see `session`.
_NONE, _CROSSED, _REFUSED, _DISCARDED, _HELD = Fate


class Screen:
    """One session's. ``gone`` is set when the server's leg is: the answer to everything but QUIT. ``question`` is the
    last one asked; ``ruling`` the last answer, None while it is waited for. ``sealed``: in TLS whose other end is the
    box; ``unverified``: and whose server may be anybody. ``notes`` are of the envelope under way, ``session_notes`` of
    what came before any. ``undecided`` is what is known if the server takes the greeting or reset that has just
    crossed: until it does, its transaction goes on, and with it what was asked about that. ``unsure``: whether the
    server has a transaction is not known, after what it refused; only where somebody judges."""

    __slots__ = (
        *("_chunks", "_crossed", "_discarded", "_ground", "_idle", "_mail", "_recipients", "_rules", "_told"),
        *("_tokens", "gone", "need", "notes", "question", "ruling", "sealed", "session_notes", "undecided"),
        *("unsure", "unverified"),
    )

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.question = self._ground = Question(Stage.CONNECT)  # of the next one
        self.undecided: Question | None = None
        self.unsure = False
        self.ruling: Ruling | None = None
        self._told: Ruling | None = None  # later; for the question that is asked once more
        self.gone: Answer | None = None
        self.sealed = self.unverified = False
        self._idle = 0  # commands since the last mail
        self.session_notes = self.notes = Notes()
        self.forget()

    def forget(self) -> None:
        """No transaction is under way."""
        self._mail = self._chunks = _NONE
        self._recipients = self._crossed = self._discarded = 0
        self._tokens = set[Hashable]()
        self.need = Need.NOTHING

    @property
    def chunking(self) -> bool:
        """A message is being sent with BDAT."""
        return self._chunks is not _NONE

    def leave(self, gone: Answer) -> None:
        """The server's leg is gone."""
        self.forget()
        self.gone, self.unsure = gone, False

    @property
    def server_waits(self) -> bool:
        """The server has a transaction that the client believes to be over."""
        return self._mail is _CROSSED or self.unsure

    @property
    def _lost(self) -> bool:
        """The server may have a transaction that nobody knows anything about any more."""
        return self.unsure and self._mail is _NONE

    def decided(self, accepted: bool) -> None:
        """What the server said to the greeting or reset that was ``undecided``."""
        if accepted and self.undecided is not None:
            self._ground, self.notes, self.unsure = self.undecided, self.session_notes, False
            self.forget()
        self.undecided = None

    def doubt_server(self) -> None:
        """It has refused what not all servers refuse alike: some keep the transaction then."""
        self.unsure = self._rules.ask is not None

    def told(self, ruling: Ruling) -> None:
        """The answer to the last question, which will be asked once more."""
        self._told = ruling

    def ask(self, stage: Stage, **known: Any) -> Answer | None:
        """What the client is told; None: the server is asked. `answers.ASKED`: that is not known yet, and nothing must
        have changed by it."""
        if self._rules.ask is None:
            return None
        ruling, self._told = self._told, None
        question = _next(self._ground, stage, known)
        if ruling is None or question != self.question:  # what the server has said meanwhile may have changed it
            self.question = question
            # The name holds though nobody likes it, or a client that was refused would have said none.
            self._ground = replace(self._ground, helo=question.helo) if stage is Stage.HELO else question
            ruling = self._rules.ask(question)
        self.ruling = ruling
        if ruling is None:
            return answers.ASKED
        if stage is Stage.MAIL:
            self.notes = Notes()
        (self.session_notes if stage is Stage.HELO else self.notes).take(ruling)
        return answer_to(ruling.verdict, stage)

    def seal(self, *, verified: bool) -> None:
        """The dialogue is encrypted from here on, and nothing that was said before counts (RFC 3207 §4.2)."""
        self.forget()
        self._ground = Question(Stage.CONNECT, client=self._ground.client)
        self.undecided, self.unsure = None, False
        self.sealed, self.unverified = True, not verified

    def authenticated(self, user: str) -> None:
        """The client is somebody."""
        self._ground = replace(self._ground, authenticated=True, user=user)

    def speaks_for(self, client: str) -> None:
        """A balancer has named its client."""
        self._ground = replace(self._ground, client=client)

    def judge(self, verb: Verb, command: Command) -> Answer | None:
        """What the client is told instead of the server; None: the command crosses."""
        if self.gone is not None:
            return answers.BYE if verb is Verb.QUIT else self.gone
        if judged := _JUDGES.get(verb):
            return judged(self, command)
        return self._judge_other(command)

    def _judge_other(self, command: Command) -> Answer | None:
        self._idle += 1
        if 0 < self._rules.limits.commands_without_mail < self._idle:
            return answers.TOO_MANY_COMMANDS
        if command.verb in ENCRYPTING and (self._rules.strip_starttls or self.sealed):
            return answers.TLS_ACTIVE if self.sealed else answers.NO_STARTTLS
        return None

    def _judge_url(self, command: Command) -> Answer | None:
        """Of content that comes from elsewhere a judge who needs it sees nothing. It completes none that the server
        does not have."""
        if self.chunking and self._chunks is not _CROSSED:
            return answers.NO_BURL
        answer = self._judge_data(command) if self._rules.ask else None
        return answers.NO_BURL if answer is answers.HOLD_CONTENT or answer is answers.SEND_CONTENT else answer

    def _judge_octets(self, command: Command) -> Answer | None:
        return answers.NO_BLOB if self.chunking else self._judge_other(command)

    def _judge_quit(self, command: Command) -> Answer | None:
        return None

    def _judge_reset(self, command: Command) -> Answer | None:
        """RSET does always what it says (RFC 5321 §4.1.1.5), or none of ours would; the others may be refused."""
        answer = self._judge_other(command)
        if answer is None and command == _RSET:
            self.forget()
            self.unsure = False
        elif answer is None and self._rules.ask:
            self.undecided = replace(self._ground, **_NO_ENVELOPE)
        return answer

    def _judge_helo(self, command: Command) -> Answer | None:
        answer = None
        if self._rules.ask:
            answer = self.ask(Stage.HELO, helo=safe_text(command.argument), **_NO_ENVELOPE)
            if answer is answers.ASKED:
                return answer
        answer = self._judge_other(command) or answer
        if answer is None and self._rules.ask:
            self.undecided = self.question
        return answer

    def _judge_mail(self, command: Command) -> Answer | None:
        if self.unverified and b"REQUIRETLS" in command.argument.upper().split():
            return answers.UNVERIFIED
        if self._rules.ask is None:
            self.forget()
            self._mail = _CROSSED
            return None
        if self._mail is _CROSSED and not self.unsure:
            return answers.NESTED_MAIL  # the server would pair the next recipients with another sender than we
        self.forget()
        said = command.argument
        named = {"sender": parse_path(said), "parameters": said.upper(), "argument": said}
        answer = self.ask(Stage.MAIL, **{**_NO_ENVELOPE, **named})
        if answer is not answers.ASKED:
            self._mail = _fate(answer)
        return answer

    def mail_answered(self, code: int, notes: Notes | None) -> None:
        """What the server said; ``notes`` are that envelope's: another may have begun meanwhile."""
        if code == _BAD_SEQUENCE:
            self.doubt_server()
        if code < 300:
            self._idle = 0
        elif notes is None or notes is self.notes:
            self._mail = _NONE

    def _judge_recipient(self, command: Command) -> Answer | None:
        if self._mail is _REFUSED or self._lost:
            return answers.NO_MAIL
        answer = self._admit(command, self._recipients + 1)
        if answer is answers.ASKED:
            return answer
        self._recipients += 1
        self._crossed += answer is None
        if answer is None and self.token is not None:
            self._tokens.add(self.token)
        self._discarded += answer is answers.RECIPIENT_OK
        return answer

    @property
    def token(self) -> Hashable:
        """The judge's, for the recipient that was last asked about."""
        return self.ruling.token if self.ruling else None

    def _admit(self, command: Command, number: int) -> Answer | None:
        if 0 < self._rules.limits.recipients < number:
            return answers.TOO_MANY_RECIPIENTS
        if self._mail is _DISCARDED:
            return answers.RECIPIENT_OK
        if self._rules.ask is None:
            return None
        said = command.argument
        return self.ask(Stage.RCPT, recipient=parse_path(said), recipients=number, argument=said)

    def _judge_whole(self, command: Command) -> Answer | None:
        """RFC 3030 §2: DATA behind BDAT is out of order. The server has not seen chunks that are held."""
        return answers.NO_BLOB if self.chunking and self._rules.ask else self._judge_data(command)

    def _judge_data(self, command: Command) -> Answer | None:
        if self._mail is _REFUSED or self._lost:
            return answers.NO_MAIL
        if self._mail is _DISCARDED or (self._recipients and not self._crossed):
            return answers.SEND_CONTENT if self._discarded else answers.NO_RECIPIENTS
        if self._rules.ask is None:
            return None
        self.need = Need.NOTHING
        answer = self.ask(Stage.DATA, recipient="", tokens=frozenset(self._tokens))
        if answer is None and self.ruling is not None:
            self.need = self.ruling.need
        return answers.HOLD_CONTENT if answer is None and self.need is Need.HOLD else answer

    def _judge_chunk(self, command: Command) -> Answer | None:
        """The chunks that follow share the fate of the first."""
        if self._chunks is _NONE:
            answer = self._judge_data(command)
            if answer is answers.ASKED:
                return answer
            self._chunks = _CONTENT_FATES.get(answer) or _fate(answer)
            return _NEXT_CHUNK[self._chunks] if answer in _CONTENT_FATES else answer
        return _NEXT_CHUNK[self._chunks]


def _next(last: Question, stage: Stage, known: Mapping[str, Any]) -> Question:
    """What was known, and this besides. (`dataclasses.replace` costs three times as much.)"""
    question = Question(
        stage,
        last.client,
        last.helo,
        last.authenticated,
        last.sender,
        last.parameters,
        last.recipient,
        last.recipients,
        last.tokens,
        user=last.user,
    )
    for name, value in known.items():
        setattr(question, name, value)
    return question


def _fate(answer: Answer | None) -> Fate:
    if answer is None:
        return _CROSSED
    return _DISCARDED if answer.code < 300 else _REFUSED


_NEXT_CHUNK: Mapping[Fate, Answer | None] = MappingProxyType(
    {
        _CROSSED: None,
        _REFUSED: answers.MESSAGE_FAILED,
        _DISCARDED: answers.CHUNK_OK,
        _HELD: answers.CHUNK_HELD,
    }
)
_CONTENT_FATES: Mapping[Answer | None, Fate] = MappingProxyType(
    {answers.SEND_CONTENT: _DISCARDED, answers.HOLD_CONTENT: _HELD}
)
_RSET = Command(b"RSET", b"")
_BAD_SEQUENCE = 503  # RFC 5321 §4.1.4: to MAIL, there is a transaction
_NO_ENVELOPE: Mapping[str, Any] = MappingProxyType(
    {"sender": "", "parameters": b"", "recipient": "", "recipients": 0, "tokens": frozenset()}
)
_JUDGES: Mapping[Verb, Callable[[Screen, Command], Answer | None]] = {
    Verb.HELO: Screen._judge_helo,
    Verb.EHLO: Screen._judge_helo,
    Verb.MAIL: Screen._judge_mail,
    Verb.RCPT: Screen._judge_recipient,
    Verb.DATA: Screen._judge_whole,
    Verb.BDAT: Screen._judge_chunk,
    Verb.LHLO: Screen._judge_helo,
    Verb.BURL: Screen._judge_url,
    Verb.XEXCH50: Screen._judge_octets,
    Verb.RSET: Screen._judge_reset,
    Verb.XCLIENT: Screen._judge_reset,
    Verb.QUIT: Screen._judge_quit,
}
