"""A server that does what a test tells it: no real one drops its line, lies or keeps silent on request.

    Remote({"RCPT": ["250 ok", "550 5.1.1 no"], "END": None})

By verb, what it says: one reply for all, or one for each in turn, the last for the rest. "" is silence, None the end of
the connection, octets go out as they are. Of several such tables each connection gets its own, the last for the rest.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from smtp_intercept.data import DotEnd

Say = str | bytes | None
Behaviour = Mapping[str, Say | Sequence[Say]]

USUAL: dict[str, Say] = {
    "BANNER": "220 remote.example ESMTP",
    "EHLO": "250-remote.example\r\n250-PIPELINING\r\n250 8BITMIME",
    "LHLO": "250-remote.example\r\n250 PIPELINING",
    "DATA": "354 go on",
    "QUIT": "221 bye",
}


@dataclass
class Remote:
    """``messages``: each content as it was sent, without the end; ``commands``: every line, of each connection."""

    behaviours: Sequence[Behaviour] = ({},)
    tls: ssl.SSLContext | None = None
    messages: list[bytes] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    secured: int = 0
    open: int = 0
    most_open: int = 0
    host: str = "127.0.0.1"
    port: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.commands)
        self.commands.append([])
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            behaviour = self.behaviours[min(number, len(self.behaviours) - 1)]
            await _Conversation(self, behaviour, number, reader, writer).hold()
        except (OSError, EOFError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()


class _Conversation:
    def __init__(
        self,
        remote: Remote,
        behaviour: Behaviour,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._remote, self._reader, self._writer = remote, reader, writer
        self._commands, self._accepted = remote.commands[number], 0
        self._turns: dict[str, list[Say]] = {
            verb: [says] if isinstance(says, str | bytes | None) else list(says)
            for verb, says in {**USUAL, **behaviour}.items()
        }

    async def hold(self) -> None:
        await self._say("BANNER")
        while True:
            line = (await self._reader.readuntil(b"\n")).decode().rstrip()
            self._commands.append(line)
            verb = line.split()[0].upper()
            said = await self._say(verb)
            if verb == "STARTTLS" and said.startswith("220"):
                await self._writer.start_tls(self._remote.tls)  # type: ignore[arg-type]
                self._remote.secured += 1
            elif verb == "MAIL":
                self._accepted = 0
            elif verb == "RCPT":
                self._accepted += said.startswith("2")
            elif verb == "DATA" and said.startswith("354"):
                await self._take()
            elif verb == "QUIT":
                return

    async def _take(self) -> None:
        end, pieces = DotEnd(), [b""]
        while not end.find(pieces[-1]):
            pieces.append(await self._reader.read(65_536))
            if not pieces[-1]:
                raise EOFError
        self._remote.messages.append(b"".join(pieces).removesuffix(b".\r\n"))
        for _ in range(self._accepted if self._commands[0].startswith("LHLO") else 1):
            await self._say("END")

    async def _say(self, verb: str) -> str:
        turns = self._turns.get(verb, ["250 ok"])
        says = turns.pop(0) if len(turns) > 1 else turns[0]
        if says is None:
            raise EOFError
        self._writer.write(says if isinstance(says, bytes) else says.encode() + b"\r\n" if says else b"")
        await self._writer.drain()
        return says.decode("latin-1") if isinstance(says, bytes) else says


@asynccontextmanager
async def serving(
    *behaviours: Behaviour, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Remote]:
    """A remote at work."""
    remote = Remote(behaviours or ({},), tls, host=host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = await asyncio.start_server(remote, host, 0, family=family, limit=1 << 22)
    remote.port = server.sockets[0].getsockname()[1]
    try:
        yield remote
    finally:
        server.close()
