"""The courier against real mail servers, each in a mount namespace of its own: what they store is what was given.

courier ──┬── TLS, PIPELINING, 8BITMIME ──►  Postfix, Exim, OpenSMTPD, aiosmtpd
          └── in clear ──►  smtp-sink, and smtp-sink and aiosmtpd over LMTP
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope, Session

from smtp_intercept.app.lab.host import Host
from smtp_intercept.app.lab.network import Lab, Station
from smtp_intercept.mta.courier import Courier
from smtp_intercept.mta.envelope import Body, Origin, Outcome, State
from smtp_intercept.mta.nexthop import Place, Protocol, Security
from tests.mta.couriers import connected, courier, parcel, run_on, to
from tests.peers import exim, opensmtpd, postfix, sinks
from tests.peers.matrix import certificate
from tests.peers.peer import PLAIN, SIX, Peer, six
from tests.tools import program
from tests.unshown import NOT_ROOT

pytestmark = pytest.mark.kernel

NETWORK, SINK = "192.0.2.{}", "192.0.2.30"
STARTS = {
    "postfix": postfix.start,
    "exim": exim.start,
    "opensmtpd": opensmtpd.start,
    "aiosmtpd": sinks.start_aiosmtpd,
    "smtp-sink": sinks.start_smtp_sink,
}
# smtp-sink offers no TLS; OpenSMTPD 6.8 offers it and fails in every handshake, whoever the client is.
SECURITY = dict.fromkeys(("smtp-sink", "opensmtpd"), Security.OPPORTUNISTIC)
LINES = b"".join(b".%d of many\r\n" % number for number in range(150_000))
CONTENTS: Mapping[str, bytes] = {
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n...\r\n.x\r\n\r\n.\r\n",
    "8-bit": "Subject: 8-bit\r\n\r\nnaïve café\r\n".encode(),
    "no end": b"Subject: no end\r\n\r\nthe last line",
    "large": b"Subject: large\r\n\r\n" + LINES,
}


CLONE_NEWNET = 0x40000000


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host of the lab, with nothing but the peers' addresses: with it go all programs of theirs."""
    NOT_ROOT.skip()
    numbers = (*range(20, 20 + len(STARTS)), 30)
    addresses = (*(f"{NETWORK.format(n)}/24" for n in numbers), *(f"{six(NETWORK.format(n))}/64" for n in numbers))
    with Lab({"peers": (Station("peers", addresses),)}) as lab:
        lab.gateway.bridge_bare()
        yield lab.host("peers")


async def dial_inside(host: Host, _: Origin | None, place: Place) -> socket.socket:
    """A socket belongs for ever to the network that it was made in."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as own, Path("/run/netns", host.enter[-1]).open() as other:
        assert not libc.setns(other.fileno(), CLONE_NEWNET)
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in place.host else socket.AF_INET)
        finally:
            assert not libc.setns(own.fileno(), CLONE_NEWNET)
    return await connected(sock, place)


@pytest.fixture(scope="module")
def peers(host: Host) -> Mapping[str, Peer]:
    started = {
        name: start(host, NETWORK.format(20 + number), certificate())
        for number, (name, start) in enumerate(STARTS.items())
    }
    return {name: peer.wait_ready() for name, peer in started.items()}


async def give(carrier: Courier, peer: Peer, way: str) -> list[Outcome]:
    """All contents over IPv4 or IPv6."""
    domain, address = peer.reached(way)
    hop = to(Place(address), security=SECURITY.get(peer.name, Security.REQUIRED))
    bodies = {content: Body.SEVEN_BIT if content.isascii() else Body.EIGHT_BIT for content in CONTENTS.values()}
    outcomes = [await carrier.carry(parcel(hop, content, 2, body, domain)) for content, body in bodies.items()]
    return [each for one in outcomes for each in one]


def body(content: bytes) -> bytes:
    """As a mailbox keeps it: lines end in LF. smtp-sink adds an empty one."""
    return content.replace(b"\r\n", b"\n").rstrip(b"\n")


def is_kept(peer: Peer, content: bytes, stored: bytes) -> bool:
    if peer.name == "aiosmtpd":  # which keeps the octets as they came
        return stored.endswith(content if content.endswith(b"\r\n") else content + b"\r\n")
    return body(stored).endswith(body(content))


@pytest.mark.parametrize("way", [PLAIN, SIX], ids=["IPv4", "IPv6"])
def test_what_is_stored_is_what_was_given(host: Host, peers: Mapping[str, Peer], way: str) -> None:
    async def work() -> None:
        carrier = courier(dial=partial(dial_inside, host))
        outcomes = await asyncio.gather(*(give(carrier, peer, way) for peer in peers.values()))
        for name, each in zip(peers, outcomes, strict=True):
            assert [outcome.state for outcome in each] == [State.DELIVERED] * 2 * len(CONTENTS), (name, each)
        assert carrier.counters.connections == len(peers) + carrier.counters.in_clear, "one connection carries them all"
        assert carrier.counters.in_clear <= 1
        carrier.close()

    run_on("uvloop", work())
    for name, peer in peers.items():
        peer.settle()
        stored = peer.deliveries()
        for key, content in CONTENTS.items():
            found = [each.recipients for each in stored if is_kept(peer, content, each.content)]
            recipients = {recipient for each in found for recipient in each}
            assert recipients >= {f"{number}@{peer.reached(way)[0]}" for number in range(2)}, (name, key)


def test_smtp_sink_over_lmtp(host: Host) -> None:
    path, environment = program("smtp-sink")
    settings = [f"{name}={value}" for name, value in environment.items()]
    sink = host.spawn(["env", *settings, path, "-u", "nobody", "-L", f"inet:{SINK}:24", "10"])

    async def work() -> None:
        carrier = courier(dial=partial(dial_inside, host))
        hop, outcomes = to(Place(SINK, 24), protocol=Protocol.LMTP), []
        for _ in range(100):
            outcomes = await carrier.carry(parcel(hop, recipients=3))
            if outcomes[0].status != "4.4.1":  # not up yet
                break
            await asyncio.sleep(0.1)
        assert [each.state for each in outcomes] == [State.DELIVERED] * 3, outcomes

    run_on("asyncio", work())
    assert sink.running


class Store:
    """aiosmtpd's hooks: one recipient is unknown, one mailbox full."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("1@"):
            return "550 5.1.1 unknown"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.stored.append(envelope.original_content or b"")
        return "\r\n".join(
            "452 4.2.2 full" if address.startswith("2@") else "250 2.0.0 stored" for address in envelope.rcpt_tos
        )


def test_aiosmtpd_over_lmtp() -> None:
    async def work() -> None:
        store, loop = Store(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: LMTP(store, loop=loop), "127.0.0.1", 0)
        place = Place(*server.sockets[0].getsockname())
        hop = to(place, protocol=Protocol.LMTP)
        outcomes = await courier().carry(parcel(hop, CONTENTS["dots"], 4))
        expected = [
            (State.DELIVERED, "2.0.0"),
            (State.FAILED, "5.1.1"),
            (State.QUEUED, "4.2.2"),
            (State.DELIVERED, "2.0.0"),
        ]
        assert [(each.state, each.status) for each in outcomes] == expected
        assert store.stored == [CONTENTS["dots"]]
        server.close()

    run_on("asyncio", work())
