"""TLS from the first octet (465): the same as behind STARTTLS, and the banner comes in it."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from smtp_intercept.direction import Direction
from smtp_intercept.tls.part import Part
from tests.smtp.box import LOCAL, Box, Run, connected, listening
from tests.tls.peers import Peer
from tests.tls.pki import der
from tests.tls.rig import MINE, NAME, client_context, gate, part, server_context

OUT = Direction.OUTGOING


@asynccontextmanager
async def both(it_is: Part, direction: Direction = Direction.INCOMING) -> AsyncIterator[tuple[Box, Peer, Peer]]:
    async with listening() as (port, taken), gate(port, it_is, direction, first=True) as it:
        client = Peer(await connected(it.port))
        server = Peer(await taken())
        try:
            yield it, client, server
        finally:
            for peer in (client, server):
                peer.sock.close()


async def encrypted(client: Peer, server: Peer) -> None:
    await asyncio.gather(
        client.begin(client_context(), server_side=False, name=NAME),
        server.begin(server_context(), server_side=True),
    )


async def ended(it: Box, *peers: Peer) -> dict[str, object]:
    for peer in peers:
        peer.sock.shutdown(socket.SHUT_RDWR)
    return (await it.over())[0]


def test_mail_is_read(run: Run) -> None:
    async def work() -> None:
        async with both(part(MINE)) as (it, client, server):
            await encrypted(client, server)
            for said, answer in (
                (b"", b"220 mx\r\n"),
                (b"EHLO c.example\r\n", b"250-mx\r\n250 STARTTLS\r\n"),
                (b"MAIL FROM:<a@c.example>\r\n", b"250 ok\r\n"),
                (b"RCPT TO:<b@example.com>\r\n", b"250 ok\r\n"),
                (b"DATA\r\n", b"354 go\r\n"),
                (b"Subject: x\r\n\r\nx\r\n.\r\n", b"250 kept\r\n"),
                (b"QUIT\r\n", b"221 bye\r\n"),
            ):
                if said:
                    await client.say(said)
                    heard = await server.hear(said[-5:])
                    assert heard == said
                await server.say(answer)
                await client.hear(answer)
            session = await ended(it, server, client)
        assert (session["tls"], session["helo"], session["messages"]) == ("taken part in", "c.example", 1)
        assert [message["outcome"] for message in it.messages()] == ["accepted"]

    run(work())


def test_a_real_client(run: Run) -> None:
    """Its own certificate is what it sees."""

    def post(port: int) -> bytes | None:
        class Client(smtplib.SMTP_SSL):
            def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
                plain = socket.create_connection((host, port), timeout)
                return self.context.wrap_socket(plain, server_hostname=NAME)

        with Client(LOCAL, port, local_hostname="c.example", timeout=20, context=client_context()) as client:
            client.ehlo()
            assert isinstance(client.sock, ssl.SSLSocket)
            return client.sock.getpeercert(binary_form=True)

    async def work() -> None:
        async with listening() as (port, taken), gate(port, part(MINE), first=True) as it:
            posting = asyncio.create_task(asyncio.to_thread(post, it.port))
            server = Peer(await taken())
            await server.begin(server_context(), server_side=True)
            await server.say(b"220 mx\r\n")
            await server.hear()
            await server.say(b"250 mx\r\n")
            await server.hear()
            await server.say(b"221 bye\r\n")
            assert await posting == der(MINE[0])
            await ended(it, server)

    run(work())


def test_who_is_left_alone_is_so_to_the_octet(run: Run) -> None:
    """Outgoing, without an authority: the handshake is the server's own."""

    async def work() -> None:
        async with both(part(), OUT) as (it, client, server):
            await encrypted(client, server)
            await server.say(b"220 mx\r\n")
            assert await client.hear() == b"220 mx\r\n"
            session = await ended(it, server, client)
        assert (session["tls"], session["encryption"]) == ("started", {"left_alone": "no_authority"})

    run(work())


@pytest.mark.parametrize(
    "said", [b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"\0" * 64]
)
def test_what_is_no_tls_reaches_nobody_in_clear(run: Run, said: bytes) -> None:
    async def work() -> None:
        async with both(part(MINE)) as (it, client, server):
            await client.say(said)
            begun = asyncio.create_task(server.begin(server_context(), server_side=True))
            await client.to_the_end()
            client.sock.close()
            await asyncio.gather(begun, return_exceptions=True)
            session = (await it.over())[0]
        assert (session["messages"], session["helo"]) == (0, "")
        assert said not in server.heard

    run(work())


def test_tls_in_tls_is_a_line(run: Run) -> None:
    """Before the banner too: nothing that an accomplice may answer makes the rest unread."""

    async def work() -> None:
        async with both(part(MINE)) as (it, client, server):
            await encrypted(client, server)
            hello = ssl.MemoryBIO()
            inner = client_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname=NAME)
            with pytest.raises(ssl.SSLWantReadError):
                inner.do_handshake()
            await client.say(hello.read() + b"\r\n")
            await server.say(b"\x16\x03\x03\x00\x04abcd\r\n")
            session = await ended(it, client, server)
        assert session["tls"] == "taken part in"
        assert session["messages"] == 0

    run(work())
