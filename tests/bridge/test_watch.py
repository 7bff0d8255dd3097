"""The watch: what is put right, how often, and when to look again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.present import LinkFacts
from bridge.steps import AddRoute, CreateLink, Inside, LoadRuleset, Route, SetLink, SetSysctl, Step, Unmanage
from bridge.watch import (
    OFTEN,
    QUICK_S,
    QUIET_S,
    REST_S,
    SETTLE_S,
    SHARE,
    TRUCE_BLOCKING_S,
    TRUCE_S,
    WHOLE_S,
    Expected,
    Pace,
    Truce,
    differences,
    filtering,
)

RULES = LoadRuleset("table")
JOINED = SetLink("p1", "master", "br0")
UP = SetLink("p1", "up", True)
LEG_MTU = SetLink("smtp0l1", "mtu", 1500)
SYSCTL = SetSysctl("net.ipv4.tcp_fwmark_accept", "1")
ROUTE = AddRoute(Route("0.0.0.0/0", "smtp0", table=2526))
STEPS: tuple[Step, ...] = (SYSCTL, UP, JOINED, LEG_MTU, ROUTE, RULES)
EXPECTED = Expected((*STEPS, Unmanage("networkd", "p0 p1")), ("p0", "p1"))
LINKS = ("p0", "p1", "smtp0", "smtp0l1")


def found(lacking: set[Step], present: tuple[str, ...] = LINKS, held: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
    return differences(EXPECTED, EXPECTED.now([1500]), lacking, present, held)


def test_a_bridge_that_begins_to_filter_vlans_is_told_unless_it_is_our_own() -> None:
    ports = [LinkFacts(name, master="brx") for name in ("p0", "p1")]
    for filters, steps, said in (
        (True, STEPS, ("brx",)),
        (False, STEPS, ()),
        (True, (CreateLink("brx", "bridge"), *STEPS), ()),
        (True, (Inside("room", CreateLink("brx", "bridge")), *STEPS), ()),
    ):
        present = {link.name: link for link in (*ports, LinkFacts("brx", "bridge", filters_vlans=filters))}
        assert filtering(Expected(steps, ("p0", "p1", "gone")), present) == said


def test_the_lanes_mtu_is_the_least_of_the_ports() -> None:
    assert SetLink("smtp0l1", "mtu", 9000) in EXPECTED.now([9000, 9216])
    assert LEG_MTU in EXPECTED.now([])


def test_a_managers_own_business_is_not_asked_for_every_second() -> None:
    assert not any(isinstance(step, Unmanage) for step in EXPECTED.now([1500]))
    assert EXPECTED.quick == (SYSCTL,)


def test_what_does_not_hold_is_put_right_in_the_order_of_the_plan() -> None:
    assert found({RULES, SYSCTL}).lacking == (SYSCTL, RULES)
    assert found(set()).words() == []


def test_a_port_that_is_not_there_is_waited_for_and_so_are_the_rules_that_name_it() -> None:
    gone = found({UP, JOINED, RULES, SYSCTL}, present=("p0", "smtp0", "smtp0l1"))
    assert gone.gone == ("p1",)
    assert gone.lacking == (SYSCTL,)
    assert "p1 is not there" in gone.words()


def test_a_port_that_is_back_is_joined_and_brought_up() -> None:
    assert found({UP, JOINED, RULES}).lacking == (UP, JOINED, RULES)


def test_a_port_that_somebody_has_taken_down_stays_down_and_is_told() -> None:
    down = found({UP})
    assert (down.down, down.lacking) == (("p1",), ())
    assert down.words() == ["p1 is down"]


def test_a_port_that_the_gateway_holds_down_is_no_difference() -> None:
    assert found({UP}, held=("p1",)).words() == []


@pytest.mark.parametrize("pause_s", [TRUCE_S, TRUCE_BLOCKING_S])
def test_who_always_puts_it_back_is_told_of_and_followed_no_more_than_so_often(pause_s: float) -> None:
    truce, now, taken = Truce(pause_s), 0.0, 0
    while now < 600.0:
        if truce.allows(RULES, now):
            truce.took(RULES, now)
            taken += 1
        assert truce.allows(SYSCTL, now), "another thing is not concerned"
        now += 1.0
    assert OFTEN < taken <= OFTEN + 600.0 / pause_s
    assert truce.contended(RULES, now)
    assert not truce.contended(RULES, now + QUIET_S + pause_s)
    assert truce.allows(RULES, now + QUIET_S + pause_s)


def test_five_times_a_year_are_no_war() -> None:
    truce = Truce()
    for month in range(12):
        truce.took(RULES, month * QUIET_S * 2)
        assert not truce.contended(RULES, month * QUIET_S * 2)


def test_an_event_is_followed_at_once_when_it_is_quiet() -> None:
    pace = Pace()
    pace.compared(100.0, 0.05, whole=True)
    assert pace.whole_in(100.0) == WHOLE_S
    assert pace.quick_in(100.0) == QUICK_S
    pace.hear(103.0)
    assert pace.whole_in(103.0) == pytest.approx(SETTLE_S)
    assert not pace.listens


@given(took_s=st.floats(0.001, 10.0), every_s=st.floats(0.001, 0.5))
def test_a_flood_of_events_costs_no_more_than_its_share_and_is_followed_within_two_seconds(
    took_s: float, every_s: float
) -> None:
    pace, now, busy_s = Pace(), 0.0, 0.0
    while now < 60.0:
        pace.hear(now)
        waited_s = max(pace.whole_in(now), 0.0)
        assert waited_s <= REST_S[1] + SETTLE_S
        now += waited_s + took_s
        busy_s += took_s
        pace.compared(now, took_s, whole=True)
        now += every_s
    if SHARE * took_s <= REST_S[1]:
        assert busy_s / now <= 1.1 / SHARE
