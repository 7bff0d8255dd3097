"""Connections to one filter, and what is known of it: whether it works, which connections are free.

One kind of I/O: TCP and Unix sockets. What is said on them is `exchange`'s.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import NamedTuple, TypeVar

from smtp_intercept.milter.agreement import NEWEST, Agreement
from smtp_intercept.milter.breaker import Breaker
from smtp_intercept.milter.exchange import Event, Exchange
from smtp_intercept.milter.packets import MilterError
from smtp_intercept.milter.replies import Change, Reply, ReplyCode, Symbols, Word

READ_BYTES = 65_536
# Of one message: a filter's answer must not fill the memory. Bodies go where held content goes.
MOST_CHANGES, MOST_CHANGED_BYTES = 10_000, 4 << 20
IDLE = 32  # free connections that are kept; each is a thread of the filter's
IDLE_S = 60.0  # libmilter leaves after two hours, others sooner
TIMED = 100  # of how many messages, the last ones, `status` tells how long they took
_LOG = logging.getLogger("tollbridge")

Done = TypeVar("Done")
Blank = Callable[[socket.AddressFamily], socket.socket]


class OnFailure(Enum):
    """What becomes of mail while a filter does not work, or wants what nobody can do."""

    DEFER = "defer"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one filter. ``address`` is a path, or (IP address, port)."""

    name: str
    address: str | tuple[str, int]
    connect_s: float = 10.0
    command_s: float = 30.0
    end_s: float = 120.0
    on_failure: OnFailure = OnFailure.DEFER
    on_quarantine: OnFailure = OnFailure.DEFER
    failures: int = 5
    rest_s: float = 30.0
    version: int = NEWEST


