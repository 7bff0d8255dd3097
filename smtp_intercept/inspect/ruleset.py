"""All rules at once: what is left of them at each stage, and what they decide.

Pure. The rules are gone through in order, and the first that holds and decides is the one; so a rule waits for those
before it, and what comes out is the same whenever it is asked. Rules are bits of a number: what 1,000 of them cost is a
few look-ups a stage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from smtp_intercept.inspect.actions import Edit
from smtp_intercept.inspect.columns import Column, column
from smtp_intercept.inspect.criteria import CRITERIA, Criterion
from smtp_intercept.inspect.facts import Facts, Known, Lookup, State, Told
from smtp_intercept.inspect.rule import Rule
from smtp_intercept.policy import Close, Defer, Discard, Need, Pass, Refuse, Verdict


class Standing(NamedTuple):  # made at every stage, at a third of a frozen dataclass's cost
    """What is left of the rules for one (message, recipient): those that may hold still, and those of which that cannot
    be told yet; ``missing`` are of these the ones for which somebody must be asked."""

    possible: int
    open: int
    missing: int = 0


class Finding(NamedTuple):
    """``verdict`` is None while a rule before the first that holds is not known yet. ``rule`` is that one, else the one
    that decides, None for none. ``would`` are observed rules that hold. ``filters`` are to be asked."""

    verdict: Verdict | None
    rule: int | None = None
    edits: tuple[Edit, ...] = ()
    by: tuple[str, ...] = ()
    would: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    """One criterion: the rules that do not ask for it, those that ask to the contrary, and how it is answered.
    ``unanswered``: they hold where nobody could say."""

    criterion: Criterion
    asked: int
    negated: int
    fitting: Column
    field: str = ""
    unanswered: bool = False
    entries: tuple[tuple[Any, int], ...] = ()  # where somebody is asked about them

    @property
    def early(self) -> Callable[[Facts], int] | None:
        return self.criterion.early

    def narrowed(self, possible: int, facts: Facts) -> int:
        """Without those that it says no to."""
        if not possible & self.asked:
            return possible
        value = self.criterion.look(facts)
        if self.field:
            fits = 0
            for each in value.get(self.field, ()):
                fits |= self.fitting(each)
        else:
            fits = self.fitting(value)
        return possible & ~(self.asked & ~(fits ^ self.negated))

    def heard(self, possible: int, facts: Facts) -> tuple[int, int]:
        """The same of what is told from outside, and those for which somebody must be asked."""
        if not possible & self.asked:
            return possible, 0
        told: Told = self.criterion.look(facts)
        fits = 0
        for each in told.values:
            fits |= self.fitting(each)
        missing = self._in(told, State.MISSING) & ~fits
        blank = self._in(told, State.UNANSWERED) & ~fits & ~missing
        holding = ((fits ^ self.negated) & ~blank) | missing | (blank if self.unanswered else 0)
        return possible & ~(self.asked & ~holding), possible & missing

    def _in(self, told: Told, state: State) -> int:
        found = self.asked if told.state is state else 0
        for entry, bits in self.entries if told.each else ():
            found |= bits if told.each.get(entry) is state else 0
        return found

    def lacks(self, left: int, facts: Facts) -> tuple[Lookup, ...]:
        """What must be looked up for these rules."""
        if not left & self.asked:
            return ()
        assert self.criterion.asks is not None
        lookups = self.criterion.asks(facts, [entry for entry, bits in self.entries if bits & left])
        return tuple(lookup for lookup in lookups if lookup not in facts.replies)

    def still_open(self, facts: Facts) -> int:
        """Those whose number is not too large yet."""
        assert self.early is not None
        return self.asked & ~self.fitting(self.early(facts))


class Ruleset:
    """Rules in order. ``observed``: nothing is done, whatever they decide."""

    def __init__(self, rules: Iterable[Rule], *, observed: bool = False) -> None:
        self.rules = tuple(rules)
        self.observed = observed
        self.headers = frozenset(c.field for rule in self.rules for c in rule.conditions if c.field)
        self._stages: dict[Known, tuple[_Asked, ...]] = dict.fromkeys(Known, ())
        for asked in _columns(self.rules):
            self._stages[asked.criterion.known] += (asked,)
        self._plain = {stage: _asking(asked, others=False) for stage, asked in self._stages.items()}
        self._outside = {stage: _asking(asked, others=True) for stage, asked in self._stages.items()}
        self._inside = _union(self._outside[Known.MESSAGE])
        self._later = {stage: self._after(stage) for stage in Known}
        self._ending = _bits(rule.ending is not None and not rule.observed for rule in self.rules)
        # What a filter makes of a message is an edit too.
        self._edited = _bits(bool(rule.edits or rule.filters) and not rule.observed for rule in self.rules)
        self._doing = self._ending | self._edited
        self._watched = _bits(rule.observed for rule in self.rules)
        self.start = Standing((1 << len(self.rules)) - 1, (1 << len(self.rules)) - 1)

    def advance(self, standing: Standing, stage: Known, facts: Facts) -> Standing:
        """What is known since the stage before. To be asked for each stage, in order."""
        possible, missing = standing.possible, standing.missing
        for asked in self._plain[stage]:
            possible = asked.narrowed(possible, facts)
        for asked in self._outside[stage]:
            possible, more = asked.heard(possible, facts)
            missing |= more
        if not possible:
            return _NOTHING
        missing &= possible
        return Standing(possible, possible & self._open_after(stage, facts) | missing, missing)

    @property
    def asks(self) -> bool:
        """Somebody may have to be asked."""
        return any(self._outside.values())

    def lacks(self, standing: Standing, stage: Known, facts: Facts) -> list[Lookup]:
        """What must be looked up before `advance` can tell: nothing for rules that are out of it already, or behind the
        one that decides."""
        outside = self._outside[stage]
        if not outside:
            return []
        possible = standing.possible
        for asked in self._plain[stage]:
            possible = asked.narrowed(possible, facts)
        waiting = self._open_after(stage, facts) | standing.missing | _union(outside)
        certain = possible & self._ending & ~waiting
        left = possible & ((certain & -certain) - 1 if certain else -1)
        return [lookup for asked in outside for lookup in asked.lacks(left, facts)]

    def _after(self, stage: Known) -> tuple[int, tuple[_Asked, ...]]:
        """The rules that ask for something later, and the numbers that may be too large already."""
        later = [asked for after in Known if after > stage for asked in self._stages[after]]
        return _union(asked for asked in later if not asked.early), tuple(asked for asked in later if asked.early)

    def _open_after(self, stage: Known, facts: Facts) -> int:
        found, growing = self._later[stage]
        for asked in growing:
            found |= asked.still_open(facts)
        return found

    def find(self, standing: Standing) -> Finding:
        """What is decided by now."""
        deciding = standing.possible & self._ending
        first = (deciding & -deciding).bit_length() - 1
        if first < 0:
            return self._told(Finding(Pass()), standing, -1)
        if standing.open >> first & 1:
            return self._told(Finding(None, first), standing, 1 << first)
        rule = self.rules[first]
        return self._told(Finding(rule.ending, first, by=(rule.name,)), standing, 1 << first)

    def _told(self, finding: Finding, standing: Standing, before: int) -> Finding:
        """With the rules that hold before the one that decides."""
        mask = standing.possible & ~standing.open & (before - 1 if before > 0 else -1)
        if not (mask & (self._edited | self._watched) or finding.by or self.observed):
            return finding  # as nearly always
        editing, watched = mask & self._edited, mask & self._watched
        if finding.rule is not None and finding.verdict is not None:
            editing |= self._edited & 1 << finding.rule
        names = dict.fromkeys([*(self.rules[n].name for n in numbers(editing)), *finding.by])
        edits = tuple(edit for n in numbers(editing) for edit in self.rules[n].edits)
        would = tuple(self.rules[n].name for n in numbers(watched))
        filters = dict.fromkeys(name for n in numbers(editing) for name in self.rules[n].filters)
        found = Finding(finding.verdict, finding.rule, edits, tuple(names), would, tuple(filters))
        return found if not self.observed else _only_told(found)

    def need(self, standing: Standing) -> Need:
        """Of the content, once all but that is known."""
        deciding = standing.possible & self._ending & ~standing.open
        before = (deciding & -deciding) * 2 - 1 if deciding else -1
        left = standing.possible & before
        if left & self._inside & standing.open:  # who looks into it needs all of it, whatever comes of it
            return Need.HOLD
        if (left & self._doing & standing.open) | (left & self._edited):
            return Need.LOOK if self.observed else Need.HOLD
        return Need.LOOK if left & self._watched & standing.open else Need.NOTHING


def strictest(findings: Iterable[Finding]) -> Finding:
    """One for a message whose recipients cannot be told apart any more: a refusal counts for all, and what one
    recipient's rule would throw away is another's mail. Edits add up."""
    found = list(findings)
    worst = max(found, key=lambda each: _STRICTNESS[type(each.verdict)])
    return Finding(
        worst.verdict,
        worst.rule,
        tuple(dict.fromkeys(edit for each in found for edit in each.edits)),
        tuple(dict.fromkeys(name for each in found for name in each.by)),
        tuple(dict.fromkeys(name for each in found for name in each.would)),
        tuple(dict.fromkeys(name for each in found for name in each.filters)),
    )


_NOTHING = Standing(0, 0)
_STRICTNESS: Mapping[type, int] = {Discard: 0, Pass: 1, Defer: 2, Refuse: 3, Close: 4}


def numbers(bits: int) -> Iterator[int]:
    """The rules that are in it, in order."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _only_told(finding: Finding) -> Finding:
    would = dict.fromkeys([*finding.would, *finding.by])
    return Finding(Pass(), finding.rule, would=tuple(would))


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << number for number, flag in enumerate(flags) if flag)


