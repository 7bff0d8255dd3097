"""Clients that press: many sessions at once, each of which costs as much as it can. Runs on a lab's host.

Prints ``ready`` when all have been begun, and at SIGTERM what became of them: {"open": …, "421": …, "failed": …}. A
session that has ended is begun again a moment later, as long as this runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_network

import uvloop

PORT, AGAIN_S, SLOWLY_S = 25, 0.5, 1.0
COSTLY = b"RCPT TO:" + b'<"' * 6_000 + b">\r\n"
LONG = b"RCPT TO:<" + "é".encode() * 250 + b"@example.com>\r\n"
OPENING = b"EHLO c.example\r\nMAIL FROM:<a@example.net>\r\n"


class ToldError(Exception):
    """The session has ended with a reply."""


async def _read(sock: socket.socket, octets: int = 65_536) -> bytes:
    data = await asyncio.get_running_loop().sock_recv(sock, octets)
    if data.startswith(b"421") or b"\r\n421" in data or not data:
        raise ToldError
    return data


async def _read_on(sock: socket.socket) -> None:
    while True:
        await _read(sock)


async def sessions(sock: socket.socket) -> None:
    """Stays, and says nothing."""
    await asyncio.get_running_loop().sock_sendall(sock, b"EHLO c.example\r\n")
    await _read_on(sock)


async def _repeat(sock: socket.socket, line: bytes) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, OPENING)
    reading = asyncio.create_task(_read_on(sock))
    try:
        while not reading.done():
            await loop.sock_sendall(sock, line)
        await reading
    finally:
        reading.cancel()


async def lines(sock: socket.socket) -> None:
    """Those that cost most to read."""
    await _repeat(sock, COSTLY)


async def octets(sock: socket.socket) -> None:
    """Whatever is kept: recipients of 500 octets, in a transaction without end."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, OPENING)
    for _ in range(1_000):
        await loop.sock_sendall(sock, LONG)
        await _read(sock)
    await loop.sock_sendall(sock, b"DATA\r\n" + b"x" * 60_000)
    await _read_on(sock)


async def readers(sock: socket.socket) -> None:
    """Asks, and hardly reads."""
    loop = asyncio.get_running_loop()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sending = asyncio.create_task(loop.sock_sendall(sock, b"HELP " + b"x" * 400 + b"\r\n"))
    try:
        while True:
            if sending.done():
                await sending
                sending = asyncio.create_task(loop.sock_sendall(sock, (b"EHLO " + b"x" * 400 + b"\r\n") * 20))
            await asyncio.sleep(SLOWLY_S)
            await _read(sock, 16)
    finally:
        sending.cancel()


KINDS: dict[str, Callable[[socket.socket], Awaitable[None]]] = {
    each.__name__: each for each in (sessions, lines, octets, readers)
}


async def _one(arguments: argparse.Namespace, source: str, ends: Counter[str]) -> None:
    """One place, taken again and again."""
    while True:
        with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET) as sock:
            sock.setblocking(False)
            try:
                sock.bind((source, 0))
                await asyncio.get_running_loop().sock_connect(sock, (arguments.server, PORT))
                await _read(sock)
                ends["open"] += 1
                try:
                    await KINDS[arguments.kind](sock)
                finally:
                    ends["open"] -= 1
            except ToldError:
                ends["421"] += 1
            except OSError:
                ends["failed"] += 1
        await asyncio.sleep(AGAIN_S)


def addresses(networks: Sequence[str], each: int) -> list[str]:
    """So many of each network."""
    return [str(ip_network(network)[host]) for network in networks for host in range(1, each + 1)]


async def press(arguments: argparse.Namespace) -> None:
    ended, ends = asyncio.Event(), Counter[str]()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    sources = addresses(arguments.sources, arguments.each)
    tasks = []
    for number in range(arguments.count):
        tasks.append(asyncio.create_task(_one(arguments, sources[number % len(sources)], ends)))
        if number % 50 == 49:
            await asyncio.sleep(0.02)
    print("ready", flush=True)
    await ended.wait()
    print(json.dumps({name: ends[name] for name in ("open", "421", "failed")}), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("server")
    parser.add_argument("--sources", nargs="+", required=True, help="networks")
    parser.add_argument("--each", type=int, default=1, help="addresses of each network")
    parser.add_argument("--count", type=int, default=100, help="sessions at once, of all addresses")
    with suppress(KeyboardInterrupt):
        uvloop.run(press(parser.parse_args()))


if __name__ == "__main__":
    main()
