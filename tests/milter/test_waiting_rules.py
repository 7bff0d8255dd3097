"""Rules that must ask others before filters can be asked: one answer, and none to a question that is over."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from smtp_intercept.milter.body import NewBody
from smtp_intercept.milter.client import Filter, OnFailure, Settings
from smtp_intercept.milter.course import Course
from smtp_intercept.milter.envelope import Visit
from smtp_intercept.policy import Decider, Pass, Question, Refuse, Ruling, Stage, Verdict

Told = Callable[[Ruling], None]


class Slow:
    """Rules that answer when a test says so."""

    def __init__(self) -> None:
        self.asked: list[Told] = []

    def decider(self) -> Decider:
        return Decider(lambda question: None, lambda question, told: self.asked.append(told))


def course(rules: Slow) -> Course:
    with socket.socket() as nobody:  # whose port nobody listens on
        nobody.bind(("127.0.0.1", 0))
        address = nobody.getsockname()[:2]
    settings = Settings("f", address, 1.0, 1.0, 1.0, OnFailure.ACCEPT, OnFailure.ACCEPT, 5, 1.0)
    visit = Visit("s", ("192.0.2.1", 1), ("192.0.2.20", 25), "box.example")
    return Course(rules.decider(), {"f": Filter(settings)}, visit, lambda: NewBody(lambda: -1, 1))


@pytest.mark.parametrize(
    ("ruling", "verdict"),
    [
        (Ruling(Refuse(550, "no")), Refuse(550, "no")),
        (Ruling(token="t"), Pass()),
        (Ruling(token="t", filters=("f",)), Pass()),  # asked, and it is not there
    ],
)
def test_first_the_rules_then_the_filters(ruling: Ruling, verdict: Verdict) -> None:
    async def work() -> None:
        rules, told = Slow(), list[Ruling]()
        one, question = course(rules), Question(Stage.RCPT, argument=b"TO:<b@example.com>")
        assert one.ask(question) is None
        one.later(question, told.append)
        await asyncio.sleep(0)
        assert told == []
        rules.asked[0](ruling)
        async with asyncio.timeout(5):
            while not told:
                await asyncio.sleep(0.01)
        assert [each.verdict for each in told] == [verdict]
        one.over()

    asyncio.run(work())


def test_an_answer_to_a_question_that_is_over_is_none() -> None:
    async def work() -> None:
        rules, told = Slow(), list[Ruling]()
        one, question = course(rules), Question(Stage.MAIL)
        assert one.ask(question) is None
        one.later(question, told.append)
        assert one.ask(Question(Stage.HELO)) is None  # nobody waited
        rules.asked[0](Ruling())
        one.over()
        await asyncio.sleep(0.01)
        assert told == []

    asyncio.run(work())
