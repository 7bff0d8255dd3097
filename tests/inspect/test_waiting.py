"""A session whose judge must ask others: all at once, in any order of the answers, with DATA and BDAT."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.direction import Direction, Protection
from smtp_intercept.events import Asking, Hold, MessageDone, Out, Release, ToClient
from smtp_intercept.inspect.actions import CANNOT_TELL
from smtp_intercept.inspect.criteria import CRITERIA
from smtp_intercept.inspect.dns import LISTED
from smtp_intercept.inspect.facts import Connection, DnsList, Lookup, Outside, Reply, Source
from smtp_intercept.inspect.held import Held, nowhere
from smtp_intercept.inspect.judge import MAX_REPLIES, Judge
from smtp_intercept.inspect.rule import Condition, Rule
from smtp_intercept.inspect.ruleset import Ruleset
from smtp_intercept.inspect.waiting import Waiting
from smtp_intercept.policy import Pass, Question, Refuse, Ruling, Stage
from smtp_intercept.rules import Rules
from smtp_intercept.session import Session

OUTSIDE = Outside({name: DnsList(f"{name}.example", (LISTED,)) for name in ("one", "two")})
CONNECTION = Connection(Direction.INCOMING, ip_address("192.0.2.9").packed, ip_address("192.0.2.20").packed)
NO = Refuse(550, "5.7.1 no")
Asked = list[tuple[Lookup, Callable[[Reply], None]]]


def said(name: str, *entries: object, unanswered: bool = False) -> Condition:
    return Condition(name, tuple(map(CRITERIA[name].kind.read, entries)), unanswered=unanswered)


def waiting(asked: Asked, *rules: Rule, opened: list[Question] | None = None) -> Waiting:
    ruleset = Ruleset(rules)

    def look_in(question: Question, lookup: Lookup, told: Callable[[Reply], None]) -> None:
        assert opened is not None
        opened.append(question)
        asked.append((lookup, told))

    judge = Judge(
        lambda: ruleset, CONNECTION, Protection.on(Protection(), "192.0.2.20", Direction.INCOMING), outside=OUTSIDE
    )
    return Waiting(judge, lambda lookup, told: asked.append((lookup, told)), look_in)


RULES = (
    Rule("listed", (said("dns_list", "one", "two"),), NO),
    Rule("named", (said("client_named", False), said("helo_resolves", False)), NO),
)


@given(st.permutations(range(3)), st.sampled_from([((), Pass()), (("127.0.0.2",), NO), (None, Pass())]))
def test_all_at_once_and_in_any_order(order: list[int], answer: tuple[Reply, object]) -> None:
    asked, told = Asked(), list[Ruling]()
    one = waiting(asked, *RULES)
    assert one.ask(Question(Stage.CONNECT)) is None
    one.later(Question(Stage.CONNECT), told.append)
    assert len(asked) == 3
    for number in order:
        assert told == []
        lookup, tell = asked[number]
        tell(answer[0] if lookup.group == "two.example" else ())
    assert [ruling.verdict for ruling in told] == [answer[1]]


def test_what_was_answered_is_not_asked_again_and_what_was_not_is() -> None:
    asked, told = Asked(), list[Ruling]()
    one = waiting(asked, *RULES)
    for stage in (Stage.CONNECT, Stage.HELO, Stage.MAIL):
        question = Question(stage, helo="c.example", sender="a@c.example")
        if one.ask(question) is None:
            one.later(question, told.append)
            for lookup, tell in asked[:]:
                tell(None if lookup.group == "one.example" else ())
        sources = sorted(f"{lookup.source.value} {lookup.group}" for lookup, _ in asked)
        again = ["list one.example"]
        assert (
            sources
            == {
                Stage.CONNECT: ["client client", *again, "list two.example"],
                Stage.HELO: ["host helo", *again],
                Stage.MAIL: again,
            }[stage]
        )
        asked.clear()


def test_a_client_with_many_names_fills_no_memory() -> None:
    asked = Asked()
    one = waiting(asked, *RULES)
    for number in range(3 * MAX_REPLIES):
        question = Question(Stage.HELO, helo=f"c{number}.example")
        if one.ask(question) is None:
            one.later(question, lambda ruling: None)
            for _, tell in asked[:]:
                tell(())
            asked.clear()
    assert len(one._judge._replies) <= MAX_REPLIES


def test_nobody_is_asked_for_a_rule_that_is_decided_otherwise() -> None:
    asked = Asked()
    one = waiting(asked, Rule("ours", (said("client", "192.0.2.0/24"),), Pass()), *RULES)
    assert one.ask(Question(Stage.CONNECT)) == Ruling()
    assert asked == []


CONTENT = b"Subject: x\r\n\r\n..dots\r\n"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("reply", "heard"),
    [
        (("n:evil.exe",), b"550 5.7.1 no"),
        (("n:a.txt",), None),
        (("?why", "n:a.txt"), b"451 4.4.3"),
        (None, b"451 4.4.3"),
    ],
)
def test_a_message_that_is_looked_into(chunked: bool, reply: Reply, heard: bytes | None) -> None:
    """Two of them, for what was found in the first is not in the second."""
    asked, opened, held, kept = Asked(), list[Question](), Held(nowhere), list[bytes]()
    one = waiting(
        asked,
        Rule("r", (said("attachment", "*.exe"),), NO),
        Rule("r", (said("attachment", "*.exe", unanswered=True),), CANNOT_TELL),
        opened=opened,
    )
    session = Session(Protection(), Rules(ask=one.ask, later=one.later))
    client, outcomes = bytearray(), list[str]()

    def take(outs: list[Out]) -> None:
        for out in outs:
            match out:
                case ToClient(data):
                    client.extend(data)
                case Hold(data):
                    held.add(data)
                case Asking(question):
                    question.lend = held.lend
                    session.ask_later(question, lambda ruling: take(session.told(ruling, 0)))
                case Release():
                    kept.append(b"".join(held.pieces()[1]))
                case MessageDone(message):
                    outcomes.append(message.outcome.value)

    take(session.opened(0))
    take(session.server_sent(b"220 mx\r\n", 0))
    take(session.client_sent(b"EHLO c\r\n", 0))
    take(session.server_sent(b"250-mx\r\n250 CHUNKING\r\n", 0))
    for number, answer in enumerate((reply, ())):
        take(session.client_sent(b"MAIL FROM:<a@c.example>\r\n", 0))
        take(session.server_sent(b"250 ok\r\n", 0))
        take(session.client_sent(b"RCPT TO:<b@example.com>\r\n", 0))
        take(session.server_sent(b"250 ok\r\n", 0))
        if chunked:
            take(session.client_sent(b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT, 0))
        else:
            take(session.client_sent(b"DATA\r\n", 0))
            take(session.client_sent(CONTENT + b".\r\n", 0))
        ((lookup, tell),) = asked
        asked.clear()
        assert (lookup.source, opened[number].dotted) == (Source.PARTS, not chunked)
        lent = opened[number].lend
        assert lent is not None
        content = lent()
        assert os.pread(content, 1_000, 0) == (CONTENT if chunked else CONTENT + b".\r\n")
        os.close(content)
        client.clear()
        tell(answer)
        if number == 0 and heard is not None:
            assert client.startswith(heard)
            take(session.server_sent(b"250 reset\r\n", 0))
            assert kept == []
        else:
            take(session.server_sent(b"" if chunked else b"354 go\r\n", 0))
            take(session.server_sent(b"250 taken\r\n", 0))
            assert bytes(client).endswith(b"250 taken\r\n")
            assert outcomes[-1] == "accepted"
        held.close()
