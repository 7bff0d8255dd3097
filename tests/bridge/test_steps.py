"""Steps survive the ledger's JSON, and keys tell them apart by what they change, not by what they want."""

from __future__ import annotations

import json

import pytest

from bridge.steps import (
    AddAddress,
    AddNeighbour,
    AddQueueRule,
    AddRoute,
    AddRule,
    CreateLink,
    DeleteLink,
    LoadModule,
    LoadRuleset,
    PolicyRule,
    RemoveQueueRule,
    Route,
    SetLink,
    SetSysctl,
    Step,
    UnloadRuleset,
    from_json,
    key,
    to_json,
)

STEPS: list[Step] = [
    CreateLink("smtp0w0", "veth", "smtp0l0"),
    DeleteLink("br0"),
    SetLink("p0", "master", "br0"),
    SetLink("p0", "up", True),
    SetSysctl("net.ipv4.tcp_fwmark_accept", "1"),
    LoadModule("br_netfilter"),
    AddAddress("br0", "198.51.100.2/24"),
    AddRoute(Route("0.0.0.0/0", "br0", gateway="198.51.100.1")),
    AddRule(PolicyRule(4, "smtp0", 1, 1, 2525)),
    AddNeighbour("smtp0", "169.254.116.98", "02:74:62:00:00:02"),
    LoadRuleset("table …"),
    UnloadRuleset(),
    AddQueueRule(6, "smtp0", 2, 25, bypass=True),
    RemoveQueueRule(6, "smtp0", 2, 25, True, drop_table=True),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_a_step_survives_the_ledger(step: Step) -> None:
    assert from_json(json.loads(json.dumps(to_json(step)))) == step


def test_two_wishes_for_one_thing_share_a_key() -> None:
    assert key(SetSysctl("a", "1")) == key(SetSysctl("a", "2"))
    assert key(SetLink("p0", "mtu", 1500)) == key(SetLink("p0", "mtu", 9000))
    assert key(LoadRuleset("old")) == key(LoadRuleset("new"))


def test_different_things_have_different_keys() -> None:
    assert len({key(step) for step in STEPS}) == len(STEPS)
