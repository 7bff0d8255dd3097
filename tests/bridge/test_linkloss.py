"""Two ports as one cable: who loses a carrier takes the other along, and brings it back.

::

    carriers  11 ──── 01 ──────── 0- ──────── 1- ──── 10, negotiating ──── 11
    orders        take 1 down   (held)   bring 1 up      nothing yet
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.linkloss import SETTLE_S, Order, Pair, follow, start

DOWN, UP = False, True


def played(moments: Sequence[tuple[float, str]]) -> list[tuple[float, int, bool]]:
    """(time, carriers as "10") in; (time, port, up) of every order out."""
    pair, orders = start(0.0), []
    for now, carriers in moments:
        pair, order = follow(pair, (carriers[0] == "1", carriers[1] == "1"), now)
        if order is not None:
            orders.append((now, order.port, order.up))
    return orders


Moments = list[tuple[float, str]]
CASES: dict[str, tuple[Moments, list[tuple[float, int, bool]]]] = {
    "nothing happens": ([(1, "11"), (2, "11")], []),
    "one wire is pulled and put back": (
        [(1, "11"), (2, "01"), (3, "00"), (4, "10"), (5, "10"), (6, "11")],
        [(2, 1, DOWN), (4, 1, UP)],
    ),
    "and the other": ([(1, "11"), (2, "10"), (3, "00"), (4, "01"), (5, "11")], [(2, 0, DOWN), (4, 0, UP)]),
    "both at once: nobody to tell": ([(1, "11"), (2, "00"), (60, "00")], []),
    "both, then one comes back alone": ([(1, "11"), (2, "00"), (3, "10")], [(3, 0, DOWN)]),
    "the other one's wire went while it was held": (
        [(1, "11"), (2, "01"), (4, "10"), (4 + SETTLE_S - 0.1, "10"), (4 + SETTLE_S, "10"), (20, "01"), (21, "11")],
        [(2, 1, DOWN), (4, 1, UP), (4 + SETTLE_S, 0, DOWN), (20, 0, UP)],
    ),
    "at the start a port may take its time": ([(0.1, "10"), (SETTLE_S - 0.1, "10"), (5.95, "11")], []),
    "but not for ever": ([(0.1, "10"), (SETTLE_S, "10")], [(SETTLE_S, 0, DOWN)]),
    "the one that had its carrier needs no time": ([(0.1, "10"), (0.2, "01")], [(0.2, 1, DOWN)]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_cable(case: str) -> None:
    moments, orders = CASES[case]
    assert played(moments) == orders


@given(st.lists(st.tuples(st.floats(0, 9), st.sampled_from(["00", "01", "10", "11"]))))
def test_never_both_held_and_never_an_order_twice(steps: list[tuple[float, str]]) -> None:
    now, moments = 0.0, []
    for after, carriers in steps:
        now += after
        moments.append((now, carriers))
    up = [True, True]
    for _, port, order in played(moments):
        assert up[port] is not order
        up[port] = order
        assert any(up)


@given(st.sampled_from([0, 1]), st.floats(0, 100))
def test_a_held_port_is_released_by_the_other_ones_carrier_alone(held: int, now: float) -> None:
    pair = Pair((0.0, 0.0), held)
    for carriers in ((True, True), (True, False), (False, True), (False, False)):
        _, order = follow(pair, carriers, now)
        assert order == (Order(held, up=True) if carriers[1 - held] else None)
