"""The MTA as a program that listens, for the bench: `python -m tests.bench.mta_box SPOOL PORT SINK-PORT [--hold]`.

smtp-source ──PORT──> Receiving ──> Spool (fsync) ──> Runner, Courier ──SINK-PORT──> smtp-sink
                                    --hold: and no further
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tomli_w
import uvloop

from smtp_intercept.app import channel, config, handover
from smtp_intercept.app.maillog import MailLog
from smtp_intercept.app.mta import Mta, Secrets, services
from smtp_intercept.direction import Direction, Servers
from smtp_intercept.mta.envelope import Origin
from smtp_intercept.mta.receive import Receiving
from smtp_intercept.mta.spool import Spool

PORTS = ["p0", "p1"]


def settings(spool: Path, sink: int) -> config.Config:
    """All defaults but what must be said."""
    text = tomli_w.dumps(
        {
            "bridge": {"ports": PORTS},
            "intercept": {"incoming": "mta"},
            "protected": [{"domain": "example.com", "servers": ["127.0.0.1"], "deliver_to": [f"127.0.0.1:{sink}"]}],
            "dns": {"resolvers": ["127.0.0.1:9"]},
            "mta": {"spool": str(spool), "hostname": "mta.example"},
            "limits": {"sessions": 1_000, "drain_s": 5},
        }
    )
    return config.parse(text)


async def accept(port: int, serve: Callable[[socket.socket, Origin], object]) -> None:
    """Until cancelled."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", port), backlog=1_024) as listener:
        listener.setblocking(False)
        print(f"ready {time.monotonic()}", flush=True)
        while True:
            sock, client = await loop.sock_accept(listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve(sock, Origin(client, listener.getsockname(), Direction.INCOMING, "p0", ("example.com",)))


async def hold(of: config.Config, port: int, log: int) -> None:
    """Takes and keeps, until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    spool = Spool.open(Path(of.mta.spool), reserve_bytes=of.mta.reserve_bytes)
    receiving = Receiving(services(of, dict(zip(PORTS, PORTS, strict=True)), spool, MailLog(log), Secrets(of)))
    accepting = asyncio.create_task(accept(port, receiving.serve))
    await ended.wait()
    accepting.cancel()
    await receiving.drain(1.0)
    spool.close()


async def run(of: config.Config, port: int, log: int) -> None:
    """All of it, until SIGTERM."""
    ours, its = handover.pair()
    reports, _ = channel.pair()
    arguments = argparse.Namespace(take=[its.detach()], reports=reports.detach(), log=log, port=PORTS)
    mta, giving = Mta(of, arguments, Secrets(of), Servers.of(())), handover.Giving(ours)
    asyncio.get_running_loop().add_reader(giving.fileno(), giving.listen)
    accepting = asyncio.create_task(accept(port, partial(_hand_over, giving)))
    await mta.run()
    accepting.cancel()


def _hand_over(giving: handover.Giving, sock: socket.socket, origin: Origin) -> None:
    giving.give(sock, origin)
    sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spool", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("sink", type=int)
    parser.add_argument("--hold", action="store_true")
    arguments = parser.parse_args()
    log = os.open(arguments.spool.parent / "mail.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    serve = hold if arguments.hold else run
    uvloop.run(serve(settings(arguments.spool, arguments.sink), arguments.port, log))


if __name__ == "__main__":
    main()
