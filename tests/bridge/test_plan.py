"""Wanted × present → steps, as tables; what cannot be is refused by name before anything is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.lane import MAX_VLANS, Lane, PortLegs, Wanted
from bridge.ledger import original
from bridge.plan import PlanError, make_plan
from bridge.present import LinkFacts, Present
from bridge.steps import (
    AddAddress,
    AddQueueRule,
    AddRoute,
    AddRule,
    CreateLink,
    DeleteLink,
    LoadModule,
    LoadRuleset,
    RemoveAddress,
    RemoveRoute,
    Route,
    SetLink,
    SetSysctl,
    Step,
    UnloadModule,
    key,
)

IFNAMSIZ = 16  # linux/if.h
MAIN_TABLE_PREFERENCE = 32766  # fib_default_rules_init()
MAC0, MAC1 = "02:00:00:00:00:10", "02:00:00:00:00:11"
LINKS = {
    "lo": LinkFacts("lo"),
    "p0": LinkFacts("p0", mac=MAC0, mtu=1500),
    "p1": LinkFacts("p1", mac=MAC1, mtu=1400),
    "eth9": LinkFacts("eth9", mac="02:00:00:00:00:19"),
}
SYSCTLS = {
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.core.somaxconn": "4096",
}
PRESENT = Present(LINKS, SYSCTLS)
WANTED = Wanted("br0", ("p0", "p1"))
TAGGED = replace(WANTED, vlans=(10, 20))


def with_link(link: LinkFacts) -> Present:
    return replace(PRESENT, links={**LINKS, link.name: link})


def test_the_wire_comes_before_the_lane_and_the_rules_come_last() -> None:
    steps = make_plan(WANTED, PRESENT).steps
    order = [
        steps.index(step)
        for step in (
            CreateLink("br0", "bridge"),
            SetLink("p1", "master", "br0"),
            SetLink("br0", "up", True),
            CreateLink("smtp0", "bridge"),
            SetLink("smtp0", "up", True),
        )
    ]
    assert order == sorted(order)
    assert [type(step) for step in steps[-3:]] == [LoadRuleset, AddQueueRule, AddQueueRule]


def test_the_bridge_has_the_first_ports_mac_and_the_lane_the_smallest_mtu() -> None:
    steps = make_plan(WANTED, PRESENT).steps
    assert SetLink("br0", "address", MAC0) in steps
    assert {SetLink(f"smtp0{end}{n}", "mtu", 1400) for end in "wl" for n in (0, 1)} <= set(steps)


def test_ports_may_be_named_by_their_mac() -> None:
    plan = make_plan(replace(WANTED, ports=(MAC1.upper(), "p0")), PRESENT)
    assert [(leg.port, leg.index) for leg in plan.legs] == [("p1", 0), ("p0", 1)]


@pytest.mark.parametrize(
    ("wanted", "present", "named"),
    [
        (replace(WANTED, ports=("p0", "p7")), PRESENT, "there is no interface p7; present are: eth9, p0, p1"),
        (replace(WANTED, ports=("p0", MAC0)), PRESENT, "two entries name the same port"),
        (WANTED, with_link(replace(LINKS["p1"], master="br9")), "p1 is already a port of br9; take it out: ip link"),
        (
            WANTED,
            with_link(replace(LINKS["p1"], addresses=("192.0.2.7/24",))),
            "p1 carries 192.0.2.7/24, and .*management",
        ),
        (WANTED, with_link(LinkFacts("br0", kind="bridge")), "a link br0 that Tollbridge did not make; .*adopt"),
        (WANTED, with_link(LinkFacts("smtp0")), "a link smtp0 that Tollbridge did not make"),
        (WANTED, with_link(LinkFacts("smtp0w1")), "a link smtp0w1 that Tollbridge did not make"),
        (replace(WANTED, adopt=True), with_link(LinkFacts("br0", kind="bridge")), "p0 is not a port of br0; add it"),
        (replace(WANTED, adopt=True), PRESENT, "there is no bridge br0 to adopt"),
        (replace(WANTED, adopt=True), with_link(LinkFacts("br0", kind="bridge", stp=True)), "set bridge.stp = true"),
        (TAGGED, with_link(LinkFacts("smtp0.10")), "a link smtp0.10 that Tollbridge did not make"),
        (TAGGED, with_link(LinkFacts("smtp0l1.20")), "a link smtp0l1.20 that Tollbridge did not make"),
        (TAGGED, with_link(LinkFacts("smtp0tw0")), "a link smtp0tw0 that Tollbridge did not make"),
        (
            TAGGED,
            with_link(LinkFacts("office", kind="vlan", parent="p0", vlan=10)),
            r"bridge.vlans: office takes VLAN 10 from p0, .*remove it, or put it on the bridge instead \(br0.10\)",
        ),
        (
            replace(WANTED, adopt=True),
            with_link(LinkFacts("br0", kind="bridge", filters_vlans=True)),
            "bridge.adopt: br0 filters VLANs, .*vlan_filtering 0",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(wanted: Wanted, present: Present, named: str) -> None:
    with pytest.raises(PlanError, match=named):
        make_plan(wanted, present)


def test_a_vlan_of_the_box_itself_may_stand_on_the_bridge_and_others_on_the_ports() -> None:
    for link in (
        LinkFacts("br0.10", kind="vlan", parent="br0", vlan=10),
        LinkFacts("p0.30", kind="vlan", parent="p0", vlan=30),
        LinkFacts("eth9.10", kind="vlan", parent="eth9", vlan=10),
    ):
        assert make_plan(TAGGED, with_link(link)).vlans == (10, 20)


def test_each_vlan_has_a_bridge_of_vlan_links_and_routes_of_its_own() -> None:
    steps = make_plan(TAGGED, PRESENT).steps
    for vlan in (10, 20):
        lane = f"smtp0.{vlan}"
        assert CreateLink(lane, "bridge") in steps
        for port in (0, 1):
            link = CreateLink(f"smtp0l{port}.{vlan}", "vlan", parent=f"smtp0tl{port}", vlan=vlan)
            assert steps.index(CreateLink(f"smtp0tw{port}", "veth", f"smtp0tl{port}")) < steps.index(link)
            assert SetLink(link.link, "master", lane) in steps
        rules = [step.rule for step in steps if isinstance(step, AddRule) and step.rule.mark >> 16 == 0x7B25 ^ vlan]
        assert {(rule.family, rule.incoming, rule.table) for rule in rules} == {
            (family, *way) for family in (4, 6) for way in ((lane, 2525), ("lo", 25_000 + vlan))
        }
        routes = [step.route for step in steps if isinstance(step, AddRoute) and step.route.table == 25_000 + vlan]
        assert [(route.link, route.onlink) for route in routes] == [(lane, True)] * 2


def test_vlans_come_after_the_lane_of_untagged_mail_and_change_nothing_of_it() -> None:
    """But the ruleset and the reach of the queue rule."""
    with_vlans, without = make_plan(TAGGED, PRESENT).steps, make_plan(WANTED, PRESENT).steps
    later = [step for step in with_vlans if step not in without]
    assert [step for step in with_vlans if step not in later] == [
        step for step in without if not isinstance(step, LoadRuleset | AddQueueRule)
    ]
    assert with_vlans.index(later[0]) > with_vlans.index(SetLink("smtp0", "up", True))
    assert [step.link for step in with_vlans if isinstance(step, AddQueueRule)] == ["smtp0+", "smtp0+"]


def test_without_8021q_mail_of_vlans_is_left_to_the_plain_bridge() -> None:
    plan = make_plan(TAGGED, replace(PRESENT, dot1q=False))
    assert (plan.vlans, plan.steps) == ((), make_plan(WANTED, PRESENT).steps)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 4094), max_size=MAX_VLANS), st.integers(2, 64))
def test_no_two_links_and_no_two_tables_have_one_name(vlans: set[int], ports: int) -> None:
    names = [f"p{number}" for number in range(ports)]
    links = {name: LinkFacts(name, mac=f"02:00:00:00:01:{number:02x}") for number, name in enumerate(names)}
    plan = make_plan(Wanted("br0", tuple(names), vlans=tuple(vlans)), replace(PRESENT, links=links))
    made = [end for step in plan.steps if isinstance(step, CreateLink) for end in (step.link, step.peer) if end]
    assert len(set(made)) == len(made)
    assert not [name for name in made if len(name) >= IFNAMSIZ]
    outward = [step.rule for step in plan.steps if isinstance(step, AddRule) and step.rule.incoming == "lo"]
    assert len({(rule.family, rule.mark) for rule in outward}) == len({(r.family, r.table) for r in outward})
    assert all(rule.table < MAIN_TABLE_PREFERENCE for rule in outward)


def test_with_stp_the_bridge_hears_bpdus_and_waits_as_long_as_switches_do() -> None:
    def settings(stp: bool) -> dict[tuple[str, str], object]:
        steps = make_plan(replace(WANTED, stp=stp), PRESENT).steps
        return {(step.link, step.attribute): step.value for step in steps if isinstance(step, SetLink)}

    without, with_stp = settings(False), settings(True)
    assert (without["br0", "stp_state"], without["br0", "forward_delay"]) == (0, 0)
    assert with_stp["br0", "stp_state"] == 1
    assert with_stp["br0", "forward_delay"] == 1500  # hundredths of a second: 802.1D's
    assert (without["p0", "port_group_fwd_mask"], with_stp["p0", "port_group_fwd_mask"]) == (0xFFFD, 0xFFFC)


def test_links_of_an_earlier_up_are_not_foreign() -> None:
    present = original(with_link(LinkFacts("smtp0", kind="bridge")), [DeleteLink("smtp0")])
    assert make_plan(WANTED, present).steps == make_plan(WANTED, PRESENT).steps


def test_management_addresses_move_and_take_their_routes_along() -> None:
    route = Route("0.0.0.0/0", "p0", gateway="198.51.100.1")
    present = with_link(replace(LINKS["p0"], addresses=("198.51.100.2/24",), routes=(route,)))
    wanted = replace(WANTED, management=("198.51.100.2/24",), gateway=("198.51.100.1",))

    steps = make_plan(wanted, present).steps

    moved = [RemoveRoute(route), RemoveAddress("p0", "198.51.100.2/24"), AddAddress("br0", "198.51.100.2/24")]
    new = AddRoute(Route("0.0.0.0/0", "br0", gateway="198.51.100.1"))
    assert [step for step in steps if step in (*moved, new)] == [*moved, new]


def test_static_routes_go_along_with_the_address_they_need() -> None:
    routes = (Route("0.0.0.0/0", "p0", gateway="198.51.100.9"), Route("203.0.113.0/24", "p0", gateway="198.51.100.7"))
    present = with_link(replace(LINKS["p0"], addresses=("198.51.100.2/24",), routes=routes))
    wanted = replace(WANTED, management=("198.51.100.2/24",))

    moved = {AddRoute(replace(route, link="br0")) for route in routes}
    assert moved < set(make_plan(wanted, present).steps)
    default = AddRoute(Route("0.0.0.0/0", "br0", gateway="198.51.100.1"))
    added = {s for s in make_plan(replace(wanted, gateway=("198.51.100.1",)), present).steps if isinstance(s, AddRoute)}
    assert {default, AddRoute(replace(routes[1], link="br0"))} <= added
    assert AddRoute(replace(routes[0], link="br0")) not in added


def test_a_bridge_without_addresses_is_hushed_and_one_with_is_not() -> None:
    assert "chain hush" in make_plan(WANTED, PRESENT).ruleset
    assert "chain hush" not in make_plan(replace(WANTED, management=("198.51.100.2/24",)), PRESENT).ruleset


def test_an_adopted_bridge_is_neither_made_nor_configured() -> None:
    links = {
        **LINKS,
        "br0": LinkFacts("br0", kind="bridge", mac=MAC1),
        "p0": replace(LINKS["p0"], master="br0"),
        "p1": replace(LINKS["p1"], master="br0"),
    }
    plan = make_plan(replace(WANTED, adopt=True), replace(PRESENT, links=links))

    touched = {
        step for step in plan.steps if isinstance(step, (CreateLink, SetLink)) and step.link in ("br0", "p0", "p1")
    }
    assert touched == {SetLink("br0", "nf_call_iptables", 0), SetLink("br0", "nf_call_ip6tables", 0)}
    assert f"ether daddr {MAC1} accept" in plan.ruleset


def test_strict_reverse_path_filtering_is_kept_for_all_links_but_the_lane() -> None:
    present = replace(
        PRESENT, sysctls={**SYSCTLS, "net.ipv4.conf.all.rp_filter": "1", "net.ipv4.conf.eth9.rp_filter": "2"}
    )
    steps = make_plan(WANTED, present).steps
    assert SetSysctl("net.ipv4.conf.eth9.rp_filter", "2") in steps
    assert SetSysctl("net.ipv4.conf.lo.rp_filter", "1") in steps
    assert SetSysctl("net.ipv4.conf.smtp0.rp_filter", "0") in steps


@pytest.mark.parametrize(("least", "raised"), [(4096, False), (4097, True)])
def test_a_floor_raises_only_what_is_lower(least: int, raised: bool) -> None:
    steps = make_plan(replace(WANTED, sysctls_at_least={"net.core.somaxconn": least}), PRESENT).steps
    assert (SetSysctl("net.core.somaxconn", str(least)) in steps) is raised


def test_br_netfilter_is_loaded_where_it_is_a_module() -> None:
    bare = replace(PRESENT, sysctls={"net.ipv4.conf.all.rp_filter": "0"})
    assert make_plan(WANTED, bare).steps[0] == LoadModule("br_netfilter")
    assert LoadModule("br_netfilter") not in make_plan(WANTED, PRESENT).steps


def test_a_second_plan_equals_the_first() -> None:
    """The ledger's inverses give back the host from before, whatever the first `up` changed."""
    route = Route("0.0.0.0/0", "p0", gateway="198.51.100.1")
    before = replace(
        with_link(replace(LINKS["p0"], addresses=("198.51.100.2/24",), routes=(route,))),
        sysctls={"net.ipv4.conf.all.rp_filter": "1", "net.core.somaxconn": "128"},
    )
    wanted = replace(WANTED, management=("198.51.100.2/24",), sysctls_at_least={"net.core.somaxconn": 4096})
    after = replace(
        before,
        links={**LINKS, "p0": replace(LINKS["p0"], master="br0"), "br0": LinkFacts("br0"), "smtp0": LinkFacts("smtp0")},
        sysctls={**SYSCTLS, "net.ipv4.conf.all.rp_filter": "0", "net.core.somaxconn": "4096"},
    )
    inverses: list[Step] = [
        UnloadModule("br_netfilter"),
        SetSysctl("net.ipv4.conf.all.rp_filter", "1"),
        SetSysctl("net.core.somaxconn", "128"),
        SetSysctl("net.ipv6.conf.all.disable_ipv6", "0"),
        DeleteLink("br0"),
        AddRoute(route),
        AddAddress("p0", "198.51.100.2/24"),
        SetLink("p0", "master", ""),
        DeleteLink("smtp0"),
    ]
    first, second = (make_plan(wanted, present).steps for present in (before, original(after, inverses)))
    ipv6 = {step for step in second if "ipv6" in str(step) or "IPv6" in str(step) or "::" in str(step)}
    assert [key(s) for s in second if s not in ipv6 and not isinstance(s, AddQueueRule)] == [
        key(s) for s in first if not isinstance(s, AddQueueRule)
    ]


