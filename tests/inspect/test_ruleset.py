"""The laws of a rule set: it says what its rules say one by one, whenever it is asked, and never changes its mind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from smtp_intercept.inspect.actions import Edit
from smtp_intercept.inspect.criteria import INSIDE
from smtp_intercept.inspect.facts import Facts, Known, Lookup
from smtp_intercept.inspect.rule import Answer, Rule, all_of, answers
from smtp_intercept.inspect.ruleset import Finding, Ruleset, Standing, strictest
from smtp_intercept.policy import Close, Defer, Discard, Need, Pass, Refuse, Verdict
from tests.inspect.worlds import by, facts, lookups, rules


def standings(ruleset: Ruleset, whole: Facts) -> dict[Known, Standing]:
    found, standing = {}, ruleset.start
    for stage in Known:
        standing = found[stage] = ruleset.advance(standing, stage, by(stage, whole))
    return found


def one_by_one(made: tuple[Rule, ...], whole: Facts, stage: Known) -> Finding:
    """What a rule set means, told the slow way."""
    would: list[str] = []
    names: list[str] = []
    edits: list[Edit] = []
    for number, rule in enumerate(made):
        match all_of(answers(rule, by(stage, whole), stage)):
            case Answer.NO:
                continue
            case Answer.UNKNOWN:
                if rule.ending is not None and not rule.observed:
                    return Finding(None, number, tuple(edits), tuple(names), tuple(would))
                continue
        if rule.observed:
            would.append(rule.name)
            continue
        edits += rule.edits
        if rule.edits or rule.ending is not None:
            names.append(rule.name)
        if rule.ending is not None:
            return Finding(rule.ending, number, tuple(edits), tuple(names), tuple(would))
    return Finding(Pass(), None, tuple(edits), tuple(names), tuple(would))


@given(rules(), facts())
def test_all_at_once_is_one_by_one(made: tuple[Rule, ...], whole: Facts) -> None:
    ruleset = Ruleset(made)
    for stage, standing in standings(ruleset, whole).items():
        found = ruleset.find(standing)
        assert found == one_by_one(made, whole, stage), stage
        event(f"{stage.name} {type(found.verdict).__name__}")
        for number, rule in enumerate(made):
            answer = all_of(answers(rule, by(stage, whole), stage))
            assert (answer is not Answer.NO) == bool(standing.possible >> number & 1)
            assert (answer is Answer.UNKNOWN) == bool(standing.open >> number & 1)


@given(rules(), facts())
def test_an_early_decision_is_the_late_one(made: tuple[Rule, ...], whole: Facts) -> None:
    ruleset = Ruleset(made)
    whole = replace(whole, replies={lookup: whole.replies.get(lookup) for lookup in lookups(whole)})
    found = [ruleset.find(standing) for standing in standings(ruleset, whole).values()]
    assert found[-1].verdict is not None
    for early in found:
        if early.verdict is not None:
            assert (early.verdict, early.rule) == (found[-1].verdict, found[-1].rule)


@given(rules(), facts())
def test_who_was_not_asked_would_have_changed_nothing(made: tuple[Rule, ...], whole: Facts) -> None:
    """What `lacks` names is enough, and nobody else need be asked."""
    ruleset, asked = Ruleset(made), replace(whole, replies={})
    for stage in Known:
        standing, now = ruleset.start, by(stage, asked)
        wanted: list[Lookup] = []
        for each in Known:
            if each <= stage:
                wanted += ruleset.lacks(standing, each, now)
                standing = ruleset.advance(standing, each, now)
        assert set(wanted) <= set(lookups(whole)) - set(asked.replies)
        asked = replace(asked, replies={**asked.replies, **{each: whole.replies.get(each) for each in wanted}})
        event(f"asked for {len(wanted)}")
    all_known = replace(whole, replies={each: whole.replies.get(each) for each in lookups(whole)})
    for stage in Known:
        some, every = (ruleset.find(standings(ruleset, each)[stage]) for each in (asked, all_known))
        if every.verdict is not None:
            assert some == every
    assert ruleset.find(standings(ruleset, asked)[Known.MESSAGE]).verdict is not None


@given(rules(), facts())
def test_content_that_is_not_needed_changes_nothing(made: tuple[Rule, ...], whole: Facts) -> None:
    """Whatever the content is: what needs none of it comes to the same."""
    ruleset = Ruleset(made)
    whole = replace(whole, replies={lookup: whole.replies.get(lookup) for lookup in lookups(whole)})
    told = standings(ruleset, whole)
    need = ruleset.need(told[Known.DATA])
    event(need.name)
    early, late = ruleset.find(told[Known.DATA]), ruleset.find(told[Known.MESSAGE])
    if need < Need.HOLD and early.verdict == Pass():
        assert (late.verdict, late.edits) == (Pass(), ())
    if need is Need.NOTHING:
        assert early == late


def looks_inside(made: tuple[Rule, ...]) -> bool:
    """Who looks into a message must have all of it, also if nothing comes of it."""
    return any(condition.criterion in INSIDE for rule in made for condition in rule.conditions)


@given(rules(), facts())
def test_an_observed_rule_set_does_nothing_and_tells_all(made: tuple[Rule, ...], whole: Facts) -> None:
    enforced, observed = Ruleset(made), Ruleset(made, observed=True)
    whole = replace(whole, replies={lookup: whole.replies.get(lookup) for lookup in lookups(whole)})
    for stage, standing in standings(observed, whole).items():
        found, done = observed.find(standing), enforced.find(standing)
        assert (found.verdict, found.edits, found.by) == (Pass(), (), ())
        assert set(found.would) == {*done.would, *done.by}, stage
        assert observed.need(standing) < Need.HOLD or looks_inside(made)


@given(rules(), facts())
def test_a_rule_that_is_only_observed_changes_nothing(made: tuple[Rule, ...], whole: Facts) -> None:
    looking = tuple(replace(rule, observed=True) for rule in made)
    standing = standings(Ruleset(looking), whole)[Known.MESSAGE]
    found = Ruleset(looking).find(standing)
    assert (found.verdict, found.edits) == (Pass(), ())


ORDER = (Close(421, "x"), Refuse(550, "x"), Defer(451, "x"), Pass(), Discard())


@given(st.lists(st.sampled_from(ORDER), min_size=1))
def test_of_several_recipients_the_strictest(verdicts: list[Verdict]) -> None:
    assert strictest(Finding(verdict) for verdict in verdicts).verdict == min(verdicts, key=ORDER.index)


def test_what_one_throws_away_is_anothers_mail() -> None:
    assert strictest([Finding(Discard()), Finding(Pass())]).verdict == Pass()


@pytest.mark.parametrize("number", [0, 1, 1000])
def test_any_number_of_rules(number: int) -> None:
    """The last one is found as the first is."""
    made = (*(Rule(f"r{n}", (), None) for n in range(number)), Rule("last", (), Refuse(550, "no")))
    ruleset = Ruleset(made)
    found = ruleset.find(Standing(ruleset.start.possible, 0))
    assert (found.rule, found.verdict) == (number, Refuse(550, "no"))
