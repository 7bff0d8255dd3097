"""Times as the logs tell them, against the standard library's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.timestamp import timestamp


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_795_368_277.521, "2026-11-22T17:24:37.521Z"),
        (1_795_368_277.9999999, "2026-11-22T17:24:38.000Z"),
        (-0.001, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_told(at: float, told: str) -> None:
    assert timestamp(at) == told


@given(st.floats(0, 4e9))
def test_read_back_within_a_millisecond(at: float) -> None:
    read = datetime.fromisoformat(timestamp(at))
    assert timedelta() <= datetime.fromtimestamp(at, UTC) - read < timedelta(milliseconds=1)
