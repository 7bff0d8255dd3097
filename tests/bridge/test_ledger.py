"""The ledger: written before the step, kept from the first time, readable after a torn write."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.ledger import Ledger, original
from bridge.present import BRIDGE_NF, Present
from bridge.steps import DeleteLink, SetSysctl, Step, UnloadModule


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "ledger.jsonl"


def test_what_was_recorded_is_read_back_in_order(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record("b", SetSysctl("x", "0"))
    ledger.record("a", DeleteLink("br0"))
    assert list(Ledger(path).entries.items()) == [("b", SetSysctl("x", "0")), ("a", DeleteLink("br0"))]
    assert Ledger(path).mine() == {"br0"}


def test_the_value_from_before_the_first_up_is_kept(path: Path) -> None:
    Ledger(path).record("a", SetSysctl("x", "0"))
    Ledger(path).record("a", SetSysctl("x", "1"))
    assert Ledger(path).entries == {"a": SetSysctl("x", "0")}


@pytest.mark.parametrize("cut", [2, 10, 40])
def test_a_torn_last_line_is_a_step_never_taken(path: Path, cut: int) -> None:
    ledger = Ledger(path)
    ledger.record("a", SetSysctl("x", "0"))
    ledger.record("b", SetSysctl("y", "0"))
    path.write_bytes(path.read_bytes()[:-cut])
    assert Ledger(path).entries == {"a": SetSysctl("x", "0")}


def test_a_ledger_goes_on_after_a_torn_line(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record("a", SetSysctl("x", "0"))
    with path.open("a") as file:
        file.write('{"key": "b", "un')
    Ledger(path).record("c", SetSysctl("z", "0"))
    assert Ledger(path).entries == {"a": SetSysctl("x", "0"), "c": SetSysctl("z", "0")}


def test_the_file_goes_with_its_last_entry(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record("a", SetSysctl("x", "0"))
    ledger.record("b", SetSysctl("y", "0"))
    ledger.forget(["a"])
    assert Ledger(path).entries == {"b": SetSysctl("y", "0")}
    ledger.forget(["b"])
    assert not path.exists()


def test_a_second_up_still_wants_the_module_that_the_first_loaded() -> None:
    """Its sysctls came with it and go with it, whatever they were set from: without them, the plan loads it."""
    present = Present({}, {**dict.fromkeys(BRIDGE_NF, "0"), "net.core.somaxconn": "16384"})
    undo: list[Step] = [UnloadModule("br_netfilter"), *(SetSysctl(name, "1") for name in BRIDGE_NF)]
    assert original(present, [*undo, SetSysctl("net.core.somaxconn", "4096")]).sysctls == {"net.core.somaxconn": "4096"}
    assert set(original(present, undo[1:]).sysctls) == set(present.sysctls), "it was there before: it stays"
