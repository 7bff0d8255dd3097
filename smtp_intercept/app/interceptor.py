"""The unprivileged process: takes the connections that the lane turns inwards, talks SMTP with strangers.

Keeps CAP_NET_RAW, for sockets with other hosts' addresses, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from bridge import flow
from bridge.privilege import allow_files
from smtp_intercept import headcount
from smtp_intercept.accepting import ACCEPT_BATCH
from smtp_intercept.app import channel, config, lending, listening, processlog
from smtp_intercept.app.asked import Asked
from smtp_intercept.app.child import read_arguments, settle_in
from smtp_intercept.app.chores import every
from smtp_intercept.app.fields import OnFailure, OnOverload
from smtp_intercept.app.filter_places import asks_filters
from smtp_intercept.app.filtering import Filtering
from smtp_intercept.app.handover import Giving
from smtp_intercept.app.heldplace import held_place
from smtp_intercept.app.lending import Borrowed
from smtp_intercept.app.maillog import MailLog
from smtp_intercept.app.mistakes import MistakeError
from smtp_intercept.app.rulings import LOOK_EVERY_S, Rulings
from smtp_intercept.app.sandbox import myself
from smtp_intercept.app.seats import Seats
from smtp_intercept.app.tls_checks import takes_part
from smtp_intercept.direction import Direction, direction_of_tag
from smtp_intercept.handling import Handler
from smtp_intercept.inspect.held import nowhere
from smtp_intercept.inspect.lists import ListError
from smtp_intercept.mta.envelope import Origin
from smtp_intercept.names import ServedNames
from smtp_intercept.passage import Passage
from smtp_intercept.proxy import OVERSHOOT, Arrival, Gateway, Taker
from smtp_intercept.rules import Rules
from smtp_intercept.tls.anchors import Anchors
from smtp_intercept.tls.manners import Way
from smtp_intercept.transparent import Address, Blank, Dialler

if TYPE_CHECKING:
    from smtp_intercept.tls.part import Part

FILES_PER_SESSION = 2
FILES_BESIDE = 64

_LOG = logging.getLogger("tollbridge")


def describe(ports: tuple[str, ...]) -> Callable[[socket.socket], Arrival]:
    """What the mark of an accepted socket says: the port of arrival, the VLAN and the connection's direction."""

    def read(accepted: socket.socket) -> Arrival:
        mark = flow.Mark.decode(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_MARK))
        if mark is None:
            return Arrival(port="", direction=Direction.OUTGOING)
        port = ports[mark.port] if mark.port < len(ports) else ""
        return Arrival(port, direction_of_tag(mark.tag) or Direction.OUTGOING, mark.away(), mark.vlan)

    return read


