"""The MTA's receiving side alone, for the bench: a listener whose spool only counts. `python -m tests.bench.receiving`
writes its port and serves until it is ended; with `--profile`, ended by SIGTERM, it tells where its time went.

    smtp-source ──127.0.0.1──> Receiving ──> Counting (nothing is kept)
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import signal
import socket
import sys
from typing import Any

import uvloop

from smtp_intercept.direction import Direction
from smtp_intercept.mta.envelope import Envelope, Origin
from smtp_intercept.mta.receive import Receiving, Services


class Counted:
    """A draft of which only the size is kept."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        self.size_bytes += len(data)

    def abandon(self) -> None:
        pass


class Counting:
    """A spool that counts."""

    def __init__(self) -> None:
        self.messages = self.size_bytes = 0

    def draft(self) -> Counted:
        return Counted()

    async def enqueue(self, draft: Any, origin: Origin, envelope: Envelope, now: float) -> str:
        self.messages += 1
        self.size_bytes += draft.size_bytes
        return f"{self.messages:x}"


def services(spool: Any) -> Services:
    return Services(
        spool=spool,
        admission=lambda origin, recipient: None,
        direction=lambda origin, recipient: Direction.INCOMING,
        hostname="mta.example",
        log=lambda record: None,
    )


async def serve(spool: Any) -> None:
    """Until SIGTERM."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    receiving = Receiving(services(spool))
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listener:
        listener.setblocking(False)

        async def accept() -> None:
            while True:
                sock, client = await loop.sock_accept(listener)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                receiving.serve(sock, Origin(client, listener.getsockname(), Direction.INCOMING))

        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        accepting = loop.create_task(accept())
        await ended.wait()
        accepting.cancel()
        await receiving.drain(1.0)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--profile", action="store_true")
    profile = cProfile.Profile() if options.parse_args().profile else None
    if profile:
        profile.enable()
    spool = Counting()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(spool))
    sys.stdout.write(f"{spool.messages} {spool.size_bytes}\n")
    if profile:
        profile.disable()
        pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
