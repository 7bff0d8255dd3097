"""Held content in a running gateway: slow peers, peers that go, and a judge that takes its time.

client ──> gateway ──> server          both ends are played by hand, over real sockets
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.heldplace import held_place
from smtp_intercept.inspect.held import MEMORY_BYTES
from smtp_intercept.leg import WRITE_BUFFER_BYTES
from smtp_intercept.outbox import TURN_BYTES
from smtp_intercept.policy import Need, Question, Refuse, Ruling, Stage
from smtp_intercept.rules import Rules
from tests.smtp.box import Box, Run, box, connected, listening, receive, reset, send

PASSED = Ruling(need=Need.HOLD, token="t")
HOLDING = Rules(ask=lambda asked: PASSED)
SIZE = 8_000_000
TEXT = b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * (SIZE // 78)
GO_ON = b"354 End data with <CR><LF>.<CR><LF>\r\n"
Ends = tuple[Box, socket.socket, socket.socket]


@asynccontextmanager
async def in_data(tmp_path: Path, rules: Rules = HOLDING, **options: Any) -> AsyncIterator[Ends]:
    """A client that may send content, and a server that does not know."""
    spill = held_place(tmp_path / "held", os.getuid(), os.getgid())
    async with (
        listening() as (port, taken),
        box(port, rules=lambda passage: rules, **{"spill": spill, **options}) as it,
    ):
        client = await connected(it.port)
        server = await taken()
        await send(server, b"220 x\r\n")
        assert await receive(client, 7) == b"220 x\r\n"
        envelope = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
        await send(client, envelope + b"DATA\r\n")
        assert await receive(server, len(envelope)) == envelope
        await send(server, b"250 ok\r\n250 ok\r\n")
        assert await receive(client, 16 + len(GO_ON)) == b"250 ok\r\n250 ok\r\n" + GO_ON
        with client, server:
            yield it, client, server


def test_a_slow_server_has_all_of_it_in_order_and_little_is_in_memory(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        async with in_data(tmp_path) as (it, client, server):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            await send(client, TEXT + b".\r\nNOOP\r\n")
            assert await receive(server, 6) == b"DATA\r\n"
            assert it.gateway.held_bytes <= MEMORY_BYTES
            await send(server, b"354 go\r\n")
            await asyncio.sleep(0.2)
            assert it.gateway.unsent_bytes <= WRITE_BUFFER_BYTES + TURN_BYTES
            wanted = TEXT + b".\r\nNOOP\r\n"
            assert await receive(server, len(wanted)) == wanted
            await send(server, b"250 taken\r\n250 ok\r\n")
            assert await receive(client, 19) == b"250 taken\r\n250 ok\r\n"
            client.close()
            server.close()
            await it.over()
            assert [m["outcome"] for m in it.messages()] == ["accepted"]

    run(work())


@pytest.mark.parametrize("when", ["collecting", "decided", "released"])
def test_a_client_that_goes_leaves_nothing_with_the_server(run: Run, tmp_path: Path, when: str) -> None:
    """But if the server has all of it, its word is waited for."""

    async def work() -> None:
        async with in_data(tmp_path) as (it, client, server):
            await send(client, b"text\r\n" if when == "collecting" else b"text\r\n.\r\n")
            if when != "collecting":
                assert await receive(server, 6) == b"DATA\r\n"
            if when == "released":
                await send(server, b"354 go\r\n")
                assert await receive(server, 9) == b"text\r\n.\r\n"
            reset(client)
            if when == "released":
                await asyncio.sleep(0.05)
                await send(server, b"250 taken\r\n")
            await it.over()
            assert [m["outcome"] for m in it.messages()] == ["accepted" if when == "released" else "aborted"]

    run(work())


@pytest.mark.parametrize("when", ["collecting", "asked", "receiving", "whole"])
def test_nobody_hears_250_of_a_server_that_dies(run: Run, tmp_path: Path, when: str) -> None:
    async def work() -> None:
        async with in_data(tmp_path) as (it, client, server):
            await send(client, b"x" * 100 if when == "collecting" else TEXT + b".\r\n")
            if when != "collecting":
                assert await receive(server, 6) == b"DATA\r\n"
            if when in ("receiving", "whole"):
                await send(server, b"354 go\r\n")
                await receive(server, 1_000 if when == "receiving" else len(TEXT) + 3)
            reset(server)
            with suppress(ConnectionError):  # the server's reset is the client's
                assert await receive(client, 1) == b""
            await it.over()
            assert [m["outcome"] for m in it.messages()] == ["aborted"]

    run(work())


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("refused", [False, True])
def test_a_judge_that_takes_its_time(run: Run, stage: Stage, refused: bool) -> None:
    """At any stage; meanwhile the client says what it likes."""

    def ask(question: Question) -> Ruling | None:
        return None if question.stage is stage else PASSED

    def later(question: Question, told: Callable[[Ruling], None]) -> None:
        verdict = Ruling(Refuse(550, "no"), token="t") if refused else PASSED
        asyncio.get_running_loop().call_later(0.02, told, verdict)

    async def work() -> None:
        rules = Rules(ask=ask, later=later)
        async with listening() as (port, taken), box(port, rules=lambda passage: rules) as it:
            client, server = await connected(it.port), await taken()
            serving = asyncio.create_task(serve(server))
            await send(client, b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
            await asyncio.sleep(0.15)
            await send(client, b"Subject: x\r\n\r\n.\r\nQUIT\r\n")
            heard = b""
            while piece := await receive(client, 1):
                heard += piece
            client.close()
            await it.over()
            taken_ones = await serving
            # This server takes mail from who has not said EHLO, and this judge says no once.
            delivered = not refused or stage is Stage.HELO
            assert len(taken_ones) == delivered
            assert (b"550 no\r\n" in heard) == refused
            assert any(m["outcome"] == "accepted" for m in it.messages()) == delivered

    run(work())


async def serve(sock: socket.socket) -> list[bytes]:
    """A server that takes everything, one line after the other."""
    taken: list[bytes] = []
    unread, content = b"", None
    await send(sock, b"220 x\r\n")
    loop = asyncio.get_running_loop()
    while True:
        try:
            piece = await loop.sock_recv(sock, 65_536)
        except ConnectionError:
            break
        if not piece:
            break
        unread += piece
        while b"\r\n" in unread:
            line, _, unread = unread.partition(b"\r\n")
            if content is not None:
                if line == b".":
                    taken.append(content)
                    content = None
                    await send(sock, b"250 taken\r\n")
                else:
                    content += line
            elif line == b"DATA":
                content = b""
                await send(sock, b"354 go\r\n")
            else:
                await send(sock, b"221 bye\r\n" if line == b"QUIT" else b"250 ok\r\n")
                if line == b"QUIT":
                    sock.close()
                    return taken
    sock.close()
    return taken


def test_a_full_disk_is_the_clients_to_wait_for(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        full = os.open("/dev/full", os.O_RDWR)
        async with in_data(tmp_path, spill=lambda: os.dup(full)) as (it, client, server):
            await send(client, TEXT + b".\r\n")
            assert await receive(server, 6) == b"RSET\r\n"
            assert await receive(client, 28) == b"452 4.3.1 Come again later\r\n"
            client.close()
            server.close()
            await it.over()
            assert [m["outcome"] for m in it.messages()] == ["deferred"]
        os.close(full)

    run(work())
