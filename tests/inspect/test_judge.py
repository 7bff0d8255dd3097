"""A judge that is asked stage by stage comes to what the rules say to the whole, for each recipient and for all."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from smtp_intercept.direction import Direction, Domains, Protection, message_direction
from smtp_intercept.inspect.actions import TagSubject
from smtp_intercept.inspect.criteria import CRITERIA
from smtp_intercept.inspect.facts import Connection, Content, Facts, Known, Lookup, Reply, Source
from smtp_intercept.inspect.judge import Judge
from smtp_intercept.inspect.message import values
from smtp_intercept.inspect.patterns import mailbox
from smtp_intercept.inspect.rule import Condition, Rule
from smtp_intercept.inspect.ruleset import Finding, Ruleset, strictest
from smtp_intercept.policy import PASSED, Discard, Need, Pass, Question, Refuse, Ruling, Stage
from tests.inspect.worlds import CLIENTS, OUTSIDE, PATHS, REPLIES, lookups, rules

PROTECTION = Protection(Domains.of([("example.com", True)]))
HEADERS = st.sampled_from([b"", b"Subject: Lottery!\r\n\r\n", b"X-Spam: yes\r\nSubject: x\r\n\r\n"])


def said(name: str, *texts: str, negated: bool = False, field: str = "") -> Condition:
    return Condition(name, tuple(map(CRITERIA[name].kind.read, texts)), negated, field)


@given(rules(), st.data())
def test_stage_by_stage_is_the_whole(made: tuple[Rule, ...], data: st.DataObject) -> None:
    ruleset = Ruleset(made)
    client, server = (ip_address(data.draw(st.sampled_from(CLIENTS))).packed for _ in range(2))
    connection = Connection(data.draw(st.sampled_from([Direction.INCOMING, Direction.OUTGOING])), client, server, "p0")
    asked = Question(
        Stage.CONNECT,
        helo=data.draw(st.sampled_from(["", "mx.example.com"])),
        authenticated=data.draw(st.booleans()),
        user=data.draw(st.sampled_from(["", "boss"])),
        sender=data.draw(st.sampled_from(PATHS)),
        parameters=data.draw(st.sampled_from([b"", b"FROM:<A> SIZE=5000", b"FROM:<A> SIZE=5 BODY=7BIT"])),
    )
    recipients = data.draw(st.lists(st.sampled_from(PATHS[1:]), min_size=1, max_size=3))
    header, size = data.draw(HEADERS), data.draw(st.sampled_from([10, 101, 5000]))
    judge, replies = Judge(lambda: ruleset, connection, PROTECTION, outside=OUTSIDE), dict[Lookup, Reply]()
    for source in Source:
        replies |= {Lookup(source, "", 0): data.draw(st.sampled_from(REPLIES[source]))}

    def ask(question: Question) -> Ruling:
        """As `Waiting` does."""
        ruling = judge.ask(question)
        while judge.wanted:
            judge.learn({each: replies[Lookup(each.source, "")] for each in judge.wanted})
            ruling = judge.ask(question)
        return ruling

    # What a session makes of the verdicts.
    for stage in (Stage.CONNECT, Stage.HELO, Stage.MAIL):
        ruling = ask(replace(asked, stage=stage))
        if not isinstance(ruling.verdict, Pass):
            break
    left: dict[str, Ruling] = {}
    early = ruling.verdict
    if isinstance(early, Pass):
        for number, path in enumerate(recipients, 1):
            left[path] = ask(replace(asked, stage=Stage.RCPT, recipient=path, recipients=number))
    facts = Facts(
        connection,
        asked.helo,
        asked.authenticated,
        mailbox(asked.sender),
        5000 if b"5000" in asked.parameters else 5 if asked.parameters else None,
        recipients=len(recipients),
        content=Content(values(header, ruleset.headers), size),
        user=asked.user,
        outside=OUTSIDE,
    )
    facts.replies = {each: replies[Lookup(each.source, "")] for each in lookups(facts)}
    whole = {path: find(ruleset, facts, path) for path in recipients}
    event(type(early).__name__)
    if not isinstance(early, Pass):
        assert {found.verdict for found in whole.values()} == {early}
        return
    for path, ruling in left.items():
        assert ruling.verdict in (Pass(), whole[path].verdict)
    passed = {path: ruling for path, ruling in left.items() if isinstance(ruling.verdict, Pass)}
    if not passed:
        return
    tokens = frozenset(ruling.token for ruling in passed.values())
    last = replace(asked, recipients=len(recipients), tokens=tokens)
    at_data = ask(replace(last, stage=Stage.DATA))
    wanted = strictest(whole[path] for path in passed)
    event(at_data.need.name)
    if not isinstance(at_data.verdict, Pass):
        assert at_data.verdict == wanted.verdict
        return
    ruling = ask(replace(last, stage=Stage.MESSAGE, header=header, size_bytes=size))
    assert ruling.verdict == wanted.verdict
    assert set(ruling.by) == set(wanted.by)
    assert set(ruling.would) == set(wanted.would)
    if at_data.need < Need.HOLD:
        assert (ruling.verdict, ruling.edit) == (Pass(), None)


def find(ruleset: Ruleset, facts: Facts, path: str) -> Finding:
    facts = replace(facts, recipient=mailbox(path), message=message_direction(path, PROTECTION))
    standing = ruleset.start
    for stage in Known:
        standing = ruleset.advance(standing, stage, facts)
    return ruleset.find(standing)


CONNECTION = Connection(Direction.INCOMING, ip_address("192.0.2.1").packed, ip_address("192.0.2.20").packed)


def judge_of(*made: Rule, observed: bool = False) -> Judge:
    ruleset = Ruleset(made, observed=observed)
    return Judge(lambda: ruleset, CONNECTION, PROTECTION)


def test_nothing_is_thrown_away_before_there_is_a_message() -> None:
    judge = judge_of(Rule("r", (said("client", "192.0.2.1"),), Discard()))
    assert judge.ask(Question(Stage.CONNECT)) == judge.ask(Question(Stage.HELO)) == PASSED
    assert judge.ask(Question(Stage.MAIL)).verdict == Discard()


def test_a_balancers_client_is_the_client() -> None:
    judge = judge_of(Rule("r", (said("client", "198.51.100.7"),), Refuse(550, "no")))
    assert judge.ask(Question(Stage.HELO)) == PASSED
    assert judge.ask(Question(Stage.HELO, client="198.51.100.7")).verdict == Refuse(550, "no")


def test_the_rules_of_an_envelope_are_those_that_it_began_with() -> None:
    """A list that changes in the middle of it, and makes other rules of them, does not mix the two."""
    inside = [Ruleset([Rule("r", (said("recipient", "a@example.com"),), Refuse(550, "no"))]), Ruleset([])]
    judge = Judge(lambda: inside[0], CONNECTION, PROTECTION)
    judge.ask(Question(Stage.MAIL))
    inside.reverse()
    assert judge.ask(Question(Stage.RCPT, recipient="a@example.com")).verdict == Refuse(550, "no")
    judge.ask(Question(Stage.MAIL))
    assert judge.ask(Question(Stage.RCPT, recipient="a@example.com")).verdict == Pass()


def test_an_edit_is_made_of_what_the_rules_say() -> None:
    judge = judge_of(Rule("tag", (said("sender", "example.com", negated=True),), edits=(TagSubject("[EXT]"),)))
    judge.ask(Question(Stage.MAIL, sender="a@else.example"))
    token = judge.ask(Question(Stage.RCPT, recipient="b@example.com")).token
    assert judge.ask(Question(Stage.DATA, tokens=frozenset([token]), recipients=1)).need is Need.HOLD
    ruling = judge.ask(Question(Stage.MESSAGE, tokens=frozenset([token]), recipients=1, header=b"Subject: x\r\n\r\n"))
    assert ruling.edit is not None
    assert ruling.edit(b"Subject: x\r\n") == b"Subject: [EXT] x\r\n"


@pytest.mark.parametrize("observed", [False, True])
def test_what_is_observed_is_told(observed: bool) -> None:
    judge = judge_of(Rule("r", (said("client", "192.0.2.1"),), Refuse(550, "no")), observed=observed)
    ruling = judge.ask(Question(Stage.CONNECT))
    assert (ruling.by, ruling.would) == (((), ("r",)) if observed else (("r",), ()))
