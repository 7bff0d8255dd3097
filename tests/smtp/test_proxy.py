"""The running proxy over loopback, on asyncio's loop and on uvloop's, between real clients and real servers."""

from __future__ import annotations

import asyncio
import resource
import smtplib
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import uvloop
from aiosmtpd.controller import Controller

from smtp_intercept import proxy
from smtp_intercept.direction import Direction, Domains
from smtp_intercept.legs import WRITE_BUFFER_BYTES
from smtp_intercept.proxy import Arrival, Gateway
from smtp_intercept.session import LOOK_AHEAD_BYTES, Session
from smtp_intercept.transparent import Address, Dialled, Dialler

Run: TypeAlias = Callable[[Awaitable[None]], None]
LOCAL = "127.0.0.1"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def on_loop(work: Awaitable[None]) -> None:
        async def timed() -> None:
            async with asyncio.timeout(40):
                await work

        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
            runner.run(timed())

    return on_loop


class Box:
    """A gateway on a port of its own; it dials one server, whatever its clients dialled."""

    def __init__(self, server: int, **options: Any) -> None:
        self.log: list[dict[str, Any]] = []
        self.server = server
        options = {
            "dial": self.dial,
            "macs": lambda client, server: ("02:00:00:00:00:01", "02:00:00:00:00:02"),
            **options,
        }
        self.gateway = Gateway(
            domains=lambda: Domains.of([("example.com", False)]),
            log=self.log.append,
            describe=lambda sock: Arrival("p0", Direction.INCOMING),
            clock=lambda: 1_700_000_000.25,
            **options,
        )
        self.listener = socket.create_server((LOCAL, 0))
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]

    async def dial(self, client: Address, server: Address) -> Dialled:
        return await Dialler(hidden=False)(client, (LOCAL, self.server))

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


async def connected(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (LOCAL, port))
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
    keeper = Keeper()
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        port = probe.getsockname()[1]
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
        async with listening() as (port, taken), box(port) as it:
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


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_is_mirrored_as_a_reset(run: Run, side: str) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client = await connected(it.port)
            server = await taken()
            await send(server, b"220 x\r\n")
            await receive(client, 7)
            one, other = (client, server) if side == "client" else (server, client)
            reset(one)
            with pytest.raises(ConnectionResetError):
                await receive(other, 1)
            other.close()
            ended = (await it.over())[0]
            assert (ended["outcome"], ended["reason"]) == ("reset", f"by the {side}")

    run(work())


def test_the_last_reply_arrives_before_the_reset_that_follows_it(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            for _ in range(20):
                client = await connected(it.port)
                server = await taken()
                server.setblocking(True)
                server.sendall(b"554 go away\r\n")
                reset(server)
                assert await receive(client, 13) == b"554 go away\r\n"
                with pytest.raises(ConnectionResetError):
                    await receive(client, 1)
                client.close()
            await it.over(20)

    run(work())


@pytest.mark.parametrize("side", ["client", "server"])
def test_an_end_of_stream_is_mirrored_and_the_other_direction_goes_on(run: Run, side: str) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port) as it:
            client = await connected(it.port)
            server = await taken()
            await send(server, b"220 x\r\n")
            await receive(client, 7)
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
    async def never(client: Address, server: Address) -> Dialled:
        await asyncio.Event().wait()
        raise AssertionError

    async def work() -> None:
        async with box(1, dial=never, dial_timeout_s=0.1) as it:
            client = await connected(it.port)
            await send(client, b"EHLO early.example\r\n")
            with pytest.raises(ConnectionResetError):
                await receive(client, 1)
            client.close()
            assert (await it.over())[0]["reason"] == "ETIMEDOUT"

    run(work())


def test_what_a_client_sends_while_the_server_is_dialled_is_not_lost(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken):

            async def late(client: Address, server: Address) -> Dialled:
                await asyncio.sleep(0.2)
                return await Dialler(hidden=False)(client, (LOCAL, port))

            async with box(port, dial=late) as it:
                client = await connected(it.port)
                await send(client, b"EHLO early.example\r\n")
                server = await taken()
                assert await receive(server, 20) == b"EHLO early.example\r\n"
                client.close()
                server.close()
                await it.over()

    run(work())


def test_an_idle_session_is_reset_and_a_busy_one_is_not(run: Run) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port, session_idle_s=0.3) as it:
            client = await connected(it.port)
            server = await taken()
            began = time.monotonic()
            for _ in range(5):
                await send(server, b"220-x\r\n")
                await receive(client, 7)
                await asyncio.sleep(0.1)
            with pytest.raises(ConnectionResetError):
                await receive(client, 1)
            assert 0.65 < time.monotonic() - began < 2
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
            for sock in (client, server):
                with pytest.raises(ConnectionResetError):
                    await receive(sock, 1_000)
                sock.close()
            ended = (await it.over())[0]
            assert (ended["outcome"], ended["reason"]) == ("aborted", "the client sent octets behind STARTTLS")

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
            draining = asyncio.create_task(it.gateway.drain(0.3))
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
