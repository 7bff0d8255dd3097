"""Every sort of mail has its share, and a real mail server is met in every part that it can have."""

from __future__ import annotations

import pytest

from tests.soak.plan import FAULTS
from tests.soak.trips import ADDRESSES, CLIENT, EXIM, POSTFIX, SERVER, TRIPS, addresses, next_hops


def test_the_shares_are_all_of_it() -> None:
    assert sum(trip.share for trip in TRIPS.values()) == pytest.approx(1.0)
    by_proxy = [trip for trip in TRIPS.values() if trip.host == CLIENT and not trip.queued]
    real = sum(trip.share for trip in by_proxy if trip.real)
    assert real >= sum(trip.share for trip in by_proxy) / 4


def test_a_route_is_told_by_its_name() -> None:
    assert all(name.isalpha() and name.islower() for name in TRIPS)


@pytest.mark.parametrize("host", [CLIENT, SERVER])
@pytest.mark.parametrize("mta", [POSTFIX, EXIM])
def test_each_sends_and_is_sent_to(host: str, mta: str) -> None:
    assert any(trip.by == mta for trip in TRIPS.values() if trip.host == host)
    for address in addresses(host, mta):
        assert {trip.behind for trip in TRIPS.values() if trip.to == address} == {mta}


@pytest.mark.parametrize("host", [CLIENT, SERVER])
def test_mail_turns_nowhere(host: str) -> None:
    """What has arrived is not sent on through the box: no domain is both."""
    arriving = {trip.domain for trip in TRIPS.values() if trip.behind and trip.host != host}
    assert not arriving & next_hops(host).keys()
    assert {fault.ends for fault in FAULTS.values()} <= {"", CLIENT, SERVER}


def test_a_mail_server_sends_each_domain_to_one_place() -> None:
    for host in ADDRESSES:
        places = {(trip.domain, trip.to) for trip in TRIPS.values() if trip.by and trip.host == host}
        assert len(places) == len(next_hops(host))
