"""The unprivileged process of the built-in MTA: takes mail that the interceptor hands over, keeps it, delivers it.

Reads its secrets and makes its spool while it is root; keeps CAP_NET_RAW only to deliver in clients' names.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from bridge.links import Links
from bridge.privilege import allow_files
from smtp_intercept.app import channel, config, processlog
from smtp_intercept.app.certificate import certificate
from smtp_intercept.app.child import read_arguments, settle_in
from smtp_intercept.app.chores import every
from smtp_intercept.app.fields import BareNewline, Queue, VerifyFailure
from smtp_intercept.app.handover import SIGN_EVERY_S, Taking
from smtp_intercept.app.heldplace import held_place
from smtp_intercept.app.lending import Borrowed
from smtp_intercept.app.maillog import MailLog
from smtp_intercept.app.mistakes import MistakeError
from smtp_intercept.app.password import relay_password
from smtp_intercept.app.rulings import LOOK_EVERY_S, Rulings
from smtp_intercept.app.sandbox import myself
from smtp_intercept.direction import Servers, message_direction
from smtp_intercept.inspect.lists import ListError
from smtp_intercept.limits import Limits
from smtp_intercept.mta import courier as carrying
from smtp_intercept.mta import relaying, routing
from smtp_intercept.mta.call_ahead import NOT_NOW, CallAhead
from smtp_intercept.mta.courier import Courier, Credentials
from smtp_intercept.mta.destinations import Bounds
from smtp_intercept.mta.dialling import NextHopDialler
from smtp_intercept.mta.envelope import Entry, Queued
from smtp_intercept.mta.fate import Reporter
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.quota import Quota
from smtp_intercept.mta.receive import Intake, Receiving, Services
from smtp_intercept.mta.relay import Relay
from smtp_intercept.mta.resolver import Resolver
from smtp_intercept.mta.runner import Runner
from smtp_intercept.mta.schedule import Schedule
from smtp_intercept.mta.settling import Settling, steady
from smtp_intercept.mta.spool import Spool, SpoolError
from smtp_intercept.mta.spool import make as make_spool
from smtp_intercept.transparent import Blank

LOOPBACK = Servers.of(
    ["127.0.0.0/8", "::1"]
)  # RFC 1122 §3.2.1.3: no MX record of a stranger's leads to our own services
FILES_PER_SESSION = 2  # its socket, its draft
FILES_BESIDE = 256
STOCK = 4  # sockets of the wire's network namespace that are there before they are needed
SETTLE_S = 0.2  # what the interceptor handed over before it was told to end has come by then

_LOG = logging.getLogger("tollbridge")


class Secrets:
    """What only root may read, read once. `MistakeError` names the key of what cannot be."""

    def __init__(self, settings: config.Config) -> None:
        relay, password = settings.relay, relay_password(settings)
        self.certificate = certificate(settings.mta)
        self.credentials = None
        if relay is not None and relay.username is not None and password is not None:
            self.credentials = Credentials(relay.username, password)


class Mta:
    """All parts put together. Made without privilege; the spool is the user's own."""

    def __init__(self, settings: config.Config, arguments: argparse.Namespace, known: Secrets, own: Servers) -> None:
        self._drain_s = float(settings.limits.drain_s or 0)
        self._reports = channel.adopt(arguments.reports)
        self._taking = [Taking(channel.adopt(end)) for end in arguments.take]
        self._log = MailLog(arguments.log, config.log_bounds(settings))
        self._spool = Spool.open(Path(settings.mta.spool), reserve_bytes=settings.mta.reserve_bytes)
        blank = None if arguments.borrow is None else Borrowed(channel.adopt(arguments.borrow), STOCK).take
        self._courier = courier(settings, known, own, blank)
        links = dict(zip(settings.bridge.ports, arguments.port, strict=True))
        table = config.routes(settings)
        settling = _settling(settings, self._spool, self._log)
        self._call_ahead = call_ahead(settings, self._courier, table)
        self._runner = runner(settings, self._spool, self._courier, table, settling)
        served = services(settings, links, self._queue(settings, table, settling), self._log, known)
        served = replace(served, room_bytes=self._spool.room_bytes)
        if self._call_ahead is not None:
            served = replace(served, verify=self._call_ahead)
        self._rulings = Rulings(settings, links)
        if settings.rule:
            spill = held_place(Path(settings.mta.spool) / "held", os.geteuid(), os.getegid())
            served = replace(served, judge=lambda passage: self._rulings.judge(passage).ask, spill=spill)
        self._receiving = Receiving(
            served,
            sessions=settings.limits.sessions or 1,
            shares=config.shares(settings),
            budget=config.budget(settings),
        )

    def _queue(self, settings: config.Config, table: routing.RouteTable, settling: Settling) -> Spool | Relay:
        if settings.mta.queue is Queue.OWN or table.relay is None:
            return self._spool
        return Relay(self._spool, self._courier, table.relay, settling)

    async def run(self) -> None:
        """Until SIGTERM; then drains."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        for taking in self._taking:
            loop.add_reader(taking.fileno(), self._take, taking)
        running = asyncio.create_task(self._runner.run())
        running.add_done_callback(lambda _: ended.set())  # without it mail would be taken and never delivered
        chores = [
            asyncio.create_task(every(SIGN_EVERY_S, self._sign)),
            asyncio.create_task(every(channel.REPORT_EVERY_S, self._report)),
            asyncio.create_task(every(LOOK_EVERY_S, self._rulings.refresh)),
        ]
        await ended.wait()
        await self._end(running)
        for chore in chores:
            chore.cancel()
        running.result()

    async def _end(self, running: asyncio.Task[None]) -> None:
        """No new connection, then those that are there, then what is being delivered."""
        await asyncio.sleep(SETTLE_S)
        for taking in self._taking:
            self._take(taking)
            asyncio.get_running_loop().remove_reader(taking.fileno())
        self._runner.stop(self._drain_s)
        await asyncio.gather(self._receiving.drain(self._drain_s), asyncio.wait({running}))
        self._courier.close()
        self._spool.close()

    def _sign(self) -> None:
        for taking in self._taking:
            taking.sign()

    def _take(self, taking: Taking) -> None:
        for sock, origin in taking.take():
            self._receiving.serve(sock, origin)

    def _report(self) -> None:
        self._log.turn()
        counts = {**self._receiving.counters(), "in_hand": self._runner.in_hand, **self._log.counts}
        if self._call_ahead is not None:
            counts |= {f"recipients_{verdict}": count for verdict, count in self._call_ahead.counts.items()}
        rules = (
            {**self._receiving.ruled(), "list_errors": self._rulings.errors()} if self._rulings.ruleset.rules else {}
        )
        open_now = {"sessions": self._receiving.sessions, "held_bytes": self._receiving.held_bytes}
        told = {**open_now, "counts": counts, "queue": self._waiting()}
        channel.tell(self._reports, {**myself(), **told, **rules})

    def _waiting(self) -> dict[str, Any]:
        try:
            queue = asdict(self._spool.summary())
        except SpoolError as failure:
            return {"error": str(failure)}
        oldest_at = queue.pop("oldest_at")
        return {**queue, "oldest_s": None if oldest_at is None else round(time.time() - oldest_at)}


def hostname(settings: config.Config) -> str:
    """What the box calls itself."""
    return settings.mta.hostname or socket.getfqdn()


def services(
    settings: config.Config,
    links: dict[str, str],
    queue: Spool | Relay,
    log: Callable[[dict[str, Any]], None],
    known: Secrets,
) -> Services:
    """What a receiving session needs."""
    rule = config.relay_rule(settings, links)
    return Services(
        spool=queue,
        admission=lambda origin, recipient: relaying.admission(origin, recipient, rule),
        direction=lambda origin, mailbox: message_direction(mailbox, rule.on(origin)),
        hostname=hostname(settings),
        log=log,
        balancer=config.balancer(settings),
        certificate=known.certificate,
        intake=Intake(
            size_bytes=settings.mta.size_bytes,
            hops=settings.mta.hops,
            reject_bare_newline=settings.intercept.bare_newline is BareNewline.REJECT,
        ),
        limits=_limits(settings),
    )


def call_ahead(settings: config.Config, carrier: Courier, table: routing.RouteTable) -> CallAhead | None:
    """What asks protected servers for their recipients, if anything does."""
    if not settings.mta.verify_recipients:
        return None
    if_unknown = NOT_NOW if settings.mta.verify_failure is VerifyFailure.DEFER else None
    return CallAhead(carrier, lambda origin, mailbox: routing.route(origin, mailbox, table), steady, if_unknown)


def courier(settings: config.Config, known: Secrets, own: Servers, blank: Blank | None = None) -> Courier:
    """What carries mail away."""
    mta = settings.mta
    nameservers = tuple(map(str, config.resolvers(settings)))
    return Courier(
        Resolver(nameservers, own=own, timeout_s=float(settings.dns.timeout_s)),
        NextHopDialler(settings.bridge.management, blank),
        hostname(settings),
        bounds=carrying.Bounds(mta.connections, mta.connections_per_host, mta.messages_per_connection),
        credentials=known.credentials,
    )


def _limits(settings: config.Config) -> Limits:
    """Those of live sessions, but a message for fewer: what is refused here later has to be told to its sender."""
    limits = config.rules(settings).limits
    recipients = min(filter(None, (limits.recipients, settings.mta.recipients)))
    return replace(limits, recipients=recipients)


def runner(
    settings: config.Config, spool: Spool, carrier: Courier, table: routing.RouteTable, settling: Settling
) -> Runner:
    """What decides when."""

    def route(entry: Entry, queued: Queued) -> NextHop:
        return routing.route(entry.origin, queued.recipient.address, table, entry.alternate)

    mta = settings.mta
    bounds = Bounds.of(mta.connections, mta.connections_per_host, float(mta.retry_s))
    return Runner(spool, carrier, route, settling, bounds)


def _settling(settings: config.Config, spool: Spool, log: Callable[[dict[str, Any]], None]) -> Settling:
    mta = settings.mta
    schedule = Schedule(
        first_s=float(mta.retry_s),
        most_s=float(mta.retry_most_s),
        delay_notice_s=float(mta.delay_notice_s),
        give_up_s=float(mta.give_up_s),
        dsn_give_up_s=float(mta.dsn_give_up_s),
    )
    reporter = Reporter(hostname(settings))
    token = partial(secrets.token_hex, 8)
    quota = Quota(mta.notices_per_hour)
    return Settling(spool, schedule, reporter, log, time.time, random.random, token, quota=quota)


def main(argv: list[str] | None = None) -> int:
    """Started by the daemon, with the ends of its channels and the open log."""
    processlog.begin()
    arguments = read_arguments("mta", argv, "log", optional=("borrow",), many=("take",))
    settings = config.load(arguments.effective)
    allow_files(FILES_PER_SESSION * (settings.limits.sessions or 1) + 2 * settings.mta.connections + FILES_BESIDE)
    try:
        known = Secrets(settings)
        make_spool(Path(settings.mta.spool), arguments.uid, arguments.gid)
        with Links() as links:
            own = Servers(links.own_addresses() | LOOPBACK.addresses, LOOPBACK.networks)
    except (OSError, SpoolError, MistakeError) as error:
        _LOG.error("%s", error)
        return 1
    # The view of the files that is to come has no other place for what SQLite sorts on the disk.
    os.environ["SQLITE_TMPDIR"] = str(settings.mta.spool)
    settle_in("mta", arguments, settings)
    try:
        mta = Mta(settings, arguments, known, own)
    except SpoolError as error:
        _LOG.error("mta.spool: %s", error)
        return 1
    except ListError as error:
        _LOG.error("%s", error)
        return 1
    uvloop.run(mta.run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
