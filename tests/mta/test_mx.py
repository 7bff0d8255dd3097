"""Mail hosts by the rules of RFC 5321 §5.1 and RFC 7505: MX records and addresses in, hosts in their order out."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.direction import Servers
from smtp_intercept.mta.envelope import State
from smtp_intercept.mta.failure import Failure
from smtp_intercept.mta.mx import Exchange, Host, Target, in_order, literal, spread, target, usable
from smtp_intercept.names import Outcome

OWN = Servers.of(["192.0.2.1", "2001:db8::1"])


def chance() -> float:
    return 0.5


def up(*addresses: str) -> Host:
    return Host(Outcome.ANSWERED, addresses)


ABSENT, EMPTY = Host(Outcome.ABSENT), Host(Outcome.EMPTY)
FAILED, PARTLY = Host(Outcome.FAILED, error="SERVFAIL"), Host(Outcome.INCOMPLETE, ("192.0.2.9",), error="time-out")
A, B, US = up("192.0.2.10"), up("192.0.2.20"), up("192.0.2.1")

TABLE: list[tuple[str, list[tuple[int, str]], Mapping[str, Host], list[str] | tuple[State, str]]] = [
    ("by preference", [(20, "b"), (10, "a")], {"a": A, "b": B}, ["a", "b"]),
    ("no record: the domain itself", [], {"d": A}, ["d"]),
    ("no record, no address", [], {"d": EMPTY}, (State.FAILED, "5.4.4")),
    ("no record, address not known", [], {"d": FAILED}, (State.QUEUED, "4.4.3")),
    ("null MX", [(0, "")], {}, (State.FAILED, "5.1.10")),
    ("a root among others", [(0, ""), (10, "a")], {"a": A}, ["a"]),
    ("a host that does not exist", [(10, "x"), (20, "b")], {"x": ABSENT, "b": B}, ["b"]),
    ("none exists", [(10, "x"), (20, "y")], {"x": ABSENT, "y": EMPTY}, (State.FAILED, "5.4.4")),
    ("none known now", [(10, "x"), (20, "y")], {"x": FAILED, "y": EMPTY}, (State.QUEUED, "4.4.3")),
    ("the best is not known now", [(10, "x"), (20, "b")], {"x": FAILED, "b": B}, ["b"]),
    ("known in part", [(10, "x")], {"x": PARTLY}, ["x"]),
    ("we are the worst", [(10, "a"), (20, "us")], {"a": A, "us": US}, ["a"]),
    ("we are in the middle", [(10, "a"), (20, "us"), (30, "b")], {"a": A, "us": US, "b": B}, ["a"]),
    ("one as good as we", [(10, "us"), (10, "a")], {"a": A, "us": US}, (State.FAILED, "5.4.6")),
    ("we are the best", [(10, "us"), (20, "a")], {"a": A, "us": US}, (State.FAILED, "5.4.6")),
    ("we twice", [(20, "us"), (10, "us"), (5, "a")], {"a": A, "us": US}, ["a"]),
    ("the better ones not known now", [(10, "x"), (20, "us")], {"x": FAILED, "us": US}, (State.QUEUED, "4.4.3")),
    ("our other family", [(10, "us")], {"us": up("2001:db8::1")}, (State.FAILED, "5.4.6")),
    ("we as a mapped address", [(10, "us")], {"us": up("::ffff:192.0.2.1")}, (State.FAILED, "5.4.6")),
    ("the unspecified address is us", [(10, "us")], {"us": up("0.0.0.0")}, (State.FAILED, "5.4.6")),
    ("the unspecified address, IPv6", [(10, "us")], {"us": up("::")}, (State.FAILED, "5.4.6")),
    ("multicast", [(10, "x")], {"x": up("224.0.0.1", "ff02::1")}, (State.FAILED, "5.4.4")),
    ("IPv6 only", [(10, "a")], {"a": up("2001:db8::2")}, ["a"]),
    ("a host twice", [(10, "a"), (20, "a")], {"a": A}, ["a"]),
]


@pytest.mark.parametrize(("records", "hosts", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(
    records: list[tuple[int, str]], hosts: Mapping[str, Host], expected: list[str] | tuple[State, str]
) -> None:
    ordered = in_order("d", [Exchange(*record) for record in records], chance)
    found = ordered if isinstance(ordered, Failure) else usable("d", ordered, hosts, OWN, chance)
    if isinstance(found, Failure):
        assert (found.state, found.status) == expected
    else:
        assert [each.host for each in found] == expected


@pytest.mark.parametrize(("host", "status"), [(ABSENT, "5.1.2"), (EMPTY, "5.4.4"), (FAILED, "4.4.3")])
def test_one_host_without_an_address(host: Host, status: str) -> None:
    found = target("x", host, chance)
    assert isinstance(found, Failure)
    assert found.status == status


def test_equal_preferences_take_turns_and_others_never() -> None:
    records, draws = [Exchange(10, "a"), Exchange(10, "b"), Exchange(20, "c")], random.Random(4711).random
    firsts = []
    for _ in range(200):
        ordered = in_order("d", records, draws)
        assert not isinstance(ordered, Failure)
        assert ordered[2].host == "c"
        firsts.append(ordered[0].host)
    assert 60 < firsts.count("a") < 140


@given(st.sets(st.ip_addresses(v=4), max_size=5), st.sets(st.ip_addresses(v=6), max_size=5), st.randoms())
def test_both_families_in_turn_whatever_there_is(four: set[object], six: set[object], draws: random.Random) -> None:
    found = target("x", up(*map(str, four | six)), draws.random)
    addresses = found.addresses if isinstance(found, Target) else ()
    families = [":" in address for address in addresses]
    turns = 2 * min(families.count(True), families.count(False))
    assert all(one != next_one for one, next_one in pairwise(families[:turns]))
    assert len(set(addresses)) == len(addresses) <= len(four | six)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:db8::1]", "2001:db8::1"),
        ("[ipv6:2001:DB8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[::ffff:192.0.2.1]", "192.0.2.1"),
        ("example.org", None),
        ("[example.org]", None),
        ("192.0.2", None),
    ],
)
def test_literal(text: str, address: str | None) -> None:
    assert literal(text) == address


RANKS = st.lists(st.integers(0, 12), max_size=40).map(sorted)


@given(ranks=RANKS, most=st.integers(1, 40))
def test_every_preference_has_a_try_before_any_has_two(ranks: list[int], most: int) -> None:
    ordered = [Exchange(rank, f"h{place}") for place, rank in enumerate(ranks)]
    kept = spread(ordered, most)
    assert [each for each in ordered if each in kept] == kept, "in their order"
    assert len(kept) == min(most, len(ordered))
    seen = {each.preference for each in kept}
    assert len(seen) == min(len(set(ranks)), most)
    assert seen == set(sorted(set(ranks))[: len(seen)]), "the best ones"


def test_what_fits_is_not_changed() -> None:
    ordered = [Exchange(10, "a"), Exchange(10, "b"), Exchange(20, "c")]
    assert spread(ordered, 3) == ordered
    assert [each.host for each in spread(ordered, 2)] == ["a", "c"]