class Interceptor:
    """Sockets are opened by `prepare` while there is privilege; `run` is what remains to do without."""

    def __init__(self, settings: config.Config, arguments: argparse.Namespace) -> None:
        limits = settings.limits
        self._drain_s = float(limits.drain_s or 0)
        self._proofs, self._reports = [*map(channel.adopt, arguments.prove)], channel.adopt(arguments.reports)
        self._worker = arguments.worker or 0
        self._log = MailLog(arguments.log, config.log_bounds(settings))
        self._listeners = listening.adopt(arguments.listener) or listening.listeners(settings, arguments.vlan)
        self._names = channel.adopt(arguments.names)
        self._served = ServedNames(config.protected_servers(settings))
        self._lends = [channel.adopt(end) for end in arguments.lend]
        links = dict(zip(settings.bridge.ports, arguments.port, strict=True))
        self._rulings = Rulings(settings, links)
        blank, spill = _blank(arguments.borrow), _spill(settings, arguments)
        process = f"interceptor-{self._worker + 1}" if arguments.seats is not None else "interceptor"
        self._filtering = Filtering(settings, process, spill, settings.inspect.size_bytes, blank)
        self._asked = Asked(arguments.ask, arguments.look)
        self._anchors, self._settings = _anchors(arguments.anchors), settings
        self._renewals = None if arguments.renewals is None else channel.adopt(arguments.renewals)
        self._ways, self._part = config.ways(settings, links), _part(settings, self._anchors)
        self._handling, self._blocks = config.handling(settings, links), settings.bridge.on_failure is OnFailure.BLOCK
        self._giving = Giving(channel.adopt(arguments.give)) if arguments.give is not None else None
        self._untaken = 0
        self._gateway = Gateway(
            dial=Dialler(
                settings.intercept.hidden,
                settings.bridge.management,
                blank=None if settings.intercept.hidden else blank,
            ),
            protection=config.protection(settings),
            log=self._log,
            describe=describe(tuple(arguments.port)),
            sessions=limits.sessions or 1,
            shares=config.shares(settings),
            budget=config.budget(settings, settings.interceptor.workers),
            defer_overload=settings.intercept.on_overload is OnOverload.DEFER,
            rules=self._rules(settings),
            part=self._part,
            spill=spill,
            session_idle_s=float(limits.session_idle_s or 1),
            choose=self._choose,
            **_shared(settings, arguments),
        )

    async def run(self) -> None:
        """Until SIGTERM; then drains."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        self._asked.start()
        self._gateway.accept(self._listeners)
        chores = [
            asyncio.create_task(every(channel.PROVE_EVERY_S, self._prove)),
            asyncio.create_task(every(channel.REPORT_EVERY_S, self._report)),
            asyncio.create_task(every(LOOK_EVERY_S, self._rulings.refresh)),
        ]
        loop.add_reader(self._names.fileno(), self._hear)
        if self._renewals is not None:
            loop.add_reader(self._renewals.fileno(), self._renew)
        for end in self._lends:
            loop.add_reader(end.fileno(), lending.lend, end)
        if self._giving is not None:
            loop.add_reader(self._giving.fileno(), self._giving.listen)
        await ended.wait()
        self._gateway.stop_accepting()
        await self._gateway.drain(self._drain_s)
        for chore in chores:
            chore.cancel()

    def _rules(self, settings: config.Config) -> Callable[[Passage], Rules]:
        """By direction, by what becomes of STARTTLS, and by whether the connection is a balancer's; with a judge of its
        own, where there are rules."""
        known = {
            (direction, way, balanced, tls): replace(
                config.rules(settings, direction, way),
                balancer=balanced,
                tls_first=tls and way is Way.TERMINATE and not balanced,  # who begins with something else
            )
            for direction in Direction
            for way in self._ways.all
            for balanced in (False, True)
            for tls in (False, True)
        }
        balancer, ports = config.balancer(settings), settings.intercept.tls_ports
        filters = asks_filters(settings)

        def of(passage: Passage) -> Rules:
            balanced, tls = balancer(passage.client[0]), passage.server[1] in ports
            return known[passage.arrival.direction, self._way(passage), balanced, tls]

        def judged(passage: Passage) -> Rules:
            decider = self._rulings.decider(passage, self._asked.look_up, self._asked.look_in)
            if not filters:
                return replace(of(passage), ask=decider.ask, later=decider.later)
            course = self._filtering.course(passage, decider)
            return replace(of(passage), ask=course.ask, later=course.later, over=course.over)

        return judged if settings.rule else of

    def _way(self, passage: Passage) -> Way:
        served = self._served.serving.by(ip_address(passage.server[0]).packed) if self._ways.by_domain else ()
        return self._ways.choose(passage.arrival.port, passage.arrival.direction, served)

    def _choose(self, sock: socket.socket, client: Address, server: Address, arrival: Arrival) -> Taker:
        """While the MTA is silent its mail goes on live, or waits at the client: as on_failure says."""
        if self._giving is None or server[1] in self._settings.intercept.tls_ports:  # the MTA has no TLS at once
            return Taker.SESSION
        served = self._served.serving.by(ip_address(server[0]).packed)
        if self._handling.choose(arrival.port, arrival.direction, served).handler is Handler.PROXY:
            return Taker.SESSION
        origin = Origin(client[:2], server[:2], arrival.direction, arrival.port, served, away=arrival.away)
        if self._giving.give(sock, origin):
            return Taker.MTA
        self._untaken += 1
        return Taker.NOBODY if self._blocks else Taker.SESSION

    def _prove(self) -> None:
        accepting = self._gateway.healthy and not self._gateway.full
        self._tell_diverters({"at": time.monotonic(), "accepting": accepting})
        if self._anchors is not None:
            self._anchors.expire()

    def _hear(self) -> None:
        for message in channel.hear(self._names):
            self._served.learn(message.get("names"))
            if self._anchors is not None:
                self._anchors.learn(message.get("anchor"))

    def _renew(self) -> None:
        assert self._renewals is not None
        assert self._part is not None
        from smtp_intercept.app import tls_files  # loaded long ago

        for message in channel.hear(self._renewals):
            number, chain, key = int(message["identity"]), str(message["chain"]), str(message["key"])
            try:
                self._part.renew(tls_files.made(self._settings, number, chain.encode(), key.encode()))
            except MistakeError as error:
                _LOG.warning("the old certificate is shown on: %s", error)
            else:
                _LOG.info("tls.identity[%d]: a renewed certificate is shown from now on", number)

    def _tell_diverters(self, message: dict[str, Any]) -> None:
        for end in self._proofs:
            channel.tell(end, {**message, "worker": self._worker})

    def _report(self) -> None:
        self._log.turn()
        counts = {**self._gateway.counters(), "mta_silent": self._untaken, **self._log.counts, **self._asked.counts()}
        open_now = self._gateway.sessions
        unknown = self._gateway.unknown_keywords()
        told: dict[str, Any] = {"sessions": open_now, "held_bytes": self._gateway.held_bytes}
        rules: dict[str, Any] = (
            {**self._gateway.ruled(), "list_errors": self._rulings.errors()} if self._rulings.ruleset.rules else {}
        )
        rules |= {"filters": self._filtering.page()} if self._filtering.filters else {}
        if self._part is not None:
            told |= self._part.report()
        report = {**myself(), **told, **rules, "counts": counts, "unknown_keywords": unknown}
        channel.report(self._reports, report)


def _part(settings: config.Config, anchors: Anchors | None) -> Part | None:
    """What is needed to take part in TLS; None where nobody is to."""
    if not takes_part(settings):
        return None
    from smtp_intercept.app import tls_files  # what it brings is a lot, and seldom needed

    return tls_files.part(settings, anchors=anchors)


def _anchors(asks: int | None) -> Anchors | None:
    """What the DNS says of servers, by the process that asks it."""
    if asks is None:
        return None
    end = channel.adopt(asks)
    return Anchors(lambda name, port: channel.tell(end, {"anchor": [name, port]}), time.monotonic)


def _blank(borrow: int | None) -> Blank | None:
    """Where the box's own addresses are in another network namespace: sockets of that."""
    return None if borrow is None else Borrowed(channel.adopt(borrow)).take


