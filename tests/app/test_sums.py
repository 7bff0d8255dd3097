"""Reports of several processes as one."""

from __future__ import annotations

from typing import Any

import pytest

from smtp_intercept.app.sums import summed

KNOWN, UNKNOWN = {"name": "mx of example.com", "age_s": 3.0}, {"name": "mail.example.com", "age_s": None}


@pytest.mark.parametrize(
    ("reports", "sum_of_them"),
    [
        ([], {}),
        ([{}], {}),
        ([{}, {"pid": 7, "queue": {"oldest_s": None}}], {"pid": 7, "queue": {"oldest_s": None}}),
        (
            [{"pid": 1, "sessions": 2, "counts": {"a": 1}}, {"pid": 2, "sessions": 3, "counts": {"a": 1, "b": 4}}],
            {"sessions": 5, "counts": {"a": 2, "b": 4}},
        ),
        ([{"pid": 1, "beating": True}, {"pid": 2, "beating": False}], {"beating": False}),
        ([{"protected": [KNOWN]}, {"protected": [KNOWN, UNKNOWN]}], {"protected": [KNOWN, UNKNOWN]}),
        ([{"pairs": [["a", "b"]]}, {"pairs": [["c", "d"]]}], {"pairs": [["a", "b"], ["c", "d"]]}),
    ],
)
def test_the_table(reports: list[dict[str, Any]], sum_of_them: dict[str, Any]) -> None:
    assert summed(reports) == sum_of_them
