"""What was edited and is not in force: named key by key; comments, order and spaces are no difference."""

from __future__ import annotations

import pytest

from smtp_intercept.app.drift import MOST, OF_UP, differences

PORTS = '[bridge]\nports = ["p0", "p1"]\n'


@pytest.mark.parametrize(
    ("now", "lines"),
    [
        (PORTS, []),
        (f"# hello\n{PORTS}\n\n[pickup]\noutgoing = 'pass'  # the default\n", []),
        (f"{PORTS}on_failure = 'block'\n", ["bridge.on_failure is 'block', in force is 'pass'"]),
        (f"{PORTS}gateway = []\n", []),
        (f"{PORTS}[relay]\nhost = '192.0.2.25'\n", ["relay is {"]),
        (f"{PORTS}[pickup.port.p0]\noutgoing = 'drop'\n", ["pickup.port.p0 is {"]),
        ('[bridge]\nports = ["p1", "p0"]\n', ["bridge.ports is ['p1', 'p0'], in force is ['p0', 'p1']"]),
        ("[bridge]\nports = ['p0']\n[x]\n", ["it has 2 mistakes now (tollbridge check)"]),
        ("[bridge\n", ["it has 1 mistake now (tollbridge check)"]),
    ],
)
def test_each_key_is_named(now: str, lines: list[str]) -> None:
    found = differences(now, PORTS)
    assert len(found) == len(lines)
    assert all(line.startswith(wanted) for line, wanted in zip(found, lines, strict=True)), found


def test_many_are_counted() -> None:
    limits = "".join(f"{key} = 7\n" for key in ("errors", "errors_free", "recipients", "drain_s", "error_delay_s"))
    found = differences(f"{PORTS}stp = true\nname = 'x'\n[limits]\n{limits}", PORTS)
    assert len(found) == MOST + 1
    assert found[-1] == "and 2 keys more"


def test_what_only_run_makes_something_of_is_not_ups() -> None:
    edited = f"{PORTS}stp = true\n[log]\nmail = '/x/y'\n"
    assert differences(edited, PORTS, OF_UP) == ["bridge.stp is true, in force is false"]


def test_what_another_version_wrote_is_no_traceback() -> None:
    assert differences(PORTS, f"{PORTS}[gone]\n") == ["what is in force was made by another version"]
