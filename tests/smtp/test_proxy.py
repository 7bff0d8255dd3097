"""What crosses the running proxy, between real clients and real servers on loopback: every byte, every end, at the
pace of the slower side.
"""

from __future__ import annotations

import asyncio
import resource
import smtplib
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from smtp_intercept.leg import WRITE_BUFFER_BYTES
from smtp_intercept.limits import LOOK_AHEAD_BYTES
from smtp_intercept.rules import Rules
from tests import vacant
from tests.smtp.box import LOCAL, Box, Run, box, connected, listening, receive, reset, send


class Keeper:
    """An aiosmtpd handler that keeps what it is given."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, list[str], bytes]] = []

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address.startswith("unknown"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return "250 2.0.0 kept"


@contextmanager
def mail_server() -> Iterator[tuple[int, Keeper]]:
    keeper, port = Keeper(), vacant.port()
    controller = Controller(keeper, hostname=LOCAL, port=port, enable_SMTPUTF8=True, data_size_limit=2**26)
    controller.start()
    try:
        yield port, keeper
    finally:
        controller.stop()


def post(port: int, mails: list[tuple[str, list[str], bytes]]) -> list[Any]:
    """Send with smtplib; what the client saw."""
    with smtplib.SMTP(LOCAL, port, local_hostname="client.example") as client:
        seen = [client.ehlo(), client.esmtp_features]
        for sender, recipients, content in mails:
            seen.append(client.sendmail(sender, recipients, content))
    return seen


def test_mail_is_the_same_with_and_without_the_gateway(run: Run) -> None:
    every_octet = b"Subject: x\r\n\r\n" + bytes(octet for octet in range(1, 256) if octet not in b"\r\n") + b"\r\n"
    mails = [
        ("a@c.example", ["b@example.com"], b"Subject: one\r\n\r\n.dotted\r\n..twice\r\n"),
        ("", ["b@example.com", "unknown@example.com", "c@elsewhere.example"], every_octet),
        ("a@c.example", ["b@example.com"], (b"x" * 998 + b"\r\n") * 400),
    ]

    async def work() -> None:
        with mail_server() as (port, keeper):
            without = await asyncio.to_thread(post, port, mails), keeper.mails[:]
            keeper.mails.clear()
            async with box(port) as it:
                assert (await asyncio.to_thread(post, it.port, mails), keeper.mails) == without
                session = (await it.over())[0]
        assert [message["outcome"] for message in it.messages()] == ["accepted"] * 3
        second = it.messages()[1]
        assert {
            key: second[key] for key in ("type", "time", "session", "number", "direction", "handler", "sender")
        } == {
            "type": "message",
            "time": "2023-11-14T22:13:20.250Z",
            "session": session["session"],
            "number": 2,
            "direction": "incoming",
            "handler": "proxy",
            "sender": "",
        }
        assert second["recipients"] == [
            {"address": "b@example.com", "direction": "incoming", "reply": "250 2.1.5 ok"},
            {"address": "unknown@example.com", "direction": "incoming", "reply": "550 5.1.1 no such user"},
            {"address": "c@elsewhere.example", "direction": "outgoing", "reply": "250 2.1.5 ok"},
        ]
        assert second["size_bytes"] == len(every_octet)
        assert second["reply"] == "250 2.0.0 kept"
        assert {key: value for key, value in session.items() if key not in {"session", "seconds", "client"}} == {
            "type": "session",
            "time": "2023-11-14T22:13:20.250Z",
            "port": "p0",
            "vlan": None,
            "balancer": None,
            "server": {"address": LOCAL, "port": it.port, "mac": "02:00:00:00:00:02"},
            "direction": "incoming",
            "handler": "proxy",
            "hidden": False,
            "source_port_kept": False,
            "helo": "client.example",
            "tls": "none",
            "messages": 3,
            "bytes_from_client": session["bytes_from_client"],
            "bytes_from_server": session["bytes_from_server"],
            "doubt": None,
            "doubted": None,
            "sasl_layer": False,
            "outcome": "completed",
            "reason": "",
        }
        assert session["bytes_from_client"] > 300_000
        assert it.gateway.counters()["bytes_from_client"] == session["bytes_from_client"]
        assert it.gateway.counters()["messages"] == 3

    run(work())


def test_every_byte_crosses_in_both_directions(run: Run) -> None:
    to_server = b"EHLO c.example\r\nMAIL FROM:<a@b>\r\nDATA\r\n" + bytes(range(256)) * 4000 + b"\r\n.\r\nQUIT\r\n"
    to_client = b"220 x\r\n250 x\r\n250 ok\r\n354 go\r\n250 ok\r\n" + b"221 bye\r\n" * 100_000

    async def work() -> None:
        trusting = Rules(pass_client_doubt=True)  # so many replies are no server's
        async with listening() as (port, taken), box(port, rules=lambda passage: trusting) as it:
            client = await connected(it.port)
            server = await taken()
            _, _, seen, heard = await asyncio.gather(
                send(client, to_server),
                send(server, to_client),
                receive(server, len(to_server)),
                receive(client, len(to_client)),
            )
            assert seen == to_server
            assert heard == to_client
            client.close()
            server.close()
            await it.over()

    run(work())


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_server_that_reads_slowly_slows_its_client(run: Run) -> None:
    size_bytes = 20_000_000
    line = b"x" * 998 + b"\r\n"

    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client = await connected(it.port)
            server = await taken()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            await send(server, b"220 x\r\n354 go\r\n")
            await send(client, b"DATA\r\n")
            await receive(client, 15)
            await receive(server, 6)
            before = most = memory_bytes()

            async def write() -> None:
                for _ in range(size_bytes // len(line)):
                    await send(client, line)

            writing = asyncio.create_task(write())
            await asyncio.sleep(0.5)
            assert not writing.done()  # the kernel's buffers and ours are full, and that is all there is
            read = 0
            while read < size_bytes:
                read += len(await asyncio.get_running_loop().sock_recv(server, 100_000))
                most = max(most, memory_bytes())
                assert it.gateway.unsent_bytes <= WRITE_BUFFER_BYTES + 300_000
            await writing
            assert most - before < 8_000_000
            client.close()
            server.close()
            assert (await it.over())[0]["bytes_from_client"] == size_bytes + 6

    run(work())


def test_a_client_that_reads_slowly_slows_its_server(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client = await connected(it.port)
            server = await taken()
            writing = asyncio.create_task(send(server, b"220-x\r\n" * 3_000_000))
            await asyncio.sleep(0.5)
            assert not writing.done()
            assert it.gateway.unsent_bytes <= WRITE_BUFFER_BYTES + 300_000
            reset(client)
            with pytest.raises(ConnectionError):
                await writing
            server.close()
            assert (await it.over())[0]["outcome"] == "reset"

    run(work())


def test_a_client_far_ahead_of_the_replies_waits(run: Run) -> None:
    body = b"y" * 8_000_000 + b"\r\n.\r\n"

    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client = await connected(it.port)
            server = await taken()
            await send(server, b"220 x\r\n")
            writing = asyncio.create_task(send(client, b"DATA\r\n" + body))
            reading = asyncio.create_task(receive(server, 6 + len(body)))
            await asyncio.sleep(0.3)
            assert not writing.done()
            await send(server, b"354 go\r\n")
            assert await reading == b"DATA\r\n" + body
            await writing
            await send(server, b"250 ok\r\n")
            assert await receive(client, 23) == b"220 x\r\n354 go\r\n250 ok\r\n"
            assert it.messages()[0]["size_bytes"] == len(body) - 3
            assert len(body) > LOOK_AHEAD_BYTES
            client.close()
            server.close()
            await it.over()

    run(work())


async def greeted(it: Box, taken: Callable[[], Awaitable[socket.socket]]) -> tuple[socket.socket, socket.socket]:
    """Both ends of a session whose banner has crossed: the client's and the server's."""
    client = await connected(it.port)
    server = await taken()
    await send(server, b"220 x\r\n")
    assert await receive(client, 7) == b"220 x\r\n"
    return client, server


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_is_mirrored_as_a_reset(run: Run, side: str) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client, server = await greeted(it, taken)
            one, other = (client, server) if side == "client" else (server, client)
            reset(one)
            with pytest.raises(ConnectionResetError):
                await receive(other, 1)
            other.close()
            ended = (await it.over())[0]
            assert (ended["outcome"], ended["reason"]) == ("reset", f"by the {side}")

    run(work())


def test_a_reset_that_a_write_meets_first_is_a_reset_too(run: Run) -> None:
    """The kernel tells an error once; reading after it would see an end of stream."""

    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client, server = await greeted(it, taken)
            server.send(b"421 bye\r\n")
            reset(client)  # in the same turn of the gateway's loop, which hears of the server first
            with pytest.raises(ConnectionResetError):
                await receive(server, 1)
            server.close()
            ended = (await it.over())[0]
            assert (ended["outcome"], ended["reason"]) == ("reset", "by the client")

    run(work())


AHEAD = b"EHLO c\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"


@pytest.mark.parametrize("behind", [b"x\r\n.\r\n", b"x\r\n.\r\nNOOP\r\n"])
def test_what_waited_for_a_reply_does_not_cross_behind_a_reset(run: Run, behind: bytes) -> None:
    """Its end would be a message that the server takes and the log does not have."""

    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            for _ in range(10):
                client, server = await greeted(it, taken)
                await send(client, AHEAD + behind)
                assert await receive(server, len(AHEAD)) == AHEAD
                await send(server, b"250 x\r\n" * 3)
                await receive(client, 21)
                reset(client)
                server.send(b"354 go\r\n")  # in the same turn of the gateway's loop, which hears of the client first
                with pytest.raises(ConnectionResetError):
                    assert await receive(server, 1) == b"", "content has crossed"
                server.close()
            assert [each["outcome"] for each in await it.over(10)] == ["reset"] * 10
            assert {message["outcome"] for message in it.messages()} == {"aborted"}

    run(work())


def test_the_last_reply_arrives_before_the_reset_that_follows_it(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            for _ in range(20):
                client, server = await greeted(it, taken)
                server.setblocking(True)
                server.sendall(b"554 go away\r\n")
                reset(server)
                assert await receive(client, 13) == b"554 go away\r\n"
                with pytest.raises(ConnectionResetError):
                    await receive(client, 1)
                client.close()
            await it.over(20)

    run(work())


def test_the_last_reply_arrives_though_a_write_meets_the_reset_first(run: Run) -> None:
    """What the kernel has received before a reset can still be read behind it."""

    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            for _ in range(20):
                client, server = await greeted(it, taken)
                client.send(b"NOOP\r\n")  # in the same turn of the gateway's loop, which hears of the client first
                server.send(b"250 kept\r\n")
                reset(server)
                assert await receive(client, 10) == b"250 kept\r\n"
                with pytest.raises(ConnectionResetError):
                    await receive(client, 1)
                client.close()
            ended = await it.over(20)
            assert {(each["outcome"], each["reason"]) for each in ended} == {("reset", "by the server")}

    run(work())


@pytest.mark.parametrize("side", ["client", "server"])
def test_an_end_of_stream_is_mirrored_and_the_other_direction_goes_on(run: Run, side: str) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client, server = await greeted(it, taken)
            one, other = (client, server) if side == "client" else (server, client)
            one.shutdown(socket.SHUT_WR)
            assert await receive(other, 1) == b""
            await send(other, b"250 still here\r\n")
            assert await receive(one, 16) == b"250 still here\r\n"
            other.close()
            assert await receive(one, 1) == b""
            one.close()
            ended = (await it.over())[0]
            assert (ended["outcome"], ended["reason"]) == ("closed", f"by the {side}")

    run(work())
