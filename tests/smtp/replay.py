"""A dialogue replayed between two real sockets with a gateway between them.

After each event both ends must have had what the pure session, asked the same, lets cross.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from math import inf
from typing import Any

from tests.smtp.box import send
from tests.smtp.cuts import whole
from tests.smtp.script import Script, play

GRACE_S = 20.0  # what comes is there at once; what does not come is waited for in no dialogue


class Heard:
    """What one end has received so far."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.data, self.over = sock, b"", False
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with suppress(OSError):
            while piece := await asyncio.get_running_loop().sock_recv(self.sock, 65_536):
                self.data += piece
        self.over = True

    async def until(self, size: float) -> None:
        """Wait until that much has come, or no more can; ``inf``: until the connection is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while len(self.data) < size and not self.over:
                    await asyncio.sleep(0.002)

    async def close(self) -> None:
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        self.sock.close()


async def replay(script: Script, client: Heard, server: Heard) -> None:
    """Each event once the one before has arrived; the pure session says what arrives."""
    ends = {"c": client, "s": server}
    await arrived(script, 0, client, server)
    for number, event in enumerate(script.events, 1):
        before = play(script.events[: number - 1], whole, script.rules)
        if before.leave is not None or (before.dropped and event.side == "s"):
            continue
        with suppress(OSError):
            if event.data is None:
                ends[event.side].sock.shutdown(socket.SHUT_WR)
            else:
                await send(ends[event.side].sock, event.data)
        await arrived(script, number, client, server)


async def arrived(script: Script, events: int, client: Heard, server: Heard) -> None:
    """Wait until both ends have what the first ``events`` let cross, or will never have it.

    What ends a session may let nothing cross; were the ends closed then, their closing could come first.
    """
    expected = play(script.events[:events], whole, script.rules)
    over = expected.abort is not None
    await asyncio.gather(
        client.until(inf if over else len(expected.to_client)),
        server.until(inf if over else len(expected.to_server)),
    )


async def check_live(script: Script, client: socket.socket, server: socket.socket) -> None:
    """Replay on two connected, non-blocking sockets, and close them."""
    ends = Heard(client), Heard(server)
    try:
        await replay(script, *ends)
        assert ends[0].data == script.to_client
        assert script.to_server.startswith(ends[1].data)
        assert script.abort is not None or ends[1].data == script.to_server
    finally:
        for end in ends:
            await end.close()


def check_log(script: Script, told: list[dict[str, Any]], session: dict[str, Any]) -> None:
    """The mail log's records of one connection."""
    *messages, expected = script.log
    assert len(told) == len(messages)
    known = [{name: record[name] for name in wanted} for record, wanted in zip(told, messages, strict=True)]
    assert known == messages
    assert {name: session[name] for name in expected} == expected
    ending = f"aborted, {script.abort}" if script.abort else script.leave
    assert ending in (None, f"{session['outcome']}, {session['reason']}")
