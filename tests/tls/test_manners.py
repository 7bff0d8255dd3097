"""Who is asked, who is left alone, for how long; and that no client is passed for the asking."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.direction import Direction, Servers
from smtp_intercept.tls.left_alone import LEFT_ALONE_S, MAX_REMEMBERED, LeftAlone
from smtp_intercept.tls.manners import MINT, Asked, Failure, Identity, Means, Mint, Way, Ways, Why, decide, lesson
from smtp_intercept.tls.names import Constraints, matches

IN, OUT = Direction.INCOMING, Direction.OUTGOING


def packed(address: str) -> bytes:
    return ip_address(address).packed


OWN = Identity(0, Servers.of(["192.0.2.20"]), ("mx.example.com", "*.mail.example.com"))
OTHER = Identity(1, Servers.of(["192.0.2.20", "192.0.2.21"]), ("other.example.com",))
MEANS = Means((OWN, OTHER), Constraints())
ASKED = Asked(IN, packed("198.51.100.7"), "198.51.100.0/24", packed("192.0.2.20"), 25, "mx.example.com")


def decided(means: Means = MEANS, left: LeftAlone | None = None, now: float = 0.0, **what: Any) -> object:
    return decide(replace(ASKED, **what), means, left or LeftAlone(), now)


@pytest.mark.parametrize(
    ("server", "name", "expected"),
    [
        ("192.0.2.20", "mx.example.com", OWN),
        ("192.0.2.20", "a.mail.example.com", OWN),
        ("192.0.2.20", "other.example.com", OTHER),
        ("192.0.2.20", "strange.example", OWN),  # as a server answers a name that it does not know
        ("192.0.2.20", "", OWN),
        ("192.0.2.21", "mx.example.com", OTHER),
        ("192.0.2.22", "mx.example.com", Why.NO_IDENTITY),
    ],
)
def test_the_identity(server: str, name: str, expected: object) -> None:
    assert decided(server=packed(server), name=name) is expected


def test_one_for_all_protected_servers_is_for_incoming_only() -> None:
    means = Means((Identity(0, None, ()),), Constraints())
    assert decided(means, server=packed("203.0.113.9")) is means.identities[0]
    assert decided(means, server=packed("203.0.113.9"), direction=OUT) is MINT


@pytest.mark.parametrize(
    ("means", "what", "expected"),
    [
        (Means(), {}, Why.NO_AUTHORITY),
        (Means(constraints=Constraints()), {}, MINT),
        (Means(constraints=Constraints(("example.org",))), {}, Why.CONSTRAINED),
        (Means(constraints=Constraints(("example.org",))), {"name": "mx.example.org"}, MINT),
        (Means(constraints=Constraints(("example.org",))), {"name": ""}, MINT),
        (Means(constraints=Constraints((), ("example.com",))), {}, Why.CONSTRAINED),
        (Means(constraints=Constraints()), {"anchored": Why.TLSA}, Why.TLSA),
        (Means(constraints=Constraints()), {"anchored": Why.MTA_STS}, Why.MTA_STS),
        (Means((OWN,)), {"server": packed("192.0.2.20"), "anchored": Why.TLSA}, OWN),  # the same key is shown
        (Means(constraints=Constraints(), exempt_names=("mx.example.com",)), {}, Why.EXEMPT),
        (Means(constraints=Constraints(), exempt_names=(".example.com",)), {}, Why.EXEMPT),
        (Means(constraints=Constraints(), exempt_names=("example.com",)), {}, MINT),
        (Means(constraints=Constraints(), exempt_hosts=Servers.of(["198.51.100.0/24"])), {}, Why.EXEMPT),
        (Means(constraints=Constraints(), exempt_hosts=Servers.of(["203.0.113.9"])), {}, Why.EXEMPT),
        (Means(constraints=Constraints(), exempt_hosts=Servers.of(["203.0.113.8"])), {}, MINT),
    ],
)
def test_outgoing(means: Means, what: dict[str, Any], expected: object) -> None:
    assert decided(means, **{"direction": OUT, "server": packed("203.0.113.9"), **what}) == expected


@pytest.mark.parametrize(
    ("failure", "same", "others"),
    [
        (Failure.CERTIFICATE_ASKED, Why.CLIENT_CERTIFICATE, {"name": "x.example", "client_network": "203.0.113.0/24"}),
        (Failure.SERVER, Why.NO_HANDSHAKE, {"client_network": "203.0.113.0/24"}),
        (Failure.CLIENT, Why.REFUSED, {"name": "x.example"}),
    ],
)
def test_who_has_broken_off_is_left_alone_for_a_day(failure: Failure, same: Why, others: dict[str, Any]) -> None:
    left = LeftAlone()
    learned = lesson(failure, ASKED, own=False)
    assert learned is not None
    left.remember(*learned, 100.0)
    assert decided(left=left, now=100.0) is same
    assert decided(left=left, now=99.9 + LEFT_ALONE_S, **others) is same
    assert decided(left=left, now=100.0 + LEFT_ALONE_S) is OWN
    assert decided(left=left, now=100.0, port=465) is OWN
    assert decided(left=left, now=100.0, server=packed("192.0.2.21")) is OTHER


def test_nobody_is_passed_for_the_asking() -> None:
    """Neither for breaking off at the server's own certificate, nor by a name under which the server fails, nor for
    what a neighbour of another network has done."""
    assert lesson(Failure.CLIENT, ASKED, own=True) is None
    left = LeftAlone()
    for failure, asked in ((Failure.SERVER, replace(ASKED, name="bad.example")), (Failure.CLIENT, ASKED)):
        learned = lesson(failure, asked, own=False)
        assert learned is not None
        left.remember(*learned, now=0.0)
    assert decided(left=left, client_network="203.0.113.0/24") is OWN


@given(st.text(max_size=20), st.sampled_from(["192.0.2.20", "192.0.2.21"]))
def test_no_name_ends_inspection(name: str, server: str) -> None:
    assert isinstance(decided(name=name, server=packed(server)), Identity)
    assert isinstance(decided(Means(constraints=Constraints()), name=name, direction=OUT), Mint)


def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    left = LeftAlone()
    for number in range(MAX_REMEMBERED + 10):
        left.remember(number, Why.REFUSED, float(number))
    assert len(left) == MAX_REMEMBERED
    assert (left.why(9, 0.0), left.why(10, 0.0)) == ("", Why.REFUSED)
    left.remember("late", Why.REFUSED, LEFT_ALONE_S + MAX_REMEMBERED + 5)
    assert len(left) == 5  # the last four of those numbers, and this
    assert [who for who, _, _ in left.all(LEFT_ALONE_S + MAX_REMEMBERED + 6)] == [10_007, 10_008, 10_009, "late"]


def test_the_way() -> None:
    ways = Ways({IN: Way.TERMINATE, OUT: Way.PASS}, {"p1": Way.STRIP}, {"example.com": Way.PASS})
    assert ways.choose("p0", IN) is Way.TERMINATE
    assert ways.choose("p0", OUT) is Way.PASS
    assert ways.choose("p1", OUT) is Way.STRIP
    assert ways.choose("p1", IN, ("example.com",)) is Way.PASS
    assert ways.choose("p1", OUT, ("example.com",)) is Way.STRIP
    assert ways.all == {Way.PASS, Way.STRIP, Way.TERMINATE}


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("mx.example.com", "mx.example.com", True),
        ("*.example.com", "mx.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("*.com", ".com", False),
        ("", "", False),
        ("m*.example.com", "mx.example.com", False),
    ],
)
def test_wildcards(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@pytest.mark.parametrize(
    ("constraints", "name", "expected"),
    [
        (Constraints(), "anything.example", True),
        (Constraints(("example.com",)), "example.com", True),
        (Constraints(("example.com",)), "mx.example.com", True),
        (Constraints((".example.com",)), "mx.example.com", True),
        (Constraints(("example.com",)), "*.example.com", True),
        (Constraints(("example.com",)), "badexample.com", False),
        (Constraints(("example.com",), ("secret.example.com",)), "a.secret.example.com", False),
        (Constraints((), ("",)), "a.example", False),
    ],
)
def test_constraints(constraints: Constraints, name: str, expected: bool) -> None:
    assert constraints.allow(name) is expected
