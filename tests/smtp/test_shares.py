"""Who is a client to every limit, and how much of what is everybody's each may have."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.client import CLIENT_BITS, NETWORK_BITS, client_of, mask
from smtp_intercept.headcount import Alone
from smtp_intercept.shares import ANY_NUMBER, LEAST_OF_CLIENT, Shares

PLACES = 2_000
USUAL = Shares(client_percent=50, network_percent=100, per_client=5_000)


@pytest.mark.parametrize(
    ("address", "client", "network"),
    [
        ("192.0.2.10", "192.0.2.10", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
    ],
)
def test_a_client_and_its_network(address: str, client: str, network: str) -> None:
    assert client_of(address) == (client, network)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(0, 127))
def test_two_addresses_are_one_client_if_the_kernel_says_so(one: IPv4Address | IPv6Address, bit: int) -> None:
    """By the masks that the rules have, whichever bit tells them apart."""
    bit %= one.max_prefixlen
    other = type(one)(int(one) ^ 1 << (one.max_prefixlen - 1 - bit))
    for bits, names in ((CLIENT_BITS, 0), (NETWORK_BITS, 1)):
        kept = int(ip_address(mask(bits[one.version], one.version)))
        same = int(one) & kept == int(other) & kept
        assert (client_of(str(one))[names] == client_of(str(other))[names]) is same


def taken_by(addresses: list[str], shares: Shares = USUAL, places: int = PLACES) -> tuple[Alone, Counter[str]]:
    """Each asks again and again, in turns, until nobody is let in any more."""
    house, refused, waiting = Alone(), Counter[str](), list(addresses)
    while waiting:
        for address in tuple(waiting):
            house.enter(address)
            who = "everybody" if house.total > places else shares.holds_too_many(address, house, places)
            if who:
                house.leave(address)
                refused[who] += 1
                waiting.remove(address)
    return house, refused


def test_one_alone_has_a_third_and_one_network_half() -> None:
    house, refused = taken_by(["192.0.2.10"])
    assert (house.total, refused) == (PLACES // 3, {"client": 1})
    house, refused = taken_by([f"192.0.2.{n}" for n in range(1, 255)])
    assert (house.total, set(refused)) == (PLACES // 2, {"network"})
    house, refused = taken_by([f"2001:db8:1:2:{n:x}::1" for n in range(500)])
    assert (house.total, set(refused)) == (PLACES // 3, {"client"})


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12))
def test_however_many_take_all_they_can_a_newcomer_is_let_in(networks: int, each: int) -> None:
    crowd = [f"10.{n}.0.{host}" for n in range(networks) for host in range(each)]
    house, refused = taken_by(crowd)
    assert not refused["everybody"]
    assert house.total < PLACES
    assert max(house.of(f"10.{network}.0.0/24") for network in range(networks)) <= PLACES // 2
    newcomer = "203.0.113.5"
    house.enter(newcomer)
    assert not USUAL.holds_too_many(newcomer, house, PLACES)


def test_everybody_may_have_a_few() -> None:
    house = Alone()
    for n in range(PLACES - LEAST_OF_CLIENT):
        house.enter(f"10.{n >> 8}.{n & 255}.1")
    for _ in range(LEAST_OF_CLIENT):
        house.enter("192.0.2.10")
        assert not USUAL.holds_too_many("192.0.2.10", house, PLACES)
    house.enter("192.0.2.10")
    assert USUAL.holds_too_many("192.0.2.10", house, PLACES) == "client"


def test_without_shares_nobody_holds_too_many() -> None:
    house, refused = taken_by(["192.0.2.10"], ANY_NUMBER)
    assert (house.total, refused) == (PLACES, {"everybody": 1})
    house, _ = taken_by(["192.0.2.10"], Shares(per_client=7))
    assert house.total == 7
