"""What `status` tells of rules: of both processes together, and not silently less than there is."""

from __future__ import annotations

from smtp_intercept.app import rules_status


def test_both_processes_count() -> None:
    one = {"rules_counts": {"a": 1}, "would_counts": {"b": 2}, "list_errors": ["x"]}
    other = {"rules_counts": {"a": 3}, "list_errors": ["x", "y"]}
    page = rules_status.page(one, other)
    assert page == {
        "rules": {"a": {"done": 4, "would": 0}, "b": {"done": 0, "would": 2}},
        "rules_cut": False,
        "list_errors": ["x", "y"],
        "filters": [],
    }
    assert rules_status.warnings(page) == [f"a list of the rules is used as it was: {name}" for name in "xy"]


def test_what_a_report_does_not_hold_is_told_of() -> None:
    page = rules_status.page({}, {"cut": True})
    assert rules_status.warnings(page) == ["more rules came into play than are counted here"]
