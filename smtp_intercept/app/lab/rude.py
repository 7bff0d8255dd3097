"""Peers that no SMTP session should have to suffer, clients and servers, and crowds that come at once. Prints JSON.

Refuses to judge: what the box made of it is for the caller to see.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, cast

import uvloop

MAIL_PORT = 25
BLOCK = b"x" * 65_536
ENVELOPE = b"EHLO rude.example.net\r\nMAIL FROM:<rude@example.net>\r\nRCPT TO:<user@example.com>\r\nDATA\r\n"
BACKLOG = 16_384
ATTEMPT_S = 10.0  # several repeats of a SYN
DRIP_S = 0.25


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


# --- servers ---------------------------------------------------------------------------------------------------------


class Server(asyncio.Protocol):
    """Answers line by line, keeps nothing. Its bad manners are in the subclasses."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.rest, self.data = cast("asyncio.Transport", transport), b"", False
        self.tasks: set[asyncio.Task[None]] = set()
        self.write(b"220 server.example.com ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.rest = self.rest[-16:]  # an endless line must not cost its victim more than it has to
        for line in lines:
            self.answer(line.strip().upper())

    def answer(self, line: bytes) -> None:
        if self.data:
            self.data = line != b"."
            if not self.data:
                self.write(b"250 2.0.0 Ok\r\n")
        elif line == b"DATA":
            self.data = True
            self.write(b"354 Go on\r\n")
        elif line == b"QUIT":
            self.write(b"221 Bye\r\n")
            self.transport.close()
        else:
            self.write(b"250 Ok\r\n")

    def write(self, data: bytes) -> None:
        self.transport.write(data)


class Deaf(Server):
    """Reads no more once it has asked for the message."""

    def answer(self, line: bytes) -> None:
        super().answer(line)
        if self.data:
            self.transport.pause_reading()


class Dripping(Server):
    """Sends one octet at a time."""

    def write(self, data: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._drip(data))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _drip(self, data: bytes) -> None:
        for octet in data:
            await asyncio.sleep(DRIP_S)
            self.transport.write(bytes([octet]))


class Flooding(Server):
    """Talks without end, whether it is read or not; says how much has left."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.sent = 0
        super().connection_made(transport)
        self.paused = False
        asyncio.get_running_loop().call_later(0.5, self._flood)

    def pause_writing(self) -> None:
        self.paused = True
        say(sent=self.sent)

    def resume_writing(self) -> None:
        self.paused = False
        self._flood()

    def _flood(self) -> None:
        while not self.paused and not self.transport.is_closing():
            self.sent += len(BLOCK)
            self.transport.write(BLOCK[:-2] + b"\r\n")


MANNERS: dict[str, type[Server]] = {"good": Server, "deaf": Deaf, "dripping": Dripping, "flooding": Flooding}


async def serve(arguments: argparse.Namespace) -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    manners = MANNERS[arguments.manners]
    server = await loop.create_server(manners, arguments.server, MAIL_PORT, backlog=BACKLOG, reuse_address=True)
    async with server:
        say(ready=True)
        await _ended()


# --- clients ---------------------------------------------------------------------------------------------------------


async def connect(arguments: argparse.Namespace) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose banner has come, which is read as far as the banner only."""
    source = (arguments.source, 0) if arguments.source else None
    reader, writer = await asyncio.open_connection(arguments.server, MAIL_PORT, local_addr=source, limit=4096)
    await reader.readuntil(b"\n")
    return reader, writer


async def endless(arguments: argparse.Namespace) -> None:
    """A line, or a header, without end: so many octets, or until the other side has had enough, or takes no more."""
    reader, writer = await connect(arguments)
    if arguments.data:
        for line in ENVELOPE.splitlines(keepends=True):
            writer.write(line)
            await reader.readuntil(b"\n")
        writer.write(b"Subject: ")
    sent, ended = 0, "sent all"
    try:
        while sent < arguments.octets:
            writer.write(BLOCK)
            await asyncio.wait_for(writer.drain(), arguments.patience)
            sent += len(BLOCK)
    except TimeoutError:
        ended = "stalled"
    except ConnectionError:
        ended = "closed"
    say(sent=sent, ended=ended)


async def deaf(arguments: argparse.Namespace) -> None:
    """Never reads; the rest is the server's doing."""
    _, writer = await connect(arguments)
    cast("asyncio.ReadTransport", writer.transport).pause_reading()
    say(ready=True)
    await _ended()


async def loris(arguments: argparse.Namespace) -> None:
    """Many connections, each sending an octet now and then, until SIGTERM."""

    async def one() -> None:
        _, writer = await connect(arguments)
        while True:
            writer.write(b"x")
            await asyncio.sleep(DRIP_S)

    tasks = [asyncio.create_task(one()) for _ in range(arguments.count)]
    await asyncio.sleep(1.0)
    say(ready=True)
    await _ended()
    for task in tasks:
        task.cancel()


async def idle(arguments: argparse.Namespace) -> None:
    """Many sessions that have said EHLO and then nothing, until SIGTERM; how many are still there then."""
    open_now: list[asyncio.StreamWriter] = []

    async def one() -> None:
        reader, writer = await connect(arguments)
        writer.write(b"EHLO idle.example.net\r\n")
        await reader.readuntil(b"\n")
        open_now.append(writer)

    failures = await _crowd(arguments, one)
    say(open=len(open_now), failures=failures)
    await _ended()
    say(left=sum(not writer.transport.is_closing() for writer in open_now))


async def storm(arguments: argparse.Namespace) -> None:
    """Many short sessions; one that fails is tried again, as a mail server would."""
    done = 0

    async def one() -> None:
        nonlocal done
        reader, writer = await connect(arguments)
        writer.write(b"QUIT\r\n")
        await reader.readuntil(b"\n")
        writer.close()
        done += 1

    began_at = time.monotonic()
    failures = await _crowd(arguments, one)
    say(done=done, failures=failures, seconds=round(time.monotonic() - began_at, 3))


async def _crowd(arguments: argparse.Namespace, one: Callable[[], Awaitable[None]]) -> dict[str, int]:
    """``count`` times ``one()``, ``parallel`` at a time, each tried thrice; what went wrong on the way."""
    failures: Counter[str] = Counter()
    left = iter(range(arguments.count))

    async def work() -> None:
        for _ in left:
            for _ in range(3):
                try:
                    await asyncio.wait_for(one(), ATTEMPT_S)
                    break
                except (OSError, EOFError, TimeoutError) as failure:
                    failures[type(failure).__name__] += 1

    await asyncio.gather(*(work() for _ in range(arguments.parallel)))
    return dict(failures)


async def prompt(arguments: argparse.Namespace) -> None:
    """One polite session after another; the seconds that each took."""
    times = []
    for _ in range(arguments.count):
        began_at = time.monotonic()
        reader, writer = await connect(arguments)
        for line in (b"EHLO good.example.net\r\n", b"NOOP\r\n", b"QUIT\r\n"):
            writer.write(line)
            await reader.readuntil(b"\n")
        writer.close()
        times.append(round(time.monotonic() - began_at, 4))
    say(seconds=times)


async def _ended() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


VERBS: dict[str, Callable[[argparse.Namespace], Awaitable[None]]] = {
    verb.__name__: verb for verb in (serve, endless, deaf, loris, idle, storm, prompt)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("server", help="an IP address")
    parser.add_argument("--manners", choices=MANNERS, default="good")
    parser.add_argument("--source", default="", help="the client's address")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=200)
    parser.add_argument("--octets", type=int, default=64 << 20)
    parser.add_argument("--data", action="store_true", help="endless: as a header")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(VERBS[arguments.verb](arguments))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
