"""Hostile sessions through a gateway to real mail servers, and to a loose one of our own: prints what it logged.
Between them an honest client's, whose mail arrives whatever the others do.

``{"peers": {name: [address, domain]}, "sessions": each, "seed": text, "seconds": most}``; the gateway is the live proxy
with its defaults, for half of the sessions with a judge that must have all content first, on loopback beside the
servers: no packets are turned here, that is the lanes' part.
"""

from __future__ import annotations

import asyncio
import json
import random
import smtplib
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from smtp_intercept.direction import Direction, Domains, Protection
from smtp_intercept.passage import Passage
from smtp_intercept.policy import Defer, Discard, Need, Pass, Question, Refuse, Ruling, Stage, Verdict
from smtp_intercept.proxy import Arrival, Gateway
from smtp_intercept.rules import Rules
from smtp_intercept.transparent import Address, Dialled, Dialler, reset_on_close
from tests.fuzz.hostile import SYNC, End, Hostile
from tests.fuzz.loose import LooseServer, Quirks

LOCAL = "127.0.0.1"
LOOSE = "loose"
# OpenSMTPD listens with a backlog of five.
AT_A_TIME, FEW = 14, {"opensmtpd": 4}
SYN_S = 5.0
FIRST_S, QUIET_S = 1.5, 0.02  # what a server answers has begun by then, and is whole
LAST_S = 0.15
HONEST_EVERY, PATIENCE_S = 20, 60.0
# Of one mailbox; the last is none to these.
SPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda domain: f"a@{domain}",
    lambda domain: f"a@{domain.upper()}",
    lambda domain: f'"a"@{domain}',
)
UNQUOTED = ("opensmtpd",)
VERDICTS: tuple[Verdict, ...] = (*[Pass()] * 9, Refuse(550, "5.7.1 no"), Defer(450, "4.7.1 later"), Discard())
HONEST = "@honest.test"
REFUSED = frozenset({Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.MESSAGE})


class Client:
    """One session's."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._loop, self.gone, self.heard = sock, asyncio.get_running_loop(), False, b""

    async def play(self, hostile: Hostile) -> None:
        with suppress(ConnectionError, BrokenPipeError):
            for step in hostile.steps:
                if self.gone:
                    return
                if step is SYNC:
                    await self.listen(FIRST_S)
                elif step is End.RESET:
                    reset_on_close(self._sock)
                    return
                elif step is End.HALF_CLOSE:
                    self._sock.shutdown(socket.SHUT_WR)
                else:
                    async with asyncio.timeout(SYN_S):
                        await self._loop.sock_sendall(self._sock, step)
            await self.listen(LAST_S)

    async def listen(self, first_s: float) -> None:
        wait_s = first_s
        while not self.gone:
            try:
                async with asyncio.timeout(wait_s):
                    data = await self._loop.sock_recv(self._sock, 65_536)
            except TimeoutError:
                return
            self.heard += data
            self.gone, wait_s = not data, QUIET_S


def rules_of(passage: Passage) -> Rules:
    """Of every other session all content is held, and some of it, but nobody's who is honest, refused, deferred or
    thrown away."""
    usual = Rules(reject_bare_newline=True)
    chance = random.Random(passage.name)
    if chance.random() < 0.5:
        return usual

    def ask(question: Question) -> Ruling:
        refusable = question.stage in REFUSED and not question.sender.endswith(HONEST)
        verdict = chance.choice(VERDICTS) if refusable else Pass()
        return Ruling(verdict, need=Need.HOLD, token="r")

    return replace(usual, ask=ask)


@asynccontextmanager
async def gateway(server: Address, log: list[dict[str, Any]]) -> AsyncIterator[tuple[int, Gateway]]:
    def dial(client: Address, _: Address, mark: int | None) -> Dialled:
        return Dialler(hidden=False)(client, server)

    it = Gateway(
        dial=dial,
        protection=Protection(Domains.of([])),
        log=log.append,
        describe=lambda sock: Arrival("p0", Direction.INCOMING),
        rules=rules_of,
        macs=lambda sock: None,
    )
    listener = socket.create_server((LOCAL, 0), backlog=256)
    listener.setblocking(False)
    it.accept([listener])
    try:
        yield listener.getsockname()[1], it
    finally:
        it.stop_accepting()
        await it.drain(5)


@asynccontextmanager
async def loose(seed: str, servers: list[LooseServer]) -> AsyncIterator[int]:
    """A `LooseServer` for each connection, each with quirks of its own."""
    chance = random.Random(f"loose {seed}")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = LooseServer(Quirks.by(chance))
        servers.append(server)
        with suppress(ConnectionError):
            if late_s := chance.choice([0.0, 0.0, 0.03]):
                with suppress(TimeoutError):
                    async with asyncio.timeout(late_s):
                        while data := await reader.read(65_536):
                            server.hear(data)
            writer.write(server.greet())
            while data := await reader.read(65_536):
                writer.write(server.hear(data))
                await writer.drain()
        writer.close()

    it = await asyncio.start_server(serve, LOCAL, 0, backlog=256)
    async with it:
        yield it.sockets[0].getsockname()[1]


def send(port: int, sender: str, recipient: str) -> str:
    """One message of anybody's, to a path in any spelling; why it was not accepted, "" if it was."""
    try:
        with smtplib.SMTP(LOCAL, port, "honest.test", PATIENCE_S) as client:
            client.ehlo()
            for line in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>"):
                code, text = client.docmd(line)
                if code >= 300:
                    return f"{line}: {text!r}"
            client.data("Subject: x\r\n\r\ntext\r\n")
    except (smtplib.SMTPException, OSError) as failure:
        return repr(failure)
    return ""


