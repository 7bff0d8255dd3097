"""The bench's arithmetic: ratios by round, spread between the quartiles, warnings and verdicts at their edges."""

from __future__ import annotations

import pytest

from smtp_intercept.app.lab.figures import Figures, Measurement, Target, spread, table, verdicts, warnings


def figures(**values: list[float]) -> Figures:
    """``gateway=[2.0, 4.0]``: the seconds of one load, round by round."""
    return Figures(
        Measurement(system, "new", number, value, {system: value / 2})
        for system, rounds in values.items()
        for number, value in enumerate(rounds, 1)
    )


def test_a_ratio_is_of_speeds_and_taken_within_each_round() -> None:
    # The machine slowed down by and by, for both alike.
    drifting = figures(haproxy=[1.0, 2.0, 4.0], gateway=[1.25, 2.5, 5.0])
    assert drifting.ratio("new", "gateway", "haproxy") == pytest.approx(0.8)
    assert drifting.ratio("big", "gateway", "haproxy") is None


def test_spread_ignores_the_outermost_rounds() -> None:
    assert spread([1.0, 1.0, 1.0, 1.0, 9.0]) == 0.0
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("load_average", "foreign_cpu", "rounds", "count"),
    [(0.5, 0.1, [1.0] * 5, 0), (0.51, 0.1, [1.0] * 5, 1), (0.5, 0.11, [1.0] * 5, 1), (0.5, 0.1, [1, 1, 2, 3, 3], 1)],
)
def test_a_noisy_machine_is_told_of(load_average: float, foreign_cpu: float, rounds: list[float], count: int) -> None:
    found = warnings(figures(gateway=rounds), load_average=load_average, cpus=2, foreign_cpu=foreign_cpu)
    assert len(found) == count


def test_a_target_holds_at_its_edge_and_what_was_not_measured_is_not_judged() -> None:
    seen = figures(haproxy=[1.0] * 5, gateway=[1.25] * 5)
    targets = [Target("new", "gateway", "haproxy", 0.8), Target("new", "gateway", "bare", 0.8)]
    assert [(target.reference, holds) for target, _, holds in verdicts(seen, targets)] == [("haproxy", True)]


def test_the_table_has_two_lines_for_each_system_and_load() -> None:
    text = table(figures(haproxy=[1.0] * 5, gateway=[1.25] * 5), {"new": "s"}, "haproxy")
    head, *lines = text.splitlines()
    assert head.split()[:3] == ["load", "system", "median"]
    assert [line.split()[1] for line in lines[::2]] == ["haproxy", "gateway"]
    assert "0.80" in lines[2]
