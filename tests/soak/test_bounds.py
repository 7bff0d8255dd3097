"""What grows is seen, and what only breathes is not."""

from __future__ import annotations

import pytest

from tests.soak.bounds import LEFT, LONG_ENOUGH_S, RECOVERED_S, Held, full, grown, late, left

MIB = 1 << 20


def held(seconds: float, mib_each_minute: float, files_each_minute: float = 0.0) -> list[Held]:
    minutes = [at / 60 for at in range(0, int(seconds) + 1, 10)]
    return [
        Held(60 * m, int((60 + mib_each_minute * m + m % 3) * MIB), int(30 + files_each_minute * m)) for m in minutes
    ]


@pytest.mark.parametrize(
    ("seconds", "mib", "files", "says"),
    [
        (3600, 0.0, 0.0, ""),
        (3600, 0.2, 0.0, ""),
        (3600, 2.0, 0.0, "has grown"),
        (3600, 0.0, 10.0, "files open"),
        (LONG_ENOUGH_S - 10, 60.0, 0.0, ""),  # too short to tell
    ],
)
def test_growth(seconds: float, mib: float, files: float, says: str) -> None:
    found = list(grown("mta", held(seconds, mib, files)))
    assert len(found) == bool(says)
    assert all(says in each for each in found)


def test_a_process_that_was_never_seen() -> None:
    assert list(grown("mta", [])) == []


def test_tables() -> None:
    assert list(full({"kept": [1, 10], "ended": []}, 10)) == []
    assert list(full({"kept": [1, 11, 3]}, 10)) == ["kept has held 11 entries, of at most 10"]
    standing = {"inet live": 200, "netdev canary_met": 200, "netdev behind0": 200}
    assert list(left({"netdev kept": 0, "netdev ended": LEFT + 1, **standing})) == [
        "netdev ended still holds 101 entries"
    ]


def test_recovery() -> None:
    assert list(late([("flood", RECOVERED_S)])) == []
    assert len(list(late([("flood", RECOVERED_S + 1)]))) == 1
