"""Real clients over TCP, and what a large message costs.

smtplib, swaks, smtp-source ──127.0.0.1──> listener ──> Receiving ──> Shelf
"""

from __future__ import annotations

import asyncio
import os
import smtplib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosmtpd
import pytest

from smtp_intercept.direction import Direction
from smtp_intercept.mta.envelope import USUAL, Body, Notify, Origin
from smtp_intercept.mta.receive import Intake, Receiving, Services
from tests.bench.receiving import Counting, services
from tests.mta.receiving import House, house, replies, send
from tests.smtp.box import LOCAL, Run
from tests.tools import program

CERTIFICATES = Path(aiosmtpd.__file__).parent / "tests" / "certs"
MESSAGE = "From: a@c.example\r\nSubject: hello\r\n\r\n.dot\r\n..\r\n.\r\nä\r\n"
LARGE_BYTES = 50_000_000
# What one message may cost: a piece being written, one being read, what the kernel gave at once.
MEMORY_BYTES = 6_000_000


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[tuple[House, int]]:
    """A house with a door on loopback; its port."""
    loop = asyncio.get_running_loop()
    async with house(**options) as it:
        with socket.create_server((LOCAL, 0), backlog=100) as listener:
            listener.setblocking(False)

            async def accept() -> None:
                while True:
                    sock, client = await loop.sock_accept(listener)
                    it.receiving.serve(sock, Origin(client, listener.getsockname(), Direction.INCOMING))

            accepting = loop.create_task(accept())
            yield it, listener.getsockname()[1]
            accepting.cancel()


async def executed(*words: str, env: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *words, env=os.environ | env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.fixture(scope="module")
def certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.crt", CERTIFICATES / "server.key")
    return context


def speak(port: int, work: Callable[[smtplib.SMTP], None]) -> None:
    with smtplib.SMTP(LOCAL, port, "c.example", timeout=10) as client:
        work(client)


def test_smtplib(run: Run, certificate: ssl.SSLContext) -> None:
    def talk(client: smtplib.SMTP) -> None:
        client.starttls()
        options = ["BODY=8BITMIME", "RET=FULL", "ENVID=e1"]
        refused = client.sendmail(
            "a@c.example", ["b@example.com", "x@other.example"], MESSAGE.encode(), options, ["NOTIFY=SUCCESS"]
        )
        assert refused == {"x@other.example": (550, b"5.7.1 relay access denied")}
        client.sendmail("", ["postmaster"], MESSAGE.encode())
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@c.example", ["x@other.example"], MESSAGE.encode())
        assert client.verify("b@example.com")[0] == 252
        assert client.noop()[0] == 250

    async def work() -> None:
        async with listening(certificate=certificate) as (it, port):
            await asyncio.to_thread(speak, port, talk)
            first, second = it.shelf.kept
            assert (first.envelope.ret, first.envelope.envid, first.envelope.body) == ("FULL", "e1", Body.EIGHT_BIT)
            assert [(r.address, r.notify) for r in first.envelope.recipients] == [("b@example.com", Notify.SUCCESS)]
            assert [(r.address, r.notify) for r in second.envelope.recipients] == [("postmaster", USUAL)]
            assert first.content.endswith(b"+0000\r\n" + MESSAGE.encode())

    run(work())


@pytest.mark.parametrize("options", [["--pipeline"], ["--protocol", "SMTP"], ["--quit-after", "RCPT"]])
def test_swaks(run: Run, options: list[str]) -> None:
    path, env = program("swaks")

    async def work() -> None:
        async with listening() as (it, port):
            common = [
                "--server",
                f"{LOCAL}:{port}",
                "--from",
                "a@c.example",
                "--to",
                "b@example.com",
                "--helo",
                "c.example",
            ]
            await executed(path, *common, *options, env=env)
            await it.over()
            assert len(it.shelf.kept) == ("--quit-after" not in options)

    run(work())


@pytest.mark.parametrize("options", [[], ["-d"], ["-r", "5"], ["-N", "-4"]])
def test_smtp_source(run: Run, options: list[str]) -> None:
    path, env = program("smtp-source")

    async def work() -> None:
        async with listening() as (it, port):
            load = ["-s", "10", "-m", "100", "-l", "4096", "-f", "a@c.example", "-t", "b@example.com"]
            await executed(path, *load, *options, f"{LOCAL}:{port}", env=env)
            assert len(it.shelf.kept) == 100
            assert len({kept.content.partition(b" id ")[2].split()[0] for kept in it.shelf.kept}) == 100

    run(work())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pour(sock: socket.socket, size_bytes: int) -> None:
    line = b"x" * 998 + b"\r\n"
    piece = line * 60
    with sock:
        sock.settimeout(30)
        for _ in range(size_bytes // len(piece)):
            sock.sendall(piece)
        sock.sendall(b".\r\n")
        assert sock.recv(100).startswith((b"250 2.0.0 ", b"552 5.3.4 "))


@pytest.mark.parametrize("most_bytes", [0, 1_000_000])
def test_a_large_message_costs_the_memory_of_a_piece(run: Run, most_bytes: int) -> None:
    """Kept or refused, over a spool that only counts."""

    async def work() -> None:
        spool = Counting()
        limited = services(spool)
        receiving = Receiving(
            Services(
                **{name: getattr(limited, name) for name in ("spool", "admission", "direction", "hostname", "log")},
                intake=Intake(size_bytes=most_bytes),
            )
        )
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        receiving.serve(theirs, Origin(("192.0.2.9", 1), ("192.0.2.1", 25), Direction.INCOMING))
        await send(ours, b"EHLO c\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
        await replies(ours, 5)
        before, most = resident_bytes(), 0
        pouring = threading.Thread(target=pour, args=(ours, LARGE_BYTES))
        pouring.start()
        while pouring.is_alive():
            await asyncio.sleep(0.002)
            most = max(most, resident_bytes())
        assert spool.messages == (not most_bytes)
        assert most - before < MEMORY_BYTES
        await receiving.drain(5)

    run(work())
