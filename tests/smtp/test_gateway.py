"""How the gateway takes, refuses and gives up connections, and what it says of itself."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from contextlib import suppress
from typing import Any

import pytest

from smtp_intercept import proxy
from smtp_intercept.answers import INJECTED
from smtp_intercept.rules import Rules
from smtp_intercept.session import Session
from smtp_intercept.tally import MAX_UNKNOWN
from tests.smtp.box import LOCAL, Run, box, busy, connected, listening, receive, reset, send


def test_an_unreachable_server_looks_like_its_own_refusal(run: Run) -> None:
    with socket.socket() as nobody:
        nobody.bind((LOCAL, 0))
        port = nobody.getsockname()[1]

        async def work() -> None:
            async with box(port) as it:
                client = await connected(it.port)
                with pytest.raises(ConnectionResetError):
                    await receive(client, 1)
                client.close()
                ended = (await it.over())[0]
                assert (ended["outcome"], ended["reason"]) == ("unreachable", "ECONNREFUSED")
                assert it.gateway.counters()["dial_failures"] == 1

        run(work())


def test_a_server_that_does_not_answer_is_given_up(run: Run) -> None:
    async def work() -> None:
        with busy() as server:
            async with box(server.getsockname()[1], dial_timeout_s=0.1) as it:
                client = await connected(it.port)
                await send(client, b"EHLO early.example\r\n")
                with pytest.raises(ConnectionResetError):
                    await receive(client, 1)
                client.close()
                assert (await it.over())[0]["reason"] == "ETIMEDOUT"

    run(work())


def test_what_a_client_sends_while_the_server_is_dialled_is_not_lost(run: Run) -> None:
    async def work() -> None:
        with busy() as late:
            async with box(late.getsockname()[1]) as it:
                client = await connected(it.port)
                await send(client, b"EHLO early.example\r\n")
                await asyncio.sleep(0.2)
                assert it.gateway.sessions == 1
                late.accept()[0].close()
                server, _ = await asyncio.get_running_loop().sock_accept(late)
                assert await receive(server, 20) == b"EHLO early.example\r\n"
                client.close()
                server.close()
                await it.over()

    run(work())


def test_an_idle_session_is_reset_and_a_busy_one_is_not(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port, session_idle_s=0.6) as it:
            client = await connected(it.port)
            server = await taken()
            began = time.monotonic()
            for _ in range(8):
                await send(server, b"220-x\r\n")
                await receive(client, 7)
                await asyncio.sleep(0.1)
            with pytest.raises(ConnectionResetError):
                await receive(client, 1)
            assert 1.25 < time.monotonic() - began < 15
            with pytest.raises(ConnectionResetError):
                await receive(server, 1)
            assert (await it.over())[0]["outcome"] == "idle"
            assert it.gateway.counters()["idle"] == 1
            client.close()
            server.close()

    run(work())


def test_an_injection_behind_starttls_ends_the_session(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client = await connected(it.port)
            server = await taken()
            await send(server, b"220 x\r\n")
            await send(client, b"STARTTLS\r\nMAIL FROM:<a@b>\r\n")
            assert await receive(server, 10) == b"STARTTLS\r\n"
            await send(server, b"220 go\r\n")
            with pytest.raises(ConnectionResetError):
                await receive(server, 1_000)
            said = str(INJECTED.reply)
            assert await receive(client, 1_000) == f"220 x\r\n{said}\r\n".encode()
            client.close()
            ended = (await it.over())[0]
            assert (ended["outcome"], ended["reason"]) == ("aborted", said)

    run(work())


def test_a_client_that_is_reset_behind_its_message_takes_no_word_of_the_servers_from_the_log(run: Run) -> None:
    """Reset with it, the server might have accepted the message, and nobody would know."""

    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client = await connected(it.port)
            server = await taken()
            await send(server, b"220 x\r\n")
            said = b"HELO c\r\nMAIL FROM:<a@c>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
            await send(client, said)
            assert await receive(server, len(said)) == said
            await send(server, b"250 x\r\n250 ok\r\n250 ok\r\n354 go\r\n")
            await receive(client, 38)
            await send(client, b"x\r\n.\r\n")
            assert await receive(server, 6) == b"x\r\n.\r\n"
            reset(client)
            await asyncio.sleep(0.05)
            assert not it.messages()
            await send(server, b"250 taken\r\n")
            ended = (await it.over())[0]
            assert (ended["outcome"], ended["reason"]) == ("reset", "by the client")
            assert [(m["outcome"], m["reply"]) for m in it.messages()] == [("accepted", "250 taken")]
            server.close()

    run(work())


def test_a_client_that_is_reset_otherwise_takes_its_server_with_it(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client = await connected(it.port)
            server = await taken()
            await send(client, b"EHLO c\r\n")
            await receive(server, 8)
            reset(client)
            with pytest.raises(ConnectionResetError):
                await receive(server, 1)
            server.close()
            await it.over()

    run(work())


def test_a_balancers_client_is_in_the_log(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port, rules=lambda passage: Rules(balancer=True)) as it:
            client = await connected(it.port)
            server = await taken()
            await send(client, b"PROXY TCP4 203.0.113.5 192.0.2.20 12345 25\r\nQUIT\r\n")
            assert (await receive(server, 50)).endswith(b"QUIT\r\n")
            client.close()
            server.close()
            ended = (await it.over())[0]
            assert (ended["client"]["address"], ended["client"]["port"]) == ("203.0.113.5", 12345)
            assert ended["balancer"]["address"] == LOCAL

    run(work())


def test_extensions_that_nobody_knows_are_named_and_no_server_fills_the_page(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            for number in range(2):
                client = await connected(it.port)
                server = await taken()
                await send(server, b"220 x\r\n")
                await receive(client, 7)
                await send(client, b"EHLO c\r\n")
                await receive(server, 8)
                names = b"".join(b"250-XNEW%d %b\r\n" % (each + 20 * number, b"y" * 99) for each in range(40))
                await send(server, b"250-x\r\n250-AUTH=LOGIN\r\n250-PIPELINING\r\n" + names + b"250 HELP\r\n")
                await receive(client, len(names))
                client.close()
                server.close()
                await it.over(number + 1)
            unknown = it.gateway.unknown_keywords()
            assert len(unknown) == MAX_UNKNOWN + 1
            assert unknown["others"] > 0
            assert "AUTH=LOGIN" not in unknown

    run(work())


def test_a_mistake_of_ours_ends_one_session_and_tells_nothing_of_its_mail(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sound = Session.client_sent

    def unsound(session: Session, data: bytes, now: float) -> Any:
        if b"secret" in data:
            raise ValueError(data)
        return sound(session, data, now)

    monkeypatch.setattr(Session, "client_sent", unsound)

    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client, server = await connected(it.port), await taken()
            other_client, other_server = await connected(it.port), await taken()
            await send(client, b"secret\r\n")
            with pytest.raises(ConnectionResetError):
                await receive(server, 1)
            ended = (await it.over())[0]
            assert ended["outcome"] == "error"
            assert "ValueError" in ended["reason"]
            await send(other_client, b"EHLO c.example\r\n")
            assert await receive(other_server, 16) == b"EHLO c.example\r\n"
            for sock in (client, server, other_client, other_server):
                sock.close()
            await it.over(2)
            assert "secret" not in caplog.text + str(it.log)

    run(work())


def test_out_of_descriptors_the_gateway_is_not_healthy_and_does_not_spin(run: Run) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            assert it.gateway.healthy
            first = await connected(it.port)
            server = await taken()
            waiting = socket.socket()
            waiting.setblocking(False)
            lowest = waiting.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
            hoard: list[socket.socket] = []
            with suppress(OSError):
                while True:
                    hoard.append(socket.socket())
            try:
                await asyncio.get_running_loop().sock_connect(waiting, (LOCAL, it.port))
                await asyncio.sleep(0.35)
                assert not it.gateway.healthy
                assert 1 <= it.gateway.counters()["accept_failures"] <= 6
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for sock in hoard:
                    sock.close()
            late = await taken()
            assert it.gateway.healthy
            for sock in (first, server, waiting, late):
                sock.close()
            await it.over(2)

    run(work())


def test_full_at_the_limit_and_closed_to_more_than_the_overshoot(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "OVERSHOOT", 1)

    async def work() -> None:
        async with listening() as (port, taken), box(port, sessions=2) as it:
            clients, servers = [await connected(it.port)], [await taken()]
            assert not it.gateway.full
            clients.append(await connected(it.port))
            servers.append(await taken())
            assert it.gateway.full
            clients.append(await connected(it.port))
            servers.append(await taken())
            clients.append(await connected(it.port))
            await asyncio.sleep(0.2)
            assert it.gateway.sessions == 3
            assert not it.gateway.healthy
            reset(clients.pop(0))
            servers.append(await taken())
            for sock in clients + servers:
                sock.close()
            await it.over(4)
            assert not it.gateway.full

    run(work())


def test_a_drain_waits_for_sessions_to_end_and_no_longer_than_it_may(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client, server = await connected(it.port), await taken()
            backlogged = await connected(it.port)  # accepted by the kernel, not yet by us
            it.gateway.stop_accepting()
            assert not it.gateway.healthy
            with pytest.raises(ConnectionRefusedError):
                await connected(it.port)
            second = await taken()
            draining = asyncio.create_task(it.gateway.drain(1.0))
            await send(server, b"220 x\r\n")
            assert await receive(client, 7) == b"220 x\r\n"
            client.close()
            server.close()
            await it.over()
            assert not draining.done()
            await draining
            with pytest.raises(ConnectionResetError):
                await receive(second, 1)
            assert [record["outcome"] for record in await it.over(2)] == ["closed", "stopped"]
            backlogged.close()
            second.close()

    run(work())
