"""Rules asked about one connection, stage by stage: what a session tells them, and what they say to it.

Pure but for the time of day, which is given. Remembers what is left of the rules for the envelope under way, and no
address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType

from smtp_intercept.direction import Protection, message_direction
from smtp_intercept.inspect.facts import NOBODY, Connection, Content, Facts, Known, Lookup, Outside, Reply, Source
from smtp_intercept.inspect.message import editor, values
from smtp_intercept.inspect.patterns import mailbox
from smtp_intercept.inspect.ruleset import Finding, Ruleset, Standing, strictest
from smtp_intercept.policy import PASSED, Discard, Need, Pass, Question, Ruling, Stage

_SIZE = re.compile(rb"\sSIZE=([0-9]{1,18})(?:\s|$)")
_PASS = Pass()
# Replies that one session keeps: those of an envelope are fewer, and a client may have any number of envelopes.
MAX_REPLIES = 64


class Judge:
    """``rules`` gives those in force now; one envelope keeps those that it began with. ``minute`` is of the week.
    ``wanted``: what must be looked up before the last question can be answered; it is to be asked once more then, and
    what was said to it means nothing."""

    __slots__ = (
        *("_connection", "_facts", "_fresh", "_minute", "_outside", "_protection", "_replies", "_rules", "_ruleset"),
        *("_standing", "wanted"),
    )

    def __init__(
        self,
        rules: Callable[[], Ruleset],
        connection: Connection,
        protection: Protection,
        minute: Callable[[], int] = lambda: 0,
        outside: Outside = NOBODY,
    ) -> None:
        self._rules, self._connection, self._protection, self._minute = rules, connection, protection, minute
        self._ruleset, self._facts = rules(), Facts(connection)
        self._standing = self._ruleset.start  # at MAIL
        self._outside, self._replies = outside, dict[Lookup, Reply]()
        self._fresh = False  # somebody has been asked for this very question
        self.wanted: tuple[Lookup, ...] = ()

    def ask(self, question: Question) -> Ruling:
        """What the rules make of it."""
        self.wanted = ()
        ruling = _STAGES[question.stage](self, question)
        self._fresh = False
        return PASSED if self.wanted else ruling

    def learn(self, replies: Mapping[Lookup, Reply]) -> None:
        """What was wanted."""
        self._fresh = True
        kept = [*self._replies.items(), *replies.items()][-MAX_REPLIES:]
        self._replies = dict(kept)

    def _connect(self, question: Question) -> Ruling:
        return self._beforehand(self._begun(question, Known.CONNECT))

    def _helo(self, question: Question) -> Ruling:
        return self._beforehand(self._begun(question, Known.HELO))

    def _beforehand(self, standing: Standing) -> Ruling:
        """There is no message yet that could be accepted or thrown away."""
        found = self._ruleset.find(standing)
        if found.verdict is None or isinstance(found.verdict, (Pass, Discard)):
            return Ruling(would=found.would) if found.would else PASSED
        return Ruling(found.verdict, found.by, found.would)

    def _mail(self, question: Question) -> Ruling:
        self._standing = self._begun(question, Known.MAIL)
        return _ruling(self._ruleset.find(self._standing))

    def _begun(self, question: Question, upto: Known) -> Standing:
        """Anew with the rules of now."""
        self._ruleset = self._rules()
        if not self._fresh:  # who could not say is asked again, and the next message is another
            self._replies = {
                lookup: reply
                for lookup, reply in self._replies.items()
                if reply is not None and lookup.source is not Source.PARTS
            }
        facts, standing = self._known(question), self._ruleset.start
        for stage in _BEGINNING[: upto + 1]:
            self._want(self._ruleset.lacks(standing, stage, facts))
            standing = self._ruleset.advance(standing, stage, facts)
        return standing

    def _want(self, lookups: list[Lookup]) -> None:
        if lookups:
            self.wanted = tuple(dict.fromkeys([*self.wanted, *lookups]))

    def _recipient(self, question: Question) -> Ruling:
        facts, path = self._facts, question.recipient
        facts.recipient, facts.message = mailbox(path), message_direction(path, self._protection)
        facts.recipients = question.recipients
        standing = self._ruleset.advance(self._standing, Known.RCPT, facts)
        return _ruling(self._ruleset.find(standing), standing)

    def _data(self, question: Question) -> Ruling:
        """Nobody is told anything before all is known of everybody."""
        standings = self._with_all(question)
        if not any(standing.possible for standing in standings):
            return PASSED
        found = [self._ruleset.find(standing) for standing in standings]
        if not found or any(each.verdict is None for each in found):
            return Ruling(need=max(map(self._ruleset.need, standings), default=Need.NOTHING))
        need = max(map(self._ruleset.need, standings))
        worst = strictest(found)
        return replace(_ruling(worst), need=need if worst.verdict == _PASS else Need.NOTHING, edit=None)

    def _with_all(self, question: Question) -> list[Standing]:
        """Once all recipients have been named, for those that are left."""
        facts = self._facts
        facts.recipients = question.recipients
        return [
            self._ruleset.advance(token, Known.DATA, facts) for token in question.tokens if isinstance(token, Standing)
        ]

    def _message(self, question: Question) -> Ruling:
        facts, standings = self._facts, self._with_all(question)
        facts.content = Content(values(question.header, self._ruleset.headers), question.size_bytes)
        facts.replies = self._replies
        for each in standings:
            self._want(self._ruleset.lacks(each, Known.MESSAGE, facts))
        if self.wanted:
            return PASSED
        found = [self._ruleset.find(self._ruleset.advance(each, Known.MESSAGE, facts)) for each in standings]
        return _ruling(strictest(found)) if found else PASSED

    def _known(self, question: Question) -> Facts:
        """Anew, as far as MAIL."""
        if (minute := self._minute()) != self._connection.minute:
            self._connection = replace(self._connection, minute=minute)
        if question.client:
            self._connection = replace(self._connection, client=ip_address(question.client).packed)
        size = _SIZE.search(question.parameters)
        self._facts = Facts(
            self._connection,
            helo=question.helo,
            authenticated=question.authenticated,
            user=question.user,
            sender=mailbox(question.sender),
            declared_bytes=int(size[1]) if size else None,
            outside=self._outside,
            replies=self._replies,
        )
        return self._facts


_BEGINNING = (Known.CONNECT, Known.HELO, Known.MAIL)
_STAGES: Mapping[Stage, Callable[[Judge, Question], Ruling]] = MappingProxyType(
    {
        Stage.CONNECT: Judge._connect,
        Stage.HELO: Judge._helo,
        Stage.MAIL: Judge._mail,
        Stage.RCPT: Judge._recipient,
        Stage.DATA: Judge._data,
        Stage.MESSAGE: Judge._message,
    }
)


def _ruling(found: Finding, token: Hashable = None) -> Ruling:
    """What is not decided yet passes for now."""
    if found.verdict is None:
        return Ruling(would=found.would, token=token, filters=found.filters) if found.would or token else PASSED
    edit = editor(found.edits)
    return Ruling(found.verdict, found.by, found.would, token=token, edit=edit, filters=found.filters)
