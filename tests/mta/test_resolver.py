"""The resolver against a real name server whose zones come and go.

Resolver ── MX, A, AAAA ──► nsd on the loopback ◄── zones of this file
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from smtp_intercept.direction import Servers
from smtp_intercept.lookup import read_nameserver
from smtp_intercept.mta.envelope import State
from smtp_intercept.mta.failure import Failure
from smtp_intercept.mta.mx import Target
from smtp_intercept.mta.resolver import Resolver
from tests.smtp.nsd import Nsd

ZONES: dict[str, str | None] = {
    "pref.test": "@ MX 20 second\n@ MX 10 first\nfirst A 192.0.2.10\nsecond A 192.0.2.20\nsecond AAAA 2001:db8::20\n",
    "implicit.test": "@ A 192.0.2.30\n@ AAAA 2001:db8::30\n",
    "null.test": "@ MX 0 .\n",
    "nothing.test": "@ TXT x\n",
    "alias.test": "@ MX 10 alias\nalias CNAME real\nreal A 192.0.2.40\n",
    "aliased.test": "mail CNAME pref.test.\n",
    "six.test": "@ MX 10 six\nsix AAAA 2001:db8::50\n",
    "loop.test": "@ MX 10 other\n@ MX 20 us\n@ MX 30 worse\nother A 192.0.2.60\nus A 192.0.2.1\nworse A 192.0.2.61\n",
    "ours.test": "@ MX 10 us\n@ MX 20 worse\nus A 192.0.2.1\nworse A 192.0.2.61\n",
    "dangling.test": "@ MX 10 nowhere\n",
    "far.test": "@ MX 10 mail.broken.test.\n",
    "broken.test": None,
}
OWN = Servers.of(["192.0.2.1"])


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nsd]:
    server = Nsd(tmp_path_factory.mktemp("nsd"))
    server.start(ZONES)
    yield server
    server.stop()


def asking(nsd: Nsd, timeout_s: float = 5.0) -> Resolver:
    stub = nsd.place
    return Resolver([stub], own=OWN, timeout_s=timeout_s, chance=random.Random(1).random)


async def ask(resolver: Resolver, domain: str) -> list[tuple[str, set[str]]] | tuple[State, str]:
    found = await resolver.targets(domain)
    if isinstance(found, Failure):
        return found.state, found.status
    return [(target.host, set(target.addresses)) for target in found]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("pref.test", [("first.pref.test", {"192.0.2.10"}), ("second.pref.test", {"192.0.2.20", "2001:db8::20"})]),
        ("implicit.test", [("implicit.test", {"192.0.2.30", "2001:db8::30"})]),
        ("null.test", (State.FAILED, "5.1.10")),
        ("nothing.test", (State.FAILED, "5.4.4")),
        ("absent.pref.test", (State.FAILED, "5.1.2")),
        ("alias.test", [("alias.alias.test", {"192.0.2.40"})]),
        ("six.test", [("six.six.test", {"2001:db8::50"})]),
        ("loop.test", [("other.loop.test", {"192.0.2.60"})]),
        ("ours.test", (State.FAILED, "5.4.6")),
        ("dangling.test", (State.FAILED, "5.4.4")),
        ("far.test", (State.QUEUED, "4.4.3")),
        ("broken.test", (State.QUEUED, "4.4.3")),
        ("[192.0.2.70]", [("192.0.2.70", {"192.0.2.70"})]),
        ("[IPv6:2001:db8::70]", [("2001:db8::70", {"2001:db8::70"})]),
        ("[192.0.2.1]", (State.FAILED, "5.4.6")),
        ("x" * 64 + ".test", (State.FAILED, "5.1.2")),
        ("a..test", (State.FAILED, "5.1.2")),
    ],
)
def test_targets(nsd: Nsd, domain: str, expected: object) -> None:
    assert asyncio.run(ask(asking(nsd), domain)) == expected


def test_addresses(nsd: Nsd) -> None:
    async def work() -> None:
        resolver = asking(nsd)
        assert await resolver.addresses("first.pref.test") == Target("first.pref.test", ("192.0.2.10",))
        assert await resolver.addresses("192.0.2.9") == Target("192.0.2.9", ("192.0.2.9",))
        for name, status in (("absent.pref.test", "5.1.2"), ("broken.test", "4.4.3"), ("us.loop.test", "5.4.6")):
            found = await resolver.addresses(name)
            assert isinstance(found, Failure)
            assert found.status == status

    asyncio.run(work())


def test_servfail_then_recovery(nsd: Nsd) -> None:
    async def work() -> None:
        resolver = asking(nsd)
        assert await ask(resolver, "broken.test") == (State.QUEUED, "4.4.3")
        nsd.start({**ZONES, "broken.test": "@ MX 10 mail\nmail A 192.0.2.80\n"})
        assert await ask(resolver, "broken.test") == [("mail.broken.test", {"192.0.2.80"})]

    try:
        asyncio.run(work())
    finally:
        nsd.start(ZONES)


def test_answers_are_kept_as_long_as_their_ttl_says(nsd: Nsd) -> None:
    async def work() -> None:
        resolver = asking(nsd)
        before = await ask(resolver, "six.test")
        nsd.start({**ZONES, "six.test": "@ MX 10 six\nsix AAAA 2001:db8::51\n"})
        assert await ask(resolver, "six.test") == before
        deadline_at = time.monotonic() + 30
        while await ask(resolver, "six.test") == before:
            assert time.monotonic() < deadline_at
            await asyncio.sleep(0.1)
        assert await ask(resolver, "six.test") == [("six.six.test", {"2001:db8::51"})]

    try:
        nsd.start(ZONES, ttl_s=8)  # longer than a busy machine takes to start it anew
        asyncio.run(work())
    finally:
        nsd.start(ZONES)


class Silent(asyncio.DatagramProtocol):
    """A name server that keeps silent, or vouches for an empty answer; counts the questions."""

    def __init__(self, answers: bool) -> None:
        self.answers, self.asked = answers, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = dns.message.from_wire(data)
        self.asked += 1
        if not self.answers:
            return
        response = dns.message.make_response(question)
        assert question.flags & dns.flags.AD, "RFC 6840 §5.7: it must be asked for"
        response.flags |= dns.flags.AD | dns.flags.RA
        if question.question[0].rdtype == dns.rdatatype.A:
            name = question.question[0].name
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.90"))
        self._transport.sendto(response.to_wire(), addr)  # type: ignore[attr-defined]


async def silent(answers: bool) -> tuple[Silent, str]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Silent(answers), sock=sock)
    return protocol, f"127.0.0.1:{sock.getsockname()[1]}"


def test_silence_ends_in_time() -> None:
    async def work() -> None:
        _, place = await silent(answers=False)
        started_at = time.monotonic()
        assert await ask(Resolver([place], timeout_s=0.5), "pref.test") == (State.QUEUED, "4.4.3")
        assert time.monotonic() - started_at < 5

    asyncio.run(work())


def test_many_who_ask_the_same_share_one_query_and_the_ad_bit_is_kept() -> None:
    async def work() -> None:
        server, place = await silent(answers=True)
        resolver = Resolver([place])
        found = await asyncio.gather(*(resolver.targets("pref.test") for _ in range(50)))
        assert set(found) == {(Target("pref.test", ("192.0.2.90",), authentic=True),)}
        assert server.asked == 3  # MX, A, AAAA

    asyncio.run(work())


def test_one_who_leaves_does_not_end_the_query_of_the_others() -> None:
    async def work() -> None:
        _, place = await silent(answers=False)
        resolver = Resolver([place], timeout_s=0.5)
        first, second = (asyncio.create_task(ask(resolver, "pref.test")) for _ in range(2))
        await asyncio.sleep(0.1)
        first.cancel()
        assert await second == (State.QUEUED, "4.4.3")
        assert first.cancelled()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
    ],
)
def test_nameservers(text: str, place: tuple[str, int]) -> None:
    assert read_nameserver(text) == place


@pytest.mark.parametrize(
    "text", ["", "ns.example", "192.0.2.53:", "192.0.2.53:0", "192.0.2.53:65536", "[::1]:x", "1.2.3"]
)
def test_bad_nameservers(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_nameserver(text)
