"""The dead-man's switch as a table of moments."""

from __future__ import annotations

from bridge.deadman import PROOF_MAX_AGE_S, STALL_S, DeadMansSwitch


def proven(at: float = 0.0) -> DeadMansSwitch:
    switch = DeadMansSwitch()
    switch.prove(at, accepting=True)
    return switch


def test_no_proof_no_life() -> None:
    assert not DeadMansSwitch().alive(100.0)


def test_a_silent_interceptor_is_dead_at_the_edge() -> None:
    switch = proven(at=10.0)
    assert switch.alive(10.0 + PROOF_MAX_AGE_S)
    assert not switch.alive(10.0 + PROOF_MAX_AGE_S + 0.001)


def test_an_old_proof_does_not_undo_a_newer_one() -> None:
    switch = proven(at=10.0)
    switch.prove(9.0, accepting=False)
    assert switch.accepting(10.0)
    assert switch.alive(10.0 + PROOF_MAX_AGE_S)


def test_of_several_workers_one_that_lives_is_enough_and_a_dead_ones_word_counts_no_more() -> None:
    switch = DeadMansSwitch()
    switch.prove(10.0, accepting=True, worker=1)
    switch.prove(11.0, accepting=False, worker=2)
    assert switch.alive(11.5)
    assert switch.accepting(10.0 + PROOF_MAX_AGE_S)
    assert not switch.accepting(11.5)
    assert not switch.alive(11.0 + PROOF_MAX_AGE_S + 0.001)


def test_a_diverter_that_stood_still_knows_it_once() -> None:
    switch = proven()
    assert not switch.turn(0.0)
    assert not switch.turn(STALL_S)
    assert switch.turn(2 * STALL_S + 0.001)
    assert not switch.turn(2 * STALL_S + 0.002)
