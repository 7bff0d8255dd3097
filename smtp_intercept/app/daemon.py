"""`tollbridge run`: starts the other processes, watches them, writes the status file, lets go in good order.

Not in the path of any mail: while it stands still they go on, and when it dies they do too.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, cast

from pyroute2.netlink.exceptions import NetlinkError

from bridge import firewall, stp
from bridge.deadman import PROOF_MAX_AGE_S
from bridge.firewall import FirewallError
from bridge.lane import PortLegs
from bridge.namespace import Namespace
from smtp_intercept.app import channel, fields, listening, processlog, sandbox
from smtp_intercept.app.accounts import HELPERS, UNSEEING, NoAccountError
from smtp_intercept.app.beside import Beside
from smtp_intercept.app.children import Child, all_up, awaited, descriptors, handed, make_child, numbered, serving
from smtp_intercept.app.config import Config
from smtp_intercept.app.ends import Ends, Named
from smtp_intercept.app.linkloss import LinkLoss
from smtp_intercept.app.notify import Notify
from smtp_intercept.app.renewal import Renewals
from smtp_intercept.app.rundir import Page, RunDir
from smtp_intercept.app.seats import Seats
from smtp_intercept.app.signals import ended_by
from smtp_intercept.app.sums import summed
from smtp_intercept.app.tables import uses_mta
from smtp_intercept.app.watcher import Watcher
from smtp_intercept.app.writable import torn
from smtp_intercept.mta.faults import NoQueueError, SpoolError
from smtp_intercept.mta.listing import Filter
from smtp_intercept.mta.postmaster import queue_in

TICK_S = 0.1
LET_GO_S = 15.0  # a graceful stop takes at most so much longer than limits.drain_s
SETTLE_S = 0.5  # handshakes that were let in before the switch opened may still complete
STP_EVERY_S, STP_TIMEOUT_S = 2.0, 6

_LOG = logging.getLogger("tollbridge")


Keep = Callable[[], None]


class StartError(Exception):
    """The daemon cannot start; the message says why and what to do."""


class Daemon:
    """``legs`` are the lanes' ports as `up` made them, ``vlans`` the VIDs that have a lane. ``config`` is the effective
    one, every limit filled in; ``keep`` writes down that it works, once it does. ``room`` names the network namespace
    that it and all who see mail live in."""

    def __init__(
        self,
        config: Config,
        run_dir: RunDir,
        legs: Iterable[PortLegs],
        source: Path,
        keep: Keep | None = None,
        vlans: Iterable[int] = (),
        room: str = "",
    ) -> None:
        self._room, self._outside = room, cast("Namespace | None", None)
        self._keep = keep
        self._config, self._run_dir, self._legs, self._source = config, run_dir, tuple(legs), source
        self._vlans = tuple(vlans)
        self._started_at = time.time()
        self._stopping: list[int] = []  # signals, as they came
        self._notify = Notify()
        self._forwarding: tuple[list[str], float] = ([], 0.0)
        self._cable = _cable(config, self._legs, run_dir, room)
        workers = config.interceptor.workers or 1
        self._seats = Seats.make(workers) if workers > 1 else None
        self._listeners, self._crew = listening.Shared(config, self._vlans), list[Child]()
        self._watcher = Watcher(run_dir, self._held)
        self._remade, self._impatient = 0, False
        self._beside: Beside  # once there are children

    def run(self) -> int:
        """Until SIGTERM or SIGINT; a second one does not wait for sessions. Which it was is the exit status: a unit
        starts again what nobody has asked to end (`signals.ASKS`). Raises `StartError`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        if self._room:
            self._outside, inside = _move_into(self._room)
            self._watcher = Watcher(self._run_dir, self._held, self._outside, (self._room, inside))
        try:
            children = self._children()
        except NoAccountError as error:
            raise StartError(str(error)) from None
        sandbox.shut_supervisor()
        self._watcher.start()
        try:
            self._watch(children)
        finally:
            self._watcher.end()
            if self._cable is not None:
                self._cable.release()
            self._let_go(children)
            self._run_dir.status.unlink(missing_ok=True)
        return ended_by(self._stopping)

    def _held(self) -> Collection[str]:
        return self._cable.held if self._cable is not None else ()

    def _stop(self, number: int, _: object) -> None:
        self._stopping.append(number)

    # --- running -----------------------------------------------------------------------------------------------------

    def _watch(self, children: list[Child]) -> None:
        poll = select.poll()
        ready, written_at, page = False, 0.0, Page(self._run_dir.status)
        needed = awaited(children)
        for child in children:
            self._start(child)
            poll.register(child.reports, select.POLLIN)
        while not self._stopping:
            poll.poll(TICK_S * 1000)
            now = time.monotonic()
            for child in children:
                child.listen(now)
                if not ready and child in needed and child.process is not None and child.process.poll() is not None:
                    raise StartError(f"the {child.name} ended while starting; what it said stands above")
                child.watch(now)
            if not ready and all_up(needed):
                ready, written_at = True, now
                page.write(self._status(children, ready))  # whoever hears of it asks for the status at once
                self._notify.ready(
                    "" if self._keep else f"inspecting mail with {self._source}, the last good configuration"
                )
                _LOG.info("ready: mail on %s is inspected", ", ".join(leg.port for leg in self._legs))
            if all(child.report for child in needed):
                self._notify.watchdog(now)
            self._follow_lanes(children)
            self._beside.lend(now)
            self._renewals.follow(now)
            if self._watcher.filtering:
                self._leave_to(self._watcher.filtering)
            self._watcher.failing = [
                lost for child in children if child.runs for lost in child.report.get("failing", [])
            ]
            if self._config.bridge.stp:
                self._follow_stp(now)
            if self._cable is not None:
                self._cable.follow(now)
            if now - written_at >= channel.REPORT_EVERY_S / 2:
                written_at = now
                page.write(status := self._status(children, ready))
                self._beside.tell(now, status)
                if ready and self._keep is not None and not self._run_dir.pending.exists():
                    self._keep_once(self._keep)

    def _leave_to(self, bridges: Iterable[str]) -> None:
        """At once: the lane would carry mail from one VLAN into another. Whoever starts this again is refused, until
        it is a plain bridge again."""
        self._impatient = True
        raise StartError(
            f"{', '.join(bridges)} filters VLANs now, and mail must not cross them: it is the bridge's, uninspected; "
            "switch the filter off (vlan_filtering 0), or have the bridge be Tollbridge's own (bridge.vlans)"
        )

    def _start(self, child: Child) -> None:
        try:
            child.start(time.monotonic())
        except OSError as error:
            why = listening.reason(error, self._config) if child in self._crew else str(error)
            raise StartError(f"the {child.name} cannot start: {why}") from None

    def _keep_once(self, keep: Keep) -> None:
        """Not before `confirm`, for it may be what locks the administrator out."""
        self._keep = None
        try:
            keep()
        except OSError as error:
            _LOG.warning("the last good configuration cannot be kept: %s", error)

    def _status(self, children: list[Child], ready: bool) -> dict[str, Any]:
        pids = {child.name: child.process.pid for child in children if child.process is not None}
        kinds = dict.fromkeys(child.kind for child in children)
        reports = {kind: {child.name: child.report for child in children if child.kind == kind} for kind in kinds}
        return {
            "ready": ready and serving(children),
            "started_at": self._started_at,
            "config": str(self._source.absolute()),
            "ports": [leg.port for leg in self._legs],
            "vlans": self._vlans,
            "processes": {"supervisor": os.getpid(), **pids},
            "restarts": {child.name: child.restarts for child in children},
            **{kind: summed(each.values()) for kind, each in reports.items()},
            "watch": self._watcher.page,
            "unsaid": processlog.lost(),
            "unguarded": sandbox.unguarded(),
            "each": {kind: each for kind, each in reports.items() if len(each) > 1},
        }

    def _follow_lanes(self, children: list[Child]) -> None:
        """Sockets are bound to a lane's links, and are nobody's where these have been made anew."""
        if self._remade == (remade := self._watcher.remade):
            return
        self._remade = remade
        _LOG.error("the mail lane was taken away and has been made again: its processes start anew")
        for child in children:
            if child.kind not in ("mta", *UNSEEING) and child.process is not None:
                child.process.kill()

    def _follow_stp(self, now: float) -> None:
        """Mail leaves the plain bridge before the bridge asks for the port's state, so the lane is told of it."""
        links = [name for leg in self._legs if stp.forwards(leg.port) for name in self._gated(leg)]
        before, at = self._forwarding
        if links == before and now - at < STP_EVERY_S:
            return
        self._forwarding = (links, now)
        try:
            firewall.forward_ports(links, STP_TIMEOUT_S)
            if links != before or stp.topology_changes(self._config.bridge.name):
                stp.forget_hosts(self._vlans)
        except (FirewallError, NetlinkError, OSError) as error:
            _LOG.error("cannot tell the lane which ports forward: %s", error)

    def _gated(self, leg: PortLegs) -> list[str]:
        """The port, and what carries mail to it."""
        trunk = [PortLegs(leg.port, leg.index, self._vlans[0]).wire] if self._vlans else []
        return [leg.port, leg.wire, *trunk]

    # --- starting and stopping -------------------------------------------------------------------------------------

    def _children(self) -> list[Child]:
        config = self._config
        log = open_log(Path(config.log.mail))
        common = ["--effective", str(self._run_dir.effective), "--parent", str(os.getpid())]
        common += [word for leg in self._legs for word in ("--port", leg.port)]
        common += [word for vlan in self._vlans for word in ("--vlan", str(vlan))]
        mta = needs_mta(config)
        ends = self._ends = Ends(config, outside=self._outside is not None, mta=mta)
        self._renewals = Renewals(config, ends.renewing)
        children = [self._diverter(common, queue, ends.of_diverter(queue)) for queue in range(ends.queues)]
        children += [
            self._interceptor(common, worker, log, ends.of_interceptor(worker)) for worker in range(ends.workers)
        ]
        children.append(self._outsider("resolver", common, ends.of_resolver(), ()))
        if mta:
            children.append(self._outsider("mta", [*common, "--log", str(log)], ends.of_mta(), (log,)))
        if looks := ends.of_reader():
            children.append(make_child("reader", "reader", [*common, *handed(looks)], descriptors(looks)))
        self._beside = Beside(config, common, log, None if self._outside is None else self._outside.fd)
        return [*children, *self._beside.children]

    def _outsider(self, kind: str, words: list[str], ends: Named, fds: tuple[int, ...]) -> Child:
        """It lives in the host, whose names and routes are its business."""
        home = () if self._outside is None else (self._outside.fd,)
        words = [*words, *handed(ends), *(word for fd in home for word in ("--home", str(fd)))]
        return make_child(kind, kind, words, (*descriptors(ends), *fds, *home))

    def _diverter(self, common: list[str], queue: int, ends: Named) -> Child:
        words = [*common, *handed(ends), "--queue", str(queue)]
        name = numbered("diverter", queue, self._config.diverter.queues)
        return make_child("diverter", name, words, descriptors(ends))

    def _interceptor(self, common: list[str], worker: int, log: int, ends: Named) -> Child:
        words, fds = [*common, *handed(ends), "--log", str(log)], (*descriptors(ends), log)
        if self._seats is None:
            return make_child("interceptor", "interceptor", words, fds)
        words += ["--worker", str(worker), "--seats", str(self._seats.fd)]
        made = make_child(
            "interceptor", numbered("interceptor", worker, self._seats.workers), words, (*fds, self._seats.fd)
        )
        made.lend, made.mourn = self._listeners.lend, lambda: self._bury(worker)
        self._crew.append(made)
        return made

    def _bury(self, worker: int) -> None:
        """The others go on. Without any, nobody must be let in until the diverters know it."""
        assert self._seats is not None
        self._seats.clear(worker)
        if not any(other.runs for other in self._crew):
            self._listeners.close()
            for other in self._crew:
                other.start_after = max(other.start_after, time.monotonic() + PROOF_MAX_AGE_S)

    def _let_go(self, children: list[Child]) -> None:
        """First no new connection, then those that run come to their end."""
        self._notify.stopping((self._config.limits.drain_s or 0) + LET_GO_S)
        diverters = [child for child in children if child.kind == "diverter"]
        sessions = [child for child in children if child.kind not in ("diverter", *HELPERS)]
        helpers = [child for child in children if child.kind in HELPERS]
        for child in diverters:
            child.ask_to_end()
        for child in diverters:
            child.end(timeout_s=1.0)
        try:
            firewall.open_switch()
        except FirewallError as error:
            _LOG.error("cannot open the switch: %s", error)
        time.sleep(SETTLE_S)
        self._listeners.close()
        for child in sessions:  # the interceptor first: what it has accepted is handed over still
            child.ask_to_end()
            time.sleep(TICK_S)
        deadline = time.monotonic() + (self._config.limits.drain_s or 0)
        while self._waits_for(sessions) and time.monotonic() < deadline:
            self._notify.watchdog(time.monotonic())
            time.sleep(TICK_S)
        for child in (*sessions, *helpers):
            child.end(timeout_s=1.0)

    def _waits_for(self, sessions: list[Child]) -> bool:
        """A second signal does not."""
        return any(child.runs for child in sessions) and len(self._stopping) <= 1 and not self._impatient


