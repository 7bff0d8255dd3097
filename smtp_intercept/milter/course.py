"""Rules and the filters that they name, as one judge of one connection: the rules at once, the filters later.

One kind of I/O: by `client`. A filter hears of a recipient at RCPT, so that it can refuse it alone, and of the message
when it has come whole, with the recipients that the server has accepted; each as the filters before it have left it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from smtp_intercept.milter.body import NewBody
from smtp_intercept.milter.changes import edited, rewritten, split
from smtp_intercept.milter.client import FailureError, Filter, OnFailure
from smtp_intercept.milter.envelope import Envelope, Path, Visit
from smtp_intercept.milter.replies import Change, ReplyCode, Word
from smtp_intercept.milter.visit import Content, Result, Said, Visiting
from smtp_intercept.policy import Close, Decider, Defer, Discard, Pass, Question, Refuse, Ruling, Stage, Verdict

# In Postfix's words (milter8.c).
UNAVAILABLE = Defer(451, "4.7.1 Service unavailable - try again later")
REJECTED = Refuse(550, "5.7.1 Command rejected")
NO_QUARANTINE = Defer(451, "4.7.1 Held by a filter, and there is no quarantine")
_VERDICTS: Mapping[Word, Verdict] = MappingProxyType(
    {
        Word.REJECT: REJECTED,
        Word.TEMPFAIL: UNAVAILABLE,
        Word.CONN_FAIL: UNAVAILABLE,
        Word.SHUTDOWN: Close(421, "4.7.1 Service unavailable - try again later"),
        Word.DISCARD: Discard(),
    }
)
_WORDS: Mapping[type, str] = MappingProxyType(
    {Refuse: "refused", Defer: "deferred", Close: "closed", Discard: "discarded", Pass: "passed"}
)
_PASS = Pass()

_LOG = logging.getLogger("tollbridge")


@dataclass(frozen=True, slots=True)
class Named:
    """A recipient, for the judge's own token of it. ``filters`` have heard of it."""

    number: int
    path: Path
    token: Hashable
    filters: tuple[str, ...]


