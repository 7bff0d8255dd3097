"""The two legs of one proxied session, client's and server's, and what passes between them.

One kind of I/O: reads and writes both connections as the session says. A leg that is not read makes the other wait;
a reset is mirrored as a reset, an end of stream as a half-close.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never, cast

from smtp_intercept.events import (
    Abort,
    DropServer,
    EndClient,
    EndServer,
    Leave,
    MessageDone,
    Out,
    Pause,
    ToClient,
    ToServer,
)
from smtp_intercept.session import Session
from smtp_intercept.transaction import Message
from smtp_intercept.transparent import reset_on_close

# What may wait for a slow reader on one leg, besides the one read that passes it; the other leg is not read then.
WRITE_BUFFER_BYTES = 131_072
# A reset waits so long for what its side has still to be sent: the reply that explains it.
FLUSH_S = 1.0
FLUSH_EVERY_S = 0.01
# A client that has had our last word is read for so long, and what it says thrown away: closing on what it has sent
# would reset the connection, and the word might be lost with it (RFC 1122 §4.2.2.13).
LINGER_S = 30.0
# How often a session is asked whether its time has run out; it is late by no more than this.
CHECK_EVERY_S = 30.0

_LOG = logging.getLogger("tollbridge")


class Leg(asyncio.Protocol):
    """One connection. ``full``: it takes no more for now; ``ended``: its peer will send no more."""

    __slots__ = ("_loop", "_pair", "_sent", "_sock", "_transport", "ended", "full", "lost", "name", "reading")

    def __init__(self, name: str, pair: Pair, sock: socket.socket, sent: Callable[[bytes, float], list[Out]]) -> None:
        self.name = name
        self._pair, self._sock, self._sent = pair, sock, sent
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.full = self.ended = self.lost = False
        self.reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        self._pair.received(self._sent, data)

    def eof_received(self) -> bool:
        self.ended = True
        self._pair.ended(self)
        return True  # this side may still be written to

    def pause_writing(self) -> None:
        self.full = True
        self._pair.regulate()

    def resume_writing(self) -> None:
        self.full = False
        self._pair.regulate()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._pair.lost(self, exc)

    @property
    def unsent_bytes(self) -> int:
        """What waits in this process for the peer to read."""
        return 0 if self.lost or self._transport is None else self._transport.get_write_buffer_size()

    def read(self, wanted: bool) -> None:
        """Read this leg, or leave what comes to the kernel and so, in the end, to the sender."""
        if wanted is self.reading or self._transport is None or self._transport.is_closing():
            return
        self.reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def write(self, data: bytes) -> None:
        """Send, or keep for the peer; nothing if the leg is going."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def end(self) -> None:
        """Half-close: the peer has everything."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        """Close when all has been sent."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close with a RST, a little later if something has still to be sent."""
        self._loop.call_soon(self._reset, self._loop.time() + FLUSH_S)

    def _reset(self, latest_at: float) -> None:
        if self.lost or self._transport is None:
            return
        if self._transport.get_write_buffer_size() and self._loop.time() < latest_at:
            self._loop.call_later(FLUSH_EVERY_S, self._reset, latest_at)
            return
        reset_on_close(self._sock)
        self._transport.abort()


