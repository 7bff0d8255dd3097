"""A connection crosses from one process to another, with where it came from."""

from __future__ import annotations

import socket

import pytest

from smtp_intercept.app import handover
from smtp_intercept.app.handover import Giving, Taking
from smtp_intercept.direction import Direction
from smtp_intercept.mta.envelope import Origin

ORIGIN = Origin(("192.0.2.10", 40_000), ("192.0.2.20", 25), Direction.INCOMING, "p0", ("example.com",), away=7)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ends(clock: Clock) -> tuple[Giving, Taking]:
    ours, theirs = handover.pair()
    return Giving(ours, clock), Taking(theirs)


def test_the_connection_and_its_origin_arrive(ends: tuple[Giving, Taking]) -> None:
    giving, taking = ends
    client, accepted = socket.socketpair()
    taking.sign()
    giving.listen()
    assert giving.give(accepted, ORIGIN)
    accepted.close()
    ((sock, origin),) = taking.take()
    assert origin == ORIGIN
    sock.send(b"220 \r\n")
    assert client.recv(10) == b"220 \r\n"
    assert list(taking.take()) == []


def test_a_silent_one_is_given_nothing(ends: tuple[Giving, Taking], clock: Clock) -> None:
    giving, taking = ends
    _, accepted = socket.socketpair()
    giving.listen()
    assert not giving.give(accepted, ORIGIN), "never heard of"
    taking.sign()
    giving.listen()
    clock.now += handover.SILENT_S - 0.01
    assert giving.give(accepted, ORIGIN)
    clock.now += 0.02
    assert not giving.give(accepted, ORIGIN)
    assert accepted.fileno() >= 0, "it is still ours to serve"


def test_one_that_does_not_take_leaves_the_rest_to_us(ends: tuple[Giving, Taking]) -> None:
    """What the kernel will hold is bounded; nothing is lost and nothing waits for ever."""
    giving, taking = ends
    _, accepted = socket.socketpair()
    taking.sign()
    giving.listen()
    given = 0
    while given < 100_000 and giving.give(accepted, ORIGIN):
        given += 1
    assert 0 < given < 100_000
    taken = 0
    while batch := list(taking.take()):
        assert len(batch) <= handover.BATCH
        taken += len(batch)
        for sock, origin in batch:
            assert origin == ORIGIN
            sock.close()
    assert taken == given


def test_an_end_that_is_gone_is_no_error(ends: tuple[Giving, Taking]) -> None:
    giving, taking = ends
    _, accepted = socket.socketpair()
    taking.sign()
    giving.listen()
    taking.close()
    giving.listen()
    assert not giving.give(accepted, ORIGIN)