class Course:
    """``rules`` decide alone, and may have to ask others themselves; ``filters`` are all that there are, by name.
    ``visit`` is what is known of the connection; ``fresh_body`` makes a place for another body."""

    def __init__(
        self, rules: Decider, filters: Mapping[str, Filter], visit: Visit, fresh_body: Callable[[], NewBody]
    ) -> None:
        self._rules, self._filters, self._visit, self._fresh_body = rules, filters, visit, fresh_body
        self._question: Question | None = None  # that nobody has answered yet
        self._rules_wait = False
        self._visiting: dict[str, Visiting] = {}
        self._sender = Path(b"")
        self._named: list[Named] = []
        self._number = self._message = 0
        self._ruling = Ruling()
        self._task: asyncio.Task[None] | None = None

    def ask(self, question: Question) -> Ruling | None:
        """None while filters are to be asked: `later` has their answer."""
        if question.stage in _BEGINS:
            self._begin(question)
        self.give_up()
        ruling = self._rules.ask(_of_rules(question))
        self._question, self._rules_wait = question, ruling is None
        return None if ruling is None else self._heard(question, ruling)

    def _heard(self, question: Question, ruling: Ruling) -> Ruling | None:
        """From the rules; None while filters are to be asked."""
        if not isinstance(ruling.verdict, Pass):
            return ruling
        if question.stage is Stage.RCPT:
            self._number += 1
            named = Named(self._number, Path(question.argument), ruling.token, ruling.filters)
            ruling = replace(ruling, token=named)
        self._ruling = ruling
        return None if ruling.filters and question.stage in _ASKED else ruling

    def rules_alone(self, question: Question) -> Ruling | None:
        """What they say without any filter, of the same."""
        return self._rules.ask(_of_rules(question))

    def _begin(self, question: Question) -> None:
        """No message is under way but the one that begins."""
        for visiting in self._visiting.values():
            visiting.over()
        self._sender, self._named = Path(question.argument), []
        self._message += question.stage is Stage.MAIL

    def later(self, question: Question, told: Callable[[Ruling], None]) -> None:
        """What the rules say that wait for others, and then the filters."""
        if not self._rules_wait:
            self._start(question, told)
            return
        assert self._rules.later is not None

        def heard(ruling: Ruling) -> None:
            if self._question is question:  # or nobody waits for it any more
                self._rules_wait = False
                known = self._heard(question, ruling)
                if known is None:
                    self._start(question, told)
                else:
                    told(known)

        self._rules.later(_of_rules(question), heard)

    def _start(self, question: Question, told: Callable[[Ruling], None]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work(question, self._ruling, told))

    async def _work(self, question: Question, ruling: Ruling, told: Callable[[Ruling], None]) -> None:
        try:
            answer = await (self._recipient if question.stage is Stage.RCPT else self._whole)(question, ruling)
        except Exception as mistake:
            _LOG.error(
                "session %s: %s while filters were asked", self._visit.name, type(mistake).__name__, exc_info=True
            )
            answer = Ruling(UNAVAILABLE, ruling.by, ruling.would)
        self._task = None
        told(answer)

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        self._question = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def over(self) -> None:
        """The client has gone."""
        busy = self._task is not None
        self.give_up()
        for visiting in self._visiting.values():
            visiting.close(busy=busy)
        self._visiting.clear()

    async def _recipient(self, question: Question, ruling: Ruling) -> Ruling:
        """One more."""
        named = ruling.token
        assert isinstance(named, Named)
        for name in ruling.filters:
            before = [each.path for each in self._named if name in each.filters]
            verdict, word = await self._asked(name, question, [*before, named.path])
            if verdict not in (_PASS, Discard()):  # what is thrown away is thrown away whole
                return Ruling(verdict, ruling.by, ruling.would, filtered=((name, word),))
        self._named.append(named)
        return ruling

    async def _asked(self, name: str, question: Question, recipients: list[Path]) -> tuple[Verdict, str]:
        visiting = self._of(name)
        settings = visiting.filter.settings
        if visiting.failed and settings.on_failure is OnFailure.ACCEPT:
            return _PASS, ""
        try:
            said = await visiting.recipient(self._envelope(question, recipients))
        except FailureError as failure:
            return _of_failure(settings.on_failure), f"failed: {failure}"
        return _verdict(said), _WORDS[type(_verdict(said))]

    def _of(self, name: str) -> Visiting:
        if name not in self._visiting:
            self._visiting[name] = Visiting(self._filters[name], self._fresh_body)
        return self._visiting[name]

    def _envelope(self, question: Question, recipients: list[Path]) -> Envelope:
        visit = replace(
            self._visit,
            client=(question.client, 0) if question.client else self._visit.client,
            helo=question.helo,
            authenticated=question.authenticated,
            ident=f"{self._visit.name}.{self._message}",
        )
        return Envelope(visit, self._sender, tuple(recipients))

    async def _whole(self, question: Question, ruling: Ruling) -> Ruling:
        """The message, filter by filter."""
        named = sorted((each for each in question.tokens if isinstance(each, Named)), key=lambda each: each.number)
        content = _content(question)
        made = _Made(content, ruling, [each.path for each in named])
        try:
            for name in ruling.filters:
                mine = [each.path for each in named if name in each.filters] or made.recipients
                verdict = await self._through(name, self._envelope(question, mine), made)
                if verdict != _PASS:
                    made.close()
                    return Ruling(verdict, ruling.by, ruling.would, filtered=tuple(made.filtered))
        except BaseException:
            made.close()
            raise
        return made.ruling(self._sender)

    async def _through(self, name: str, envelope: Envelope, made: _Made) -> Verdict:
        visiting = self._of(name)
        settings = visiting.filter.settings
        if visiting.failed and settings.on_failure is OnFailure.ACCEPT:
            made.filtered.append((name, f"failed: {visiting.failed}"))
            return _PASS
        try:
            result = await visiting.message(envelope, made.content)
        except FailureError as failure:
            made.filtered.append((name, f"failed: {failure}"))
            return _of_failure(settings.on_failure)
        verdict = _verdict(result.said)
        if verdict == _PASS and result.quarantine and settings.on_quarantine is OnFailure.DEFER:
            verdict = NO_QUARANTINE
        if verdict != _PASS:
            if result.body is not None:
                result.body.close()
            made.filtered.append((name, _WORDS[type(verdict)]))
            return verdict
        made.take(name, result, leading_space=visiting.leading_space)
        return _PASS