async def attack(name: str, server: Address, job: dict[str, Any], domain: str) -> dict[str, Any]:
    log: list[dict[str, Any]] = []
    seats, until_at, played = asyncio.Semaphore(FEW.get(name, AT_A_TIME)), time.monotonic() + job["seconds"], 0

    honest: dict[str, str] = {}

    async def session(port: int, number: int) -> None:
        nonlocal played
        async with seats:
            if time.monotonic() > until_at:
                return
            sock = socket.socket()
            sock.setblocking(False)
            with sock:
                await asyncio.get_running_loop().sock_connect(sock, (LOCAL, port))
                await Client(sock).play(Hostile(f"{job['seed']}-{name}-{number}", domain))
            played += 1
            if number % HONEST_EVERY == 0:
                sender = f"h{job['seed']}.{number}{HONEST}"
                path = SPELLINGS[number // HONEST_EVERY % (len(SPELLINGS) - (name in UNQUOTED))](domain)
                honest[sender] = await asyncio.to_thread(send, port, sender, path)

    async with gateway(server, log) as (port, it):
        await asyncio.gather(*(session(port, number) for number in range(job["sessions"])))
    counts = it.counters()
    messages = [record for record in log if record["type"] == "message" and record["outcome"] == "accepted"]
    accepted = [
        [
            m["sender"],
            sorted(r["address"] for r in m["recipients"] if r["reply"].startswith("2") and "discarded" not in r),
        ]
        for m in messages
    ]
    return {"played": played, "honest": honest, "accepted": accepted, "counts": counts}


async def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    loosened: list[LooseServer] = []
    async with loose(job["seed"], loosened) as port:
        servers = {name: ((address, 25), domain) for name, (address, domain) in job["peers"].items()}
        servers[LOOSE] = ((LOCAL, port), "loose.test")
        done = await asyncio.gather(*(attack(name, at, job, domain) for name, (at, domain) in servers.items()))
    taken = [envelope for server in loosened for envelope in server.taken]
    print(json.dumps({"logged": dict(zip(servers, done, strict=True)), LOOSE: taken}))


if __name__ == "__main__":
    asyncio.run(main())
