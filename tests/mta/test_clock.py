"""The clock is set while mail waits: nobody waits longer, or is given up earlier, than the true time says.

true time   START ---------------- 30 min ----------------- 5 days
the wall's  ahead by 30 days ----| set back, or 1970 ------| set right
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.mta.clock import STEP_S, Clocks, Step, corrected
from smtp_intercept.mta.envelope import Entry, Envelope, State
from tests.mta.scripted import ORIGIN, START, Office, down, greylisted

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
IN_1970 = 1_000.0 - START
LONGEST_S = 4 * HOUR + 1  # `Schedule.most_s`, no jitter


async def looks(office: Office, until_s: float, every_s: float = 20 * MINUTE) -> None:
    """The true time passes."""
    while office.now < START + until_s:
        office.now = min(office.now + every_s, START + until_s)
        await look(office)


async def look(office: Office) -> None:
    await office.runner.mind_the_clock()
    await office.look()


async def begin(office: Office) -> None:
    await office.runner._mend_times(None)
    await look(office)


SETTINGS = {"30 days ahead": 30 * DAY, "3 days ahead": 3 * DAY, "2 hours ahead": 2 * HOUR, "in 1970": IN_1970}


@pytest.mark.parametrize("restarted", [False, True], ids=["same process", "started again meanwhile"])
@pytest.mark.parametrize("wrong_s", SETTINGS.values(), ids=list(SETTINGS))
def test_mail_taken_by_a_wrong_clock_lives_as_long_as_any(tmp_path: Path, wrong_s: float, restarted: bool) -> None:
    async def scene() -> Office:
        office = Office(tmp_path)
        office.set_s = wrong_s
        office.courier.answers["one.example"] = greylisted
        await begin(office)
        await office.post("a@one.example")
        await look(office)
        await looks(office, 30 * MINUTE)
        office.set_s = 0.0
        if restarted:
            office.start_runner()
            await begin(office)
        await looks(office, 6 * DAY)
        office.spool.close()
        return office

    office = asyncio.run(scene())
    attempts = office.courier.attempts("a@one.example")
    waits = [later - one for one, later in pairwise(attempts)]
    assert max(waits) <= LONGEST_S + 2 * HOUR + 20 * MINUTE, "a step smaller than a wait is waited out"
    assert 5 * DAY - 2 * HOUR <= attempts[-1] <= 5 * DAY + 2 * HOUR + 40 * MINUTE
    assert office.outcomes()[-1][1] in ("delivered", "failed"), "the notice goes out last"
    assert len(office.courier.notices) == 2, "the delay, the end"


def test_a_clock_not_set_yet_does_not_age_what_waits_from_before(tmp_path: Path) -> None:
    async def scene() -> Office:
        office = Office(tmp_path)
        office.courier.answers["one.example"] = greylisted
        await begin(office)
        await office.post("a@one.example")
        await look(office)
        office.now += HOUR
        office.set_s = IN_1970  # a box without a battery boots
        office.start_runner()
        await begin(office)
        await looks(office, 2 * HOUR)
        office.set_s = 0.0
        await looks(office, 4 * DAY)
        office.spool.close()
        return office

    office = asyncio.run(scene())
    assert [outcome for _, outcome in office.outcomes() if outcome == "failed"] == []
    assert len(office.courier.attempts("a@one.example")) > 20


def test_what_is_in_flight_while_the_clock_is_set_is_not_given_up(tmp_path: Path) -> None:
    async def scene() -> Office:
        office = Office(tmp_path)
        office.set_s = IN_1970
        await begin(office)
        await office.post("a@one.example")
        gone, answer = asyncio.Event(), asyncio.Event()

        async def late(*of: object) -> object:
            gone.set()
            await answer.wait()
            return greylisted(*of)  # type: ignore[arg-type]

        office.courier.answers["one.example"] = late  # type: ignore[assignment]
        office.runner.look()
        await gone.wait()
        office.set_s = 0.0
        await office.runner.mind_the_clock()
        answer.set()
        await office.runner.idle()
        (entry,) = office.entries()
        assert abs(entry.received_at - START) < MINUTE
        assert [each.state for each in entry.queued] == [State.QUEUED]
        office.spool.close()
        return office

    assert asyncio.run(scene()).outcomes() == [("a@one.example", "deferred")]


def test_a_step_backward_is_no_longer_back_off_of_a_next_hop(tmp_path: Path) -> None:
    async def scene() -> Office:
        office = Office(tmp_path)
        office.courier.answers["one.example"] = down
        await begin(office)
        await office.post("a@one.example")
        await look(office)
        office.set_s = -DAY
        await look(office)
        del office.courier.answers["one.example"]
        office.now += 61  # `Bounds.first_s`
        await office.post("b@one.example")
        await look(office)
        office.spool.close()
        return office

    office = asyncio.run(scene())
    assert ("b@one.example", "delivered") in office.outcomes()


# --- the law -----------------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(st.floats(1, DAY), st.floats(-40 * DAY, 40 * DAY).filter(lambda by_s: abs(by_s) > 2 * STEP_S)),
    max_size=4,
)


@given(age_s=st.floats(1, 5 * DAY), steps=steps)
def test_ages_are_true_after_any_steps(age_s: float, steps: list[tuple[float, float]]) -> None:
    """As long as it was taken before all of them, and the new clock does not happen to read that very second again."""
    now, set_s, clocks = START + age_s, 0.0, Clocks()
    entry = Entry("1", START, 1, ORIGIN, Envelope("", ()), ())
    assert clocks.step(now, now) is None
    for wait_s, by_s in steps:
        now, set_s = now + wait_s, set_s + by_s
        step = clocks.step(now + set_s, now)
        assert step is not None
        if not step.concerns(entry.received_at):
            return
        entry = corrected(entry, [step])
    assert (now + set_s) - entry.received_at == pytest.approx(now - START, abs=1)


@pytest.mark.parametrize(("by_s", "seen"), [(STEP_S - 1, False), (STEP_S + 1, True), (-STEP_S - 1, True), (-59, False)])
def test_what_is_a_step(by_s: float, seen: bool) -> None:
    clocks = Clocks()
    clocks.step(START, 0.0)
    assert (clocks.step(START + 1 + by_s, 1.0) is not None) is seen
    assert clocks.step(START + 2 + by_s, 2.0) is None, "once"


def test_the_queue_on_disk_follows_the_same_rule(tmp_path: Path) -> None:
    async def scene() -> None:
        office = Office(tmp_path)
        await office.post("old@one.example")
        office.now += 2 * DAY
        await office.post("new@one.example")
        before = office.entries()
        step = Step(office.now + 1, office.now + 1 - DAY, -DAY)
        office.now -= DAY - 1
        await office.post("since@one.example")
        await office.spool.mend_times(step, office.now + 2, LONGEST_S)
        after = {each.queued[0].recipient.address: each.received_at for each in office.entries()}
        for entry in before:
            address = entry.queued[0].recipient.address
            assert after[address] == pytest.approx(corrected(entry, [step]).received_at)
        assert after["since@one.example"] == pytest.approx(office.now)
        office.spool.close()

    asyncio.run(scene())
