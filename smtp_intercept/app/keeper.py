"""Keeps the bypass relays: armed while the box itself joins their ports, joined by the relay when it does not.

The last dead-man's switch: a process of its own, which needs nothing of the gateway's. Where the gateway dies the box
is still a bridge, and this one goes on; where this one dies, or the kernel, the watchdogs join the ports.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import Any

from bridge import firewall
from bridge.namespace import Namespace
from bridge.privilege import Capability, die_with_parent, restrict
from hwprofiles.bypass import Relay, Wiring, relay_of
from hwprofiles.relay import Act, Keeper, keep
from smtp_intercept.app import here, relays, sandbox
from smtp_intercept.app.config import Config
from smtp_intercept.app.fields import BypassWhen, LinkLoss
from smtp_intercept.app.relays import LOCK, Relays
from smtp_intercept.app.rundir import Page, RunDir
from smtp_intercept.app.signals import STOPPING, ended_by

TICK_S = 0.2  # a port that is taken down is noticed; a tenth of the shortest watchdog
SAID_EVERY_S = 1.0
ASKED_EVERY_S = 1.0  # somebody else may tell it too
NICE = -10  # a beat does not wait behind the mail
IFF_UP = 1
_NET = Path("/sys/class/net")
_LOG = logging.getLogger("tollbridge")


@dataclass(slots=True)
class Orders:
    """What all relays are kept by; ``why`` is "" while they are to be armed."""

    why: str = ""


@dataclass(slots=True)
class Kept:
    """One relay, in a thread of its own: one that hangs starves no other of its beat."""

    wiring: Wiring
    relay: Relay
    orders: Orders
    bridge: str
    held_down: bool  # a port may be down because the other one's carrier is gone
    keeper: Keeper
    joined: bool | None = None
    why: str = ""
    error: str = ""
    asked_at: float = 0.0

    def follow(self, over: Event) -> None:
        while not over.wait(TICK_S):
            self.turn(time.monotonic())
        # A watchdog gives whoever comes next the time to go on; without one it is now or never.
        if not self.relay.watchdog_ms:
            self._told(Act.BYPASS)

    def turn(self, now: float) -> None:
        """Looks, and tells what is due. What cannot be told is said once and tried again."""
        was = self.keeper
        if now - self.asked_at >= ASKED_EVERY_S:
            self.asked_at = now
            self._ask()
        self.why = self.orders.why or not_bridging(self.bridge, self.wiring.ports, held_down=self.held_down)
        self.keeper, act = keep(was, alive=not self.why, now=now, joined=self.joined)
        if act is not None and not self._told(act):
            self.keeper = was
        elif act in (Act.ARM, Act.BYPASS):
            _LOG.warning("relay %s: %s", self.wiring, f"bypassed: {self.why}" if self.why else "armed")

    def _told(self, act: Act) -> bool:
        error = ""
        try:
            self.relay.tell(act)
            self.joined = {Act.ARM: False, Act.BYPASS: True}.get(act, self.joined)
        except OSError as failed:
            error = str(failed)
        if error and error != self.error:
            _LOG.error("relay %s: cannot %s: %s", self.wiring, act.value, error)
        self.error = error
        return not error

    def _ask(self) -> None:
        with suppress(OSError):  # telling it will say so
            said = self.relay.joined()
            self.joined = self.joined if said is None else said

    def said(self) -> dict[str, Any]:
        apart = "armed" if self.keeper.armed else "apart"
        state = {True: "bypassed", False: apart, None: "unknown"}[self.joined]
        ports, why = list(self.wiring.ports), self.error or self.why
        return {"ports": ports, "kind": self.wiring.kind, "state": "failed" if self.error else state, "why": why}


def not_bridging(bridge: str, ports: tuple[str, str], *, held_down: bool) -> str:
    """Why the box does not join these ports itself; "" if it does. Carriers are not asked for: a relay mends none, and
    while it joins its ports they have none."""
    try:
        return _fault(bridge, ports, held_down=held_down)
    except OSError as error:  # it goes while we look
        return f"{bridge} cannot be looked at: {error.strerror}"


def _fault(bridge: str, ports: tuple[str, str], *, held_down: bool) -> str:
    for link in (bridge, *ports):
        if not (_NET / link).exists():
            return f"there is no {link}"
        if not (held_down and link in ports) and not int((_NET / link / "flags").read_text("ascii"), 16) & IFF_UP:
            return f"{link} is down"
    for port in ports:
        master = _NET / port / "master"
        if not master.is_symlink() or master.readlink().name != bridge:
            return f"{port} is not in {bridge}"
    return ""


def run(run_dir: RunDir, config: Config, wanted: Relays) -> int:
    """Until SIGTERM or SIGINT; the exit status is as the daemon's. The bridge may come into another network namespace
    than it was in, which who has given up his capabilities cannot follow: a process for each. Raises
    `AlreadyRunningError`."""
    over, stopping = Event(), list[int]()

    def stop(number: int, _: FrameType | None) -> None:
        stopping.append(number)
        over.set()

    with run_dir.lock(LOCK):
        run_dir.relays.unlink(missing_ok=True)  # another's word
        for number in STOPPING:
            signal.signal(number, stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for failure in relays.remember(run_dir, wanted.wirings):
            _LOG.error("%s", failure)
        if not wanted.wirings:
            return 0
        with suppress(OSError):  # a unit's sandbox has done it
            os.nice(NICE)
        while not over.is_set():
            where = Whereabouts(run_dir)
            if not (pid := os.fork()):
                os._exit(_keep_there(run_dir, config, wanted, over))
            if (status := _wait(pid, over, where)) is not None and not over.is_set():
                return status
    return ended_by(stopping)


def _keep_there(run_dir: RunDir, config: Config, wanted: Relays, over: Event) -> int:
    """In a process of its own."""
    die_with_parent(signal.SIGTERM, os.getppid())
    if (room := Namespace.named(name) if (name := here.room()) else None) is not None:
        room.live_in()
    restrict((Capability.NET_ADMIN,))  # for nft's list; the vendor's program opens a device of root's
    sandbox.shut_keeper()
    orders = Orders()
    kept = [_kept(wiring, config, orders) for wiring in wanted.wirings]
    threads = [Thread(target=each.follow, args=(over,)) for each in kept]
    return _watch(run_dir, config, wanted, orders, kept, threads, over)


class Whereabouts:
    """Of the bridge: the ledger is read again only when it has changed."""

    def __init__(self, run_dir: RunDir) -> None:
        self._ledger, self._at = run_dir.ledger, here.identity()
        self._read = self._written()

    def _written(self) -> tuple[int, int]:
        with suppress(OSError):
            found = self._ledger.stat()
            return found.st_mtime_ns, found.st_ino
        return 0, 0

    def same(self) -> bool:
        """It is where it was at first."""
        if (written := self._written()) == self._read:
            return True
        self._read = written
        return here.identity() == self._at


def _wait(pid: int, over: Event, where: Whereabouts) -> int | None:
    """The exit status of the process, if it failed; None if it was ended, because the bridge is or may be elsewhere, or
    by whoever did not know what he did: another is to go on."""
    asked = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) or None if not asked else None
        if not asked and (over.is_set() or not where.same()):
            os.kill(pid, signal.SIGTERM)
            asked = True
        time.sleep(TICK_S / 4 if asked else TICK_S)


def _kept(wiring: Wiring, config: Config, orders: Orders) -> Kept:
    relay = relay_of(wiring)
    held_down = config.bridge.link_loss is LinkLoss.PROPAGATE
    return Kept(wiring, relay, orders, config.bridge.name, held_down, Keeper(relay.watchdog_ms))


def _watch(
    run_dir: RunDir,
    config: Config,
    wanted: Relays,
    orders: Orders,
    kept: list[Kept],
    threads: list[Thread],
    over: Event,
) -> int:
    """Looks at what concerns all relays, and writes down how they are. 1 if one of them lost its thread."""
    orders.why = _why_none(run_dir, config)
    for thread in threads:
        thread.start()
    last, said_at, page, wanted_is = None, 0.0, Page(run_dir.relays), relays.as_wanted(config, wanted)
    while not over.wait(TICK_S):
        orders.why, now, said = _why_none(run_dir, config), time.monotonic(), [each.said() for each in kept]
        if said != last or now - said_at > SAID_EVERY_S:
            page.write({"at": now, "wanted": wanted_is, "relays": said})
            last, said_at = said, now
        if not all(thread.is_alive() for thread in threads):  # what it said stands above; the unit starts anew
            over.set()
            return 1
    for thread in threads:
        thread.join()
    return 0


def _why_none(run_dir: RunDir, config: Config) -> str:
    if run_dir.bypassed.exists():
        return "asked for (tollbridge hw arm ends it)"
    if config.bridge.bypass is BypassWhen.GATEWAY and not firewall.live():
        return "mail is not inspected"
    return ""
