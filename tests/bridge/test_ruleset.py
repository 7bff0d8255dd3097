"""The ruleset as text: what each wish changes in it. That the kernel takes it and does it, the kernel tests show."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import flow
from bridge import lane as at
from bridge.lane import Limits, PortLegs
from bridge.ruleset import COUNTERS, NOT_INSPECTED, Rules, digest, render, unload
from bridge.tunnels import INSIDE

RULES = Rules("br0", "02:00:00:00:00:10", (PortLegs("p0", 0), PortLegs("p1", 1)), (25,), Limits())

TAGGED = replace(RULES, vlans=(10, 20))


def chain(text: str, name: str) -> str:
    return text.split(f"chain {name} {{\n", 1)[1].split("\n\t}\n", 1)[0]


def test_only_own_tables_are_touched() -> None:
    words = [line.split()[:4] for line in render(RULES).splitlines() if line and not line.startswith(("\t", "}"))]
    assert {tuple(w[-2:]) for w in words if w[0] in ("add", "delete")} == {
        ("netdev", "tollbridge"), ("inet", "tollbridge"), ("bridge", "tollbridge"),
    }  # fmt: skip
    assert all("tollbridge" in w for w in words)


def test_every_counter_that_status_names_is_declared() -> None:
    declared = {
        line.split()[1] for line in render(RULES).splitlines() if line.strip().startswith("counter ") and "{ }" in line
    }
    assert set(COUNTERS) == declared


def test_no_name_is_a_word_of_a_newer_nft() -> None:
    """What it reads inside of, from 1.0.7 on: a counter called gre is a syntax error on Debian 13 alone."""
    declared = re.findall(r"^\s*(?:counter|set|map|chain) (\w+) \{", render(TAGGED), re.MULTILINE)
    assert len(declared) > len(COUNTERS)
    assert not {*declared} & {"gre", "gretap", "vxlan", "geneve", "vlan", "last", "xt", "reset", "inner", "tunnel"}


BEFORE_THE_LANE = {"rate", "tagged", "not_forwarding", "no_station", "past", "elsewhere", *INSIDE}


@pytest.mark.parametrize("reason", sorted(set(NOT_INSPECTED) - BEFORE_THE_LANE))
def test_what_is_not_inspected_is_bridged_or_dropped_as_asked(reason: str) -> None:
    for block, fate in ((False, "return"), (True, "drop")):
        assert f"counter name {reason} {fate}" in chain(render(replace(RULES, block=block)), "syn")


def test_a_rate_limited_syn_is_neither_learned_nor_queued_and_counted_once() -> None:
    teach = chain(render(RULES), "teach")
    assert "limit name pace counter name rate meta mark set meta mark | 0x4000 return" in teach
    assert "limit pace { rate over 10000/second burst 10000 packets; }" in render(RULES)
    assert teach.index("counter name rate ") < teach.index("add @pair_src {") < teach.index("add @client_src {")
    for block, fate in ((False, "return"), (True, "drop")):
        syn = chain(render(replace(RULES, block=block)), "syn")
        canary, again, limited, *_ = syn.strip().splitlines()
        assert canary.endswith("goto canary_asks")
        assert again.strip() == "meta mark & 0x80 == 0x80 return"
        assert limited.strip() == f"meta mark & 0x4000 == 0x4000 meta mark set 0 {fate}"
        assert "meta mark & 0x4 == 0 counter name not_learned" in syn


def test_tagged_mail_stays_on_the_plain_bridge_or_is_dropped() -> None:
    for rules in (RULES, replace(RULES, vlans=(10,))):
        for tag in ("8021q", "8021ad"):
            assert f"ether type {tag} goto port0_tagged\n" in chain(render(rules), "port0_mail")
        assert "counter name tagged accept" in chain(render(rules), "port0_tagged")
        assert "counter name tagged drop" in chain(render(replace(rules, block=True)), "port0_tagged")


def test_a_listed_vlan_goes_to_its_lane_and_no_other() -> None:
    text = render(replace(RULES, vlans=(10, 20)))
    ways = "ether type 8021q vlan id vmap { 10 : goto port0_tagged_v10, 20 : goto port0_tagged_v20 }"
    assert chain(text, "port0_tagged").strip().startswith(ways)
    for vlan in (10, 20):
        assert 'fwd to "smtp0tw0"' in chain(text, f"port0_tagged_v{vlan}")
        assert f'device "smtp0l0.{vlan}"' in chain(text, f"arrive0_v{vlan}")
        assert f'device "smtp0.{vlan}"' in chain(text, f"disguise_v{vlan}")
    assert 'fwd to "p0"' in chain(text, "leg0_tagged")


HASHED, LANES = ("opening", "from_client", "from_server", "to_server", "to_client"), ("", "_v10", "_v20")


def test_what_a_lane_knows_is_its_own() -> None:
    """Each map that holds addresses or MACs is one lane's; what the lanes share is keyed by hashes that differ."""
    text = render(replace(RULES, vlans=(10, 20)))
    for lane, other in (("_v10", "_v20"), ("_v20", "_v10")):
        own = [chain(text, f"{name}{lane}") for name in (*HASHED, "arrive0", "teach", "seen0")]
        assert not [rules for rules in own if other in rules]
        assert not [rules for rules in own if "@rate4 " in rules or "@behind0 " in rules]
    seeds = {lane: {chain(text, f"{name}{lane}").split("seed ")[1].split()[0] for name in HASHED} for lane in LANES}
    assert [len(seeds[lane]) for lane in LANES] == [1, 1, 1]
    assert len(set.union(*seeds.values())) == 3
    assert "typeof meta iif . ip saddr" in text


