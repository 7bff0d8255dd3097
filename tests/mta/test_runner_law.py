"""The law of the queue: whatever servers answer and whenever, every recipient ends in exactly one of three ways.

delivered, once          failed, and the sender told, once          dead and kept, because the sender is the null one
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtp_intercept.mta.courier import Parcel
from smtp_intercept.mta.envelope import Outcome, State
from tests.mta.scripted import Answer, Office, delivered, down, greylisted, refused
from tests.mta.test_dsn import children

Script: TypeAlias = Callable[[Parcel, int], Outcome]

DAY = 86400.0
ADDRESSES = ["a@one.example", "b@one.example", "c@two.example", "d@three.example"]
messages = st.lists(
    st.tuples(
        st.sampled_from(["alice@example.com", ""]),
        st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=4, unique=True),
        st.floats(0, 40_000),
    ),
    min_size=1,
    max_size=4,
)
# What a domain's server says to one attempt after another; the last one for ever.
scripts = st.lists(st.sampled_from([delivered, refused, greylisted, down]), min_size=1, max_size=6)


def told_of(notices: list[Message], action: str) -> list[tuple[str, str]]:
    """(id of the message, recipient) of every block of every notice with this action."""
    told = []
    for notice in notices:
        letter, report, _ = children(notice)
        name = str(letter.get_payload()).split("name here was ")[-1].split(".")[0].strip()
        blocks = [block for block in children(report)[1:] if block["Action"] == action]
        told += [(name, str(block["Final-Recipient"]).removeprefix("rfc822; ")) for block in blocks]
    return told


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages, st.tuples(scripts, scripts, scripts))
def test_every_recipient_ends_in_one_way(
    posted: list[tuple[str, list[str], float]], said: tuple[list[Script], ...]
) -> None:
    ended: Counter[tuple[str, str]] = Counter()
    wanted: dict[tuple[str, str], str] = {}

    def server(script: list[Script]) -> Answer:
        left = list(script)

        def answer(parcel: Parcel, number: int) -> Outcome:
            outcome = (left.pop(0) if len(left) > 1 else left[0])(parcel, number)
            if outcome.state is State.DELIVERED:
                place = parcel.numbers.index(number)
                ended[parcel.id, parcel.envelope.recipients[place].address] += 1
            return outcome

        return answer

    async def scene(directory: Path) -> Office:
        office = Office(directory)
        names = ("one.example", "two.example", "three.example")
        office.courier.answers |= {name: server(script) for name, script in zip(names, said, strict=True)}
        for sender, to, after_s in sorted(posted, key=lambda each: each[2]):
            await office.until(after_s)
            queue_id = await office.post(*to, sender=sender)
            wanted.update({(queue_id, address): sender for address in to})
        await office.until(7 * DAY)
        return office

    with tempfile.TemporaryDirectory() as name:
        office = asyncio.run(scene(Path(name)))
        failed, late = told_of(office.courier.notices, "failed"), told_of(office.courier.notices, "delayed")
        dead = [
            (entry.id, each.recipient.address)
            for entry in office.entries()
            for each in entry.queued
            if each.state is State.DEAD
        ]
        assert all(each.state is not State.QUEUED for entry in office.entries() for each in entry.queued)
        office.spool.close()
    ended.update(failed)
    ended.update(dead)
    assert ended == dict.fromkeys(wanted, 1)
    assert all(wanted[each] for each in failed), "the null sender is never told"
    assert all(not wanted[each] for each in dead)
    assert max(Counter(late).values(), default=1) == 1, "a delay is told once"
