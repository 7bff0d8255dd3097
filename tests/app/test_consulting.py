"""Questions to the resolver and back: who is silent, dead or answers nonsense keeps nobody waiting."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from smtp_intercept.app import channel
from smtp_intercept.app.consulting import MAX_WAITING, Answering, Consulting, lookup_of, pair
from smtp_intercept.inspect.facts import Lookup, Reply, Source
from smtp_intercept.inspect.lookups import Lookups


class Slow(Lookups):
    """Answers with the name, or never."""

    def __init__(self) -> None:
        self.asked: list[Lookup] = []

    async def answer(self, lookup: Lookup) -> Reply:
        self.asked.append(lookup)
        if lookup.name == "never":
            await asyncio.sleep(60)
        return None if lookup.name == "nobody" else (lookup.name,)


def asked(*names: str, answering: bool = True, said: list[Any] = []) -> list[Reply]:  # noqa: B006 - read only
    async def work() -> list[Reply]:
        theirs, ours = pair()
        consulting, serving = Consulting(ours), Answering(theirs, Slow())
        consulting.start()
        if answering:
            asyncio.get_running_loop().add_reader(theirs.fileno(), serving.hear)
        for each in said:
            theirs.send(each if isinstance(each, bytes) else json.dumps(each).encode())
        told: list[asyncio.Future[Reply]] = []
        for name in names:
            told.append(asyncio.get_running_loop().create_future())
            consulting.look_up(Lookup(Source.HOST, name, 0.5), told[-1].set_result)
        found = list(await asyncio.gather(*told))
        assert consulting.counts == {"lookups": len(names), "lookups_unanswered": found.count(None)}
        for end in (theirs, ours):
            asyncio.get_running_loop().remove_reader(end.fileno())
            end.close()
        return found

    return asyncio.run(work())


def test_each_has_its_own_answer() -> None:
    names = [f"n{number}" for number in range(500)]
    assert asked(*names) == [(name,) for name in names]
    assert asked("a", "never", "nobody", "b") == [("a",), None, None, ("b",)]


def test_who_is_silent_keeps_nobody_waiting() -> None:
    assert asked(*["a"] * 2_000, answering=False) == [None] * 2_000  # more than fit into the socket


def test_nonsense_is_no_answer() -> None:
    said = [b"", b"{", {"id": "x"}, {"id": [1], "said": 1}, {"said": ["x"]}, {"id": True}, {"id": -1, "said": ["x"]}]
    assert asked("a", said=said[1:]) == [("a",)]


@pytest.mark.parametrize(
    "ask",
    [
        *(None, [], ["host"], ["host", "a", 1], ["what", "a", 1, ""], ["host", 1, 1, ""], ["host", "a", 0, ""]),
        *(["host", "a", 31, ""], ["host", "a", "1", ""], ["client", "a", 1, ""], ["host", "a", 1, None], {"a": 1}),
    ],
)
def test_what_is_no_question(ask: Any) -> None:
    assert lookup_of({"id": 1, "ask": ask}) is None


def test_who_asks_too_much_hears_so() -> None:
    async def work() -> None:
        theirs, ours = pair()
        serving = Answering(theirs, Slow(), waiting=MAX_WAITING)
        channel.tell(ours, {"id": 7, "ask": ["host", "a", 1, ""]})
        serving.hear()
        assert channel.hear(ours) == [{"id": 7, "said": None}]
        theirs.close()
        ours.close()

    asyncio.run(work())