def test_untagged_mail_pays_nothing_for_vlans() -> None:
    """On its way: from the port to the leg, in at the lane, out by it."""
    plain, both = render(replace(RULES, block=True)), render(replace(RULES, block=True, vlans=(10, 20)))
    for name in ("port0", "port0_tcp", "port0_mail", "arrive0", "leg0", *HASHED, "heard_client", "heard_server"):
        assert len(chain(plain, name).splitlines()) == len(chain(both, name).splitlines())


@pytest.mark.parametrize(("change", "looks"), [({}, False), ({"vlans": (10,)}, True), ({"block": True}, True)])
def test_frames_with_two_tags_are_looked_into_where_somebody_wants_to_know(change: dict[str, Any], looks: bool) -> None:
    text = render(replace(RULES, **change))
    assert ("goto port0_stacked" in chain(text, "port0")) is looks


def test_the_queue_rule_is_nfts_where_nft_can() -> None:
    assert "queue num" not in render(RULES)
    assert "queue num 25 bypass" in chain(render(replace(RULES, nft_queue=True)), "ask")
    assert "bypass" not in chain(render(replace(RULES, nft_queue=True, block=True)), "ask")


@pytest.mark.parametrize("rules", [RULES, replace(RULES, nft_queue=True, block=True), replace(RULES, stp=True), TAGGED])
def test_nft_can_read_it(rules: Rules) -> None:
    """A word of nft's is no name for a chain. What this kernel can do is not asked: it need not have nft's queue."""
    words = ["nft", "--check", "--file", "-"]
    said = subprocess.run(words, input=render(rules), capture_output=True, text=True, timeout=30)
    assert "syntax error" not in said.stderr


def test_each_queue_has_its_own_mark_beat_and_rule() -> None:
    """A pair of hosts always meets the same diverter; whether that one lives is asked before its queue is."""
    text = render(replace(RULES, nft_queue=True, queues=3, seed=7))
    syn, marks = chain(text, "syn"), ["0x7b250002", "0x7b250102", "0x7b250202"]
    by_hash = ", ".join(f"{number} : {mark}" for number, mark in enumerate(marks))
    for ip in ("ip", "ip6"):
        assert f"jhash {ip} saddr . {ip} daddr mod 3 seed 0x7 map {{ {by_hash} }}" in syn
    assert syn.index("jhash") < syn.index("tcp dport . meta mark != @live") < syn.index("socket transparent 1")
    assert [line.split()[2:] for line in chain(text, "ask").splitlines()[1:]] == [
        [mark, "queue", "num", str(number), "bypass"] for number, mark in enumerate(marks, 25)
    ]
    assert "meta mark & 0xffff8002 == 0x7b250002 meta l4proto udp update @live { udp dport . meta mark" in chain(
        text, "beat"
    )
    assert "jhash ip saddr . ip daddr mod 1" not in render(RULES)


@pytest.mark.parametrize("queue", [0, 1, 63])
def test_a_syn_that_only_waits_for_its_diverter_is_not_turned_inwards(queue: int) -> None:
    """With bypass it goes on without a verdict."""
    mark = flow.queue_mark(queue)
    assert not mark & flow.DIVERT
    assert mark & flow.MAGIC_MASK == flow.MAGIC
    assert (mark & 0xFFFF) >> flow.PORT_SHIFT == queue


def test_mail_to_the_box_is_dropped_on_closed_ports_only() -> None:
    text = render(replace(RULES, closed=frozenset({"p1"})))
    assert "counter name local_dropped drop" not in chain(text, "port0_mail")
    assert "counter name local_dropped drop" in chain(text, "port1_mail")


def test_with_stp_only_forwarding_ports_carry_mail() -> None:
    text = render(replace(RULES, stp=True))
    assert "iifname != @forwarding accept" in chain(text, "port0_mail")
    assert 'iifname @forwarding fwd to "p1"' in chain(text, "leg1")
    assert "@forwarding" not in render(RULES)


def test_with_stp_mail_of_a_port_not_known_to_forward_is_the_plain_bridges_or_is_dropped() -> None:
    syn = "tcp dport { 25 } tcp flags & (fin | syn | rst | ack) == syn counter name not_forwarding"
    assert f"iifname != @forwarding {syn}\n" in chain(render(replace(RULES, stp=True)), "port0_mail")
    assert f"iifname != @forwarding {syn} drop\n" in chain(render(replace(RULES, stp=True, block=True)), "port0_mail")


def test_frames_to_the_box_stay_on_the_bridge_before_anything_is_moved() -> None:
    port = chain(render(RULES), "port0_mail")
    assert port.index("ether daddr 02:00:00:00:00:10 accept") < port.index("fwd to")


