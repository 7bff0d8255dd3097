"""What a command meets before it crosses: the policy, the limits, and what has become of its transaction.

Pure. Follows the envelope as the client sends it, ahead of the server's replies; `replies` follows it as answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Any

from smtp_intercept import answers
from smtp_intercept.answers import Answer
from smtp_intercept.dialogue import Verb
from smtp_intercept.extensions import ENCRYPTING
from smtp_intercept.policy import Question, Stage, ask
from smtp_intercept.rules import Rules
from smtp_intercept.wire import Command, parse_path, safe_text


class Fate(Enum):
    """Of a transaction, or of the chunks of a message."""

    NONE = auto()
    CROSSED = auto()
    REFUSED = auto()  # by us
    DISCARDED = auto()


# Asked for with every command: see `session`.
_NONE, _CROSSED, _REFUSED, _DISCARDED = Fate


class Screen:
    """One session's. ``gone`` is set when the server's leg is: the answer to everything but QUIT."""

    __slots__ = ("_chunks", "_crossed", "_discarded", "_idle", "_mail", "_recipients", "_rules", "gone", "question")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.question = Question(Stage.CONNECT)  # the last one asked, the next one's ground
        self.gone: Answer | None = None
        self._idle = 0  # commands since the last mail
        self.forget()

    def forget(self) -> None:
        """No transaction is under way."""
        self._mail = self._chunks = _NONE
        self._recipients = self._crossed = self._discarded = 0

    @property
    def chunking(self) -> bool:
        """A message is being sent with BDAT."""
        return self._chunks is not _NONE

    def leave(self, gone: Answer, *, discarding: bool) -> None:
        """The server's leg is gone; ``discarding``: the message's chunks that may still come are thrown away too."""
        self.forget()
        self.gone = gone
        self._chunks = _DISCARDED if discarding else _NONE

    @property
    def server_waits(self) -> bool:
        """The server has a transaction that the client believes to be over."""
        return self._mail is _CROSSED

    def ask(self, stage: Stage, **known: str | bytes | int) -> Answer | None:
        """What the policy makes of it."""
        if self._rules.policy is None:
            return None
        facts: dict[str, Any] = {"header": b"", "size_bytes": 0, **known}
        self.question = replace(self.question, stage=stage, **facts)
        return ask(self._rules.policy, self.question)

    def judge(self, verb: Verb, command: Command) -> Answer | None:
        """What the client is told instead of the server; None: the command crosses."""
        if self.gone is not None and not (verb is Verb.BDAT and self._chunks is _DISCARDED):
            return answers.BYE if verb is Verb.QUIT else self.gone
        if judged := _JUDGES.get(verb):
            return judged(self, command)
        return self._judge_other(command)

    def _judge_other(self, command: Command) -> Answer | None:
        self._idle += 1
        if 0 < self._rules.limits.commands_without_mail < self._idle:
            return answers.TOO_MANY_COMMANDS
        if self._rules.strip_starttls and command.verb in ENCRYPTING:
            return answers.NO_STARTTLS
        return None

    def _judge_url(self, command: Command) -> Answer | None:
        """Of content that comes from elsewhere a policy sees nothing."""
        return answers.NO_BURL if self._rules.policy else None

    def _judge_octets(self, command: Command) -> Answer | None:
        return answers.NO_BLOB if self.chunking else self._judge_other(command)

    def _judge_quit(self, command: Command) -> Answer | None:
        return None

    def _judge_reset(self, command: Command) -> Answer | None:
        self.forget()
        return self._judge_other(command)

    def _judge_helo(self, command: Command) -> Answer | None:
        answer = self._judge_other(command)
        if answer is None and self._rules.policy:
            answer = self.ask(Stage.HELO, helo=safe_text(command.argument), sender="", recipient="")
        if answer is None:
            self.forget()
        return answer

    def _judge_mail(self, command: Command) -> Answer | None:
        if self._rules.policy is None:
            self.forget()
            self._mail = _CROSSED
            return None
        if self._mail is _CROSSED:
            return answers.NESTED_MAIL  # the server would pair the next recipients with another sender than we
        self.forget()
        answer = self.ask(Stage.MAIL, sender=parse_path(command.argument), recipient="")
        self._mail = _fate(answer)
        return answer

    def mail_answered(self, accepted: bool) -> None:
        """What the server said."""
        if accepted:
            self._idle = 0
        else:
            self._mail = _NONE

    def _judge_recipient(self, command: Command) -> Answer | None:
        if self._mail is _REFUSED:
            return answers.NO_MAIL
        self._recipients += 1
        answer = self._admit(command)
        self._crossed += answer is None
        self._discarded += answer is answers.RECIPIENT_OK
        return answer

    def _admit(self, command: Command) -> Answer | None:
        if 0 < self._rules.limits.recipients < self._recipients:
            return answers.TOO_MANY_RECIPIENTS
        if self._mail is _DISCARDED:
            return answers.RECIPIENT_OK
        return self.ask(Stage.RCPT, recipient=parse_path(command.argument)) if self._rules.policy else None

    def _judge_data(self, command: Command) -> Answer | None:
        if self._mail is _REFUSED:
            return answers.NO_MAIL
        if self._mail is _DISCARDED or (self._recipients and not self._crossed):
            return answers.SEND_CONTENT if self._discarded else answers.NO_RECIPIENTS
        return self.ask(Stage.DATA, recipient="") if self._rules.policy else None

    def _judge_chunk(self, command: Command) -> Answer | None:
        """The chunks that follow share the fate of the first."""
        if self._chunks is _NONE:
            answer = self._judge_data(command)
            self._chunks = _DISCARDED if answer is answers.SEND_CONTENT else _fate(answer)
            return answer if self._chunks is not _DISCARDED else answers.CHUNK_OK
        return _NEXT_CHUNK[self._chunks]


def _fate(answer: Answer | None) -> Fate:
    if answer is None:
        return _CROSSED
    return _DISCARDED if answer.code < 300 else _REFUSED


_NEXT_CHUNK: Mapping[Fate, Answer | None] = MappingProxyType(
    {_CROSSED: None, _REFUSED: answers.MESSAGE_FAILED, _DISCARDED: answers.CHUNK_OK}
)
_JUDGES: Mapping[Verb, Callable[[Screen, Command], Answer | None]] = {
    Verb.HELO: Screen._judge_helo,
    Verb.EHLO: Screen._judge_helo,
    Verb.MAIL: Screen._judge_mail,
    Verb.RCPT: Screen._judge_recipient,
    Verb.DATA: Screen._judge_data,
    Verb.BDAT: Screen._judge_chunk,
    Verb.LHLO: Screen._judge_helo,
    Verb.BURL: Screen._judge_url,
    Verb.XEXCH50: Screen._judge_octets,
    Verb.RSET: Screen._judge_reset,
    Verb.XCLIENT: Screen._judge_reset,
    Verb.QUIT: Screen._judge_quit,
}