def _union(columns: Iterable[_Asked]) -> int:
    found = 0
    for asked in columns:
        found |= asked.asked
    return found


def _asking(columns: tuple[_Asked, ...], *, others: bool) -> tuple[_Asked, ...]:
    """Those that the session itself answers, or somebody else."""
    return tuple(asked for asked in columns if (asked.criterion.asks is not None) is others)


def _columns(rules: tuple[Rule, ...]) -> Iterator[_Asked]:
    """One for each criterion, and each header; what is asked to the contrary has its own, and what holds unanswered."""
    entries: defaultdict[tuple[str, str, bool, bool], list[tuple[Any, int]]] = defaultdict(list)
    asking: defaultdict[tuple[str, str, bool, bool], int] = defaultdict(int)
    for number, rule in enumerate(rules):
        for condition in rule.conditions:
            key = condition.criterion, condition.field, condition.negated, condition.unanswered
            asking[key] |= 1 << number
            entries[key] += [(entry, 1 << number) for entry in condition.entries]
    for key, asked in asking.items():
        name, field, negated, unanswered = key
        criterion = CRITERIA[name]
        fitting = column(criterion.kind, entries[key])
        told = tuple(entries[key]) if criterion.asks else ()
        yield _Asked(criterion, asked, asked if negated else 0, fitting, field, unanswered, told)
