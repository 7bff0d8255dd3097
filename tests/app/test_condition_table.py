"""The table of conditions is the page of the documentation, and whoever simulates one is a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtp_intercept.app import simulate
from smtp_intercept.app.exits import Exit
from tests.kernel.conditions import CELLS, lines


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
