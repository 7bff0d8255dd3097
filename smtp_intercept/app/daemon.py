"""`tollbridge run`: starts the other processes, watches them, writes the status file, lets go in good order.

Not in the path of any mail: while it stands still they go on, and when it dies they do too.
"""

from __future__ import annotations

import logging
import os
import pwd
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from bridge import firewall, stp
from bridge.firewall import FirewallError
from bridge.lane import PortLegs
from smtp_intercept.app import channel, fields, handover
from smtp_intercept.app.config import Config
from smtp_intercept.app.linkloss import LinkLoss
from smtp_intercept.app.notify import Notify
from smtp_intercept.app.rundir import RunDir, write_json
from smtp_intercept.app.tables import uses_mta
from smtp_intercept.mta.faults import NoQueueError, SpoolError
from smtp_intercept.mta.listing import Filter
from smtp_intercept.mta.postmaster import queue_in

USER = "tollbridge"
FALLBACK_USER = "nobody"
TICK_S = 0.1
HUNG_S = 15.0  # without a report for so long a process is ended and started again
STARTING_S = 180.0  # before its first report; an emulated box that boots on a busy host took more than 60 s
BACKOFF_S = (0.5, 30.0)  # first and longest wait before a process that died is started again
STEADY_S = 60.0  # one that lived so long starts again without waiting
LET_GO_S = 15.0  # a graceful stop takes at most so much longer than limits.drain_s
SETTLE_S = 0.5  # handshakes that were let in before the switch opened may still complete
STP_EVERY_S, STP_TIMEOUT_S = 2.0, 6

_LOG = logging.getLogger("tollbridge")


Keep = Callable[[], None]


class StartError(Exception):
    """The daemon cannot start; the message says why and what to do."""


@dataclass
class Child:
    """One of the processes, and what it last said. ``tell`` is its end of ``reports``, kept for the next start."""

    name: str
    command: list[str]
    fds: tuple[int, ...]
    reports: socket.socket
    tell: socket.socket
    process: subprocess.Popen[bytes] | None = None
    report: dict[str, Any] = field(default_factory=dict)
    heard_at: float = 0.0
    started_at: float = 0.0
    start_after: float = 0.0
    wait_s: float = BACKOFF_S[0]
    restarts: int = -1

    def start(self, now: float) -> None:
        self.process = subprocess.Popen(self.command, pass_fds=self.fds, stdin=subprocess.DEVNULL)  # noqa: S603 - own module
        self.report, self.heard_at, self.started_at = {}, now, now
        self.restarts += 1

    def listen(self, now: float) -> None:
        for report in channel.hear(self.reports):
            # A datagram of the one before, still in the pipe, is not this one's.
            if self.process is not None and report.get("pid") == self.process.pid:
                self.report, self.heard_at = report, now

    def watch(self, now: float) -> None:
        """End it if it hangs, start it if it has ended and waited."""
        if self.process is not None and self.runs:
            if now - self.heard_at > (limit_s := HUNG_S if self.report else STARTING_S):
                _LOG.error("%s says nothing for %d s: killed", self.name, limit_s)
                self.process.kill()
            return
        if self.process is not None:
            if now - self.started_at > STEADY_S:
                self.wait_s = BACKOFF_S[0]
            _LOG.error("%s ended with %d; starts again in %.1f s", self.name, self.process.returncode, self.wait_s)
            self.start_after, self.process = now + self.wait_s, None
            self.wait_s = min(2 * self.wait_s, BACKOFF_S[1])
        if now >= self.start_after:
            self.start(now)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ask_to_end(self) -> None:
        if self.process is not None and self.runs:
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)  # a stopped process hears nothing else

    def end(self, timeout_s: float) -> None:
        if self.process is None or not self.runs:
            return
        self.ask_to_end()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _LOG.warning("%s does not end: killed", self.name)
            self.process.kill()
            self.process.wait()


