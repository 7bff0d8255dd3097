"""The figures: names by Prometheus's rules, labels bounded, and no word of a stranger's among them."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.watch import figures
from smtp_intercept.watch.figures import Sort, metrics, page
from tests.watch.test_terms import JSON

STATUS: dict[str, Any] = {
    "ready": True,
    "started_at": 1_790_000_000.0,
    "ports": ["p0", "p1"],
    "processes": {"supervisor": 1, "diverter": 2, "interceptor": 3, "mta": 4, "tracker": 5},
    "restarts": {"diverter": 0, "interceptor": 2, "mta": -1, "tracker": 0},
    "diverter": {
        "pid": 2,
        "beating": True,
        "counts": {"picked_up.incoming.intercept": 7, "not_inspected.stale": 1, "dropped.malformed": 0},
        "queue": {"dropped": 0},
    },
    "interceptor": {
        "pid": 3,
        "sessions": 4,
        "counts": {
            **dict.fromkeys(("sessions", "messages", "tls_started", "aborted", "timeouts", "dial_failures"), 9),
            **dict.fromkeys(("bytes_from_client", "bytes_from_server", "log_lines_lost", "errors"), 5),
        },
        "unknown_keywords": {"XHOSTILE": 3},
        "rules_counts": {"no lottery": 2},
        "would_counts": {},
        "list_errors": ["/etc/staff.txt: line 3"],
    },
    "mta": {
        "sessions": 1,
        "counts": {"messages": 2, "log_lines_lost": 1},
        "rules_counts": {"no lottery": 1, 'a "\\\n': 1},
        "would_counts": {"on trial": 4},
        "list_errors": ["/etc/staff.txt: line 3"],
        "queue": {"messages": 3, "content_bytes": 4096, "held": 0, "dead": 1, "oldest_s": 60},
    },
    "resolver": {"protected": [{"name": "mx of example.com", "error": "SERVFAIL", "addresses": []}]},
    "tracker": {"index": {"records": 10, "behind_bytes": 0, "size_bytes": 4096, "stands": "disk"}},
    "watch": {"lost": [{"path": "p0"}]},
}
KERNEL = {"tagged": 3, "rate_client": 2, "others": 9}
WORDS = {"not_inspected": ["tagged", "past"], "put_off": ["rate_client"], "dropped": ["x"], "full": ["not_learned"]}


def shown(status: dict[str, Any] = STATUS) -> dict[str, dict[str, float]]:
    found = metrics(page(status, KERNEL, True, WORDS), "1.2.3")
    return {metric.name: dict(metric.samples) for metric in found if metric.samples}


def test_what_is_shown() -> None:
    found = shown()
    assert found["inspecting"] == {"": 1}
    assert found["process_up"] == {"diverter": 1, "interceptor": 1, "mta": 1, "tracker": 1}
    assert found["process_restarts"] == {"diverter": 0, "interceptor": 2, "mta": 0, "tracker": 0}
    assert found["connections"] == {"incoming.intercept": 7}
    assert found["not_inspected"] == {"tagged": 3, "stale": 1, "encrypted": 9}
    assert found["put_off"] == {"rate_client": 2, "timeouts": 9}
    assert found["log_lines_missing"] == {"lines_lost": 6, "suppressed": 0, "room_kept": 0}
    assert found["queue_messages"] == {"messages": 3, "held": 0, "dead": 1}
    assert found["queue_oldest_seconds"] == {"": 60}
    assert found["protected_names_failing"] == {"": 1}
    assert found["index_behind_bytes"] == {"": 0}
    assert found["rule_hits"] == {"no lottery": 3, 'a "\\\n': 1}
    assert found["rule_observed_hits"] == {"on trial": 4}
    assert found["rule_lists_failing"] == {"": 1}


def test_a_series_stands_once_and_rules_are_not_many() -> None:
    """Of a page with one series twice Prometheus takes nothing."""
    alike = {"x" * figures.MOST_LETTERS + end: 1 for end in "ab"}
    found = shown({"interceptor": {"rules_counts": alike}})["rule_hits"]
    assert found == {"x" * figures.MOST_LETTERS: 2}
    broken = shown({"interceptor": {"rules_counts": {"\ud800": 1, "?": 1}}})["rule_hits"]
    assert broken == {"?": 2}
    many = {"interceptor": {"rules_counts": {str(number): 1 for number in range(10_000)}}}
    assert len(shown(many)["rule_hits"]) == figures.MOST_VALUES


def test_what_is_not_known_is_not_nought() -> None:
    found = shown({})
    assert found.keys() == {
        "build_info",
        "inspecting",
        "start_time_seconds",
        "canaries_lost",
        "protected_names_failing",
    } | {
        "not_inspected",
        "put_off",
        "log_lines_missing",
    }
    assert found["inspecting"] == {"": 0}
    assert {metric.name for metric in metrics(page({}, {}, False, WORDS), "") if "mta" in metric.name} == set()


def test_no_word_of_a_stranger_is_handed_on() -> None:
    told = repr(page(STATUS, KERNEL, True, WORDS))
    for word in ("example.com", "SERVFAIL", "p0", "disk", "staff"):
        assert word not in told
    assert "XHOSTILE" not in repr([*metrics(page(STATUS, KERNEL, True, WORDS), "1")])


def test_names_follow_the_rules() -> None:
    """https://prometheus.io/docs/practices/naming/; `promtool check metrics` says the same of what is served."""
    for metric in metrics(page(STATUS, KERNEL, True, WORDS), "1"):
        assert re.fullmatch(r"[a-z][a-z_]+[a-z]", metric.name)
        assert metric.text.endswith(".")
        assert not metric.name.endswith(("_total", "_count", "_sum"))
        if "octets" in metric.text.lower():
            assert metric.name.endswith("_bytes")
        assert metric.sort in Sort


@given(st.dictionaries(st.sampled_from([*STATUS]), JSON))
def test_labels_are_bounded_whatever_a_process_reports(status: dict[str, Any]) -> None:
    sane = {**STATUS, **{key: value for key, value in status.items() if isinstance(value, type(STATUS[key]))}}
    many = {f"not_inspected.{number}": 1 for number in range(1000)} | {"picked_up." + "x" * 1000: 1}
    sane["diverter"] = {"counts": many}
    sane["watch"], sane["resolver"], sane["restarts"] = {}, {}, {"mta": 1}
    for metric in metrics(page(sane, KERNEL, True, WORDS), "1"):
        assert len(metric.samples) <= figures.MOST_VALUES
        assert all(len(value) <= figures.MOST_LETTERS for value, _ in metric.samples)
