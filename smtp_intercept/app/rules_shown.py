"""What every rule says to one message, and what comes of it: for people, and for machines.

Pure. Asks the rules one by one, as they are meant, and the rule set as a session does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from smtp_intercept.direction import Protection, message_direction
from smtp_intercept.inspect.actions import AddHeader, Edit, RemoveHeader, ReplaceHeader, TagSubject
from smtp_intercept.inspect.facts import Facts, Known
from smtp_intercept.inspect.patterns import mailbox
from smtp_intercept.inspect.rule import Answer, Rule, all_of, answers
from smtp_intercept.inspect.ruleset import Finding, Ruleset, strictest
from smtp_intercept.policy import Close, Defer, Discard, Pass, Refuse, Verdict

WHEN = {
    Known.CONNECT: "at connect",
    Known.HELO: "at HELO",
    Known.MAIL: "at MAIL",
    Known.RCPT: "at RCPT",
    Known.DATA: "at DATA",
    Known.MESSAGE: "at the end of the message",
}
_VERBS = {Refuse: "refuse", Defer: "defer", Close: "close", Discard: "discard", Pass: "accept"}


def edit_text(edit: Edit) -> str:
    """``add_header X-Spam``, in the words of the configuration."""
    match edit:
        case TagSubject(text):
            return f"tag_subject {text}"
        case AddHeader(name):
            return f"add_header {name}"
        case ReplaceHeader(name):
            return f"replace_header {name}"
        case RemoveHeader(name):
            return f"remove_header {name}"


@dataclass(frozen=True, slots=True)
class Said:
    """One rule's answer, and the conditions that are to blame if it is not yes."""

    rule: Rule
    answer: Answer
    because: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {"rule": self.rule.name, "answer": self.answer.value, "because": list(self.because)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one recipient: what each rule says, what is decided, and from when on that is known; None: never."""

    recipient: str
    direction: str
    said: tuple[Said, ...]
    finding: Finding
    decided: Known | None

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {
            "recipient": self.recipient,
            "direction": self.direction,
            "rules": [each.as_json() for each in self.said],
            "result": spoken(self.finding),
            "by": list(self.finding.by),
            "would": list(self.finding.would),
            "decided": None if self.decided is None else self.decided.name,
        }


def spoken(finding: Finding) -> str:
    """``refuse 550 5.7.1 no``, in the words of the configuration."""
    return "not yet known" if finding.verdict is None else verdict_text(finding.verdict)


def verdict_text(verdict: Verdict) -> str:
    """The same of a verdict alone."""
    text = f" {verdict.code} {verdict.text}" if isinstance(verdict, (Refuse, Defer, Close)) else ""
    return _VERBS[type(verdict)] + text


def outcomes(
    ruleset: Ruleset, facts: Facts, recipients: Sequence[str], protection: Protection, known: Known
) -> Iterator[Outcome]:
    """For each recipient, with all that is known at that stage."""
    for path in recipients:
        direction = message_direction(path, protection)
        each = replace(facts, recipient=mailbox(path), message=direction, recipients=len(recipients))
        found, decided, standing = Finding(None), None, ruleset.start
        for stage in Known:
            if stage > known:
                break
            standing = ruleset.advance(standing, stage, each)
            found = ruleset.find(standing)
            if decided is None and found.verdict is not None:
                decided = stage
        said = tuple(_said(rule, each, known) for rule in ruleset.rules)
        yield Outcome(path, direction.value, said, found, decided)


def _said(rule: Rule, facts: Facts, known: Known) -> Said:
    given = answers(rule, facts, known)
    answer = all_of(given)
    blamed = tuple(str(condition) for condition, each in given.items() if each is answer is not Answer.YES)
    return Said(rule, answer, blamed)


def at_connect(ruleset: Ruleset, facts: Facts) -> list[Said]:
    """What each rule says to a connection of which nothing more is known."""
    return [_said(rule, facts, Known.CONNECT) for rule in ruleset.rules]


def connection_lines(said: Sequence[Said]) -> Iterator[str]:
    """For people."""
    for each in said:
        why = f": {', '.join(each.because)}" * bool(each.because)
        yield f"rule        {each.rule.name}: {each.answer.value}{why}{_does(each)}"


def lines(found: Sequence[Outcome], *, held: bool) -> Iterator[str]:
    """For people. ``held``: there is content, so that the recipients come to one end."""
    for outcome in found:
        yield f"<{outcome.recipient}>: {outcome.direction}"
        width = max((len(each.rule.name) for each in outcome.said), default=0)
        for each in outcome.said:
            why = f": {', '.join(each.because)}" * bool(each.because)
            yield f"  {each.rule.name:<{width}}  {each.answer.value}{why}{_does(each)}"
        yield f"  result: {_result(outcome)}"
    if held and len(found) > 1:
        yield f"the message in a live session: {_ends(strictest(each.finding for each in found))}"


def _does(said: Said) -> str:
    if said.answer is not Answer.YES:
        return ""
    does = [verdict_text(said.rule.ending)] if said.rule.ending is not None else []
    does += map(edit_text, said.rule.edits)
    return f": {', '.join(does)}{' (only observed)' * said.rule.observed}"


def _result(outcome: Outcome) -> str:
    when = "" if outcome.decided is None or not outcome.finding.by else f", {WHEN[outcome.decided]}"
    return _ends(outcome.finding) + when


def _ends(finding: Finding) -> str:
    by = f" ({', '.join(finding.by)})" if finding.by else ""
    would = f"; would: {', '.join(finding.would)}" if finding.would else ""
    return f"{spoken(finding)}{by}{would}"
