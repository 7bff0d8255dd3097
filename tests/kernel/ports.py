"""Connections and nothing else: a server that notes the clients' ports, and clients that choose theirs.

``serve ADDRESS …`` · ``many SOURCE SERVER COUNT PARALLEL`` · ``quit|reset|close SOURCE SERVER COUNT PORT``
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from collections import Counter
from typing import Any

RESET = struct.pack("ii", 1, 0)
PATIENCE_S = 20.0
TW_REUSE_S = 1.1  # tcp_twsk_unique: a TIME_WAIT of more than a second ago may be used again


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greet, wait for the client's word or its end, say farewell and close."""
    print(json.dumps(writer.get_extra_info("peername")[:2]), flush=True)
    try:
        writer.write(b"220 ports\r\n")
        if await reader.readline():
            writer.write(b"221 bye\r\n")
            await writer.drain()
        writer.close()
        await writer.wait_closed()
    except ConnectionError:
        pass


async def serve(*addresses: str) -> None:
    for address in addresses:
        await asyncio.start_server(converse, address, 25, backlog=4096)
    print(json.dumps("ready"), flush=True)
    await asyncio.Event().wait()


async def visit(source: str, server: str) -> int:
    """One whole conversation from a port of the kernel's choice: that port."""
    reader, writer = await asyncio.open_connection(server, 25, local_addr=(source, 0))
    port: int = writer.get_extra_info("sockname")[1]
    assert (await reader.readline()).startswith(b"220")
    writer.write(b"QUIT\r\n")
    assert (await reader.readline()).startswith(b"221")
    assert not await reader.read()
    writer.close()
    return port


async def many(source: str, server: str, count: str, parallel: str) -> None:
    left = iter(range(int(count)))
    ports: list[int] = []
    errors: Counter[str] = Counter()

    async def work() -> None:
        for _ in left:
            try:
                ports.append(await asyncio.wait_for(visit(source, server), PATIENCE_S))
            except (OSError, TimeoutError, AssertionError) as error:
                errors[repr(error)] += 1

    began_at = time.monotonic()
    await asyncio.gather(*(work() for _ in range(int(parallel))))
    print(json.dumps({"ports": ports, "errors": errors, "seconds": time.monotonic() - began_at}))


def again(how: str, source: str, server: str, count: str, port: str) -> None:
    """One connection after the other from the same port; how each of them ends is ``how``."""
    errors: Counter[str] = Counter()
    slowest_s = 0.0
    for _ in range(int(count)):
        sock = socket.socket(family_of(source))
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        began_at = time.monotonic()
        try:
            sock.bind((source, int(port)))
            sock.connect((server, 25))
            slowest_s = max(slowest_s, time.monotonic() - began_at)
            assert sock.recv(99).startswith(b"220")
            ENDINGS[how](sock)
        except (OSError, AssertionError) as error:
            errors[repr(error)] += 1
        sock.close()
        time.sleep(TW_REUSE_S if how == "close" else 0)
    print(json.dumps({"errors": errors, "slowest_s": slowest_s}))


def quit_(sock: socket.socket) -> None:
    sock.sendall(b"QUIT\r\n")
    while sock.recv(99):
        pass


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def close(sock: socket.socket) -> None:
    """Our FIN first; the server's end is waited for, or the port would be busy with FIN_WAIT."""
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(99):
        pass


ENDINGS: dict[str, Any] = {"quit": quit_, "reset": reset, "close": close}


def main(verb: str, *words: str) -> None:
    match verb:
        case "serve":
            asyncio.run(serve(*words))
        case "many":
            asyncio.run(many(*words))
        case _:
            again(verb, *words)


if __name__ == "__main__":
    main(*sys.argv[1:])