class Daemon:
    """``legs`` are the lanes' ports as `up` made them, ``vlans`` the VIDs that have a lane. ``config`` is the effective
    one, every limit filled in; ``keep`` writes down that it works, once it does."""

    def __init__(
        self,
        config: Config,
        run_dir: RunDir,
        legs: Iterable[PortLegs],
        source: Path,
        keep: Keep | None = None,
        vlans: Iterable[int] = (),
    ) -> None:
        self._keep = keep
        self._config, self._run_dir, self._legs, self._source = config, run_dir, tuple(legs), source
        self._vlans = tuple(vlans)
        self._started_at = time.time()
        self._stopping = 0
        self._notify = Notify()
        self._forwarding: tuple[list[str], float] = ([], 0.0)
        self._cable = _cable(config, self._legs, run_dir)

    def run(self) -> int:
        """Until SIGTERM or SIGINT; a second one does not wait for sessions. Raises `StartError`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        children = self._children()
        try:
            return self._watch(children)
        finally:
            if self._cable is not None:
                self._cable.release()
            self._let_go(children)
            self._run_dir.status.unlink(missing_ok=True)

    def _stop(self, *_: object) -> None:
        self._stopping += 1

    # --- running -----------------------------------------------------------------------------------------------------

    def _watch(self, children: list[Child]) -> int:
        poll = select.poll()
        ready, written_at = False, 0.0
        for child in children:
            child.start(time.monotonic())
            poll.register(child.reports, select.POLLIN)
        while not self._stopping:
            poll.poll(TICK_S * 1000)
            now = time.monotonic()
            for child in children:
                child.listen(now)
                if not ready and child.process is not None and child.process.poll() is not None:
                    raise StartError(f"the {child.name} ended while starting; what it said stands above")
                child.watch(now)
            if not ready and _all_up(children):
                ready = True
                self._notify.ready(
                    "" if self._keep else f"inspecting mail with {self._source}, the last good configuration"
                )
                _LOG.info("ready: mail on %s is inspected", ", ".join(leg.port for leg in self._legs))
            if all(child.report for child in children):
                self._notify.watchdog(now)
            if self._config.bridge.stp:
                self._follow_stp(now)
            if self._cable is not None:
                self._cable.follow(now)
            if now - written_at >= channel.REPORT_EVERY_S / 2:
                written_at = now
                write_json(self._run_dir.status, self._status(children, ready))
                if ready and self._keep is not None and not self._run_dir.pending.exists():
                    self._keep_once(self._keep)
        return 0

    def _keep_once(self, keep: Keep) -> None:
        """Not before `confirm`, for it may be what locks the administrator out."""
        self._keep = None
        try:
            keep()
        except OSError as error:
            _LOG.warning("the last good configuration cannot be kept: %s", error)

    def _status(self, children: list[Child], ready: bool) -> dict[str, Any]:
        pids = {child.name: child.process.pid for child in children if child.process is not None}
        return {
            "ready": ready and _all_up(children),
            "started_at": self._started_at,
            "config": str(self._source),
            "ports": [leg.port for leg in self._legs],
            "vlans": self._vlans,
            "processes": {"supervisor": os.getpid(), **pids},
            "restarts": {child.name: child.restarts for child in children},
            **{child.name: child.report for child in children},
        }

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
        uid, gid = _user()
        log = _open_log(Path(self._config.log.mail))
        prove, proofs = channel.pair()
        common = ["--effective", str(self._run_dir.effective), "--uid", str(uid), "--gid", str(gid)]
        common += ["--parent", str(os.getpid())]
        ports = [word for leg in self._legs for word in ("--port", leg.port)]
        ports += [word for vlan in self._vlans for word in ("--vlan", str(vlan))]
        diverter = _child("diverter", [*common, *ports, "--proofs", str(proofs.fileno())], (proofs.fileno(),))
        extra = ["--prove", str(prove.fileno()), "--log", str(log)]
        if not _needs_mta(self._config):
            interceptor = _child("interceptor", [*common, *ports, *extra], (prove.fileno(), log))
            self._ends: tuple[socket.socket, ...] = (prove, proofs)
            return [diverter, interceptor]
        give, take = handover.pair()
        extra += ["--give", str(give.fileno())]
        interceptor = _child("interceptor", [*common, *ports, *extra], (prove.fileno(), log, give.fileno()))
        taking = ["--take", str(take.fileno()), "--log", str(log)]
        # All ends stay open here: a process that is started again finds the same channels.
        self._ends = (prove, proofs, give, take)
        return [diverter, interceptor, _child("mta", [*common, *ports, *taking], (take.fileno(), log))]

    def _let_go(self, children: list[Child]) -> None:
        """First no new connection, then those that run come to their end."""
        self._notify.stopping((self._config.limits.drain_s or 0) + LET_GO_S)
        diverter, *sessions = children
        diverter.end(timeout_s=1.0)
        try:
            firewall.open_switch()
        except FirewallError as error:
            _LOG.error("cannot open the switch: %s", error)
        time.sleep(SETTLE_S)
        for child in sessions:  # the interceptor first: what it has accepted is handed over still
            child.ask_to_end()
            time.sleep(TICK_S)
        deadline = time.monotonic() + (self._config.limits.drain_s or 0)
        while any(child.runs for child in sessions) and time.monotonic() < deadline and self._stopping <= 1:
            self._notify.watchdog(time.monotonic())
            time.sleep(TICK_S)
        for child in sessions:
            child.end(timeout_s=1.0)


def _cable(config: Config, legs: tuple[PortLegs, ...], run_dir: RunDir) -> LinkLoss | None:
    match config.bridge.link_loss, [leg.port for leg in legs]:
        case fields.LinkLoss.PROPAGATE, [one, other]:
            return LinkLoss((one, other), run_dir.ledger)
        case _:
            return None


def _child(name: str, arguments: list[str], fds: tuple[int, ...]) -> Child:
    tell, hear = channel.pair()
    command = [sys.executable, "-P", "-m", f"smtp_intercept.app.{name}", *arguments, "--reports", str(tell.fileno())]
    return Child(name, command, (*fds, tell.fileno()), hear, tell)


def _needs_mta(config: Config) -> bool:
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


def _all_up(children: list[Child]) -> bool:
    reports = {child.name: child.report for child in children}
    return all(reports.values()) and reports["diverter"].get("beating") is True


def _user() -> tuple[int, int]:
    """Whom the processes become: a user of their own if there is one."""
    for name in (USER, FALLBACK_USER):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise StartError(f"there is neither a user {USER} nor {FALLBACK_USER}: adduser --system --group {USER}")


def _open_log(path: Path) -> int:
    """Opened with privilege and appended to without; a rotation that copies and truncates needs no signal."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    except OSError as error:
        raise StartError(f"log.mail: cannot open {path}: {error.strerror}; choose another file") from None
