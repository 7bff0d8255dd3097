"""Sessions counted together: whatever workers do in whatever order, all of them see what one alone would see."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.client import client_of
from smtp_intercept.headcount import Alone, Headcount, Shared, clear, set_key, size_bytes

WORKERS = 3
CLIENTS = ("192.0.2.10", "192.0.2.11", "2001:db8::10")
# (worker, client): one more session. The same again: it ends.
MOVES = st.lists(st.tuples(st.integers(0, WORKERS - 1), st.sampled_from(CLIENTS), st.booleans()), max_size=60)


def memory() -> memoryview:
    shared = memoryview(bytearray(size_bytes(WORKERS)))
    set_key(shared, bytes(range(16)))
    return shared


@settings(deadline=None)
@given(MOVES)
def test_all_see_the_same_and_it_is_true(moves: list[tuple[int, str, bool]]) -> None:
    shared = memory()
    workers = [Shared(shared, WORKERS, number) for number in range(WORKERS)]
    alone, open_now = Alone(), Counter[tuple[int, str]]()
    for worker, client, enters in moves:
        if not enters and not open_now[worker, client]:
            continue
        step = "enter" if enters else "leave"
        for count in (workers[worker], alone):
            getattr(count, step)(client)
        open_now[worker, client] += 1 if enters else -1
    seers: list[Headcount] = [alone, *workers]
    assert {seer.total for seer in seers} == {open_now.total()}
    held = Counter[str]()
    for (_, address), number in open_now.items():
        held.update(dict.fromkeys(client_of(address), number))
    for who in (name for address in CLIENTS for name in client_of(address)):
        assert {seer.of(who) for seer in seers} == {held[who]}


@pytest.mark.parametrize("again", [False, True], ids=["cleared by the daemon", "cleared by the next one"])
def test_the_sessions_of_a_worker_that_died_are_over(again: bool) -> None:
    shared = memory()
    workers = [Shared(shared, WORKERS, number) for number in range(WORKERS)]
    for worker in workers:
        worker.enter(CLIENTS[0])
    if again:
        Shared(shared, WORKERS, 1)
    else:
        clear(shared, 1)
    assert [worker.total for worker in workers] == [2, 2, 2]
    assert workers[0].of(CLIENTS[0]) == 2


def test_thousands_of_clients_are_not_taken_for_one_another() -> None:
    """A client is never counted too low; too high only where both of its places are another's."""
    worker = Shared(memory(), WORKERS, 0)
    clients = [f"10.{n >> 8}.{n & 255}.1" for n in range(5_000)]
    for client in clients:
        worker.enter(client)
    assert sum(worker.of(client) > 1 for client in clients) < 100
    assert min(map(worker.of, clients)) == 1
    assert max(map(worker.of, clients)) < 5
