"""What is learnt from one message spares the others.

unproven --answered--> up --unreachable--> down 60 s --one goes to see--> up, or down 120 s, 240 s … 27 min
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.mta.destinations import (
    PROBE_S,
    REMEMBERED,
    SPREAD,
    Bounds,
    Destinations,
    Down,
    Full,
    Go,
    unreachable,
)
from smtp_intercept.mta.envelope import Outcome, State
from smtp_intercept.mta.nexthop import NextHop

ONE, TWO = NextHop("R8", domain="one.example"), NextHop("R8", domain="two.example")
OK = Outcome(0, State.DELIVERED, 250, "2.0.0", "Ok")
NO = Outcome(0, State.FAILED, 550, "5.1.1", "No")
LATER = Outcome(0, State.QUEUED, 450, "4.2.1", "Later")
GONE = Outcome(0, State.QUEUED, 0, "4.4.1", "Connection refused")
OURS = Outcome(0, State.QUEUED, 0, "4.3.0", "cannot read the message")
BUSY = Outcome(0, State.QUEUED, 421, "4.3.2", "Too busy")


def fly(known: Destinations, hop: NextHop, outcome: Outcome, now: float, landed_at: float | None = None) -> None:
    assert known.admission(hop, now, 0.0) == Go()
    known.begin(hop, now)
    known.end(hop, [outcome], now, now if landed_at is None else landed_at)


@pytest.mark.parametrize(
    ("outcomes", "blamed"),
    [([GONE], True), ([BUSY], True), ([GONE, BUSY], True), ([LATER], False), ([NO], False), ([OK, GONE], False)],
)
def test_who_is_to_blame(outcomes: list[Outcome], blamed: bool) -> None:
    assert unreachable(outcomes) is blamed


def test_what_is_our_own_fault_says_nothing_of_it() -> None:
    known = Destinations()
    fly(known, ONE, OURS, 0)
    assert known.admission(ONE, 0, 0.0) == Go()
    fly(known, ONE, GONE, 1)
    fly(known, ONE, OURS, 61)
    assert known.admission(ONE, 62, 0.0) == Go(), "it is still for one to see whether it is back"
    fly(known, ONE, GONE, 62)
    down = known.admission(ONE, 62, 0.0)
    assert isinstance(down, Down)
    assert down.until_at == 62 + 120


def test_the_waits_double_to_a_ceiling() -> None:
    known, now, waits = Destinations(), 0.0, []
    for _ in range(7):
        fly(known, ONE, GONE, now)
        down = known.admission(ONE, now, 0.0)
        assert isinstance(down, Down)
        waits.append(down.until_at - now)
        now = down.until_at
    assert waits == [60, 120, 240, 480, 960, 1620, 1620]
    fly(known, ONE, OK, now)
    fly(known, ONE, GONE, now + 1)
    assert isinstance(known.admission(ONE, now + 60, 0.0), Down)
    assert known.admission(ONE, now + 61, 0.0) == Go(), "after an answer the waits begin anew"


def test_one_goes_to_see_and_the_others_wait_for_it_a_little() -> None:
    known = Destinations()
    fly(known, ONE, GONE, 0)
    known.begin(ONE, 60)
    assert known.admission(ONE, 60, 0.0) == Full()
    assert known.admission(ONE, 60 + PROBE_S - 0.1, 0.0) == Full()
    late = known.admission(ONE, 60 + PROBE_S, 0.0)
    assert isinstance(late, Down)
    assert late.until_at == 60 + PROBE_S + 60
    assert known.admission(TWO, 60, 0.0) == Go(), "others are not concerned"


def test_those_that_left_before_it_was_known_say_nothing_new() -> None:
    known = Destinations()
    for _ in range(2):
        known.begin(ONE, 0)
    known.end(ONE, [GONE], 0, 10)
    known.end(ONE, [GONE], 0, 20)
    assert known.admission(ONE, 70, 0.0) == Go(), "60 s from the first failure"


def test_put_off_mail_comes_back_spread() -> None:
    known = Destinations()
    fly(known, ONE, GONE, 0)
    times = [
        down.until_at for fraction in (0.0, 0.5, 0.99) if isinstance(down := known.admission(ONE, 1, fraction), Down)
    ]
    assert times == sorted(set(times))
    assert 60 <= times[0] <= times[-1] <= 75


def admitted(known: Destinations, *hops: NextHop) -> list[int]:
    """How many parcels may leave for each, one after another in turns."""
    counts = [0] * len(hops)
    for _ in range(1000):
        for index, hop in enumerate(hops):
            if known.admission(hop, 0, 0.0) == Go():
                known.begin(hop, 0)
                counts[index] += 1
    return counts


def test_bounds() -> None:
    bounds = Bounds(total=50, each=20, unproven=10, unproven_each=2)
    assert admitted(Destinations(bounds), ONE) == [2]
    assert sum(admitted(Destinations(bounds), *(NextHop("R8", domain=f"{n}.example") for n in range(40)))) == 10
    known = Destinations(bounds)
    for hop in (ONE, TWO):
        fly(known, hop, OK, 0)
    assert admitted(known, ONE, TWO) == [20, 20]
    hops = [NextHop("R8", domain=f"{n}.example") for n in range(40)]
    known = Destinations(bounds)
    for hop in hops:
        fly(known, hop, OK, 0)
    assert sum(admitted(known, *hops)) == 50


def test_bounds_go_with_the_couriers() -> None:
    assert Bounds.of(100, 10) == Bounds()
    assert Bounds.of(1, 1) == Bounds(total=2, each=2, unproven=1, unproven_each=1)


def test_nobody_rests_for_longer_than_a_messages_first_wait() -> None:
    assert (Bounds.of(1, 1, 61.0).first_s, Bounds.of(1, 1, 61.0).most_s) == (60.0, 61.0)
    known = Destinations(Bounds.of(100, 10, 2.0))
    for now in range(0, 50, 10):
        fly(known, ONE, GONE, now)
        assert isinstance(known.admission(ONE, now + 1.9, 0), Down)
        assert isinstance(known.admission(ONE, now + 2.0, 0), Go)
    assert known.longest_s == 2.0 * (1 + SPREAD)


def test_memory_is_bounded() -> None:
    known = Destinations()
    for number in range(REMEMBERED + 10):
        fly(known, NextHop("R8", domain=f"{number}.example"), GONE, 0)
    assert known.admission(NextHop("R8", domain="0.example"), 1, 0.0) == Go(), "the oldest is forgotten"
    assert isinstance(known.admission(NextHop("R8", domain="10.example"), 1, 0.0), Down)


@given(st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.sampled_from([OK, GONE, LATER, None]), st.floats(0, 300))))
def test_whatever_happens_a_destination_is_tried_again(events: list[tuple[NextHop, Outcome | None, float]]) -> None:
    known, now = Destinations(), 0.0
    for hop, outcome, seconds in events:
        now += seconds
        if known.admission(hop, now, 0.5) == Go():
            known.begin(hop, now)
            known.end(hop, [outcome] if outcome else [], now, now)
    assert known.admission(ONE, now + 1620 * 1.25, 0.0) == known.admission(TWO, now + 1620 * 1.25, 0.0) == Go()
