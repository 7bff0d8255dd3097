"""The live proxy: accepts what the lane turns inwards, dials the server in the client's name, joins the two.

One kind of I/O: connections. Reads no mail itself (`session` does) and keeps none.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from smtp_intercept.direction import Direction, Domains
from smtp_intercept.legs import Pair
from smtp_intercept.session import Session
from smtp_intercept.transaction import Message
from smtp_intercept.transparent import Address, Dialled, reset_on_close

# A server that does not answer is given up before the client is: Postfix waits 30 s for a connection, others longer,
# and the client has one already and waits for a banner (5 min, RFC 5321 §4.5.3.2.1).
DIAL_TIMEOUT_S = 30.0
# Connections accepted at one go, so that a storm of them does not hold up the sessions that are there.
ACCEPT_BATCH = 64
# When accepting fails (no descriptor, no memory) it is tried again after this; trying at once would spin.
ACCEPT_PAUSE_S = 0.1
# Sessions beyond the limit: those whose SYN was admitted before word of `Gateway.full` had got round.
OVERSHOOT = 1_024

# accept(2): errors of the connection that was about to be accepted, not of ours.
_STILLBORN = frozenset(
    {
        errno.ECONNABORTED,
        errno.ENETDOWN,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,
    }
)
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_LOG = logging.getLogger("tollbridge")

Dial: TypeAlias = Callable[[Address, Address], Awaitable[Dialled]]
Macs: TypeAlias = Callable[[Address, Address], tuple[str, str] | None]
COUNTERS = (
    "sessions",
    "messages",
    "tls_started",
    "doubts",
    "aborted",
    "idle",
    "errors",
    "dial_failures",
    "source_ports_lost",
    "accept_failures",
    "bytes_from_client",
    "bytes_from_server",
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a connection came: the name of the port ("" if unknown) and its direction."""

    port: str
    direction: Direction


@dataclass(slots=True)
class Passage:
    """What the log tells about one connection besides what was said on it."""

    name: str
    began_at: float
    client: Address
    server: Address
    arrival: Arrival
    dialled: Dialled | None = None
    macs: tuple[str, str] | None = None
    pair: Pair | None = field(default=None, repr=False)

    def message(self, message: Message, at: str) -> dict[str, Any]:
        """The log record of one message."""
        head = {"type": "message", "time": at, "session": self.name}
        fields = message.fields()
        number = {"number": fields.pop("number")}
        return {**head, **number, "direction": self.arrival.direction.value, "handler": "proxy", **fields}

    def session(self, session: Session, seconds: float, outcome: str, reason: str, at: str) -> dict[str, Any]:
        """The log record of the session."""
        client_mac, server_mac = self.macs or (None, None)
        return {
            "type": "session",
            "time": at,
            "session": self.name,
            "port": self.arrival.port,
            "client": {"address": self.client[0], "port": self.client[1], "mac": client_mac},
            "server": {"address": self.server[0], "port": self.server[1], "mac": server_mac},
            "direction": self.arrival.direction.value,
            "handler": "proxy",
            "hidden": None if self.dialled is None else self.dialled.hidden,
            "source_port_kept": None if self.dialled is None else self.dialled.source_port_kept,
            **session.fields(),
            "seconds": round(seconds, 3),
            "outcome": outcome,
            "reason": reason,
        }


class Gateway:
    """All sessions of one interceptor. ``clock`` gives UTC seconds for the log; everything else runs on the loop's."""

    def __init__(
        self,
        *,
        dial: Dial,
        domains: Callable[[], Domains],
        log: Callable[[dict[str, Any]], None],
        describe: Callable[[socket.socket], Arrival],
        macs: Macs = lambda client, server: None,
        sessions: int = 10_000,
        session_idle_s: float = 1_800.0,
        dial_timeout_s: float = DIAL_TIMEOUT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._dial, self._domains, self._log = dial, domains, log
        self._describe, self._macs, self._clock = describe, macs, clock
        self._limit, self._idle_s, self._dial_timeout_s = sessions, session_idle_s, dial_timeout_s
        self._series, self._number = secrets.token_hex(4), 0
        self._counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._listeners: list[socket.socket] = []
        self._open: set[Passage] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: asyncio.TimerHandle | None = None
        self._ended: asyncio.Event | None = None

    @property
    def sessions(self) -> int:
        """Sessions open now, those that are still dialling included."""
        return len(self._open)

    @property
    def full(self) -> bool:
        """No new connection should be picked up."""
        return self.sessions >= self._limit

    @property
    def healthy(self) -> bool:
        """Connections are being accepted."""
        return bool(self._listeners) and self._held is None

    def counters(self) -> dict[str, int]:
        """Totals since the start; octets and doubts are counted when a session ends."""
        return dict(self._counts)

    def accept(self, listeners: Iterable[socket.socket]) -> None:
        """Serve these listeners, non-blocking ones; they are the gateway's from now on."""
        self._listeners += listeners
        self._go_on()

    def stop_accepting(self) -> None:
        """Take what has already been accepted by the kernel, close the listeners, keep the sessions."""
        self._hold(None)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            while self._take(listener):
                pass
            listener.close()

    async def drain(self, timeout_s: float) -> None:
        """Wait for the sessions to end by themselves; after ``timeout_s`` reset those that are left."""
        self._ended = asyncio.Event()
        if self._open:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._ended.wait()
            except TimeoutError:
                await self._reset_all()

    async def _reset_all(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        for passage in tuple(self._open):
            if passage.pair is not None:
                passage.pair.abort("stopped", "the gateway was stopped")
        while self._open:
            await asyncio.sleep(ACCEPT_PAUSE_S)

    # Accepting.

    def _ready(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            if not self._take(listener):
                return

    def _take(self, listener: socket.socket) -> bool:
        """Accept one connection; False if there is none, or none can be taken."""
        if self.sessions >= self._limit + OVERSHOOT:
            self._hold(ACCEPT_PAUSE_S)
            return False
        try:
            sock, client = listener.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as failure:
            if failure.errno in _STILLBORN:
                return True
            self._counts["accept_failures"] += 1
            _LOG.warning("cannot accept connections: %s", failure.strerror)
            self._hold(ACCEPT_PAUSE_S)
            return False
        self._begin(sock, client)
        return True

    def _hold(self, seconds: float | None) -> None:
        """Stop accepting, for a time or for good."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())
        if self._held is not None:
            self._held.cancel()
        self._held = None if seconds is None else loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        """Accept (again), unless the first attempt fails: no descriptor is an error even when nobody waits."""
        held, self._held = self._held, None
        for listener in self._listeners:
            self._ready(listener)
        if self._held is not None:
            return
        if held is not None:
            _LOG.warning("accepting connections again")
        for listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._ready, listener)

    # One connection.

    def _begin(self, sock: socket.socket, client: Address) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._number += 1
        name = f"{self._series}-{self._number}"
        loop = asyncio.get_running_loop()
        passage = Passage(name, loop.time(), client, sock.getsockname(), self._describe(sock))
        self._open.add(passage)
        self._counts["sessions"] += 1
        task = loop.create_task(self._serve(passage, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
