"""The unprivileged process: takes the connections that the lane turns inwards, talks SMTP and DNS with strangers.

Keeps CAP_NET_RAW, for sockets with other hosts' addresses, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from bridge import flow
from bridge.lane import LANE
from bridge.privilege import Capability, allow_files, confine, die_with_parent
from smtp_intercept.app import channel, config
from smtp_intercept.app.fields import OnOverload
from smtp_intercept.app.holder import holders
from smtp_intercept.direction import Direction, direction_of_tag
from smtp_intercept.protected import ProtectedServers
from smtp_intercept.proxy import OVERSHOOT, Arrival, Gateway
from smtp_intercept.transparent import Dialler, listen
from smtp_intercept.witness import Witness

SERVERS_EVERY_S = 5.0  # a diverter that was started again learns the table by then
FILES_PER_SESSION = 2
FILES_BESIDE = 64

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_LOG = logging.getLogger("tollbridge")


class MailLog:
    """One JSON line a record, to a file opened with privilege. A full disk loses lines and counts them, never mail."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.lost = 0

    def __call__(self, record: dict[str, Any]) -> None:
        line = _ENCODE(record) + "\n"
        try:
            os.write(self._fd, line.encode("utf-8", "backslashreplace"))
        except OSError:
            self.lost += 1


def describe(ports: tuple[str, ...]) -> Callable[[socket.socket], Arrival]:
    """What the mark of an accepted socket says: the port of arrival and the connection's direction."""

    def read(accepted: socket.socket) -> Arrival:
        mark = flow.Mark.decode(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_MARK))
        if mark is None:
            return Arrival(port="", direction=Direction.OUTGOING)
        port = ports[mark.port] if mark.port < len(ports) else ""
        return Arrival(port, direction_of_tag(mark.tag) or Direction.OUTGOING, mark.away())

    return read


class Interceptor:
    """Sockets are opened by `prepare` while there is privilege; `run` is what remains to do without."""

    def __init__(self, settings: config.Config, arguments: argparse.Namespace) -> None:
        limits = settings.limits
        self._drain_s = float(limits.drain_s or 0)
        self._proofs, self._reports = channel.adopt(arguments.prove), channel.adopt(arguments.reports)
        self._log = MailLog(arguments.log)
        self._listeners = _listeners(settings)
        self._witness = Witness(LANE)
        domains, rules = config.domains(settings), config.rules(settings)
        self._servers = ProtectedServers(config.protected_servers(settings), lambda _: self._tell_servers())
        self._gateway = Gateway(
            dial=Dialler(settings.intercept.hidden, settings.bridge.management),
            domains=lambda: domains,
            log=self._log,
            describe=describe(tuple(arguments.port)),
            macs=self._witness.macs,
            sessions=limits.sessions or 1,
            sessions_per_client=limits.sessions_per_client,
            defer_overload=settings.intercept.on_overload is OnOverload.DEFER,
            rules=lambda passage: rules,
            session_idle_s=float(limits.session_idle_s or 1),
        )

    async def run(self) -> None:
        """Until SIGTERM; then drains."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        self._gateway.accept(self._listeners)
        chores = [
            asyncio.create_task(self._servers.run()),
            asyncio.create_task(_every(channel.PROVE_EVERY_S, self._prove)),
            asyncio.create_task(_every(channel.REPORT_EVERY_S, self._report)),
            asyncio.create_task(_every(SERVERS_EVERY_S, self._tell_servers)),
        ]
        await ended.wait()
        self._gateway.stop_accepting()
        await self._gateway.drain(self._drain_s)
        for chore in chores:
            chore.cancel()

    def _prove(self) -> None:
        accepting = self._gateway.healthy and not self._gateway.full
        channel.tell(self._proofs, {"at": time.monotonic(), "accepting": accepting})

    def _tell_servers(self) -> None:
        resolved = sorted({address for name in self._servers.state() for address in name.addresses})
        channel.tell(self._proofs, {"servers": resolved[: channel.SERVERS]})

    def _report(self) -> None:
        names = [
            {
                "name": n.name,
                "addresses": n.addresses,
                "age_s": n.age_s,
                "next_refresh_s": n.next_refresh_s,
                "error": n.error,
            }
            for n in self._servers.state()
        ]
        counts = {**self._gateway.counters(), "log_lines_lost": self._log.lost}
        open_now = self._gateway.sessions
        channel.tell(
            self._reports, {"pid": os.getpid(), "sessions": open_now, "counts": counts, "protected": names[:64]}
        )


async def _every(seconds: float, work: Callable[[], None]) -> None:
    while True:
        work()
        await asyncio.sleep(seconds)


def _listeners(settings: config.Config) -> list[socket.socket]:
    families = [socket.AF_INET] + ([socket.AF_INET6] if Path("/proc/net/if_inet6").exists() else [])
    # Without a mark of its own: a socket that has one does not take the SYN's (inet_request_mark in the kernel).
    return [listen(family, port, LANE, None) for port in settings.intercept.ports for family in families]


def main(argv: list[str] | None = None) -> int:
    """Started by the daemon, with the ends of its channels and the open log."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    arguments = _arguments(argv)
    settings = config.load(arguments.effective)
    allow_files(FILES_PER_SESSION * ((settings.limits.sessions or 1) + OVERSHOOT) + FILES_BESIDE)
    try:
        interceptor = Interceptor(settings, arguments)
    except OSError as error:
        _LOG.error("%s", _reason(error, settings))
        return 1
    confine(arguments.uid, arguments.gid, [Capability.NET_RAW])
    die_with_parent(signal.SIGTERM, arguments.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to pass on, in its order
    # What stands now stands to the end: the collector, which hundreds of sessions a second wake, need not walk it.
    gc.freeze()
    uvloop.run(interceptor.run())
    return 0


def _reason(error: OSError, settings: config.Config) -> str:
    if error.errno == errno.EADDRINUSE:
        ports = settings.intercept.ports
        found = "; ".join(map(str, holders(ports))) or f"another service listens on one of {', '.join(map(str, ports))}"
        return (
            f"intercept.ports: {found}; the lane's listener takes the port on every address, so that even a service on "
            "127.0.0.1 alone (Debian's exim4) is in its way; stop that service (systemctl disable --now NAME), or have "
            "it listen on another port"
        )
    return f"cannot open the lane's sockets: {error}; has `tollbridge up` been run?"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tollbridge-interceptor")
    parser.add_argument("--effective", type=Path, required=True)
    parser.add_argument("--prove", type=int, required=True)
    parser.add_argument("--reports", type=int, required=True)
    parser.add_argument("--log", type=int, required=True)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--port", action="append", required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
