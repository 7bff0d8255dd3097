"""The world around an MTA that is killed again and again: clients that send without end, the door that hands their
connections over as the interceptor does, and a next hop that writes down all that it takes.

    clients ──127.0.0.1──> door ──handover──> MTA, killed ──127.0.0.1──> next hop
                             └─ one process, which outlives it ─────────────┘
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from smtp_intercept.answers import Answer
from smtp_intercept.app.handover import Giving
from smtp_intercept.direction import Direction, recipient_domain
from smtp_intercept.mta.envelope import Envelope, Origin
from smtp_intercept.mta.receive import Receiving, Services
from tests.mta.crash_ledger import OURS, SENDERS, Ledger, Sent, Taken
from tests.mta.spools import is_whole, sealed

CLIENTS = 8
MESSAGES = 6  # of one connection, at most
UNDER_WAY = 150  # accepted and not settled; then the clients wait
REPLY_S = 0.01  # the next hop's, at most
PATIENCE_S = 20.0
LARGE_BYTES = 200_000
NO_SUCH_USER = Answer(550, "5.1.1 No such user")
TRY_AGAIN = Answer(451, "4.2.0 Greylisted")


class Scrap:
    """A draft in memory."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, data: bytes) -> None:
        self.content += data

    def abandon(self) -> None:
        pass


class NextHop:
    """Takes mail with the product's own receiving side, and writes it down before it answers."""

    def __init__(self, ledger: Ledger, chance: random.Random) -> None:
        self._ledger, self._chance = ledger, chance
        self._greylisted: set[str] = set()
        self.receiving = Receiving(
            Services(
                spool=self,
                admission=self._admission,
                direction=lambda origin, recipient: Direction.INCOMING,
                hostname="next.example",
                log=lambda record: None,
            )
        )

    def draft(self) -> Scrap:
        return Scrap()

    def _admission(self, origin: Origin, recipient: str) -> Answer | None:
        if recipient.startswith("no-"):
            return NO_SUCH_USER
        if recipient.startswith("later-") and recipient not in self._greylisted:
            self._greylisted.add(recipient)
            return TRY_AGAIN
        return None

    async def enqueue(self, draft: Any, origin: Origin, envelope: Envelope, now: float) -> str:
        recipients = tuple(each.address for each in envelope.recipients)
        life = int(re.fullmatch(r"life(\d+)\.box\.example", origin.helo)[1])  # type: ignore[index]
        self._ledger.taken.append(_taken(life, recipients, draft.content))
        await asyncio.sleep(self._chance.uniform(0, REPLY_S))
        return "taken"


def _taken(life: int, recipients: tuple[str, ...], content: bytes) -> Taken:
    at, head = time.monotonic(), content.partition(b"\r\n\r\n")[0]
    if recipient_domain(recipients[0]) == SENDERS:
        notice = re.search(rb"(?m)^Message-ID: <(.+)>", head)
        failed = re.findall(rb"(?m)^Final-Recipient: rfc822; (\S+)", content)
        assert notice is not None
        return Taken(life, at, recipients, notice[1].decode(), tuple(each.decode() for each in failed))
    return Taken(life, at, recipients, whole=is_whole(content.partition(b"\r\nSealed: ")[2]))


class Door:
    """Where clients knock. A connection that the MTA cannot have now waits for the next one."""

    def __init__(self, giving: Giving) -> None:
        self._giving, self._port = giving, 0

    async def open(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._giving.fileno(), self._giving.listen)
        while True:
            sock, client = await loop.sock_accept(listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            origin = Origin(client, listener.getsockname(), Direction.INCOMING, "p0", (OURS,))
            while not self._giving.give(sock, origin):
                await asyncio.sleep(0.002)
            sock.close()


class Client:
    """Sends one message after another, now and then on a new connection, and hears what becomes of each."""

    def __init__(self, number: int, ledger: Ledger, chance: random.Random, place: tuple[str, int]) -> None:
        self._number, self._ledger, self._chance, self._place = number, ledger, chance, place
        self._sent = 0

    async def run(self, over: Callable[[], bool]) -> None:
        while not over():
            if self._ledger.under_way > UNDER_WAY:
                await asyncio.sleep(0.01)
                continue
            with suppress(OSError, EOFError, TimeoutError):
                await self._connection(over)

    async def _connection(self, over: Callable[[], bool]) -> None:
        reader, writer = await asyncio.open_connection(*self._place)
        try:
            await _reply(reader)
            writer.write(b"EHLO client.example\r\n")
            await _reply(reader)
            for _ in range(self._chance.randrange(1, MESSAGES)):
                if over():
                    return
                await self._message(reader, writer)
        finally:
            writer.close()

    async def _message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sent += 1
        name = f"{self._number}.{self._sent}"
        kinds = self._chance.choices(("ok", "no", "later"), (8, 2, 1), k=self._chance.choice((1, 1, 1, 2, 3)))
        sent = Sent(name, tuple(f"{kind}-{n}-{name}@{OURS}" for n, kind in enumerate(kinds)))
        commands = [f"MAIL FROM:<s-{name}@{SENDERS}>", *(f"RCPT TO:<{to}>" for to in sent.recipients), "DATA"]
        writer.write("".join(f"{line}\r\n" for line in commands).encode())
        for command in commands:
            if not (reply := await _reply(reader)).startswith((b"250 ", b"354 ")):
                raise EOFError(f"{command}: {reply!r}")
        self._ledger.sent[name] = sent
        writer.write(b"Subject: x\r\nSealed: " + sealed(self._body()) + b".\r\n")
        with self._ledger.waiting(sent):
            reply = await _reply(reader)
        self._ledger.hear(sent, reply.decode())

    def _body(self) -> bytes:
        """No line begins with a dot; mostly small, sometimes large enough for a file of its own."""
        size = self._chance.choice((10, 10, 3_000, 3_000, LARGE_BYTES))
        return b"\r\n" + f"{self._chance.random()}\r\n".encode() * (size // 20 + 1)


async def _reply(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        while line := await reader.readline():
            if line[3:4] == b" ":
                if line[:1] in b"45" and line[:3] not in (b"451", b"452"):
                    raise AssertionError(line)
                return line
    raise EOFError("the connection was lost")


async def world(
    listener: socket.socket, next_hop: socket.socket, giving: Giving, told: socket.socket, seed: int
) -> dict[str, Any]:
    """Until "stop" the clients send; until "end" the next hop takes."""
    loop, ledger = asyncio.get_running_loop(), Ledger()
    hop, over = NextHop(ledger, random.Random(seed)), asyncio.Event()
    serving = [loop.create_task(Door(giving).open(listener)), loop.create_task(_serve(hop, next_hop))]
    place = listener.getsockname()
    clients = [Client(number, ledger, random.Random(seed + number), place) for number in range(CLIENTS)]
    sending = [loop.create_task(client.run(over.is_set)) for client in clients]
    await loop.sock_recv(told, 16)
    over.set()
    await asyncio.wait(sending, timeout=2 * PATIENCE_S)
    await loop.sock_sendall(told, b"stopped")
    await loop.sock_recv(told, 16)
    for task in serving:
        task.cancel()
    mistakes = Counter(repr(task.exception()) for task in sending if not task.done() or task.exception())
    return {**ledger.told(), "mistakes": mistakes}


async def _serve(hop: NextHop, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        sock, client = await loop.sock_accept(listener)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hop.receiving.serve(sock, Origin(client, listener.getsockname(), Direction.INCOMING))
