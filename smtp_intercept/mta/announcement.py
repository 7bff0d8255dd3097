"""The PROXY protocol's header at the start of a balancer's connection.

One kind of I/O: looks at what has come, and takes no octet more than the header.
"""

from __future__ import annotations

import asyncio
import socket

from smtp_intercept.events import Doubt
from smtp_intercept.opening import UNFINISHED, V2_BYTES, Header, read_header

# The client waits for a banner meanwhile; a balancer sends its header with the connection's first octets.
HEADER_S, LOOK_EVERY_S = 5.0, 0.02


async def announcement(sock: socket.socket) -> Header | Doubt | None:
    """The header, taken from the stream; None if there is none, or not in time: then its octets are the dialogue's.
    OSError: the connection is gone."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    until_at = loop.time() + HEADER_S
    while loop.time() < until_at:
        header = _look(sock)
        if header is not UNFINISHED:
            if isinstance(header, Header):
                sock.recv(header.size_bytes)
            return header
        await asyncio.sleep(LOOK_EVERY_S)
    return None


def _look(sock: socket.socket) -> Header | Doubt | None:
    try:
        begun = sock.recv(16 + V2_BYTES, socket.MSG_PEEK)
    except BlockingIOError:
        return UNFINISHED
    return read_header(begun) if begun else None
