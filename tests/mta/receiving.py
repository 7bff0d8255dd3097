"""The receiving side on one end of a socket pair, a spool in memory behind it, and the other end to play with.

             socket pair                    draft, enqueue
the test  <──────────────>  Receiving  ──────────────────>  Shelf
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from smtp_intercept.accounts import NO_BUDGET, Budget
from smtp_intercept.direction import Direction, Domains, Protection, Servers, message_direction
from smtp_intercept.mta.envelope import Envelope, Origin
from smtp_intercept.mta.faults import SpoolError, SpoolFullError
from smtp_intercept.mta.receive import Receiving, Services
from smtp_intercept.mta.relaying import RelayRule, admission
from smtp_intercept.shares import ANY_NUMBER, Shares

RULE = RelayRule(Protection(Domains.of([("example.com", False)]), Servers.of(["192.0.2.20", "2001:db8::/64"])))
ORIGIN = Origin(("192.0.2.9", 40_000), ("192.0.2.1", 25), Direction.INCOMING, "p0")
NOW = 1_700_000_000.25


@dataclass
class Scrap:
    """A draft in memory."""

    shelf: Shelf
    content: bytes = b""
    abandoned: bool = False
    enqueued: bool = False

    def write(self, data: bytes) -> None:
        if self.shelf.fails_at_bytes < len(self.content) + len(data):
            raise self.shelf.failure
        self.content += data

    def abandon(self) -> None:
        assert not self.enqueued, "it is the spool's now"
        self.abandoned = True

    @property
    def over(self) -> bool:
        return self.abandoned or self.enqueued


@dataclass(frozen=True)
class Kept:
    envelope: Envelope
    content: bytes
    origin: Origin


@dataclass
class Shelf:
    """A spool in memory. ``failure`` is raised by `Scrap.write` once so many octets would be in it, by `draft` if
    ``full``, by `enqueue` if ``broken``; ``gate`` holds `enqueue` up."""

    kept: list[Kept] = field(default_factory=list)
    drafts: list[Scrap] = field(default_factory=list)
    failure: SpoolError = field(default_factory=lambda: SpoolFullError("full"))
    fails_at_bytes: float = float("inf")
    full: bool = False
    broken: bool = False
    gate: asyncio.Event | None = None

    def draft(self) -> Scrap:
        if self.full:
            raise self.failure
        self.drafts.append(Scrap(self))
        return self.drafts[-1]

    async def enqueue(self, draft: Any, origin: Origin, envelope: Envelope, now: float) -> str:
        assert not draft.over
        draft.enqueued = True
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise self.failure
        self.kept.append(Kept(envelope, draft.content, origin))
        return f"Q{len(self.kept)}"


@dataclass
class House:
    """A receiving side and all that it did."""

    shelf: Shelf
    log: list[dict[str, Any]]
    receiving: Receiving

    def enter(self, origin: Origin = ORIGIN) -> socket.socket:
        """A client's end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.receiving.serve(theirs, origin)
        return ours

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.log if record["type"] == kind]

    async def over(self, sessions: int = 1) -> list[dict[str, Any]]:
        """Wait until so many sessions have been logged."""
        while len(self.records("session")) < sessions:
            await asyncio.sleep(0.002)
        return self.records("session")


@asynccontextmanager
async def house(
    shelf: Shelf | None = None,
    *,
    sessions: int = 100,
    shares: Shares = ANY_NUMBER,
    budget: Budget = NO_BUDGET,
    **services: Any,
) -> AsyncIterator[House]:
    log: list[dict[str, Any]] = []
    shelf = shelf or Shelf()
    wanted: dict[str, Any] = {
        "admission": lambda origin, recipient: admission(origin, recipient, RULE),
        "direction": lambda origin, recipient: message_direction(recipient, RULE.on(origin)),
        "hostname": "mta.example",
        "log": log.append,
        "clock": lambda: NOW,
        **services,
    }
    receiving = Receiving(Services(spool=shelf, **wanted), sessions=sessions, shares=shares, budget=budget)
    it = House(shelf, log, receiving)
    try:
        yield it
    finally:
        await it.receiving.drain(0)
        assert it.receiving.sessions == 0


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def replies(sock: socket.socket, many: int) -> bytes:
    """So many final reply lines and what stands before them; fewer only at the end of the stream."""
    data = b""
    while sum(line[3:4] == b" " for line in data.splitlines()) < many or not data.endswith(b"\n"):
        if not (piece := await asyncio.get_running_loop().sock_recv(sock, 65_536)):
            break
        data += piece
    return data


async def everything(sock: socket.socket) -> bytes:
    """Up to the end of the stream; what a reset tears off is lost."""
    data = b""
    try:
        while piece := await asyncio.get_running_loop().sock_recv(sock, 65_536):
            data += piece
    except ConnectionError:
        pass
    return data
