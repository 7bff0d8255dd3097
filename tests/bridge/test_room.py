"""A room of the wire's own, as steps: what is moved, what stays the host's, what the ledger makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.lane import HOST_LEG, ROOM_LEG, Wanted
from bridge.ledger import Ledger, original
from bridge.moves import MakeRoom, MoveLink, RemoveRoom, ReturnLink
from bridge.plan import PlanError, make_plan
from bridge.present import LinkFacts, Present
from bridge.room import leg_mac
from bridge.steps import (
    AddAddress,
    AddRoute,
    AddStation,
    CreateLink,
    DeleteLink,
    Inside,
    LoadModule,
    LoadRuleset,
    RemoveAddress,
    RemoveStation,
    Route,
    SetLink,
    SetSysctl,
    Step,
    from_json,
    key,
    plain,
    to_json,
)

MACS = ("02:00:00:00:00:10", "00:00:00:00:00:11")
LINKS = {
    "lo": LinkFacts("lo"),
    "p0": LinkFacts("p0", mac=MACS[0]),
    "p1": LinkFacts("p1", mac=MACS[1]),
    "br0": LinkFacts("br0", kind="bridge"),  # somebody's, in the host: the room has names of its own
}
SYSCTLS = {"net.ipv6.conf.all.disable_ipv6": "0", "net.bridge.bridge-nf-call-iptables": "1"}
PRESENT = Present(LINKS, SYSCTLS)
WANTED = Wanted("br0", ("p0", "p1"), room="r")
MANAGED = replace(WANTED, management=("192.0.2.2/24", "2001:db8::2/64"), gateway=("192.0.2.1", "fe80::1"))


def steps(wanted: Wanted = WANTED, present: Present = PRESENT) -> tuple[Step, ...]:
    return make_plan(wanted, present).steps


def in_host(taken: tuple[Step, ...]) -> list[Step]:
    return [step for step in taken if not isinstance(step, Inside)]


def test_the_host_only_gives_its_ports_away() -> None:
    assert in_host(steps()) == [MakeRoom("r"), MoveLink("p0", "r"), MoveLink("p1", "r")]


def test_no_sysctl_of_the_host_is_set() -> None:
    """But those of the leg, which is ours; the module is the whole machine's."""
    others = [step for step in in_host(steps(MANAGED)) if isinstance(step, SetSysctl)]
    assert {step.name.split(".")[3] for step in others} == {HOST_LEG}
    assert LoadModule("br_netfilter") in steps(MANAGED, replace(PRESENT, sysctls={}))


def test_a_port_is_moved_bare_and_joined_there() -> None:
    dressed = replace(PRESENT, links={**LINKS, "p0": replace(LINKS["p0"], addresses=("192.0.2.2/24",))})
    taken = steps(MANAGED, dressed)
    order = [
        RemoveAddress("p0", "192.0.2.2/24"),
        MoveLink("p0", "r"),
        Inside("r", SetLink("p0", "master", "br0")),
        Inside("r", SetLink("smtp0", "up", True)),
    ]
    assert [taken.index(step) for step in order] == sorted(taken.index(step) for step in order)


def test_the_leg_is_a_port_of_its_own_kind() -> None:
    taken = steps(MANAGED)
    (made,) = [step for step in taken if isinstance(step, AddAddress)][:1]
    assert made.link == HOST_LEG
    mac = leg_mac(MACS[0], MACS)
    rules = next(step.step.text for step in taken if isinstance(step, Inside) and isinstance(step.step, LoadRuleset))
    assert {
        CreateLink(HOST_LEG, "veth", ROOM_LEG, peer_room="r"),
        SetLink(HOST_LEG, "address", mac),
        Inside("r", AddStation(ROOM_LEG, mac)),
        Inside("r", SetLink(ROOM_LEG, "port_unicast_flood", 0)),
        AddRoute(Route("0.0.0.0/0", HOST_LEG, gateway="192.0.2.1")),
        AddRoute(Route("::/0", HOST_LEG, gateway="fe80::1")),
    } <= set(taken)
    assert f"ether daddr {mac} accept" in rules, "what is sent to the box itself stays off the lane"
    assert f'ingress device "{ROOM_LEG}"' not in rules
    assert "chain hush" in rules


def test_without_management_there_is_no_leg() -> None:
    assert HOST_LEG not in "".join(map(str, steps()))


@pytest.mark.parametrize("mac", MACS)
def test_the_legs_mac_is_local_and_nobodys(mac: str) -> None:
    taken = {leg_mac(mac, MACS), leg_mac(mac, {*MACS, leg_mac(mac, MACS)}), *MACS}
    assert len(taken) == 4
    assert all(int(found[:2], 16) & 3 == 2 for found in taken - {*MACS})


@pytest.mark.parametrize("kind", ["bond", "team"])
def test_what_cannot_be_moved_is_refused_with_the_remedy(kind: str) -> None:
    bonded = replace(PRESENT, links={**LINKS, "p1": replace(LINKS["p1"], kind=kind)})
    with pytest.raises(PlanError, match=f'p1 is a {kind}, .*set bridge.namespace = "host"'):
        make_plan(WANTED, bonded)
    make_plan(replace(WANTED, room="", bridge="br9"), bonded)


def test_steps_survive_the_ledger() -> None:
    for step in (
        *steps(MANAGED),
        ReturnLink("p0", "r", up=True, sysctls="a=1 b=2"),
        Inside("r", RemoveStation("p", "m")),
    ):
        assert from_json(json.loads(json.dumps(to_json(step)))) == step
    assert key(Inside("r", SetLink("p0", "up", True))) != key(SetLink("p0", "up", True))


def test_the_ledger_knows_what_is_where(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for step in (
        RemoveRoom("r"),
        ReturnLink("p0", "r", up=False),
        Inside("r", DeleteLink("br0")),
        DeleteLink(HOST_LEG, ROOM_LEG),
    ):
        ledger.record(key(step), step)
    again = Ledger(tmp_path / "ledger")
    assert (again.room, again.moved) == ("r", {"p0": "r"})
    assert "br0" in again.mine("r")
    assert again.mine() == {HOST_LEG, ROOM_LEG}


def test_a_second_plan_is_the_first() -> None:
    """Of the host as it is then: the ports are away, the leg is ours, the sysctls are the room's."""
    undone: list[Step] = [RemoveRoom("r"), ReturnLink("p0", "r", up=True), ReturnLink("p1", "r", up=True)]
    undone += [AddAddress("p0", "192.0.2.2/24"), DeleteLink(HOST_LEG, ROOM_LEG)]
    undone += [Inside("r", SetSysctl("net.core.somaxconn", "4096"))]
    wanted = replace(MANAGED, sysctls_at_least={"net.core.somaxconn": 9000})
    first = replace(PRESENT, links={**LINKS, "p0": replace(LINKS["p0"], addresses=("192.0.2.2/24",))})
    first = replace(first, sysctls={**SYSCTLS, "net.core.somaxconn": "4096"})
    now = replace(first, links={**LINKS, HOST_LEG: LinkFacts(HOST_LEG, kind="veth")})
    now = replace(now, sysctls={**SYSCTLS, "net.core.somaxconn": "9000"})
    assert steps(wanted, original(now, undone, "r")) == steps(wanted, first)
    assert Inside("r", SetSysctl("net.core.somaxconn", "9000")) in steps(wanted, first)
    assert plain(Inside("r", MakeRoom("r"))) == MakeRoom("r")