class Pair:
    """Both legs and the session between them. ``outcome`` and ``reason`` tell how it ended."""

    __slots__ = (
        "_active_at",
        "_complete",
        "_dropped",
        "_early",
        "_idle_s",
        "_left",
        "_loop",
        "_over",
        "_paused_until",
        "_tell",
        "_timer",
        "client",
        "name",
        "outcome",
        "reason",
        "server",
        "session",
    )

    def __init__(
        self, name: str, session: Session, idle_s: float, tell: Callable[[Message], None], over: Callable[[Pair], None]
    ) -> None:
        self.name, self.session = name, session
        self._idle_s, self._tell, self._over = idle_s, tell, over
        self._loop = asyncio.get_running_loop()
        self._active_at = self._loop.time()
        # What one side sent in the few turns of the loop until the other leg is there as well.
        self._complete = False
        self._dropped = self._left = False  # the server's leg is gone by our will; the client has had our last word
        self._paused_until = 0.0
        self._early: list[tuple[Callable[[bytes, float], list[Out]], bytes]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.client: Leg | None = None
        self.server: Leg | None = None
        self.outcome = self.reason = ""

    @property
    def unsent_bytes(self) -> int:
        """What waits in this process for either side to read."""
        return sum(leg.unsent_bytes for leg in (self.client, self.server) if leg is not None)

    async def join(self, client: socket.socket, server: socket.socket) -> None:
        """Take over two connected sockets."""
        self.client = Leg("client", self, client, self.session.client_sent)
        self.server = Leg("server", self, server, self.session.server_sent)
        legs = self.client, self.server
        await self._loop.create_connection(lambda: legs[1], sock=server)
        try:
            await self._loop.connect_accepted_socket(lambda: legs[0], sock=client)
        except BaseException:
            legs[1].reset()
            raise
        self._complete, early, self._early = True, self._early, []
        self.received(lambda _, now: self.session.opened(now), b"")
        self._check_time()
        for sent, data in early:
            self.received(sent, data)
        if self.outcome:
            self._each(Leg.reset)

    def received(self, sent: Callable[[bytes, float], list[Out]], data: bytes) -> None:
        """Octets from one side. A mistake of ours ends this session and no other."""
        if not self._complete:
            self._early.append((sent, data))
            return
        self._active_at = now = self._loop.time()
        try:
            self._perform(sent(data, now))
        except Exception as mistake:
            self._fail(mistake)

    def ended(self, leg: Leg) -> None:
        """The end of one side's stream."""
        closed = self.session.client_closed if leg is self.client else self.session.server_closed
        self.received(lambda _, now: closed(now), b"")
        if self._dropped and leg is self.server:
            return
        self._decide("closed", f"by the {leg.name}")
        if self._dropped or self._both(lambda each: each.ended):
            self._each(Leg.close)

    def lost(self, leg: Leg, failure: Exception | None) -> None:
        """One connection is gone."""
        if self._dropped and leg is self.server:
            self._finish_if_over()
            return
        if failure is not None:
            self._decide("reset", f"by the {leg.name}" if isinstance(failure, ConnectionError) else _errno(failure))
        other = self.server if leg is self.client else self.client
        if other is not None and not other.lost:
            if failure is None:
                other.close()
            else:
                other.reset()
        self._finish_if_over()

    def abort(self, outcome: str, reason: str) -> None:
        """Reset both sides."""
        self._decide(outcome, reason)
        self._each(Leg.reset)

    def regulate(self) -> None:
        """Read each leg only while the other takes what comes."""
        if self.client is not None and self.server is not None and self._complete:
            self.client.read(self._client_wanted)
            self.server.read(not self.client.full)

    @property
    def _client_wanted(self) -> bool:
        assert self.server is not None
        if self._paused_until and self._loop.time() < self._paused_until:
            return False
        return (self._dropped or not self.server.full) and self.session.wants_client

    def _perform(self, outs: list[Out]) -> None:
        client, server = self.client, self.server
        assert client is not None
        assert server is not None
        for out in outs:
            match out:
                case ToServer(data):
                    server.write(data)
                case ToClient(data):
                    client.write(data)
                case MessageDone(message):
                    self._tell(message)
                case EndServer():
                    server.end()
                case EndClient():
                    client.end()
                case Abort(reason):
                    self.abort("aborted", reason)
                case DropServer():
                    self._drop_server()
                case Leave(outcome, reason):
                    self._leave(outcome, reason)
                case Pause(until_at):
                    self._pause(until_at)
                case _:
                    assert_never(out)
        if client.reading is not self._client_wanted:
            self.regulate()

    def _drop_server(self) -> None:
        assert self.server is not None
        self._dropped = True
        self.server.reset()

    def _leave(self, outcome: str, reason: str) -> None:
        assert self.client is not None
        self._decide(outcome, reason)
        self._left = True
        self._drop_server()
        self.client.end()
        self._loop.call_later(LINGER_S, self.client.close)
        if self.client.ended:
            self.client.close()

    def _pause(self, until_at: float) -> None:
        self._paused_until = max(self._paused_until, until_at)
        self._loop.call_at(until_at, self.regulate)

    def _check_time(self) -> None:
        """Nobody has said anything for too long, or not what the other waits for."""
        now = self._loop.time()
        left_s = self._active_at + self._idle_s - now
        if left_s > 0:
            self._pass_time(now)
            self._timer = self._loop.call_later(
                min(left_s, CHECK_EVERY_S, self.session.shortest_wait_s), self._check_time
            )
        else:
            self.abort("idle", f"nothing was sent for {self._idle_s:g} s")

    def _pass_time(self, now: float) -> None:
        try:
            self._perform(self.session.check_time(now))
        except Exception as mistake:
            self._fail(mistake)

    def _decide(self, outcome: str, reason: str) -> None:
        if not self.outcome:
            self.outcome, self.reason = outcome, reason

    def _fail(self, mistake: Exception) -> None:
        """Tell where, never what was being read."""
        frames = traceback.extract_tb(mistake.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
        _LOG.error("session %s: %s at %s", self.name, type(mistake).__name__, where)
        self.abort("error", f"{type(mistake).__name__} at {where}")

    def _finish_if_over(self) -> None:
        if self._both(lambda each: each.lost):
            self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._perform(self.session.finish(self._loop.time()))
        except Exception as mistake:
            self._fail(mistake)
        if self.session.quitted and self.outcome in {"closed", "reset"}:
            self.outcome, self.reason = "completed", ""
        self._over(self)

    def _both(self, holds: Callable[[Leg], bool]) -> bool:
        return all(leg is not None and holds(leg) for leg in (self.client, self.server))

    def _each(self, act: Callable[[Leg], Any]) -> None:
        for leg in (self.client, self.server):
            if leg is not None:
                act(leg)


def _errno(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or type(failure).__name__
