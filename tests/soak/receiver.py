"""A mail server that writes every message down before it says 250: name, digest, time, a line of JSON each.

``python -m tests.soak.receiver --record FILE ADDRESS…``; CHUNKING, PIPELINING, STARTTLS. Refuses some of the recipients
``…-later@`` at first (451), as grey-listing does. Prints ``ready``; runs until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import signal
import ssl
import time
from pathlib import Path
from typing import IO

import uvloop

from tests.soak.letters import below, name_of

LIMIT_OCTETS = 4 << 20
_PATH = re.compile(rb"<([^>]*)>")
KEYWORDS = ("PIPELINING", "8BITMIME", "CHUNKING", "SIZE 0", "ENHANCEDSTATUSCODES")


class Conversation:
    """One connection."""

    def __init__(self, receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._receiver, self._reader, self._writer = receiver, reader, writer
        self._tls = False
        self._clear()

    def _clear(self) -> None:
        self._sender, self._recipients, self._chunks = "", 0, b""

    async def serve(self) -> None:
        """To its end, whoever ends it."""
        try:
            self._say("220 receiver.example.com ESMTP")
            while (line := await self._reader.readline()).endswith(b"\n"):
                if not await self._answer(line.rstrip()):
                    break
            await self._writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # the ledger knows whether something is missing
        finally:
            self._writer.close()

    def _say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def _answer(self, line: bytes) -> bool:
        """False at the end."""
        verb, _, rest = line.partition(b" ")
        match verb.upper():
            case b"EHLO" | b"HELO":
                self._greet()
            case b"MAIL" | b"RCPT":
                self._say(self._path(verb.upper(), rest))
            case b"DATA":
                await self._data()
            case b"BDAT":
                await self._bdat(rest)
            case b"STARTTLS":
                await self._starttls()
            case b"QUIT":
                self._say("221 2.0.0 Bye")
                return False
            case _:
                self._clear()
                self._say("250 2.0.0 Ok")
        return True

    def _greet(self) -> None:
        words = [*KEYWORDS, *([] if self._tls else ["STARTTLS"])]
        self._say("250-receiver.example.com", *(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}")

    def _path(self, verb: bytes, rest: bytes) -> str:
        found = _PATH.search(rest)
        path = found[1].decode() if found else ""
        if verb == b"MAIL":
            self._clear()
            self._sender = path
            return "250 2.1.0 Ok"
        if self._receiver.postpones(self._sender, path):
            return "451 4.7.1 Later"
        self._recipients += 1
        return "250 2.1.5 Ok"

    async def _data(self) -> None:
        if not self._recipients:
            self._say("503 5.5.1 Nobody to send to")
            return
        self._say("354 Go on")
        await self._writer.drain()
        content = await self._reader.readuntil(b"\r\n.\r\n")
        plain = (b"\r\n" + content[:-3]).replace(b"\r\n.", b"\r\n")[2:]
        self._keep(plain)

    async def _bdat(self, rest: bytes) -> None:
        size, _, last = rest.partition(b" ")
        self._chunks += await self._reader.readexactly(int(size))
        if not self._recipients:
            self._say("503 5.5.1 Nobody to send to")
        elif last:
            self._keep(self._chunks)
        else:
            self._say("250 2.0.0 Ok")

    def _keep(self, content: bytes) -> None:
        self._receiver.keep(self._sender, below(content))
        self._clear()
        self._say("250 2.0.0 Ok")

    async def _starttls(self) -> None:
        self._say("220 2.0.0 Go on")
        await self._writer.drain()
        await self._writer.start_tls(self._receiver.context)
        self._tls = True
        self._clear()


class Receiver:
    """What it has, and on whom it has put off."""

    def __init__(self, record: IO[str], certificate: Path) -> None:
        self._record, self._postponed = record, set[str]()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate)

    def keep(self, sender: str, content: bytes) -> None:
        """Before anybody hears so. One write: what is there is whole."""
        digest = hashlib.sha256(content).hexdigest()[:16]
        entry = {"name": name_of(sender), "digest": digest, "at": time.time()}
        self._record.write(json.dumps(entry) + "\n")
        self._record.flush()

    def postpones(self, sender: str, recipient: str) -> bool:
        """Each sender's first attempt at somebody who wants it later. A question by the null sender is not one."""
        if not sender or "-later@" not in recipient or sender in self._postponed:
            return False
        self._postponed.add(sender)
        return True

    async def serve(self, addresses: list[str], port: int) -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        for address in addresses:
            await asyncio.start_server(self._begin, address, port, limit=LIMIT_OCTETS, backlog=1024)
        print("ready", flush=True)
        await ended.wait()

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Conversation(self, reader, writer).serve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("addresses", nargs="+")
    arguments = parser.parse_args()
    with arguments.record.open("a") as record:
        uvloop.run(Receiver(record, arguments.certificate).serve(arguments.addresses, arguments.port))


if __name__ == "__main__":
    main()
