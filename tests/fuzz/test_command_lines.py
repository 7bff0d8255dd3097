"""Ten thousand command lines, real verbs on a box of their own: no traceback, no status but those of the table."""

from __future__ import annotations

from tests.fuzz.command_lines import in_a_namespace

LINES, SEED = 10_000, 11


def test_no_command_line_ends_in_a_traceback() -> None:
    done = in_a_namespace(LINES, SEED)
    assert done.returncode == 0, f"{done.stdout[-8000:]}{done.stderr[-8000:]}"
    assert f"{LINES} command lines" in done.stdout
