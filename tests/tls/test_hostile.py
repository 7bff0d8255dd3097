"""Peers that cut, stop, reset and inject at every step: no session hangs, nothing crosses in clear that should not, and
no message is counted that the server has not taken.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from smtp_intercept.tls.layer import BrokenError
from tests.smtp.box import Run, reset
from tests.tls.peers import Peer, both, encrypted, enveloped
from tests.tls.pki import issue
from tests.tls.rig import MINE, NAME, client_context, part, server_context

CONTENT = b"Subject: x\r\n\r\n" + b"y" * 3_000 + b"\r\n.\r\n"


@pytest.mark.parametrize("piece", [1, 7, 0])
def test_octets_in_any_pieces(run: Run, piece: int) -> None:
    async def work() -> None:
        async with both(part(MINE), piece=piece) as (it, client, server):
            await encrypted(client, server)
            await enveloped(client, server)
            await client.say(CONTENT + b"QUIT\r\n")
            assert await server.hear(b"\r\n.\r\n") == CONTENT
            await server.say(b"250 taken\r\n221 bye\r\n")
            assert await client.hear(b"221 bye\r\n") == b"250 taken\r\n221 bye\r\n"
            client.sock.close()
            server.sock.close()
            await it.over()
        assert [message["outcome"] for message in it.messages()] == ["accepted"]

    run(work())


async def hello_only(client: Peer, server: Peer) -> None:
    await server.say(b"220 go\r\n")
    await client.hear()
    await client.wire(first_flight())


async def half_a_hello(client: Peer, server: Peer) -> None:
    await server.say(b"220 go\r\n")
    await client.hear()
    await client.wire(first_flight()[:60])


async def mid_content(client: Peer, server: Peer) -> None:
    await encrypted(client, server)
    await enveloped(client, server)
    await client.say(CONTENT[:-5])
    await server.hear(b"yyy")


async def whole_content(client: Peer, server: Peer) -> None:
    await encrypted(client, server)
    await enveloped(client, server)
    await client.say(CONTENT)
    await server.hear(b"\r\n.\r\n")


async def nothing(client: Peer, server: Peer) -> None:
    await server.say(b"220 go\r\n")
    await client.hear()


STEPS = [nothing, half_a_hello, hello_only, encrypted, mid_content, whole_content]
WAYS: dict[str, Callable[[Peer], None]] = {
    "reset": lambda peer: reset(peer.sock),
    "close": lambda peer: peer.sock.close(),
}


def first_flight(context: ssl.SSLContext | None = None) -> bytes:
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        (context or client_context()).wrap_bio(inward, outward, server_hostname=NAME).do_handshake()
    return outward.read()


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
def test_a_peer_that_leaves(run: Run, step: Callable[[Peer, Peer], Awaitable[None]], way: str, who: str) -> None:
    async def work() -> None:
        async with both(part(MINE)) as (it, client, server):
            await step(client, server)
            leaves, stays = (client, server) if who == "client" else (server, client)
            await asyncio.sleep(0.05)
            WAYS[way](leaves)
            with suppress(BrokenError):
                await stays.to_the_end()
            stays.sock.close()
            await it.over()
        assert [message["outcome"] for message in it.messages() if message["outcome"] == "accepted"] == []

    run(work())


def test_an_end_that_is_told_crosses_as_one_and_a_cut_one_as_cut(run: Run) -> None:
    async def work() -> None:
        for told in (True, False):
            async with both(part(MINE)) as (it, client, server):
                await encrypted(client, server)
                await client.say(b"EHLO c.example\r\n")
                await server.hear()
                assert client.layer is not None
                assert server.layer is not None
                if told:
                    await client.wire(client.layer.close())
                else:
                    client.sock.shutdown(1)
                await server.to_the_end()
                assert server.layer.ended is told
                server.sock.close()
                client.sock.close()
                await it.over()

    run(work())


def test_what_is_sent_in_clear_behind_starttls_is_never_carried_out(run: Run) -> None:
    async def work() -> None:
        async with both(part(MINE)) as (it, client, server):
            await client.say(b"MAIL FROM:<a@b>\r\n")
            await asyncio.sleep(0.1)
            await server.say(b"220 go\r\n")
            assert await client.hear() == b"421 4.7.0 Octets behind STARTTLS, closing\r\n"
            client.sock.close()
            assert await server.to_the_end() == b""
            assert (await it.over())[0]["outcome"] == "aborted"

    run(work())


@pytest.mark.parametrize(
    "octets",
    [b"MAIL FROM:<a@b>\r\n", b"\x16\x03\x01\0\x05\x01\0\0\x01\0", b"\x80\x2e\x01\x03\x01" + bytes(43)],
    ids=["a command", "too short", "SSL 2"],
)
def test_what_is_no_client_hello_is_refused_and_does_not_cross(run: Run, octets: bytes) -> None:
    async def work() -> None:
        async with both(taking := part(MINE)) as (it, client, server):
            await server.say(b"220 go\r\n")
            await client.hear()
            await client.say(octets + b"MAIL FROM:<a@b>\r\n")
            with suppress(EOFError, OSError):
                await server.begin(server_context(), server_side=True)
            answer = await client.to_the_end()
            client.sock.close()
            assert answer[:2] in {b"", b"\x15\x03"}  # to who speaks no TLS OpenSSL says nothing
            assert server.layer is None or server.heard == b""
            assert (await it.over())[0]["outcome"] == "aborted"
        assert taking.report()["tls_left"] == []

    run(work())


def test_a_server_that_speaks_in_clear_before_the_client(run: Run) -> None:
    async def work() -> None:
        async with both(part(MINE)) as (it, client, server):
            await server.say(b"220 go\r\n250 injected\r\n")
            assert b"injected" not in await client.to_the_end()
            assert (await it.over())[0]["outcome"] == "aborted"

    run(work())


def test_no_tls_in_tls(run: Run) -> None:
    async def work() -> None:
        async with both(part(MINE)) as (_, client, server):
            await encrypted(client, server)
            await client.say(b"EHLO c.example\r\nSTARTTLS\r\n")
            assert await server.hear() == b"EHLO c.example\r\n"
            await server.say(b"250-mx\r\n250 STARTTLS\r\n")
            await client.hear(b"250 STARTTLS\r\n")
            assert await client.hear() == b"503 5.5.1 TLS is active already\r\n"

    run(work())


def test_requiretls_needs_a_server_that_is_known(run: Run) -> None:
    async def work() -> None:
        anybody = issue((NAME,), (-1, 9))
        async with both(part(anybody)) as (_, client, server):
            await encrypted(client, server, towards=client_context(None), own=server_context(anybody))
            await client.say(b"EHLO c.example\r\n")
            await server.hear()
            await server.say(b"250-mx\r\n250 REQUIRETLS\r\n")
            await client.hear(b"250 REQUIRETLS\r\n")
            await client.say(b"MAIL FROM:<a@b> REQUIRETLS\r\n")
            assert (await client.hear())[:10] == b"550 5.7.30"

    run(work())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_a_client_that_is_too_old_is_refused_and_not_passed(run: Run) -> None:
    old = client_context(None)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")

    async def work() -> None:
        async with both(taking := part(MINE)) as (it, client, server):
            await server.say(b"220 go\r\n")
            await client.hear()
            await client.wire(first_flight(old))
            with suppress(EOFError, OSError):
                await server.begin(server_context(), server_side=True)
            assert (await client.to_the_end())[:2] == b"\x15\x03"
            client.sock.close()
            await it.over()
        assert taking.report()["tls_left"] == []

    run(work())