def _spill(settings: config.Config, arguments: argparse.Namespace) -> Callable[[], int]:
    """Where content that rules must see is held."""
    return held_place(Path(settings.inspect.directory), arguments.uid, arguments.gid) if settings.rule else nowhere


def _shared(settings: config.Config, arguments: argparse.Namespace) -> dict[str, Any]:
    """What one of several workers has in common with the others, and what tells its sessions from theirs."""
    if arguments.seats is None:
        return {"headcount": headcount.Alone(), "accept_batch": ACCEPT_BATCH}
    seats = Seats(arguments.seats, settings.interceptor.workers or 1).of(arguments.worker)
    return {"headcount": seats, "accept_batch": 1, "series": f"{secrets.token_hex(4)}{arguments.worker:02x}"}


def main(argv: list[str] | None = None) -> int:
    """Started by the daemon, with the ends of its channels and the open log."""
    processlog.begin()
    arguments = read_arguments(
        "interceptor",
        argv,
        "log",
        "names",
        optional=("give", "worker", "seats", "borrow", "anchors", "renewals", "ask", "look"),
        many=("prove", "listener", "lend"),
    )
    settings = config.load(arguments.effective)
    _allow_sessions(settings.limits.sessions or 1, len(settings.filter))
    try:
        interceptor = Interceptor(settings, arguments)
    except (ListError, MistakeError) as error:
        _LOG.error("%s", error)
        return 1
    except OSError as error:
        _LOG.error("%s", listening.reason(error, settings))
        return 1
    settle_in("interceptor", arguments, settings)
    # What stands now stands to the end: the collector, which hundreds of sessions a second wake, need not walk it.
    gc.freeze()
    uvloop.run(interceptor.run())
    return 0


def _allow_sessions(sessions: int, filters: int) -> None:
    """Not even root may always raise the limit of open files (CAP_SYS_RESOURCE)."""
    allowed = allow_files((FILES_PER_SESSION + filters) * (sessions + OVERSHOOT) + FILES_BESIDE)
    if allowed < FILES_PER_SESSION * sessions + FILES_BESIDE:
        _LOG.warning(
            "limits.sessions: %d sessions need %d open files, and %d are allowed; connections beyond are bridged "
            "untouched; raise the limit (LimitNOFILE of the service)",
            sessions, FILES_PER_SESSION * sessions + FILES_BESIDE, allowed,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
