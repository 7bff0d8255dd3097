"""The unprivileged process that asks the DNS what the names of protected servers stand for, and tells who must know;
and what rules ask about clients.

Answers besides whether a server's clients trust it by the DNS. Lives where the host's resolvers can be reached, and
keeps no capability. Lends sockets of that place to who has none.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from typing import Any

import uvloop

from bridge.privilege import allow_files
from smtp_intercept.app import channel, config, lending, processlog
from smtp_intercept.app.child import read_arguments, settle_in
from smtp_intercept.app.chores import every
from smtp_intercept.app.consulting import Answering
from smtp_intercept.app.sandbox import myself
from smtp_intercept.inspect.lookups import Lookups
from smtp_intercept.lookup import read_nameservers, stub_resolver
from smtp_intercept.names import Limits
from smtp_intercept.protected import NameState, ProtectedServers
from smtp_intercept.questions import QUERIES, Questions
from smtp_intercept.tls.anchor_lookup import AnchorLookup

AGAIN_S = 1.0  # who was started again knows the table by then
SHOWN = 64
QUEUE_S = 5.0  # who waits longer for a turn has gone on without
OF_NAMES = 3  # the groups of questions that are not a list's
FILES_BESIDE = 256
AT_A_TIME = 16  # names of 64 addresses of IPv6 are less than `channel.DATAGRAM_OCTETS`


class Telling:
    """What stands behind the names, kept fresh and told: all addresses to diverters, each name's to interceptors."""

    def __init__(self, settings: config.Config, arguments: argparse.Namespace) -> None:
        nameservers = read_nameservers(map(str, config.resolvers(settings)))
        self._servers = ProtectedServers(
            config.protected_servers(settings),
            lambda _: self._tell(),
            resolver=lambda: stub_resolver(nameservers),
            limits=Limits(query_timeout_s=float(settings.dns.timeout_s)),
        )
        self._diverters = [*map(channel.adopt, arguments.servers)]
        self._interceptors = [*map(channel.adopt, arguments.names)]
        self._asks = [*map(channel.adopt, arguments.anchors)]
        self._anchors = AnchorLookup(lambda: stub_resolver(nameservers))
        self._lends = [*map(channel.adopt, arguments.lend)]
        questions = Questions(
            tuple(map(str, config.resolvers(settings))), timeout_s=float(settings.dns.timeout_s), queue_s=QUEUE_S
        )
        lookups = Lookups(questions)
        self._answering = [Answering(channel.adopt(end), lookups) for end in arguments.answer]
        self._reports = channel.adopt(arguments.reports)

    async def run(self) -> None:
        """Until SIGTERM."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        for end in self._lends:
            loop.add_reader(end.fileno(), lending.lend, end)
        for answering in self._answering:
            loop.add_reader(answering.end.fileno(), answering.hear)
        for asks, tells in zip(self._asks, self._interceptors, strict=False):
            loop.add_reader(asks.fileno(), self._look_up, asks, tells)
        chores = [
            asyncio.create_task(self._servers.run()),
            asyncio.create_task(every(AGAIN_S, self._tell)),
            asyncio.create_task(every(channel.REPORT_EVERY_S, self._report)),
        ]
        await ended.wait()
        for chore in chores:
            chore.cancel()

    def _look_up(self, asks: socket.socket, tells: socket.socket) -> None:
        for message in channel.hear(asks):
            self._anchors.ask(message.get("anchor"), lambda answer: channel.tell(tells, {"anchor": answer}))

    def _tell(self) -> None:
        names = self._servers.state()
        resolved = sorted({address for name in names for address in name.addresses})
        for end in self._diverters:
            channel.tell(end, {"servers": resolved[: channel.SERVERS]})
        for at in range(0, len(names), AT_A_TIME):
            told = {name.name: name.addresses for name in names[at : at + AT_A_TIME]}
            for end in self._interceptors:
                channel.tell(end, {"names": told})

    def _report(self) -> None:
        shown = [_shown(name) for name in self._servers.state()[:SHOWN]]
        channel.report(self._reports, {**myself(), "protected": shown})


def _shown(name: NameState) -> dict[str, Any]:
    return {
        "name": name.name,
        "addresses": name.addresses,
        "age_s": name.age_s,
        "next_refresh_s": name.next_refresh_s,
        "error": name.error,
    }


def main(argv: list[str] | None = None) -> int:
    """Started by the daemon, with the ends of its channels."""
    processlog.begin()
    arguments = read_arguments("resolver", argv, many=("servers", "names", "lend", "anchors", "answer"))
    settings = config.load(arguments.effective)
    if arguments.answer:
        allow_files(QUERIES * (OF_NAMES + len(settings.dns.list)) + FILES_BESIDE)
    telling = Telling(settings, arguments)
    settle_in("resolver", arguments, settings)
    uvloop.run(telling.run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
