"""A judge's questions that somebody else must answer first: all at once, and each for so long as it may take.

A thin shell: whoever is asked calls back, within the time that the question has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from smtp_intercept.inspect.facts import Lookup, Reply, Source
from smtp_intercept.inspect.judge import Judge
from smtp_intercept.policy import Question, Ruling

# Calls back once, later, within `Lookup.wait_s`.
LookUp: TypeAlias = Callable[[Lookup, Callable[[Reply], None]], None]
# The same, of the content of the question's message.
LookIn: TypeAlias = Callable[[Question, Lookup, Callable[[Reply], None]], None]


class Waiting:
    """One session's."""

    __slots__ = ("_judge", "_look_in", "_look_up")

    def __init__(self, judge: Judge, look_up: LookUp | None, look_in: LookIn | None = None) -> None:
        self._judge, self._look_up, self._look_in = judge, look_up, look_in

    def ask(self, question: Question) -> Ruling | None:
        """None: somebody must be asked first."""
        ruling = self._judge.ask(question)
        return None if self._judge.wanted else ruling

    def later(self, question: Question, told: Callable[[Ruling], None]) -> None:
        """The answer to the last question that had none."""
        wanted, replies = self._judge.wanted, dict[Lookup, Reply]()

        def heard(lookup: Lookup, reply: Reply) -> None:
            replies[lookup] = reply
            if len(replies) < len(wanted):
                return
            self._judge.learn(replies)
            ruling = self.ask(question)
            if ruling is None:
                self.later(question, told)
            else:
                told(ruling)

        for lookup in wanted:
            if lookup.source is Source.PARTS:
                assert self._look_in is not None
                self._look_in(question, lookup, partial(heard, lookup))
            else:
                assert self._look_up is not None
                self._look_up(lookup, partial(heard, lookup))
