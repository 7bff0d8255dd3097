"""What rules ask the DNS, against a real name server and against servers that are slow, dead or lie.

Lookups ── PTR, A, AAAA, MX ──► nsd on the loopback ◄── zones of this file
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from threading import Thread

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from smtp_intercept.direction import Direction, Network
from smtp_intercept.inspect import dns as meaning
from smtp_intercept.inspect.facts import Connection, DnsList, Facts, Lookup, Outside, Reply, Source, State
from smtp_intercept.inspect.lookups import Lookups
from smtp_intercept.inspect.patterns import mailbox
from smtp_intercept.questions import QUERIES, Questions
from tests import vacant
from tests.smtp.nsd import ADDRESS, Nsd

MANY = "".join(f"30 PTR h{number}.names.test.\n" for number in range(200))
SIX = "2001:db8::10"
NIBBLES = ".".join(reversed(ip_address(SIX).exploded.replace(":", "")))
ZONES: dict[str, str | None] = {
    "2.0.192.in-addr.arpa": (
        "10 PTR mx.names.test.\n11 PTR liar.names.test.\n12 PTR mx.broken.test.\n13 PTR mx.broken.test.\n"
        "13 PTR thirteen.names.test.\n14 PTR odd\\032name.names.test.\n" + MANY
    ),
    "8.b.d.0.1.0.0.2.ip6.arpa": f"{NIBBLES}.ip6.arpa. PTR six.names.test.\n",
    "names.test": (
        "mx A 192.0.2.10\nliar A 192.0.2.99\nthirteen A 192.0.2.13\nsix AAAA 2001:db8::10\nalias CNAME mx\n"
        "text TXT x\nh199 A 192.0.2.30\n@ MX 10 mx\nnull MX 0 .\nimplicit AAAA 2001:db8::1\n"
    ),
    "broken.test": None,
    "all.test": "* A 127.0.0.2\n",
    "rewritten.test": "* A 127.0.0.1\n",
    "parked.test": "* A 198.51.100.7\n",
    "chain.test": "c0 A 192.0.2.1\nloop CNAME pool\npool CNAME loop\n"
    + "".join(f"c{n} CNAME c{n - 1}\n" for n in range(1, 1_000))
    + "".join(f"many A 192.0.{n // 250}.{n % 250 + 1}\n" for n in range(1_000)),
    "list.test": (
        f"10.2.0.192 A 127.0.0.2\n10.2.0.192 A 127.0.0.10\n11.2.0.192 A 127.0.0.1\n12.2.0.192 A 198.51.100.1\n"
        f"13.2.0.192 A 127.255.255.254\n{NIBBLES} A 127.0.0.3\n"
        + "".join(f"14.2.0.192 A 127.0.{n // 250}.{n % 250 + 1}\n" for n in range(1, 900))
    ),
}


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nsd]:
    server = Nsd(tmp_path_factory.mktemp("nsd"))
    server.start(ZONES)
    yield server
    server.stop()


def answers(place: str, *lookups: Lookup, timeout_s: float = 5.0) -> list[Reply]:
    async def work() -> list[Reply]:
        asked = Lookups(Questions([place], timeout_s=timeout_s, queue_s=1))
        return list(await asyncio.gather(*map(asked.answer, lookups)))

    return asyncio.run(work())


def test_names_of_a_client(nsd: Nsd) -> None:
    wanted: dict[str, Reply] = {
        "192.0.2.10": ("mx.names.test",),
        SIX: ("six.names.test",),
        "192.0.2.11": (),  # the name has another address
        "192.0.2.12": None,  # nobody can say whether the name has this one
        "192.0.2.13": ("thirteen.names.test",),  # one that is confirmed is enough
        "192.0.2.14": (),  # no name
        "192.0.2.15": (),
        "198.51.100.1": None,  # the server refuses
    }
    found = answers(nsd.place, *(Lookup(Source.CLIENT, each) for each in wanted))
    assert dict(zip(wanted, found, strict=True)) == wanted


def test_of_many_names_only_some_are_asked_for(nsd: Nsd) -> None:
    """An answer of 200 names, by TCP: none of the first few has the address."""
    assert answers(nsd.place, Lookup(Source.CLIENT, "192.0.2.30"))[0] in ((), ("h199.names.test",))


def test_names_and_domains(nsd: Nsd) -> None:
    wanted: dict[tuple[Source, str], Reply] = {
        (Source.HOST, "mx.names.test"): ("yes",),
        (Source.HOST, "alias.names.test"): ("yes",),
        (Source.HOST, "six.names.test"): ("yes",),
        (Source.HOST, "text.names.test"): (),
        (Source.HOST, "nowhere.names.test"): (),
        (Source.HOST, "mx.broken.test"): None,
        (Source.HOST, "x" * 64 + ".test"): None,  # never asked: `dns.askable`
        (Source.MAIL, "names.test"): ("yes",),
        (Source.MAIL, "null.names.test"): (),  # RFC 7505
        (Source.MAIL, "implicit.names.test"): ("yes",),  # RFC 5321 §5.1
        (Source.MAIL, "text.names.test"): (),
        (Source.MAIL, "nowhere.names.test"): (),
        (Source.MAIL, "broken.test"): None,
    }
    found = answers(nsd.place, *(Lookup(*each) for each in wanted))
    assert dict(zip(wanted, found, strict=True)) == wanted


LIST = DnsList("list.test", (Network.of("127.0.0.2"), Network.of("127.0.0.3")))


@pytest.mark.parametrize(
    ("client", "listed", "state"),
    [
        ("192.0.2.10", True, None),
        (SIX, True, None),
        ("192.0.2.9", False, None),
        ("192.0.2.11", False, None),  # 127.0.0.1 is never an answer
        ("192.0.2.12", False, None),  # nor is an address for everything
        ("192.0.2.13", False, State.UNANSWERED),  # the list says that it does not say
        ("192.0.2.14", True, None),  # 899 addresses
    ],
)
def test_lists(nsd: Nsd, client: str, listed: bool, state: State | None) -> None:
    connection = Connection(Direction.INCOMING, ip_address(client).packed, b"\0\0\0\0")
    facts = Facts(connection, outside=Outside({"one": LIST}))
    (lookup,) = meaning.list_lookups(facts, ["one", "unknown"])
    (reply,) = answers(nsd.place, lookup)
    if client == "192.0.2.14":
        assert reply is not None
        assert len(reply) == meaning.MAX_ADDRESSES
        reply = (*reply, "127.0.0.2")
    facts.replies = {lookup: reply}
    told = meaning.listed(facts)
    assert told.values == ("one",) * listed
    assert told.each.get("one") is state


@pytest.mark.parametrize("zone", ["all.test", "rewritten.test", "parked.test"])
def test_a_list_that_was_given_up_lists_nobody(nsd: Nsd, zone: str) -> None:
    """Some had everybody at their end; of some the domain was sold; a resolver may have an address for every name."""
    facts = Facts(
        Connection(Direction.INCOMING, b"\xc0\0\2\x0a", b"\0\0\0\0"),
        outside=Outside({"one": DnsList(zone, (meaning.LISTED,))}),
    )
    (lookup,) = meaning.list_lookups(facts, ["one"])
    (reply,) = answers(nsd.place, lookup)
    facts.replies = {lookup: reply}
    assert meaning.listed(facts).values == ()
    assert (reply is None) is (zone != "parked.test")


def test_chains_of_names(nsd: Nsd) -> None:
    """Some are followed; who goes round in circles, or on for ever, has no address, or nobody says."""
    wanted = ["c5.chain.test", "c999.chain.test", "loop.chain.test", "many.chain.test"]
    short, *others, many = answers(nsd.place, *(Lookup(Source.HOST, each) for each in wanted))
    assert (short, many) == (("yes",), ("yes",))
    assert set(others) <= {None, ()}


@contextmanager
def server(answer: Callable[[dns.message.Message], bytes | None]) -> Iterator[str]:
    """A server that is not one: datagrams, and what this says to each."""
    port = vacant.port(ADDRESS)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((ADDRESS, port))

        def serve() -> None:
            while True:
                try:
                    data, whence = sock.recvfrom(4096)
                    said = answer(dns.message.from_wire(data)) if data else None
                except OSError:
                    return
                if not data:
                    return
                if said is not None:
                    sock.sendto(said, whence)

        thread = Thread(target=serve)
        thread.start()
        yield f"{ADDRESS}:{port}"
        sock.sendto(b"", (ADDRESS, port))
        thread.join()


def liar(query: dns.message.Message) -> bytes:
    """All names have all addresses, for ever, and none of them was asked for."""
    reply = dns.message.make_response(query)
    reply.answer.append(dns.rrset.from_text("other.test.", 2**31 - 1, "IN", "A", "127.0.0.2"))
    return reply.to_wire()


def garbage(query: dns.message.Message) -> bytes:
    return query.to_wire()[:2] + random.Random(1).randbytes(200)


def failing(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    reply.set_rcode(dns.rcode.SERVFAIL)
    return reply.to_wire()


def dead(query: dns.message.Message) -> None:
    return None


@pytest.mark.parametrize("answer", [garbage, failing, dead])
def test_who_does_not_answer_delays_nobody_for_longer(answer: Callable[[dns.message.Message], bytes | None]) -> None:
    with server(answer) as place:
        asked = [Lookup(source, name, 0.5) for source, name in ((Source.HOST, "a.test"), (Source.CLIENT, "192.0.2.1"))]
        began_at = time.monotonic()
        assert answers(place, *asked) == [None, None]
        assert time.monotonic() - began_at < 5


def test_an_answer_to_something_else_is_none() -> None:
    with server(liar) as place:
        assert answers(place, Lookup(Source.LIST, "1.2.0.192.list.test", 1.0), timeout_s=1.0)[0] in ((), None)


def test_who_failed_is_left_alone_for_a_while() -> None:
    asked: list[str] = []
    now = [0.0]

    def count(query: dns.message.Message) -> bytes:
        asked.append(str(query.question[0].name))
        return failing(query)

    async def work(place: str) -> None:
        lookups = Lookups(Questions([place], timeout_s=0.3), lambda: now[0])
        lookup = Lookup(Source.LIST, "1.list.test", 1.0)
        assert await lookups.answer(lookup) is None
        number = len(asked)
        assert await lookups.answer(lookup) is None
        assert len(asked) == number
        now[0] = 11
        assert await lookups.answer(lookup) is None
        assert len(asked) > number

    with server(count) as place:
        asyncio.run(work(place))


def test_a_slow_zone_does_not_slow_the_others(nsd: Nsd) -> None:
    """More questions than have turns, to which nobody says anything."""

    def some(query: dns.message.Message) -> bytes | None:
        if "slow" in str(query.question[0].name):
            return None
        reply = dns.message.make_response(query)
        if "127" in str(query.question[0].name):
            return reply.to_wire()
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "127.0.0.2"))
        return reply.to_wire()

    async def work(place: str) -> None:
        lookups = Lookups(Questions([place], timeout_s=3, queue_s=1))
        slow = [Lookup(Source.LIST, f"{n}.slow.test", 3.0, "slow.test") for n in range(2 * QUERIES)]
        waiting = [asyncio.create_task(lookups.answer(each)) for each in slow]
        await asyncio.sleep(0.1)
        began_at = time.monotonic()
        assert await lookups.answer(Lookup(Source.LIST, "1.list.test", 3.0, "list.test")) == ("127.0.0.2",)
        assert time.monotonic() - began_at < 2
        assert set(await asyncio.gather(*waiting)) == {None}

    with server(some) as place:
        asyncio.run(work(place))


@pytest.mark.parametrize(
    ("helo", "resolves"),
    [("[192.0.2.1]", True), ("[IPv6:2001:db8::1]", True), ("", False), ("192.0.2.1", False), ("a b.test", False)],
)
def test_what_needs_no_question(helo: str, resolves: bool) -> None:
    facts = Facts(Connection(Direction.INCOMING, b"\0\0\0\0", b"\0\0\0\0"), helo=helo)
    assert meaning.helo_lookups(facts, ()) == ()
    assert meaning.helo_resolves(facts).values == (resolves,)


@pytest.mark.parametrize(("sender", "resolves"), [("", True), ("a@[192.0.2.1]", True), ("a", False), ("a@b c", False)])
def test_what_senders_need_no_question(sender: str, resolves: bool) -> None:
    facts = Facts(Connection(Direction.INCOMING, b"\0\0\0\0", b"\0\0\0\0"), sender=mailbox(sender))
    assert meaning.sender_lookups(facts, ()) == ()
    assert meaning.sender_resolves(facts).values == (resolves,)


@pytest.mark.parametrize("zone", ["", "x", "a..b", "x" * 64 + ".test", "a." * 110 + "test", "zen.example.org:53"])
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(ValueError, match="is not the zone"):
        meaning.read_zone(zone)
