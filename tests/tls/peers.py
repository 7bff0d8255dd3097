"""Both peers of one session, octet by octet: what is sent in which pieces, and where they stop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from smtp_intercept.direction import Direction
from smtp_intercept.tls.layer import Layer
from smtp_intercept.tls.part import Part
from tests.smtp.box import Box, connected, listening, send
from tests.tls.rig import NAME, client_context, gate, server_context


@dataclass
class Peer:
    """One end, which says things in pieces of ``piece`` octets; 0 is all at once."""

    sock: socket.socket
    piece: int = 0
    layer: Layer | None = None
    heard: bytes = b""
    ended: bool = field(default=False)  # the stream is

    async def wire(self, octets: bytes) -> None:
        """As they are."""
        step = self.piece or len(octets) or 1
        for at in range(0, len(octets), step):
            await send(self.sock, octets[at : at + step])
            await asyncio.sleep(0)

    async def say(self, octets: bytes) -> None:
        await self.wire(self.layer.write(octets) if self.layer else octets)

    async def hear(self, last: bytes = b"\n") -> bytes:
        """Until that has come, or the stream's end."""
        while last not in self.heard and not self.ended:
            octets = await self._receive()
            self.heard += self.layer.read(octets) if self.layer and not self.layer.ended else octets
        upto = self.heard.find(last) + len(last) if last in self.heard else len(self.heard)
        found, self.heard = self.heard[:upto], self.heard[upto:]
        return found

    async def to_the_end(self) -> bytes:
        """All that comes yet, in clear if there is no TLS."""
        found = b""
        while not self.ended:
            found += await self.hear()
        return found

    async def _receive(self) -> bytes:
        try:
            octets = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
        except ConnectionError:
            octets = b""
        self.ended = not octets
        return octets

    async def begin(self, context: ssl.SSLContext, *, server_side: bool, name: str = "") -> None:
        """The handshake."""
        layer = Layer(context, server_side=server_side, name=name)
        octets = b""
        while not layer.handshake(octets):
            await self.wire(layer.to_send())
            if not (octets := await self._receive()):
                raise EOFError
        await self.wire(layer.to_send())
        self.layer = layer


@asynccontextmanager
async def both(
    part: Part, *, piece: int = 0, direction: Direction = Direction.INCOMING
) -> AsyncIterator[tuple[Box, Peer, Peer]]:
    """A gateway, a client and a server that has greeted and been asked for STARTTLS; its answer is there."""
    async with listening() as (port, taken), gate(port, part, direction) as it:
        client = Peer(await connected(it.port), piece)
        server = Peer(await taken(), piece)
        await server.say(b"220 mx\r\n")
        await client.say(b"EHLO c.example\r\n")
        await server.hear()
        await server.say(b"250-mx\r\n250 STARTTLS\r\n")
        await client.hear(b"250 STARTTLS\r\n")
        await client.say(b"STARTTLS\r\n")
        await server.hear()
        try:
            yield it, client, server
        finally:
            for peer in (client, server):
                peer.sock.close()


async def encrypted(
    client: Peer, server: Peer, *, towards: ssl.SSLContext | None = None, own: ssl.SSLContext | None = None
) -> None:
    """Both handshakes, from the server's answer on."""
    await server.say(b"220 go\r\n")
    await client.hear()
    await asyncio.gather(
        client.begin(towards or client_context(), server_side=False, name=NAME),
        server.begin(own or server_context(), server_side=True),
    )


async def enveloped(client: Peer, server: Peer) -> None:
    """Up to the answer to DATA."""
    for said, answer in (
        (b"EHLO c.example\r\n", b"250 mx\r\n"),
        (b"MAIL FROM:<a@c.example>\r\n", b"250 ok\r\n"),
        (b"RCPT TO:<b@example.com>\r\n", b"250 ok\r\n"),
        (b"DATA\r\n", b"354 go\r\n"),
    ):
        await client.say(said)
        assert await server.hear() == said
        await server.say(answer)
        assert await client.hear() == answer