def _of_rules(question: Question) -> Question:
    """With their own tokens."""
    return replace(question, tokens=_own(question.tokens)) if question.tokens else question


def _own(tokens: frozenset[Hashable]) -> frozenset[Hashable]:
    """The judge's."""
    return frozenset(each.token if isinstance(each, Named) else each for each in tokens)


class _Made:
    """What filters have made of a message so far."""

    def __init__(self, content: Content, ruling: Ruling, recipients: list[Path]) -> None:
        self.content, self._ruling, self.recipients = content, ruling, recipients
        self.filtered: list[tuple[str, str]] = []
        self._changes: list[Change] = []
        self._edited = False

    def take(self, name: str, result: Result, *, leading_space: bool) -> None:
        """One filter's changes."""
        before = self.content.fields
        self.content.fields = edited(before, result.changes, leading_space=leading_space)
        self._changes += result.changes
        if result.body is not None:
            if self.content.body is not None:
                self.content.body.close()
            self.content.body = result.body
        changed = bool(result.changes) or result.body is not None
        self._edited = self._edited or self.content.fields != before or result.body is not None
        word = "quarantine asked for" if result.quarantine else "changed" if changed else "passed"
        self.filtered.append((name, word))

    def ruling(self, sender: Path) -> Ruling:
        """The judge's, with all that."""
        edit = self._ruling.edit
        if self._edited:
            header = b"".join(self.content.fields) + (self.content.tail if self.content.body is None else b"")
            edit = partial(_after, header, edit)
        return replace(
            self._ruling,
            edit=edit,
            body=self.content.body,
            envelope=rewritten(sender, self.recipients, self._changes),
            filtered=tuple(self.filtered),
            filters=(),
        )

    def close(self) -> None:
        """Nobody will have it."""
        if self.content.body is not None:
            self.content.body.close()


def _after(header: bytes, edit: Callable[[bytes], bytes] | None, _: bytes) -> bytes:
    """What rules change of it they change after the filters."""
    return edit(header) if edit else header


def _content(question: Question) -> Content:
    """As it came."""
    header = question.header
    blank = header == b"\r\n" or header.endswith(b"\r\n\r\n")
    fields, tail = split(header.removesuffix(b"\r\n") if blank else header)
    return Content(fields, tail, lambda: _behind(question, len(header)), b"\r\n" if blank else b"")


def _behind(question: Question, size_bytes: int) -> Iterator[bytes]:
    assert question.content is not None
    left = size_bytes
    for piece in question.content():
        if left < len(piece):
            yield piece[left:]
        left = max(0, left - len(piece))


def _verdict(said: Said) -> Verdict:
    match said:
        case ReplyCode(421, text):
            return Close(421, text)
        case ReplyCode(code, text):
            return Refuse(code, text) if code >= 500 else Defer(code, text)
    return _VERDICTS.get(said, _PASS)


def _of_failure(on_failure: OnFailure) -> Verdict:
    return UNAVAILABLE if on_failure is OnFailure.DEFER else _PASS


_BEGINS = frozenset({Stage.HELO, Stage.MAIL})
_ASKED = frozenset({Stage.RCPT, Stage.MESSAGE})
