"""The table of conditions is the page of the documentation, and whoever simulates one is a lab."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smtp_intercept.app import simulate, status
from smtp_intercept.app.exits import Exit
from smtp_intercept.tally import COUNTERS
from tests.kernel.conditions import CELLS, PEERS, lines


def test_the_page_is_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "conditions.md"
    assert page.read_text() == "".join(lines()), "python -m tests.kernel.conditions > docs/conditions.md"


def test_every_condition_has_its_row() -> None:
    assert [*CELLS] == [*simulate.CONDITIONS]


def test_only_a_lab_may(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(simulate.WORD, raising=False)
    assert simulate.main(["--run-dir", str(tmp_path), "rules-flushed"]) == Exit.MISUSE
    assert "only a lab may" in capsys.readouterr().err


def test_without_a_daemon_there_is_nobody_to_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(simulate.WORD, "1")
    assert simulate.main(["--run-dir", str(tmp_path), "diverter-hung"]) == Exit.FAILED
    assert "no diverter runs" in capsys.readouterr().err


def test_what_peers_bring_about_is_shown_by_tests_that_are_there() -> None:
    root = Path(__file__).parents[2]
    assert [test for *_, tests in PEERS for test in tests if not (root / str(test)).is_file()] == []


def test_whatever_costs_a_peer_is_counted_under_a_name_that_status_has() -> None:
    told = {*status.PUT_OFF, *status.REASONS, *COUNTERS}
    named = {name for *_, counted, _ in PEERS for name in re.findall(r"`(\w+)`", counted)}
    assert named - told <= {"put_off", "not_inspected", "mail"}
