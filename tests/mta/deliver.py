"""A runner in a process of its own, to be killed: `python -m tests.mta.deliver SPOOL PORT`. Everything goes to PORT."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import socket
import sys
import time
from pathlib import Path

from smtp_intercept.mta.courier import Courier
from smtp_intercept.mta.envelope import Entry, Origin, Queued
from smtp_intercept.mta.fate import Reporter
from smtp_intercept.mta.nexthop import NextHop, Place, Security
from smtp_intercept.mta.parts import Route
from smtp_intercept.mta.resolver import Resolver
from smtp_intercept.mta.runner import Runner
from smtp_intercept.mta.schedule import Schedule
from smtp_intercept.mta.settling import Log, Settling
from smtp_intercept.mta.spool import Spool


async def dial(origin: Origin | None, place: Place) -> socket.socket:
    """From this host, as itself."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio: TCP_NODELAY
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (place.host, place.port))
    except BaseException:
        sock.close()
        raise
    return sock


def hop(port: int) -> NextHop:
    return NextHop("R1", places=(Place("127.0.0.1", port),), security=Security.NONE)


def runner(spool: Spool, route: Route, log: Log, schedule: Schedule | None = None) -> Runner:
    """With the real courier."""
    settling = Settling(
        queue=spool,
        schedule=schedule or Schedule(),
        reporter=Reporter("gate.example.net"),
        log=log,
        clock=time.time,
        chance=random.random,
        token=lambda: secrets.token_hex(8),
    )
    return Runner(spool, Courier(Resolver(), dial, "gate.example.net"), route, settling)


async def deliver(directory: Path, port: int) -> None:
    def everything(entry: Entry, queued: Queued) -> NextHop:
        return hop(port)

    def log(record: object) -> None:
        print(json.dumps(record), flush=True)

    await runner(Spool.open(directory), everything, log).run()


if __name__ == "__main__":
    asyncio.run(deliver(Path(sys.argv[1]), int(sys.argv[2])))