class FailureError(Exception):
    """The filter has not done its part; in words. ``lost``: the connection was, and nothing else is known."""

    def __init__(self, reason: str, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.lost = lost


class Told(NamedTuple):
    """An event, for who looks on."""

    event: Event
    payload: bytes
    macros: list[tuple[str, bytes]]


Watch = Callable[[str, object], None]


def unwatched(direction: str, what: object) -> None:
    """Nobody looks on."""


class Connection:
    """One, on which the filter has agreed. ``served``: another message, before this one; ``aborted``: the last one was
    not told to its end, or not let go on. ``watch`` is told of all that is said."""

    def __init__(
        self, settings: Settings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, watch: Watch
    ) -> None:
        self._settings, self._reader, self._writer, self._watch = settings, reader, writer, watch
        self.exchange = Exchange(settings.version)
        self.served = self.aborted = False
        self.idle_since = 0.0
        self._unsent: list[bytes] = []

    async def begin(self) -> Agreement:
        """The negotiation."""
        self._unsent.append(self.exchange.begin())
        agreed = (await self._hear(self._settings.command_s, None))[0]
        assert isinstance(agreed, Agreement)
        return agreed

    async def tell(
        self,
        event: Event,
        payload: bytes,
        macros: list[tuple[str, bytes]],
        keep: Callable[[Change], None] | None = None,
    ) -> Word | ReplyCode:
        """What the filter says to it; CONTINUE, without a word, to what it does not want or does not answer. ``keep``
        has its changes. `FailureError`."""
        if not self.exchange.wants(event):
            return Word.CONTINUE
        self._watch("to", Told(event, payload, macros))
        self._unsent.append(self.exchange.tell(event, payload, macros))
        if not self.exchange.waiting:
            if sum(map(len, self._unsent)) > READ_BYTES:
                await self._bounded(self._send(), self._settings.command_s)
            return Word.CONTINUE
        left_s = self._settings.end_s if event is Event.END else self._settings.command_s
        verdict = (await self._hear(left_s, keep))[0]
        assert isinstance(verdict, (Word, ReplyCode))
        return verdict

    async def _hear(self, left_s: float, keep: Callable[[Change], None] | None) -> list[Reply | Agreement]:
        """The reply that ends the waiting; each "in progress" begins the time anew."""
        await self._bounded(self._send(), left_s)
        while self.exchange.waiting:
            data = await self._bounded(self._reader.read(READ_BYTES), left_s)
            if not data:
                raise FailureError("it closed the connection", lost=True)
            if last := self._read(data, keep):
                return last
        raise AssertionError

    def _read(self, data: bytes, keep: Callable[[Change], None] | None) -> list[Reply | Agreement]:
        last: list[Reply | Agreement] = []
        try:
            for reply in self.exchange.heard(data):
                self._watch("from", reply)
                if isinstance(reply, (Agreement, ReplyCode)) or (
                    isinstance(reply, Word) and reply is not Word.PROGRESS
                ):
                    last = [reply]
                elif keep is not None and not isinstance(reply, (Word, Symbols)):
                    keep(reply)
        except MilterError as error:
            raise FailureError(f"it answers nonsense: {error}") from None
        return last

    async def _send(self) -> None:
        octets, self._unsent = b"".join(self._unsent), []
        if octets:
            self._writer.write(octets)
            await self._writer.drain()

    async def _bounded(self, work: Awaitable[Done], left_s: float) -> Done:
        try:
            async with asyncio.timeout(left_s):
                return await work
        except TimeoutError:
            raise FailureError(f"it did not answer within {left_s:g} s") from None
        except OSError as error:
            raise FailureError(error.strerror or type(error).__name__, lost=True) from None

    def abort(self) -> None:
        """The message under way is none."""
        self.aborted = True
        self._unsent.append(self.exchange.abort())
        self._watch("to", "abort")

    def leave(self, *, reuse: bool) -> None:
        """The client has gone."""
        self._watch("to", "quit" if not reuse else "quit, another client comes")
        octets = b"".join([*self._unsent, self.exchange.leave(reuse=reuse)])
        self._unsent = []
        with suppress(OSError):
            self._writer.write(octets)
        if not reuse:
            self.close()

    def close(self) -> None:
        """Without a word."""
        self._unsent = []
        with suppress(OSError):
            self._writer.close()

    @property
    def alive(self) -> bool:
        """As far as can be seen."""
        return not (self._writer.is_closing() or self._reader.at_eof() or self._reader.exception())


@dataclass
class Filter:
    """One filter of the configuration. ``blank`` makes sockets of the network namespace that it is reached in."""

    settings: Settings
    blank: Blank | None = None
    watch: Watch = unwatched
    breaker: Breaker = field(default_factory=Breaker)
    counts: Counter[str] = field(default_factory=Counter)
    last_error: str = ""

    def __post_init__(self) -> None:
        self.breaker = Breaker(self.settings.failures, self.settings.rest_s)
        self._idle: deque[Connection] = deque()
        self._took_s: deque[float] = deque(maxlen=TIMED)
        self.open: set[Connection] = set()

    async def take(self, *, fresh: bool = False) -> Connection:
        """A connection that no client has. ``fresh``: a new one. `FailureError`."""
        now = asyncio.get_running_loop().time()
        while self._idle and not fresh:
            free = self._idle.pop()
            if free.alive and now - free.idle_since < IDLE_S:
                return free
            self.drop(free)
        reader, writer = await self._connected()
        connection = Connection(self.settings, reader, writer, self.watch)
        self.open.add(connection)
        try:
            await connection.begin()
        except BaseException:
            self.drop(connection)
            raise
        self.counts["connections"] += 1
        return connection

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address, left_s = self.settings.address, self.settings.connect_s
        try:
            async with asyncio.timeout(left_s):
                if isinstance(address, str):
                    return await asyncio.open_unix_connection(address)
                if self.blank is None:
                    return await asyncio.open_connection(*address)
                sock = self.blank(socket.AF_INET6 if ip_address(address[0]).version == 6 else socket.AF_INET)
                try:
                    await asyncio.get_running_loop().sock_connect(sock, address)
                except BaseException:
                    sock.close()
                    raise
                return await asyncio.open_connection(sock=sock)
        except TimeoutError:
            raise FailureError(f"no connection within {left_s:g} s") from None
        except OSError as error:
            raise FailureError(f"no connection: {error.strerror or type(error).__name__}") from None

    def give_back(self, connection: Connection, *, reuse: bool) -> None:
        """Its client has gone; nothing is under way on it. ``reuse``: another may come on it."""
        reuse = reuse and connection.alive and connection.exchange.reusable and len(self._idle) < IDLE
        connection.leave(reuse=reuse)
        if reuse:
            connection.served = True
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            self.open.discard(connection)

    def drop(self, connection: Connection) -> None:
        """Nobody can use it any more."""
        connection.close()
        self.open.discard(connection)

    def close(self) -> None:
        """All that are free."""
        while self._idle:
            free = self._idle.pop()
            free.leave(reuse=False)
            self.open.discard(free)

    def works(self, took_s: float) -> None:
        """A message has been through it."""
        self.counts["messages"] += 1
        self._took_s.append(took_s)
        self.breaker.works()

    def fails(self, reason: str) -> None:
        """For `status`, and in the log when it is new."""
        self.counts["failures"] += 1
        if reason != self.last_error or self.breaker.failed == 0:
            _LOG.warning("filter %s: %s", self.settings.name, reason)
        self.last_error = reason
        self.breaker.fails(asyncio.get_running_loop().time())

    def page(self) -> dict[str, object]:
        """What `status` tells of it."""
        counts = {name: self.counts[name] for name in ("messages", "failures", "skipped", "connections")}
        took_s = sorted(self._took_s) or [0.0]
        times = {"median_ms": round(1000 * took_s[len(took_s) // 2]), "slowest_ms": round(1000 * took_s[-1])}
        return {
            **counts,
            **times,
            "state": self.breaker.state.value,
            "last_error": self.last_error,
            "open": len(self.open),
        }
