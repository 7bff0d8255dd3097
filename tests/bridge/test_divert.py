"""A connection that comes by twice is recognised by its second port, and its pair of hosts is bridged from then on.

| SYN of           | on port | at s | bridged because it has been here? |
|------------------|---------|------|-----------------------------------|
| A:1 → B:25       | p0      | 0    | no                                |
| the same again   | p0      | 1    | no: the client repeats itself     |
| the same again   | p1      | 2    | yes: it came round                |
| A:2 → B:25       | p0      | 99   | yes: the pair is known            |
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.divert import SEEN, SEEN_S, TWICE, Crossings
from bridge.flow import Syn

A, B, C = bytes([192, 0, 2, 10]), bytes([192, 0, 2, 20]), bytes([192, 0, 2, 30])


def syn(client: bytes = A, server: bytes = B, port: int = 1) -> Syn:
    return Syn(client, server, port, 25, 0)


def address(number: int) -> bytes:
    return (0x0A000000 + number).to_bytes(4, "big")


def test_the_table_above() -> None:
    crossings = Crossings()
    assert [
        crossings.again(syn(port=1), (0, 0), 0.0),
        crossings.again(syn(port=1), (0, 0), 1.0),
        crossings.again(syn(port=1), (1, 0), 2.0),
        crossings.again(syn(port=2), (0, 0), 99.0),
    ] == [False, False, True, True]
    assert list(crossings.pairs) == [(A, B, 0)]


@pytest.mark.parametrize("other", [syn(port=2), syn(server=C), syn(client=C), syn(client=B, server=A)])
def test_another_connection_on_another_port_is_no_second_crossing(other: Syn) -> None:
    crossings = Crossings()
    assert not crossings.again(syn(), (0, 0), 0.0)
    assert not crossings.again(other, (1, 0), 0.0)


@pytest.mark.parametrize(("after_s", "again"), [(SEEN_S - 0.001, True), (SEEN_S, False)])
def test_a_syn_is_remembered_for_so_long(after_s: float, again: bool) -> None:
    crossings = Crossings()
    crossings.again(syn(), (0, 0), 100.0)
    assert crossings.again(syn(), (1, 0), 100.0 + after_s) is again


def test_a_host_that_moves_to_another_port_is_not_held_for_a_loop_for_ever() -> None:
    crossings = Crossings()
    crossings.again(syn(), (0, 0), 0.0)
    assert not crossings.again(syn(), (1, 0), SEEN_S)
    assert not crossings.again(syn(), (1, 0), SEEN_S + 1)
    assert not crossings.pairs


@pytest.mark.parametrize(("others", "again"), [(SEEN - 1, True), (SEEN, False)])
def test_so_many_syns_are_remembered(others: int, again: bool) -> None:
    crossings = Crossings()
    crossings.again(syn(), (0, 0), 0.0)
    for number in range(others):
        crossings.again(syn(client=address(number)), (0, 0), 0.0)
    assert crossings.again(syn(), (1, 0), 1.0) is again


@pytest.mark.parametrize(("others", "known"), [(TWICE - 1, True), (TWICE, False)])
def test_so_many_pairs_are_bridged(others: int, known: bool) -> None:
    crossings = Crossings()
    for number in range(-1, others):
        client = A if number < 0 else address(number)
        crossings.again(syn(client=client), (0, 0), 0.0)
        assert crossings.again(syn(client=client), (1, 0), 0.0)
    assert ((A, B, 0) in crossings.pairs) is known
    assert len(crossings.pairs) == min(others + 1, TWICE)


def test_the_same_addresses_in_another_vlan_are_another_connection() -> None:
    crossings = Crossings()
    assert not crossings.again(syn(), (0, 10), 0.0)
    assert not crossings.again(syn(), (1, 20), 0.0)
    assert not crossings.again(syn(), (1, 0), 0.0)
    assert crossings.again(syn(), (1, 10), 0.0)
    assert list(crossings.pairs) == [(A, B, 10)]
    assert not crossings.again(syn(), (1, 20), 0.0)


EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.floats(0, 10)), max_size=40)


@given(EVENTS)
def test_a_connection_that_stays_on_its_port_is_never_held_back(events: list[tuple[int, int, float]]) -> None:
    crossings, now = Crossings(), 0.0
    for client_port, _, passed_s in events:
        now += passed_s
        assert not crossings.again(syn(port=client_port), (client_port % 2, 0), now)


@given(EVENTS)
def test_once_bridged_always_bridged(events: list[tuple[int, int, float]]) -> None:
    crossings, now, bridged = Crossings(), 0.0, False
    for client_port, port, passed_s in events:
        now += passed_s
        again = crossings.again(syn(port=client_port), (port, 0), now)
        assert again or not bridged
        bridged = bridged or again
