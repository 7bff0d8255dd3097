"""Carries mail to its next hop: finds the host, gets a connection, hands the message over.

Decides nothing about retries; each recipient's outcome says what the server, the DNS or the network said.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from smtp_intercept.mta.envelope import Envelope, Origin, Outcome
from smtp_intercept.mta.nexthop import NextHop, Place, Security
from smtp_intercept.mta.resolver import Resolver

# Connects to a place whose host is an address: in the name of the origin's client as far as the lane can, or from the
# box's own address if the origin is None. A non-blocking, connected socket; OSError is the network's answer.
Dial: TypeAlias = Callable[[Origin | None, Place], Awaitable[socket.socket]]


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message's way to one next hop: ``envelope`` holds the recipients of this way only, ``numbers`` their places
    in the whole envelope. ``content`` opens the stored content, once for each attempt; ``size_bytes`` is its size."""

    id: str
    next_hop: NextHop
    envelope: Envelope
    numbers: tuple[int, ...]
    content: Callable[[], BinaryIO]
    size_bytes: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the relay host knows us by."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ...)"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many connections there may be, and how long they are kept."""

    connections: int = 100  # at once; each costs a descriptor and some 100 KB
    connections_per_host: int = 10  # more is rude; Postfix's default is 20
    messages_per_connection: int = 100  # servers behind a load balancer want to be rid of us now and then
    idle_s: float = 5.0  # a connection waits so long for the next message


class Courier:
    """Shared by all deliveries of a process."""

    def __init__(
        self,
        resolver: Resolver,
        dial: Dial,
        hostname: str,
        *,
        bounds: Bounds = Bounds(),
        credentials: Credentials | None = None,
        tls: Callable[[Security], ssl.SSLContext] | None = None,
    ) -> None:
        """``hostname`` greets in EHLO. ``tls`` makes the context for a security other than NONE."""

    async def carry(self, parcel: Parcel) -> list[Outcome]:
        """One outcome for each recipient, in the parcel's order; never raises for what the other side does."""
        raise NotImplementedError

    async def close(self) -> None:
        """Say QUIT on the idle connections. Those at work are the callers' to wait for."""
        raise NotImplementedError