def test_the_digest_names_the_text() -> None:
    one, other = render(RULES), render(replace(RULES, mail_ports=(25, 587)))
    assert digest(one) == digest(render(RULES)) != digest(other)
    assert one.startswith(unload())


@pytest.mark.parametrize("limits", [Limits(), Limits(500, 100, 20), Limits(500, 100, 20, next_hops=64)])
def test_a_table_holds_what_its_rate_brings_in_its_lifetime(limits: Limits) -> None:
    """Connections a second × seconds, the second until it is collected among them; and never more than is allowed."""
    text, rate = render(replace(RULES, limits=limits)), limits.new_connections_per_s
    most = limits.next_hops or 1 << 32
    kept = rate * (at.REST_S + 1) + limits.sessions * 9  # of each session that ends unheard of, for two hours
    sizes = {"client": kept + rate * (at.LEARNED_S + 1), "server": kept, "pair": rate * (at.LEARNED_S + 1)}
    declared = dict(re.findall(r"(?:map|set) (\w+) \{ .*?size (\d+);", text))
    for name, size in sizes.items():
        for end in ("src", "dst"):
            assert int(declared[f"{name}_{end}"]) == min(size, most)
    for name in ("kept", "ended", "fresh_client", "fresh_server"):
        assert int(declared[name]) == min(kept, most)
    for v in (4, 6):
        assert int(declared[f"admitted{v}"]) == rate * (at.ADMITTED_S + 1)
        assert int(declared[f"rate{v}"]) == int(declared[f"own_rate{v}"]) == at.NETWORKS


def test_every_table_has_a_size_and_a_lifetime() -> None:
    """But for the ports that forward, which the daemon writes."""
    for text in (render(RULES), render(TAGGED), render(replace(RULES, stp=True))):
        tables = re.findall(r"^\t(?:map|set) (\w+) (\{.*\})$", text, re.MULTILINE)
        assert len(tables) > 20
        for name, body in tables:
            assert name == "forwarding" or ("size " in body and "timeout " in body), name


def test_what_a_syn_alone_has_taught_is_never_kept() -> None:
    """Long-lived is what our own stack sends in a connection, and it answers a SYN alone with SYN or RST only."""
    text, lasting = render(RULES), f"timeout {at.NEXT_HOP_S}s"
    for name in ("teach", "opening", "from_client", "from_server", "end_client", "end_server"):
        assert lasting not in chain(text, name)
    for rule in chain(text, "to_client").splitlines() + chain(text, "lost_server").splitlines():
        assert "keep_server" not in rule or "tcp flags & (syn | rst | psh) == psh" in rule


@pytest.mark.parametrize("inside", INSIDE)
def test_mail_inside_of_something_is_counted_and_crosses_or_is_dropped_as_asked(inside: str) -> None:
    for block, fate in ((False, "accept"), (True, "drop")):
        text = render(replace(RULES, block=block))
        rules = chain(text, f"port0_{inside}").splitlines()
        assert len(rules) >= 2
        assert all(rule.endswith(f"& 0x17 == 0x02 counter name {inside} {fate}") for rule in rules)
        assert f"goto port0_{inside}" in chain(text, "port0")


def test_a_wire_copies_nothing_to_learn_from_and_learns_nothing() -> None:
    wire, switch = render(replace(RULES, is_wire=True)), render(RULES)
    assert "dup to" not in wire
    assert 'dup to "smtp0w0"' in chain(switch, "port0_where")


def test_who_seems_to_live_behind_two_ports_is_no_neighbour() -> None:
    legs = (*RULES.legs, PortLegs("p2", 2))
    rule = "ether daddr @behind0 ether daddr != @behind1 ether daddr != @behind2 counter name neighbours drop"
    assert rule in chain(render(replace(RULES, legs=legs)), "opened0")
    assert "delete @behind" not in render(RULES)


def test_an_adopted_bridge_keeps_what_is_for_ports_that_are_not_listed() -> None:
    """And where all that it forwards from one listed port to another is to be inspected, it forwards none of it."""
    for block, fate in ((False, "accept"), (True, "drop")):
        text = render(replace(RULES, adopted=True, block=block))
        for name in ("opened0", "port0_mail"):
            assert chain(text, name).endswith('ether daddr @behind1 fwd to "smtp0w0"\n\t\taccept')
        between = 'iifname { "p0", "p1" } oifname { "p0", "p1" } counter name past ' + fate
        assert between in chain(text, "past").splitlines()[1]
    assert "chain past" not in render(RULES)


def test_every_table_is_in_the_page_that_says_its_rate_and_lifetime() -> None:
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    rules = replace(TAGGED, stp=True)
    tables = re.findall(r"^\t(?:map|set) (\w+) ", render(rules), re.MULTILINE)
    names = {re.sub(r"_v\d+$", "", name) for name in tables}
    told = {"behind1": "behind0", **{name: "canary_*" for name in names if name.startswith("canary_")}}
    assert {name for name in names if f"`{told.get(name, name)}`" not in page} == set()
