"""The plan of faults is its seed's, and has all of them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.faults import ACTS
from tests.soak.plan import EVERY_S, FAULTS, FIRST_AFTER_S, Place, place, plan


def test_every_fault_can_be_brought_about() -> None:
    assert ACTS.keys() == FAULTS.keys()


@given(seed=st.integers(0, 1 << 32), seconds=st.floats(0, 7200), where=st.sampled_from(Place))
def test_a_plan_is_its_seeds(seed: int, seconds: float, where: Place) -> None:
    made = plan(seed, seconds, where)
    assert made == plan(seed, seconds, where)
    assert [each.at_s for each in made] == [FIRST_AFTER_S + n * EVERY_S for n in range(len(made))]
    assert all(each.at_s + EVERY_S <= seconds for each in made)
    assert all(where in each.fault.places for each in made)
    assert all(each.fault.lasts_s[0] <= each.lasts_s <= each.fault.lasts_s[1] for each in made)


@pytest.mark.parametrize("where", Place)
def test_an_hour_has_every_fault_as_often_as_any_other(where: Place) -> None:
    counts = Counter(each.name for each in plan(1, 3600, where))
    assert counts.keys() == {name for name, fault in FAULTS.items() if where in fault.places}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_another_seed_is_another_plan() -> None:
    assert plan(1, 600, Place.OWN) != plan(3, 600, Place.OWN)
    assert {place(seed) for seed in (1, 2)} == set(Place)


def test_one_may_choose() -> None:
    assert {each.name for each in plan(1, 600, Place.OWN, ("flood", "mtu"))} == {"flood", "mtu"}
    assert plan(1, 600, Place.HOST, ("flush-host",)) == []  # there is no other place than the host's