def _move_into(room: str) -> tuple[Namespace, Namespace]:
    """This process. Returns where it was, and where it is."""
    found, outside = Namespace.named(room), Namespace.here()
    if found is None:
        raise StartError(f"there is no network namespace {room}; make it: tollbridge up")
    try:
        found.live_in()
    except OSError as error:
        raise StartError(f"cannot enter the network namespace {room}: {error}") from None
    return outside, found


def _cable(config: Config, legs: tuple[PortLegs, ...], run_dir: RunDir, room: str) -> LinkLoss | None:
    match config.bridge.link_loss, [leg.port for leg in legs]:
        case fields.LinkLoss.PROPAGATE, [one, other]:
            return LinkLoss((one, other), run_dir.ledger, room)
        case _:
            return None


def needs_mta(config: Config) -> bool:
    """Some mail gets it, or it has some left from a time when it did."""
    spool = Path(config.mta.spool)
    if uses_mta(config) or not spool.exists():
        return uses_mta(config)
    try:
        with queue_in(spool) as queue:
            return next(queue.lines(Filter()), None) is not None
    except NoQueueError:
        return False
    except SpoolError as error:
        _LOG.warning("no MTA for what may be queued: %s", error)
        return False


def open_log(path: Path) -> int:
    """Opened with privilege and appended to without; a rotation that copies and truncates needs no signal."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        if torn(path):
            os.write(log, b"\n")
        return log
    except OSError as error:
        raise StartError(f"log.mail: cannot open {path}: {error.strerror}; choose another file") from None
