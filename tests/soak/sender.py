"""Mail at a steady rate, each message once and by its own words; what became of each is a line of JSON.

``python -m tests.soak.sender --record FILE ROUTE…``, a route being ``NAME,SERVER,DOMAIN,PER_S,SOURCE…`` and SERVER an
address or ADDRESS@PORT. Tries nothing again: whoever retries cannot tell what was doubled. Runs until SIGTERM, then
ends what is under way.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO

import uvloop

from tests.soak.letters import SENDERS, Letter, Words, letter, stuffed

DIAL_S, REPLY_S = 12.0, 40.0  # longer than a process that hangs is waited for
RECIPIENTS, LATER = 40, 50  # addresses of a domain; every so many-th message is put off at first
CHUNKS = 3
GOLDEN = 0.618  # by which routes begin one after another: all at once would be a burst whenever their paces meet


@dataclass(frozen=True, slots=True)
class Route:
    """So many messages a second from any of ``sources`` to ``server``. Port 0: as all others."""

    name: str
    server: str
    domain: str
    per_s: float
    sources: tuple[str, ...]
    port: int = 0

    @classmethod
    def of(cls, text: str) -> Route:
        name, server, domain, per_s, *sources = text.split(",")
        address, _, port = server.partition("@")
        return cls(name, address, domain, float(per_s), tuple(sources), int(port or 0))

    def recipient(self, number: int) -> str:
        later = "-later" if number % LATER == 0 else ""
        return f"user{number % RECIPIENTS}{later}@{self.domain}"


class RefusedError(Exception):
    """A reply that is no 2yz or 3yz, or none."""


class Dialogue:
    """One connection for one message. ``committed``: all of it has gone out; who hears nothing then knows nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._offered = set[str]()
        self.committed = False

    async def send(self, message: Letter, recipient: str) -> None:
        """Returns when the last 250 was heard; raises what went wrong before."""
        await self._reply()
        await self._greet(message)
        if message.words is Words.TLS and "STARTTLS" in self._offered:
            await self._command("STARTTLS")
            await asyncio.wait_for(self._writer.start_tls(CONTEXT), REPLY_S)
            await self._greet(message)
        envelope = [f"MAIL FROM:<{message.sender(SENDERS)}>", f"RCPT TO:<{recipient}>"]
        if message.words is Words.BDAT and "CHUNKING" in self._offered:
            await self._ask(envelope)
            await self._bdat(message.content)
        else:
            await self._data(envelope, message)
        self.committed = False
        with suppress(OSError, RefusedError, TimeoutError):
            await self._command("QUIT")

    async def _greet(self, message: Letter) -> None:
        self._offered = {line.split()[0] for line in await self._command(f"EHLO {message.name}.{SENDERS}") if line}

    async def _ask(self, commands: list[str], *, at_once: bool = True) -> None:
        for group in [commands] if at_once else [[command] for command in commands]:
            self._write(*group)
            for _ in group:
                await self._reply()

    async def _data(self, envelope: list[str], message: Letter) -> None:
        together = message.words is Words.PIPELINED and "PIPELINING" in self._offered
        await self._ask([*envelope, "DATA"], at_once=together)
        self._writer.write(stuffed(message.content))
        self.committed = True
        await asyncio.wait_for(self._writer.drain(), REPLY_S)
        await self._reply()

    async def _bdat(self, content: bytes) -> None:
        """RFC 3030 §4.2: chunks may follow each other without waiting, too."""
        step = len(content) // CHUNKS + 1
        chunks = [content[at : at + step] for at in range(0, len(content), step)]
        for chunk in chunks[:-1]:
            self._writer.write(b"BDAT %d\r\n" % len(chunk) + chunk)
        self._writer.write(b"BDAT %d LAST\r\n" % len(chunks[-1]) + chunks[-1])
        self.committed = True
        await asyncio.wait_for(self._writer.drain(), REPLY_S)
        for _ in chunks:
            await self._reply()

    async def _command(self, line: str) -> list[str]:
        self._write(line)
        return await self._reply()

    def _write(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def _reply(self) -> list[str]:
        """The text of its lines."""
        said = []
        while (line := await asyncio.wait_for(self._reader.readline(), REPLY_S))[3:4] == b"-":
            said.append(line[4:].decode("latin-1").strip())
        if line[:1] not in (b"2", b"3"):
            self.committed = self.committed and not line  # who refuses says so
            raise RefusedError(line.decode("latin-1").strip() or "closed")
        return [*said, line[4:].decode("latin-1").strip()]


def _blind() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


CONTEXT = _blind()


@asynccontextmanager
async def dialled(route: Route, number: int, port: int) -> AsyncIterator[Dialogue]:
    """From the sources in turn."""
    source = route.sources[number % len(route.sources)]
    dial = asyncio.open_connection(route.server, route.port or port, local_addr=(source, 0), limit=1 << 20)
    reader, writer = await asyncio.wait_for(dial, DIAL_S)
    try:
        yield Dialogue(reader, writer)
    finally:
        if not writer.transport.is_closing():
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()


class Sender:
    """All routes at once."""

    def __init__(self, seed: int, record: IO[str], port: int) -> None:
        self._seed, self._record, self._port, self._ended = seed, record, port, asyncio.Event()

    async def run(self, routes: list[Route]) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._ended.set)
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            for number, route in enumerate(routes):
                group.create_task(self._keep_sending(group, route, number * GOLDEN % 1))

    async def _keep_sending(self, group: asyncio.TaskGroup, route: Route, phase: float) -> None:
        began_at = time.monotonic() + phase / route.per_s
        for number in count():
            wait_s = began_at + number / route.per_s - time.monotonic()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), max(wait_s, 0.001))
            if self._ended.is_set():
                return
            group.create_task(self._one(route, number))

    async def _one(self, route: Route, number: int) -> None:
        message, began_at, said = letter(self._seed, route.name, number), time.time(), ""
        outcome, committed = "accepted", False
        try:
            async with dialled(route, number, self._port) as dialogue:
                try:
                    await dialogue.send(message, route.recipient(number))
                finally:
                    committed = dialogue.committed
        except Exception as error:  # whatever a library says of a connection that went: the ledger must have it
            outcome, said = ("unknown" if committed else "refused"), f"{type(error).__name__} {error}"
        self._write(route, message, outcome, said, began_at)

    def _write(self, route: Route, message: Letter, outcome: str, said: str, began_at: float) -> None:
        digest = hashlib.sha256(message.content).hexdigest()[:16]
        entry = {
            "name": message.name,
            "route": route.name,
            "words": message.words,
            "digest": digest,
            "began_at": began_at,
            "ended_at": time.time(),
            "outcome": outcome,
            "said": said,
        }
        self._record.write(json.dumps(entry) + "\n")
        self._record.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("routes", nargs="+", type=Route.of)
    arguments = parser.parse_args()
    with arguments.record.open("a") as record:
        uvloop.run(_run(arguments, record))


async def _run(arguments: argparse.Namespace, record: IO[str]) -> None:
    await Sender(arguments.seed, record, arguments.port).run(arguments.routes)


if __name__ == "__main__":
    main()
