"""A gateway on loopback, and hands to play its clients and servers with."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

from smtp_intercept.direction import Direction
from smtp_intercept.proxy import Arrival, Gateway
from smtp_intercept.transparent import Address, Dialled, Dialler
from tests.smtp.script import PROTECTION

# Runs a test's work on one of the loops, for a bounded time.
Run: TypeAlias = Callable[[Awaitable[None]], None]
LOCAL = "127.0.0.1"


class Box:
    """A gateway on a port of its own; it dials one server, whatever its clients dialled."""

    def __init__(self, server: int, **options: Any) -> None:
        self.log: list[dict[str, Any]] = []
        self.server = server
        options = {
            "dial": self.dial,
            "macs": lambda accepted: ("02:00:00:00:00:01", "02:00:00:00:00:02"),
            **options,
        }
        self.gateway = Gateway(
            protection=PROTECTION,
            log=self.log.append,
            describe=lambda sock: Arrival("p0", Direction.INCOMING),
            clock=lambda: 1_700_000_000.25,
            **options,
        )
        self.listener = socket.create_server((LOCAL, 0))
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]

    def dial(self, client: Address, server: Address, mark: int | None) -> Dialled:
        return Dialler(hidden=False)(client, (LOCAL, self.server))

    def messages(self) -> list[dict[str, Any]]:
        return [record for record in self.log if record["type"] == "message"]

    async def over(self, sessions: int = 1) -> list[dict[str, Any]]:
        """Wait until so many sessions have been logged."""
        while len(ended := [record for record in self.log if record["type"] == "session"]) < sessions:
            await asyncio.sleep(0.005)
        return ended


@asynccontextmanager
async def box(server: int, **options: Any) -> AsyncIterator[Box]:
    it = Box(server, **options)
    it.gateway.accept([it.listener])
    try:
        yield it
    finally:
        it.gateway.stop_accepting()
        await it.gateway.drain(0)
        assert it.gateway.sessions == 0


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, Callable[[], Awaitable[socket.socket]]]]:
    """A server's port, and how to take the next connection to it."""
    with socket.create_server((LOCAL, 0)) as listener:
        listener.setblocking(False)

        async def taken() -> socket.socket:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            return sock

        yield listener.getsockname()[1], taken


@contextmanager
def busy() -> Iterator[socket.socket]:
    """A listener that answers no SYN until it has accepted one connection: its backlog is full."""
    with socket.create_server((LOCAL, 0), backlog=0) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(False)
        yield listener


async def connected(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (LOCAL, port))
    except OSError:
        sock.close()
        raise
    return sock


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly ``size`` octets, fewer only at the end of the stream."""
    data = b""
    while len(data) < size and (piece := await asyncio.get_running_loop().sock_recv(sock, size - len(data))):
        data += piece
    return data


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
