"""Servers that their clients trust by the DNS are left alone: what is asked, what an answer is worth, who waits."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.direction import Direction
from smtp_intercept.tls.anchor_lookup import FAILED_TTL_S, AnchorLookup, domains
from smtp_intercept.tls.anchors import KNOWN_MAX_S, KNOWN_MIN_S, MAX_KNOWN, WAIT_S, Anchors
from smtp_intercept.tls.manners import Asked, Why
from tests.smtp.box import LOCAL, Run
from tests.smtp.nsd import Nsd
from tests.tls.peers import both, encrypted
from tests.tls.pki import der
from tests.tls.rig import (
    MINE,
    NAME,
    ORGANISATION,
    WORLD,
    client_context,
    gate,
    mail_server,
    part,
    posted,
    server_context,
)

SERVER = ip_address("192.0.2.9").packed
ASKED = Asked(Direction.OUTGOING, b"", "", SERVER, 25, NAME)
TLSA = f"TLSA 3 1 1 {'ab' * 32}\n"
POLICY = '_mta-sts TXT "v=STSv1; id=1"\n'
OUT = Direction.OUTGOING


class World:
    """A clock, and what is asked and found."""

    def __init__(self) -> None:
        self.now, self.asked, self.found = 1_000.0, list[tuple[str, int]](), list[Why | None]()
        self.anchors = Anchors(lambda name, port: self.asked.append((name, port)), lambda: self.now)

    def find(self, asked: Asked = ASKED) -> None:
        self.anchors.find(asked, self.found.append)


def told(why: str = "tlsa", addresses: tuple[str, ...] = ("192.0.2.9",), ttl_s: float = 60) -> list[Any]:
    return [NAME, 25, why, list(addresses), ttl_s]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (told(), Why.TLSA),
        (told("mta_sts"), Why.MTA_STS),
        (told(""), None),
        (told("exempt"), None),  # the DNS has no say in that
        (told(addresses=("192.0.2.10", "no address")), None),  # a name that is chosen: of another server
        (told(addresses=()), None),
    ],
)
def test_who_asks_waits_for_the_answer_and_the_next_one_does_not(answer: list[Any], found: Why | None) -> None:
    world = World()
    world.find()
    world.find()
    assert (world.found, world.asked) == ([], [(NAME, 25)])
    world.anchors.learn(answer)
    assert world.found == [found, found]
    world.find()
    assert (world.found, world.asked) == ([found] * 3, [(NAME, 25)])


@pytest.mark.parametrize(("ttl_s", "holds_s"), [(0, KNOWN_MIN_S), (60, 60), (10**9, KNOWN_MAX_S)])
def test_an_answer_holds_for_its_time(ttl_s: float, holds_s: float) -> None:
    world = World()
    world.find()
    world.anchors.learn(told(ttl_s=ttl_s))
    world.now += holds_s - 1
    world.find()
    assert len(world.asked) == 1
    world.now += 1
    world.find()
    assert len(world.asked) == 2


def test_nobody_waits_for_ever_and_a_dead_resolver_delays_one_in_a_while() -> None:
    world = World()
    world.find()
    world.now += WAIT_S - 0.1
    world.anchors.expire()
    assert world.found == []
    world.now += 0.1
    world.anchors.expire()
    assert world.found == [None]
    world.find()
    assert (world.found, len(world.asked)) == ([None, None], 1)
    world.now += KNOWN_MIN_S
    world.find()
    assert len(world.asked) == 2


@pytest.mark.parametrize(
    "answer", [None, [], "tlsa", [NAME, 25], ["strange.example", 25, "tlsa", [], 1], [NAME, "25", "tlsa", [], 1]]
)
def test_what_is_no_answer_is_none(answer: object) -> None:
    world = World()
    world.find()
    world.anchors.learn(answer)
    assert world.found == []


def test_what_is_known_is_bounded() -> None:
    world = World()
    for number in range(MAX_KNOWN + 1):
        world.find(Asked(OUT, b"", "", SERVER, 25, f"mx{number}.example"))
        world.anchors.learn([f"mx{number}.example", 25, "", [], 60])
    assert len(world.anchors._known) == MAX_KNOWN


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nsd]:
    server = Nsd(Path(tmp_path_factory.mktemp("nsd")))
    zones = {
        "dane.test": f'mx A {LOCAL}\nmx AAAA 2001:db8::1\n_25._tcp.mx {TLSA}_mta-sts TXT "v=STSv1; id=1"\n',
        "sts.test": f"mx A {LOCAL}\n{POLICY}",
        "own.sts.test": f"@ A {LOCAL}\n{POLICY}",
        "plain.test": f'mx A {LOCAL}\n_mta-sts TXT "v=spf1 -all"\n_26._tcp.mx {TLSA}',
        "broken.test": None,
    }
    server.start(zones, ttl_s=77)
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("name", "why", "addresses"),
    [
        ("mx.dane.test", "tlsa", [LOCAL, "2001:db8::1"]),
        ("mx.sts.test", "mta_sts", [LOCAL]),
        ("a.b.own.sts.test", "mta_sts", []),
        ("mx.plain.test", "", [LOCAL]),
        ("none.plain.test", "", []),
        (f"{'x' * 64}.plain.test", "", []),
        (".".join(["x" * 60] * 4), "", []),
        ("test", "", []),
    ],
)
def test_what_the_dns_says(run: Run, nsd: Nsd, name: str, why: str, addresses: list[str]) -> None:
    async def work() -> None:
        found = await AnchorLookup(nsd.resolver).look_up(name, 25)
        assert found[:4] == [name, 25, why, addresses]

    run(work())


def test_the_lowest_ttl_counts_and_a_failure_is_asked_about_again_soon(run: Run, nsd: Nsd) -> None:
    async def work() -> None:
        lookup = AnchorLookup(nsd.resolver)
        assert (await lookup.look_up("mx.dane.test", 25))[4] == 77
        assert (await lookup.look_up("mx.broken.test", 25))[4] == FAILED_TTL_S

    run(work())


def test_a_dns_that_says_nothing_is_an_answer_in_time(run: Run, nsd: Nsd, tmp_path: Path) -> None:
    async def work() -> None:
        silent = Nsd(tmp_path)  # never started: nobody is at its port
        answers, lookup = list[list[object]](), AnchorLookup(silent.resolver, deadline_s=0.3)
        for question in ([NAME, 25], [NAME], None, "x", [25, NAME]):
            lookup.ask(question, answers.append)
        async with asyncio.timeout(20):
            while not answers:
                await asyncio.sleep(0.05)
        assert answers == [[NAME, 25, "", [], FAILED_TTL_S]]

    run(work())


def test_domains_above_a_host() -> None:
    assert [*domains("mx.example.com")] == ["mx.example.com", "example.com"]
    assert [*domains("localhost")] == []
    assert [*domains("a.b.c.d.e.f")] == ["a.b.c.d.e.f", "b.c.d.e.f", "c.d.e.f", "d.e.f"]


@asynccontextmanager
async def asking(nsd: Nsd) -> Any:
    """What the DNS says, and as the processes of a box have it."""
    lookup = AnchorLookup(nsd.resolver)
    anchors = Anchors(lambda name, port: lookup.ask([name, port], lambda answer: anchors.learn(answer)), time.monotonic)
    yield anchors


@pytest.mark.parametrize(
    ("zone", "name", "why"),
    [
        (f"mx A {LOCAL}\n_{{port}}._tcp.mx {TLSA}", "mx.own.test", "tlsa"),
        (f"mx A {LOCAL}\n{POLICY}", "mx.own.test", "mta_sts"),
        (f"mx A 192.0.2.1\n{POLICY}", "mx.own.test", None),  # the name of another server
        (f"mx A {LOCAL}\n", "mx.own.test", None),
        (None, "mx.own.test", None),
    ],
)
def test_a_server_with_an_anchor_is_left_alone_at_the_first_try(
    run: Run, tmp_path: Path, zone: str | None, name: str, why: str | None
) -> None:
    pair = WORLD.issue(name)
    server = Nsd(tmp_path)

    async def work() -> None:
        with mail_server(server_context(pair)) as (port, keeper):
            async with asking(server) as anchors, gate(port, part(signer=ORGANISATION, anchors=anchors), OUT) as it:
                server.start({"own.test": zone and zone.format(port=it.port)})  # it dials another than was dialled
                for number in (1, 2):
                    trusted = client_context(WORLD if why else ORGANISATION)
                    seen, _ = await posted(it, trusted, b"Subject: x\r\n\r\nx\r\n", name=name)
                    assert (seen == der(pair[0])) is (why is not None)
                    assert len(keeper.mails) == number
                for session in await it.over(2):
                    left = {"left_alone": why} if why else session["encryption"]
                    assert (session["tls"], session["encryption"]) == ("started" if why else "taken part in", left)

    try:
        run(work())
    finally:
        server.stop()


def test_an_own_identity_needs_no_dns(run: Run) -> None:
    async def work() -> None:
        asked = list[Any]()
        anchors = Anchors(lambda *question: asked.append(question), time.monotonic)
        async with both(part(MINE, signer=ORGANISATION, anchors=anchors)) as (_, client, server):
            await encrypted(client, server)
        assert asked == []

    run(work())


@pytest.mark.parametrize("leaves", ["client", "server"])
def test_who_leaves_while_the_dns_is_asked_is_gone(run: Run, leaves: str) -> None:
    """The answer that comes later changes nothing, and nobody is remembered for it."""

    async def work() -> None:
        asked = list[Any]()
        anchors = Anchors(lambda *question: asked.append(question), time.monotonic)
        it_is = part(signer=ORGANISATION, anchors=anchors)
        async with both(it_is, direction=OUT) as (it, client, server):
            await server.say(b"220 go\r\n")
            await client.hear()
            begun = asyncio.create_task(client.begin(client_context(), server_side=False, name=NAME))
            while not asked:
                await asyncio.sleep(0.01)
            begun.cancel()
            await asyncio.gather(begun, return_exceptions=True)
            for peer in (client, server) if leaves == "client" else (server, client):
                peer.sock.shutdown(socket.SHUT_RDWR)
                await asyncio.sleep(0.05)
            session = (await it.over())[0]
            anchors.learn([NAME, asked[0][1], "tlsa", [LOCAL], 60])
        assert session["messages"] == 0
        assert it_is.report()["tls_left"] == []

    run(work())
