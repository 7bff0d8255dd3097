"""Couriers, parcels and event loops for tests of the courier."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import BinaryIO

import uvloop

from smtp_intercept.limits import RFC_SECONDS, Phase
from smtp_intercept.mta.courier import CONNECT_S, Bounds, Courier, Credentials, Dial, Parcel
from smtp_intercept.mta.envelope import OURSELVES, Body, Envelope, Origin, Outcome, Recipient, State
from smtp_intercept.mta.nexthop import NextHop, Place, Protocol, Security
from smtp_intercept.mta.resolver import Resolver
from smtp_intercept.mta.tls import Contexts
from tests.mta.remote import Remote

SECONDS = 20.0
CONTENT = b"Subject: x\r\n\r\n.dot\r\n"
TAKEN = [(State.DELIVERED, "2.0.0")]
LOOPS = {"asyncio": None, "uvloop": uvloop.new_event_loop}


def run_on(loop: str, work: Awaitable[None]) -> None:
    async def timed() -> None:
        async with asyncio.timeout(SECONDS):
            await work

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(timed())


async def dial(_: Origin | None, place: Place) -> socket.socket:
    return await connected(socket.socket(socket.AF_INET6 if ":" in place.host else socket.AF_INET), place)


async def connected(sock: socket.socket, place: Place) -> socket.socket:
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (place.host, place.port))
    except BaseException:
        sock.close()
        raise
    return sock


def courier(
    *,
    bounds: Bounds | None = None,
    tls: Contexts | None = None,
    credentials: Credentials | None = None,
    patience_s: Mapping[Phase, float] = RFC_SECONDS,
    resolver: Resolver | None = None,
    dial: Dial = dial,
    connect_s: float = CONNECT_S,
) -> Courier:
    resolver = resolver or Resolver(["127.0.0.1:9"])
    return Courier(
        resolver,
        dial,
        "box.example",
        bounds=bounds,
        tls=tls,
        credentials=credentials,
        patience_s=patience_s,
        connect_s=connect_s,
    )


def to(*places: Remote | Place, security: Security = Security.NONE, protocol: Protocol = Protocol.SMTP) -> NextHop:
    found = tuple(each if isinstance(each, Place) else Place(each.host, each.port) for each in places)
    return NextHop("R1", found, security=security, protocol=protocol)


def parcel(
    next_hop: NextHop,
    content: bytes | Callable[[], BinaryIO] = CONTENT,
    recipients: int = 1,
    body: Body = Body.SEVEN_BIT,
    domain: str = "y.example",
) -> Parcel:
    addresses = tuple(Recipient(f"{number}@{domain}") for number in range(recipients))
    envelope = Envelope("a@x.example", addresses, body)
    opened = content if callable(content) else lambda: io.BytesIO(content)
    size_bytes = 100 if callable(content) else len(content)
    return Parcel("4711", next_hop, envelope, tuple(range(recipients)), opened, size_bytes, OURSELVES)


def states(outcomes: list[Outcome]) -> list[tuple[State, str]]:
    return [(outcome.state, outcome.status) for outcome in outcomes]
