"""Mail by MX: a real name server, and mail hosts on the loopback.

mx.test   MX 10 dead   127.0.0.2, nobody there
          MX 20 busy   127.0.0.3, says 421
          MX 30 six    ::1 only
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator, Mapping

import pytest

from smtp_intercept.direction import Servers
from smtp_intercept.mta.courier import ADDRESSES_TRIED, Dial
from smtp_intercept.mta.envelope import Origin, State
from smtp_intercept.mta.nexthop import NextHop, Place, Security
from smtp_intercept.mta.resolver import Resolver
from tests.mta.couriers import TAKEN, courier, dial, parcel, run_on, states, to
from tests.mta.remote import Remote, serving
from tests.smtp.nsd import Nsd

ZONES: dict[str, str | None] = {
    "mx.test": "@ MX 10 dead\n@ MX 20 busy\n@ MX 30 six\ndead A 127.0.0.2\nbusy A 127.0.0.3\nsix AAAA ::1\n",
    "null.test": "@ MX 0 .\n",
    "loop.test": "@ MX 10 us\n@ MX 20 six.mx.test.\nus A 192.0.2.1\n",
    "last.test": "".join(f"@ MX 10 h{n}\nh{n} A 127.0.1.{n}\n" for n in range(1, ADDRESSES_TRIED + 3))
    + "@ MX 20 last\nlast A 127.0.0.1\n",
    "dead.test": "".join(f"@ MX 10 h{n}\nh{n} A 127.0.1.{n}\n" for n in range(1, ADDRESSES_TRIED + 3)),
    "broken.test": None,
}


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nsd]:
    server = Nsd(tmp_path_factory.mktemp("nsd"))
    server.start(ZONES)
    yield server
    server.stop()


def asking(nsd: Nsd) -> Resolver:
    stub = nsd.place
    own = Servers.of(["192.0.2.1"])
    return Resolver([stub], own=own, chance=random.Random(1).random)


def dialling(remotes: Mapping[str, Remote], dialled: list[Place]) -> Dial:
    """Port 25 of an address is the remote's there; nobody's if there is none."""

    async def dial_for(origin: Origin | None, place: Place) -> socket.socket:
        assert place.port == 25
        dialled.append(place)
        return await dial(origin, Place(place.host, remotes[place.host].port if place.host in remotes else 1))

    return dial_for


def mail_for(domain: str) -> NextHop:
    return NextHop("R8", domain=domain, security=Security.NONE)


def test_host_after_host_until_one_takes_it(nsd: Nsd) -> None:
    async def work() -> None:
        dialled: list[Place] = []
        async with serving({"BANNER": "421 busy"}, host="127.0.0.3") as busy, serving(host="::1") as six:
            carrier = courier(resolver=asking(nsd), dial=dialling({"127.0.0.3": busy, "::1": six}, dialled))
            (outcome,) = await carrier.carry(parcel(mail_for("mx.test")))
            assert (outcome.state, outcome.host) == (State.DELIVERED, "six.mx.test [::1]:25")
            assert [place.host for place in dialled] == ["127.0.0.2", "127.0.0.3", "::1"]
            (outcome,) = await carrier.carry(parcel(mail_for("six.mx.test")))
            assert outcome.state is State.DELIVERED
            assert carrier.counters.reused == 1, "another domain, the same host"

    run_on("uvloop", work())


@pytest.mark.parametrize(
    ("domain", "state", "status"),
    [
        ("null.test", State.FAILED, "5.1.10"),
        ("loop.test", State.FAILED, "5.4.6"),
        ("absent.mx.test", State.FAILED, "5.1.2"),
        ("broken.test", State.QUEUED, "4.4.3"),
    ],
)
def test_nobody_is_dialled(nsd: Nsd, domain: str, state: State, status: str) -> None:
    async def work() -> None:
        dialled: list[Place] = []
        carrier = courier(resolver=asking(nsd), dial=dialling({}, dialled))
        outcomes = await carrier.carry(parcel(mail_for(domain), recipients=2))
        assert states(outcomes) == [(state, status)] * 2
        assert not dialled

    run_on("asyncio", work())


def test_no_more_addresses_than_the_bound(nsd: Nsd) -> None:
    async def work() -> None:
        dialled: list[Place] = []
        carrier = courier(resolver=asking(nsd), dial=dialling({}, dialled))
        assert states(await carrier.carry(parcel(mail_for("dead.test")))) == [(State.QUEUED, "4.4.1")]
        assert len(dialled) == len(set(dialled)) == ADDRESSES_TRIED

    run_on("asyncio", work())


def test_a_last_resort_is_reached_behind_more_dead_ones_than_the_bound(nsd: Nsd) -> None:
    async def work() -> None:
        async with serving() as remote:
            dialled: list[Place] = []
            carrier = courier(resolver=asking(nsd), dial=dialling({"127.0.0.1": remote}, dialled))
            outcomes = await carrier.carry(parcel(mail_for("last.test")))
            assert states(outcomes) == TAKEN, (outcomes, dialled)
            assert len(dialled) == ADDRESSES_TRIED

    run_on("asyncio", work())


def test_servfail_then_recovery(nsd: Nsd) -> None:
    async def work() -> None:
        async with serving() as remote:
            carrier = courier(resolver=asking(nsd), dial=dialling({"127.0.0.1": remote}, []))
            assert states(await carrier.carry(parcel(mail_for("broken.test")))) == [(State.QUEUED, "4.4.3")]
            nsd.start({**ZONES, "broken.test": "@ MX 10 mail\nmail A 127.0.0.1\n"})
            assert states(await carrier.carry(parcel(mail_for("broken.test")))) == TAKEN

    try:
        run_on("asyncio", work())
    finally:
        nsd.start(ZONES)


def test_the_name_of_a_place_is_ours_to_mend(nsd: Nsd) -> None:
    """What would bounce mail for a domain makes it wait for a relay host."""

    async def work() -> None:
        carrier = courier(resolver=asking(nsd))
        absent, ours = Place("absent.mx.test"), Place("us.loop.test")
        assert states(await carrier.carry(parcel(to(absent)))) == [(State.QUEUED, "4.1.2")]
        assert states(await carrier.carry(parcel(to(ours)))) == [(State.QUEUED, "4.4.6")]
        async with serving(host="::1") as remote:
            six = Place("six.mx.test", remote.port)
            assert states(await carrier.carry(parcel(to(absent, six)))) == TAKEN

    run_on("asyncio", work())


def test_a_host_that_never_answers_costs_a_bounded_time() -> None:
    async def never(_: Origin | None, place: Place) -> socket.socket:
        await asyncio.sleep(60)
        raise AssertionError

    async def work() -> None:
        carrier = courier(dial=never, connect_s=0.2)
        (outcome,) = await carrier.carry(parcel(to(Place("192.0.2.7"))))
        assert (outcome.status, outcome.reply) == ("4.4.1", "cannot connect to 192.0.2.7:25: timed out")

    run_on("asyncio", work())
