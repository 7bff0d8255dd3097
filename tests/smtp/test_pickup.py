"""The pick-up table: which action a connection gets, and which key of the configuration gave it."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.flow import Action
from smtp_intercept.direction import Direction, Network, Servers
from smtp_intercept.pickup import PickUp, Policy, Rule, decide

INCOMING, OUTGOING, LOCAL = Direction.INCOMING, Direction.OUTGOING, Direction.LOCAL
INTERCEPT, PASS, DROP, REJECT = Action.INTERCEPT, Action.PASS, Action.DROP, Action.REJECT

OUTSIDE, INSIDE = "enp1s0", "enp2s0"
BOX, RELAY, MAILBOXES, STRANGER = "198.51.100.2", "192.0.2.20", "192.0.2.30", "203.0.113.9"
RELAY6, STRANGER6 = "2001:db8::20", "2001:db8:ffff::9"

DEFAULT = PickUp()
FIGURE_1 = Policy(
    own=frozenset({ip_address(BOX).packed}),
    servers=Servers.of([RELAY, "2001:db8::/64"]),
    default=DEFAULT,
    by_port={INSIDE: DEFAULT.overridden({OUTGOING: INTERCEPT})},
)


def seen(policy: Policy, client: str, server: str, port: str) -> tuple[Direction, Action, str]:
    decision = decide(policy, ip_address(client).packed, ip_address(server).packed, port)
    return decision.direction, decision.action, decision.decided_by


def rule(
    action: Action,
    client: str | None = None,
    server: str | None = None,
    port: str | None = None,
    direction: Direction | None = None,
    name: str = "pickup.rule[0]",
) -> Rule:
    clients, servers = (None if item is None else Network.of(item) for item in (client, server))
    return Rule(name, clients, servers, port, direction, action)


@pytest.mark.parametrize(
    ("client", "server", "port", "answer"),
    [
        (STRANGER, RELAY, OUTSIDE, (INCOMING, INTERCEPT, "pickup.incoming")),
        (MAILBOXES, RELAY, INSIDE, (INCOMING, INTERCEPT, "pickup.incoming")),
        (STRANGER6, RELAY6, OUTSIDE, (INCOMING, INTERCEPT, "pickup.incoming")),
        (RELAY, STRANGER, OUTSIDE, (OUTGOING, PASS, "pickup.outgoing")),
        (RELAY, STRANGER, INSIDE, (OUTGOING, INTERCEPT, "pickup.port.enp2s0.outgoing")),
        (RELAY6, STRANGER6, INSIDE, (OUTGOING, INTERCEPT, "pickup.port.enp2s0.outgoing")),
        (RELAY, MAILBOXES, INSIDE, (OUTGOING, INTERCEPT, "pickup.port.enp2s0.outgoing")),
        (STRANGER, MAILBOXES, OUTSIDE, (OUTGOING, PASS, "pickup.outgoing")),
        (STRANGER, BOX, OUTSIDE, (LOCAL, PASS, "pickup.local")),
        (STRANGER, BOX, INSIDE, (LOCAL, PASS, "pickup.local")),
        (RELAY, STRANGER, "a port nobody named", (OUTGOING, PASS, "pickup.outgoing")),
    ],
)
def test_figure_1(client: str, server: str, port: str, answer: tuple[Direction, Action, str]) -> None:
    assert seen(FIGURE_1, client, server, port) == answer


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize(("server", "direction"), [(RELAY, INCOMING), (STRANGER, OUTGOING), (BOX, LOCAL)])
def test_a_ports_own_table_overrides_one_class_and_leaves_the_others(
    server: str, direction: Direction, action: Action
) -> None:
    policy = replace(FIGURE_1, by_port={OUTSIDE: DEFAULT.overridden({direction: action})})
    assert seen(policy, STRANGER, server, OUTSIDE) == (direction, action, f"pickup.port.{OUTSIDE}.{direction.value}")
    for other in {RELAY, STRANGER, BOX} - {server}:
        assert seen(policy, STRANGER, other, OUTSIDE) == seen(policy, STRANGER, other, INSIDE)


def test_a_port_that_repeats_the_default_is_still_what_decided() -> None:
    policy = replace(FIGURE_1, by_port={OUTSIDE: DEFAULT.overridden({INCOMING: INTERCEPT})})
    assert seen(policy, STRANGER, RELAY, OUTSIDE)[2] == "pickup.port.enp1s0.incoming"


class TestRules:
    @pytest.mark.parametrize(
        ("given_rule", "matches"),
        [
            (rule(DROP), True),
            (rule(DROP, client="203.0.113.0/24"), True),
            (rule(DROP, client="203.0.114.0/24"), False),
            (rule(DROP, client="::/0"), False),
            (rule(DROP, server=RELAY), True),
            (rule(DROP, server=MAILBOXES), False),
            (rule(DROP, port=OUTSIDE), True),
            (rule(DROP, port=INSIDE), False),
            (rule(DROP, direction=INCOMING), True),
            (rule(DROP, direction=OUTGOING), False),
            (rule(DROP, "203.0.113.0/24", RELAY, OUTSIDE, INCOMING), True),
            (rule(DROP, "203.0.113.0/24", RELAY, INSIDE, INCOMING), False),
        ],
    )
    def test_every_criterion_that_is_given_must_say_yes(self, given_rule: Rule, matches: bool) -> None:
        answer = seen(replace(FIGURE_1, rules=(given_rule,)), STRANGER, RELAY, OUTSIDE)
        assert answer == ((INCOMING, DROP, "pickup.rule[0]") if matches else (INCOMING, INTERCEPT, "pickup.incoming"))

    def test_the_first_match_wins_and_the_table_comes_last(self) -> None:
        policy = replace(
            FIGURE_1,
            rules=(
                rule(PASS, client="10.0.0.0/8", name="pickup.rule[0]"),
                rule(REJECT, client="203.0.113.0/24", name="pickup.rule[1]"),
                rule(DROP, server=RELAY, name="pickup.rule[2]"),
            ),
        )
        assert seen(policy, "10.1.2.3", RELAY, OUTSIDE) == (INCOMING, PASS, "pickup.rule[0]")
        assert seen(policy, STRANGER, RELAY, OUTSIDE) == (INCOMING, REJECT, "pickup.rule[1]")
        assert seen(policy, MAILBOXES, RELAY, INSIDE) == (INCOMING, DROP, "pickup.rule[2]")
        assert seen(policy, MAILBOXES, STRANGER, INSIDE) == (OUTGOING, INTERCEPT, "pickup.port.enp2s0.outgoing")

    def test_mail_to_the_box_is_meant_only_by_a_rule_that_names_it(self) -> None:
        for_all = replace(FIGURE_1, rules=(rule(DROP),))
        assert seen(for_all, STRANGER, BOX, OUTSIDE) == (LOCAL, PASS, "pickup.local")
        for_local = replace(FIGURE_1, rules=(rule(DROP, direction=LOCAL),))
        assert seen(for_local, STRANGER, BOX, OUTSIDE) == (LOCAL, DROP, "pickup.rule[0]")
        assert seen(for_local, STRANGER, RELAY, OUTSIDE)[1] is INTERCEPT


@pytest.mark.parametrize(
    ("of_rule", "vlan", "matches"),
    [(None, 0, True), (None, 10, True), (10, 10, True), (10, 20, False), (10, 0, False), (0, 0, True), (0, 10, False)],
)
def test_a_rule_of_one_vlan_speaks_of_no_other(of_rule: int | None, vlan: int, matches: bool) -> None:
    policy = replace(FIGURE_1, rules=(replace(rule(Action.DROP), vlan=of_rule),))
    decision = decide(policy, ip_address(STRANGER).packed, ip_address(RELAY).packed, OUTSIDE, vlan)
    assert decision.decided_by == ("pickup.rule[0]" if matches else "pickup.incoming")


def test_a_new_table_of_servers_changes_the_decision() -> None:
    moved = replace(FIGURE_1, servers=Servers.of([MAILBOXES]))
    assert seen(moved, STRANGER, RELAY, OUTSIDE) == (OUTGOING, PASS, "pickup.outgoing")
    assert seen(moved, STRANGER, MAILBOXES, OUTSIDE) == (INCOMING, INTERCEPT, "pickup.incoming")


@given(
    clients=st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    server=st.sampled_from([BOX, RELAY, MAILBOXES, STRANGER]),
    port=st.sampled_from([OUTSIDE, INSIDE]),
)
def test_without_rules_the_origin_never_matters(clients: tuple[object, object], server: str, port: str) -> None:
    one, other = (seen(FIGURE_1, str(client), server, port) for client in clients)
    assert one == other


def test_200_000_decisions_a_second() -> None:
    """The floor on the hot path; five attempts, because a busy machine is not a slow function."""
    client, server = ip_address(STRANGER).packed, ip_address(STRANGER6).packed
    count, took_s = 20_000, []
    for _ in range(5):
        start = time.thread_time()
        for _ in range(count):
            decide(FIGURE_1, client, server, INSIDE)
        took_s.append(time.thread_time() - start)
    assert count / min(took_s) >= 200_000