def test_no_two_steps_share_a_key_unless_they_agree() -> None:
    steps = make_plan(replace(WANTED, management=("198.51.100.2/24", "2001:db8::2/64")), PRESENT).steps
    wanted: dict[str, object] = {}
    for step in steps:
        assert wanted.setdefault(key(step), step) == step


@pytest.mark.parametrize(
    ("wanted", "is_wire"),
    [
        (WANTED, True),
        (TAGGED, True),
        (replace(WANTED, ports=("p0", "p1", "p2")), False),
        (replace(WANTED, stp=True), False),
        (replace(WANTED, adopt=True), False),
    ],
)
def test_two_ports_of_its_own_are_a_wire_and_learn_nothing(wanted: Wanted, is_wire: bool) -> None:
    links = {f"p{n}": LinkFacts(f"p{n}", mac=f"02:00:00:00:00:1{n}", master="br0" * wanted.adopt) for n in range(3)}
    links |= {"br0": LinkFacts("br0", kind="bridge")} if wanted.adopt else {}
    steps = make_plan(wanted, replace(PRESENT, links=links)).steps
    learning = [step for step in steps if isinstance(step, SetLink) and step.attribute == "port_learning"]
    lanes = [Lane(vlan) for vlan in (0, *wanted.vlans)]
    legs = [PortLegs(port, index, lane.vlan).lane for lane in lanes for index, port in enumerate(wanted.ports)]
    assert sorted(step.link for step in learning) == (sorted([*wanted.ports, *legs]) if is_wire else [])
    assert all(step.value == 0 for step in learning)
