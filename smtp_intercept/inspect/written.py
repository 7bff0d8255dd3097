"""Rules from what the configuration says, with the entries of their lists put in.

Pure. The texts have been looked at before; lists are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from smtp_intercept.inspect.actions import (
    CANNOT_TELL,
    AddHeader,
    Edit,
    RemoveHeader,
    ReplaceHeader,
    TagSubject,
    Unknown,
)
from smtp_intercept.inspect.criteria import CRITERIA, FILE, INSIDE, Kind
from smtp_intercept.inspect.rule import Condition, Rule
from smtp_intercept.policy import Verdict

Listed = Callable[[str, Kind], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Written:
    """One rule as it stands in the file: ``when`` has entries by criterion, or by header. ``unanswered``: where nobody
    says in time what is asked; ``unreadable``: where nobody can say what is in a message."""

    name: str
    when: Mapping[str, Any]
    ending: Verdict | None
    edits: tuple[Edit, ...]
    observed: bool
    filters: tuple[str, ...] = ()
    unanswered: Unknown = Unknown.NO
    unreadable: Unknown = Unknown.DEFER


def files(rules: Iterable[Written]) -> Iterator[tuple[str, Kind]]:
    """The lists that the rules name."""
    for rule in rules:
        for criterion, _, _, texts in _conditions(rule.when):
            kind = CRITERIA[criterion].kind
            yield from ((path_of(text), kind) for text in texts if is_file(kind, text))


def read_rules(rules: Iterable[Written], listed: Listed) -> tuple[Rule, ...]:
    """``listed`` gives the entries of a list. A rule that puts off what nobody can tell is two: itself, and behind it
    one for what may hold."""
    return tuple(each for rule in rules for each in _read(rule, listed))


def _read(rule: Written, listed: Listed) -> Iterator[Rule]:
    conditions = tuple(_read_conditions(rule.when, listed))
    sure = tuple(replace(each, unanswered=_unknown(rule, each) is Unknown.YES) for each in conditions)
    yield Rule(rule.name, sure, rule.ending, rule.edits, rule.observed, rule.filters)
    if any(_unknown(rule, each) is Unknown.DEFER for each in conditions):
        perhaps = tuple(replace(each, unanswered=_unknown(rule, each) is not Unknown.NO) for each in conditions)
        yield Rule(rule.name, perhaps, CANNOT_TELL, (), rule.observed)


def _unknown(rule: Written, condition: Condition) -> Unknown:
    """What cannot be unknown is never."""
    if condition.criterion in INSIDE:
        return rule.unreadable
    return rule.unanswered if CRITERIA[condition.criterion].asks else Unknown.NO


def _read_conditions(when: Mapping[str, Any], listed: Listed) -> Iterator[Condition]:
    for criterion, negated, field, texts in _conditions(when):
        kind = CRITERIA[criterion].kind
        entries: list[Any] = []
        for text in texts:
            entries += listed(path_of(text), kind) if is_file(kind, text) else (kind.read(text),)
        yield Condition(criterion, tuple(dict.fromkeys(entries)), negated, field)


def _conditions(when: Mapping[str, Any]) -> Iterator[tuple[str, bool, str, tuple[Any, ...]]]:
    for key, value in when.items():
        criterion = key.removesuffix("_not")
        negated = criterion != key
        if isinstance(value, Mapping):
            yield from ((criterion, negated, name.lower(), _several(texts)) for name, texts in value.items())
        else:
            yield criterion, negated, "", _several(value)


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def is_file(kind: Kind, text: Any) -> bool:
    """Whether an entry is the path of a list."""
    return kind.listed and isinstance(text, str) and text.startswith(FILE)


def path_of(text: str) -> str:
    """Of a list."""
    return text.removeprefix("@")


def edits(
    tag_subject: str | None,
    add_header: Mapping[str, str],
    replace_header: Mapping[str, str],
    remove_header: Iterable[str],
) -> tuple[Edit, ...]:
    """In the order in which they are made."""
    return (
        *(RemoveHeader(name) for name in remove_header),
        *(ReplaceHeader(name, value) for name, value in replace_header.items()),
        *(AddHeader(name, value) for name, value in add_header.items()),
        *([TagSubject(tag_subject)] if tag_subject else []),
    )
