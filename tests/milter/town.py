"""A gateway or an MTA with filters, and the server behind it: what clients hear, and what is there in the end.

client ──> Gateway ──> server          client ──> Receiving ──> Shelf
              └── filters                             └── filters
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from smtp_intercept.app.heldplace import held_place
from smtp_intercept.inspect.facts import Connection
from smtp_intercept.inspect.judge import Judge
from smtp_intercept.inspect.rule import Rule
from smtp_intercept.inspect.ruleset import Ruleset
from smtp_intercept.milter.body import NewBody
from smtp_intercept.milter.client import Filter, Settings
from smtp_intercept.milter.course import Course
from smtp_intercept.milter.envelope import Visit
from smtp_intercept.passage import Passage
from smtp_intercept.policy import Decider
from smtp_intercept.rules import Rules
from tests.mta.receiving import RULE, house
from tests.smtp.box import Box, box, connected

MOST_BYTES = 1 << 20


@dataclass
class Stored:
    """One message that somebody has in the end."""

    sender: str
    recipients: list[str]
    content: bytes


@dataclass
class Town:
    """``heard`` has the last line of each reply. ``refuses`` recipients or senders that the server does not take."""

    filters: dict[str, Filter]
    box: Any = None
    port: int = 0
    stored: list[Stored] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    log: list[dict[str, Any]] = field(default_factory=list)

    async def enter(self) -> Client:
        if self.box is None:
            return Client(*await asyncio.open_connection("127.0.0.1", self.port))
        return Client(*await asyncio.open_connection(sock=self.box.enter()))

    async def mail(
        self,
        content: bytes,
        recipients: Iterable[str] = ("b@example.com",),
        *,
        sender: str = "a@c.example",
        bdat: bool = False,
    ) -> list[str]:
        """One message on a connection of its own: what is heard from RCPT on."""
        client = await self.enter()
        heard = await client.mail(content, recipients, sender=sender, bdat=bdat)
        await client.leave()
        return heard


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._greeted = False
        self.at_mail = ""

    async def say(self, line: bytes) -> str:
        self._writer.write(line)
        return await self.hear()

    async def hear(self) -> str:
        while (line := await asyncio.wait_for(self._reader.readline(), 8))[3:4] == b"-":
            pass
        return line.decode().rstrip()

    async def mail(
        self, content: bytes, recipients: Iterable[str], *, sender: str = "a@c.example", bdat: bool = False
    ) -> list[str]:
        if not self._greeted:
            await self.hear()
            await self.say(b"EHLO c.example\r\n")
            self._greeted = True
        heard = [await self.say(b"MAIL FROM:<%b> BODY=8BITMIME\r\n" % sender.encode())]
        self.at_mail = heard[0]
        heard += [await self.say(b"RCPT TO:<%b>\r\n" % each.encode()) for each in recipients]
        if not any(line.startswith("250") for line in heard[1:]):
            await self.say(b"RSET\r\n")
            return heard[1:]
        if bdat:
            half = len(content) // 2
            heard.append(await self.say(b"BDAT %d\r\n" % half + content[:half]))
            heard[-1] = await self.say(b"BDAT %d LAST\r\n" % len(content[half:]) + content[half:])
            return heard[1:]
        heard.append(await self.say(b"DATA\r\n"))
        if heard[-1].startswith("354"):
            dotted = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
            heard[-1] = await self.say(dotted + b".\r\n")
        return heard[1:]

    def vanish(self) -> None:
        """Without a word."""
        self._writer.transport.abort()

    async def leave(self) -> None:
        self._writer.write(b"QUIT\r\n")
        await self._reader.read()
        self._writer.close()


def rule(*filters: str, **more: Any) -> Rule:
    return Rule("through filters", (), filters=filters, **more)


@asynccontextmanager
async def town(
    tmp_path: Path, rules: Iterable[Rule], *settings: Settings, mta: bool = False, limits: Any = None
) -> AsyncIterator[Town]:
    """With all these filters."""
    filters = {each.name: Filter(each) for each in settings}
    it = Town(filters)
    ruleset, spill = Ruleset(rules), held_place(tmp_path / "held", 0, 0)

    def ask(passage: Passage) -> Decider:
        client, server = (ip_address(address[0]).packed for address in (passage.client, passage.server))
        connection = Connection(passage.arrival.direction, client, server, passage.arrival.port)
        return Decider(Judge(lambda: ruleset, connection, RULE.protection).ask)

    def course(passage: Passage, judge: Decider) -> Course:
        visit = Visit(passage.name, passage.client, passage.server, "box.example")
        return Course(judge, filters, visit, lambda: NewBody(spill, MOST_BYTES))

    def of(passage: Passage) -> Rules:
        made = course(passage, ask(passage))
        more = {"limits": limits} if limits else {}
        return Rules(made.ask, made.later, over=made.over, **more)

    if mta:
        async with house(judge=ask, course=course, spill=spill) as its:
            it.box, it.log = its, its.log
            yield it
            it.stored += [
                Stored(each.envelope.reverse_path, [r.address for r in each.envelope.recipients], each.content)
                for each in its.shelf.kept
            ]
            assert all(draft.over for draft in its.shelf.drafts)
    else:
        server = await asyncio.start_server(lambda r, w: serve(it, r, w), "127.0.0.1", 0)
        async with server, box(server.sockets[0].getsockname()[1], rules=of, spill=spill) as gateway:
            it.port, it.log = gateway.port, gateway.log
            yield it
    for each in filters.values():
        assert len(each.open) == len(each._idle), "a session has left its connection behind"
        each.close()
    assert list((tmp_path / "held").iterdir()) == []


async def serve(it: Town, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):  # who is refused leaves it behind
        await _talk(it, reader, writer)
    writer.close()


async def _talk(it: Town, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that stores what it accepts, strict about the order of commands."""
    writer.write(b"220 s\r\n")
    sender, recipients, chunks = None, list[str](), b""
    while line := await reader.readline():
        verb, argument = line[:4].upper(), line.partition(b"<")[2].partition(b">")[0].decode()
        if verb == b"EHLO":
            writer.write(b"250-s\r\n250-CHUNKING\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
        elif verb == b"MAIL" and sender is None and argument not in it.refuses:
            sender = argument
            writer.write(b"250 ok\r\n")
        elif verb == b"RCPT" and sender is not None and argument not in it.refuses:
            recipients.append(argument)
            writer.write(b"250 ok\r\n")
        elif verb == b"DATA" and recipients:
            writer.write(b"354 go\r\n")
            dotted = b""
            while (text := await reader.readline()) != b".\r\n":
                dotted += text[1:] if text.startswith(b".") else text
            it.stored.append(Stored(sender or "", recipients, dotted))
            sender, recipients = None, []
            writer.write(b"250 taken\r\n")
        elif verb == b"BDAT":
            chunks += await reader.readexactly(int(line.split()[1]))
            if line.split()[-1] == b"LAST":
                it.stored.append(Stored(sender or "", recipients, chunks))
                sender, recipients, chunks = None, [], b""
            writer.write(b"250 taken\r\n")
        elif verb == b"RSET":
            sender, recipients = None, []
            writer.write(b"250 ok\r\n")
        elif verb == b"QUIT":
            writer.write(b"221 bye\r\n")
            break
        else:
            writer.write(b"550 5.1.1 no\r\n" if verb in (b"MAIL", b"RCPT") else b"503 5.5.1 what\r\n")


Start = Callable[..., Any]
__all__ = ["Box", "Client", "Stored", "Town", "connected", "rule", "town"]
