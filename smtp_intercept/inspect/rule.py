"""One rule, and its answer to what is known: yes, no, or not yet known. Every criterion is one small function.

Pure. This is what a rule means; `ruleset` answers for all rules at once, and tests hold the two to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any

from smtp_intercept.direction import Network
from smtp_intercept.inspect.actions import Edit
from smtp_intercept.inspect.criteria import CRITERIA, HOURS, MAILBOXES, NETWORKS, NUMBERS, TEXTS, Kind
from smtp_intercept.inspect.facts import Facts, Known, State, Told
from smtp_intercept.inspect.patterns import Domain, Mailbox, Wild, fold, glob
from smtp_intercept.policy import Verdict


class Answer(Enum):
    """Of a condition, and of a rule."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "not yet known"


@dataclass(frozen=True, slots=True)
class Condition:
    """``field`` is the name of a header in small letters, else "". Any of the entries will do; ``negated``: none.
    ``unanswered``: what it is said to be where nobody could say in time."""

    criterion: str
    entries: tuple[Any, ...]
    negated: bool = False
    field: str = ""
    unanswered: bool = False

    @property
    def known(self) -> Known:
        """From when on it is answered."""
        return CRITERIA[self.criterion].known

    def __str__(self) -> str:
        return f"{self.criterion}{'_not' * self.negated}{f'.{self.field}' * bool(self.field)}"


@dataclass(frozen=True, slots=True)
class Rule:
    """``ending`` is what it decides, if it decides; ``observed``: only told of."""

    name: str
    conditions: tuple[Condition, ...]
    ending: Verdict | None = None
    edits: tuple[Edit, ...] = ()
    observed: bool = False
    filters: tuple[str, ...] = ()

    @property
    def known(self) -> Known:
        """From when on it is answered, at the latest."""
        return max((condition.known for condition in self.conditions), default=Known.CONNECT)


def answers(rule: Rule, facts: Facts, known: Known) -> dict[Condition, Answer]:
    """Each condition's, with all that is known at that stage."""
    return {condition: answer(condition, facts, known) for condition in rule.conditions}


def all_of(given: Mapping[Condition, Answer]) -> Answer:
    """The rule's answer: one no is enough."""
    found = set(given.values())
    if Answer.NO in found:
        return Answer.NO
    return Answer.UNKNOWN if Answer.UNKNOWN in found else Answer.YES


def answer(condition: Condition, facts: Facts, known: Known) -> Answer:
    """One condition's."""
    criterion = CRITERIA[condition.criterion]
    if known < criterion.known:
        over = criterion.early is not None and any(criterion.early(facts) > most for most in condition.entries)
        return Answer.YES if over else Answer.UNKNOWN
    value = criterion.look(facts)
    if criterion.asks:
        return _answer_told(condition, criterion.kind, value)
    if condition.field:
        held = any(holds(criterion.kind, condition.entries, each) for each in value.get(condition.field, ()))
    else:
        held = holds(criterion.kind, condition.entries, value)
    return Answer.YES if held is not condition.negated else Answer.NO


def _answer_told(condition: Condition, kind: Kind, told: Told) -> Answer:
    """From outside: what may still be found is not known, what nobody has said is as the rule has it."""
    if any(holds(kind, condition.entries, each) for each in told.values):
        return Answer.NO if condition.negated else Answer.YES
    states = {told.state, *(told.each.get(entry, State.KNOWN) for entry in condition.entries)}
    if State.MISSING in states:
        return Answer.UNKNOWN
    held = condition.unanswered if State.UNANSWERED in states else condition.negated
    return Answer.YES if held else Answer.NO


def holds(kind: Kind, entries: tuple[Any, ...], value: Any) -> bool:
    """Whether any entry fits the value."""
    fits = _FITS.get(kind, _equal)
    return any(fits(entry, value) for entry in entries)


def _equal(entry: Any, value: Any) -> bool:
    return bool(entry == value)


def _in_network(entry: Network, address: bytes) -> bool:
    return entry.holds(address)


def _is_mailbox(entry: Mailbox | Domain | Wild, address: Mailbox) -> bool:
    match entry:
        case Mailbox():
            return entry == address
        case Domain(name, below):
            return address.domain.endswith(f".{name}") if below else address.domain == name
        case Wild(pattern):
            return address.domain != "" and _fits(pattern, f"{address.local}@{address.domain}")


def _is_text(entry: Wild, text: str) -> bool:
    return _fits(entry.pattern, fold(text))


def _fits(pattern: str, text: str) -> bool:
    return _glob(pattern).fullmatch(text) is not None


_glob = cache(glob)


def _within(entry: tuple[int, int], minute: int) -> bool:
    begin, end = entry
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def _over(entry: int, number: int) -> bool:
    return number > entry


_FITS: Mapping[Kind, Callable[[Any, Any], bool]] = MappingProxyType(
    {NETWORKS: _in_network, MAILBOXES: _is_mailbox, TEXTS: _is_text, HOURS: _within, NUMBERS: _over}
)
