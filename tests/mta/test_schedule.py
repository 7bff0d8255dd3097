"""When the queue tries again.

arrival      27 min      +40.5 min   +61 min …   at most every 4 h                 5 days
|------------|-----------|-----------|--- … ---|----------- … ----------|-----------|
1st attempt  2nd         3rd         4th       4 h: attempt, and the     the last attempt,
                                               sender hears of the delay and the bounce
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.direction import Direction
from smtp_intercept.mta.envelope import Entry, Envelope, Notify, Origin, Queued, Recipient, State
from smtp_intercept.mta.schedule import Schedule

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
ARRIVAL = 1_795_000_000.0
PLAIN = Schedule(jitter=0.0)


def message(reverse_path: str = "alice@example.com", notify: Notify = Notify.FAILURE | Notify.DELAY) -> Entry:
    recipient = Recipient("bob@example.org", notify)
    queued = Queued(0, recipient, State.QUEUED, 0, ARRIVAL)
    origin = Origin(("192.0.2.1", 4000), ("198.51.100.1", 25), Direction.OUTGOING)
    return Entry("0", ARRIVAL, 1000, origin, Envelope(reverse_path, (recipient,)), (queued,))


def attempts(schedule: Schedule, entry: Entry, fraction: float = 0.0) -> list[float]:
    """Seconds after the arrival of every attempt, if each fails for now."""
    times: list[float] = []
    now: float | None = entry.received_at
    while now is not None:
        times.append(now - entry.received_at)
        now = schedule.next_at(entry, len(times), now, fraction)
    return times


@pytest.mark.parametrize(
    ("attempt", "minutes"),
    [
        (0, 27),
        (1, 27),
        (2, 40.5),
        (3, 60.75),
        (4, 91.125),
        (5, 136.6875),
        (6, 205.03125),
        (7, 240),
        (8, 240),
        (10**6, 240),
    ],
)
def test_waits_grow_from_27_minutes_to_4_hours(attempt: int, minutes: float) -> None:
    assert PLAIN.wait_s(attempt, 0.0) == minutes * MINUTE


def test_the_whole_life_of_a_message_that_always_fails() -> None:
    at = attempts(PLAIN, message())
    assert [second / MINUTE for second in at[:5]] == [0, 27, 67.5, 128.25, 219.375]
    assert at[5] == 4 * HOUR, "an attempt when the sender is told"
    assert at[-1] == 5 * DAY, "the last chance is at the very end"
    assert 30 <= len(at) <= 40


def test_a_notice_of_ours_has_its_own_end() -> None:
    schedule = Schedule(dsn_give_up_s=DAY)
    assert attempts(schedule, message(reverse_path=""))[-1] == DAY
    assert attempts(Schedule(dsn_give_up_s=0), message(reverse_path="")) == [0.0], "0: one attempt"


@pytest.mark.parametrize(
    ("sender", "notify", "told", "after_s", "late"),
    [
        ("a@b", Notify.FAILURE | Notify.DELAY, False, 4 * HOUR - 1, False),
        ("a@b", Notify.FAILURE | Notify.DELAY, False, 4 * HOUR, True),
        ("a@b", Notify.FAILURE | Notify.DELAY, True, 5 * HOUR, False),
        ("a@b", Notify.FAILURE, False, 5 * HOUR, False),
        ("a@b", Notify.NEVER, False, 5 * HOUR, False),
        ("", Notify.DELAY, False, 5 * HOUR, False),
    ],
)
def test_who_hears_of_a_delay(sender: str, notify: Notify, told: bool, after_s: float, late: bool) -> None:
    entry = message(sender, notify)
    queued = Queued(0, entry.envelope.recipients[0], State.QUEUED, 3, ARRIVAL, delay_told=told)
    assert PLAIN.is_late(entry, queued, ARRIVAL + after_s) is late


def test_no_delay_notice_if_it_is_switched_off() -> None:
    off = Schedule(delay_notice_s=0, jitter=0)
    entry = message()
    assert not off.is_late(entry, entry.queued[0], ARRIVAL + 4 * DAY)
    assert 4 * HOUR not in attempts(off, entry)


schedules = st.builds(
    Schedule,
    first_s=st.floats(1, 7200),
    most_s=st.floats(60, 86400),
    factor=st.floats(1, 4),
    jitter=st.floats(0, 0.5),
    delay_notice_s=st.one_of(st.just(0.0), st.floats(600, DAY)),
    give_up_s=st.floats(0, 2 * DAY),
    dsn_give_up_s=st.floats(0, 2 * DAY),
)


@given(schedules, st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_waits_never_shrink_and_have_a_ceiling(schedule: Schedule, attempt: int, fraction: float) -> None:
    wait_s = schedule.wait_s(attempt, fraction)
    assert wait_s <= schedule.wait_s(attempt + 1, fraction) <= schedule.most_s * (1 + schedule.jitter)
    assert wait_s >= min(schedule.first_s, schedule.most_s)
    assert math.isfinite(wait_s)


@given(schedules, st.floats(0, 10 * DAY), st.floats(0, DAY), st.integers(1, 99), st.floats(0, 1, exclude_max=True))
def test_the_next_attempt_is_ahead_and_not_past_the_end(
    schedule: Schedule, age_s: float, until_s: float, attempt: int, fraction: float
) -> None:
    entry, now = message(), ARRIVAL + age_s
    for at in (schedule.next_at(entry, attempt, now, fraction), schedule.put_off(entry, now + 1 + until_s, now)):
        assert (at is None) == (now >= schedule.expires_at(entry))
        assert at is None or now < at <= schedule.expires_at(entry)


@given(st.floats(0, 1, exclude_max=True))
def test_attempts_come_in_order(fraction: float) -> None:
    assert all(earlier < later for earlier, later in pairwise(attempts(Schedule(), message(), fraction)))
