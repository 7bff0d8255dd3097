"""Keeps what `up` made as it made it: a thread of the daemon that hears of changes, compares, and puts right.

Takes the steps that `up` has written down and no others, and none while an `up` or `down` is at work.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from bridge import firewall
from bridge.firewall import FirewallError
from bridge.host import Host, Refused
from bridge.lane import LANE
from bridge.ledger import Ledger
from bridge.links import Links
from bridge.monitor import Monitor
from bridge.moves import MoveLink
from bridge.namespace import Namespace
from bridge.nfdump import generation
from bridge.plan import Plan
from bridge.present import LinkFacts
from bridge.steps import AddQueueRule, CreateLink, LoadRuleset, Step, from_json, plain, to_json
from bridge.watch import TRUCE_BLOCKING_S, TRUCE_S, Differences, Expected, Pace, Truce, differences, filtering
from hwprofiles.nic import Nics
from smtp_intercept.app import lost, watching
from smtp_intercept.app.rundir import AlreadyRunningError, RunDir, read_json, write_json

TOLD = 100  # steps that `status` remembers; a lane that was taken away has dozens
POLL_S = 0.25  # an order to end waits no longer than this
AGAIN_S = 0.1  # until it is tried again, where `up` is at work

_LOG = logging.getLogger("tollbridge")


def write_down(run_dir: RunDir, plan: Plan, refused: Collection[Refused], *, block: bool) -> None:
    """What `up` has made, for the daemon to keep. For root alone: the rules have a secret in them."""
    kept = [step for step in plan.steps if step not in {each.step for each in refused}]
    ports = [leg.port for leg in plan.legs]
    write_json(run_dir.plan, {"ports": ports, "block": block, "steps": [*map(to_json, kept)]}, mode=0o600)


def read_back(run_dir: RunDir) -> Expected | None:
    """None where no `up` has come to its end, or one of another version has."""
    try:
        found = read_json(run_dir.plan)
        steps = tuple(from_json(step) for step in found["steps"])
        return Expected(steps, tuple(map(str, found["ports"])), found["block"] is True)
    except (KeyError, TypeError):
        return None


def _is_ruleset(step: Step) -> bool:
    return isinstance(plain(step), LoadRuleset)


class Watcher(threading.Thread):
    """``held`` gives the ports that the daemon itself holds down; ``home`` is the host's network namespace, ``room``
    the name and the namespace that the wire has for itself; ``failing`` are the canaries that have not come back, as
    diverters tell of them. ``page`` is what `status` shows; ``remade`` counts how often a lane's links have been made
    anew, which those who are bound to the old ones must hear of. ``filtering`` are bridges that keep VLANs apart, which
    the lane would join."""

    def __init__(
        self,
        run_dir: RunDir,
        held: Callable[[], Collection[str]] = tuple,
        home: Namespace | None = None,
        room: tuple[str, Namespace] | None = None,
    ) -> None:
        super().__init__(name="watcher", daemon=True)
        self._home, self._room = home, room
        self._run_dir, self._held = run_dir, held
        self._pace, self._truce = Pace(), Truce()
        self._expected: tuple[int, Expected | None] = (0, None)
        self._baseline = ""
        self._firewall: tuple[Any, dict[Step, bool]] = (None, {})
        self._gone: tuple[str, ...] = ()
        self._told: deque[dict[str, Any]] = deque(maxlen=TOLD)
        self._ending = threading.Event()
        self.failing: list[dict[str, Any]] = []
        self._lost: list[dict[str, str]] = []
        self.remade = 0
        self.filtering: tuple[str, ...] = ()
        self.page: dict[str, Any] = {}

    def end(self) -> None:
        """And wait until it takes no more steps."""
        self._ending.set()
        self.join()

    def run(self) -> None:
        """Whatever goes wrong is said, and tried again: who does not look must not look as if."""
        while not self._ending.is_set():
            try:
                with ExitStack() as open_now:
                    if self._home is not None:
                        open_now.enter_context(self._home.entered())
                    self._links, self._nics = open_now.enter_context(Links()), open_now.enter_context(Nics())
                    monitor = open_now.enter_context(Monitor())
                    self._host = self._new_host()
                    with self._within():
                        if self._room is not None:
                            monitor.add_this()
                    open_now.callback(lambda: self._host.close())
                    self._watch(monitor)
            except Exception as error:
                _LOG.exception("the watch over the gateway's own rules and links failed; it goes on in 5 s")
                self.page = {**self.page, "failed": f"{type(error).__name__}: {error}"}
                self._ending.wait(5.0)

    def _watch(self, monitor: Monitor) -> None:
        self._pace.hear(time.monotonic())
        while not self._ending.is_set():
            now = time.monotonic()
            whole_in, quick_in = self._pace.whole_in(now), self._pace.quick_in(now)
            if whole_in <= 0:
                self._compare(whole=True)
            elif quick_in <= 0:
                self._compare(whole=False)
            elif self._pace.listens:
                if monitor.wait(min(whole_in, quick_in, POLL_S)):
                    self._pace.hear(time.monotonic())
            else:
                self._ending.wait(min(whole_in, quick_in, POLL_S))

    # --- one comparison ----------------------------------------------------------------------------------------------

    def _compare(self, *, whole: bool) -> None:
        began_at = time.monotonic()
        expected = self._read_expected()
        if self._pace.listens:  # nothing has been heard: whatever is wrong now has told nobody
            self._firewall = (None, {})
        if expected is not None and (whole or not all(map(self._host.holds, expected.quick))):
            self._put_right(expected)
        if expected is None:
            self.page = {"at": time.time(), "expected": False}
        self._follow_canaries()
        now = time.monotonic()
        self._pace.compared(now, now - began_at, whole=whole)

    def _read_expected(self) -> Expected | None:
        """Read again after every `up`."""
        try:
            written = self._run_dir.plan.stat().st_mtime_ns
        except OSError:
            written = 0
        if written != self._expected[0]:
            self._expected = written, read_back(self._run_dir) if written else None
            self._baseline = ""
            self._truce = Truce(TRUCE_BLOCKING_S if self._expected[1] and self._expected[1].block else TRUCE_S)
        return self._expected[1]

    def _put_right(self, expected: Expected) -> None:
        found = self._differences(expected)
        now = time.monotonic()
        if any(self._truce.allows(step, now) for step in found.lacking):
            try:
                with self._run_dir.lock("up"):
                    if self._read_expected() is expected:
                        self._mend(self._differences(expected))
                        found = self._differences(expected)
            except AlreadyRunningError:
                self._ending.wait(AGAIN_S)
                self._pace.hear(time.monotonic())
                return
        self._tell(found)

    def _differences(self, expected: Expected) -> Differences:
        with self._host.still() as facts:
            self.filtering = filtering(expected, facts)
            self._know_firewall(facts)
            steps = expected.now(facts[port].mtu for port in expected.ports if port in facts)
            lacking = {step for step in steps if not self._holds(step)}
            return differences(expected, steps, lacking, facts, self._held())

    def _know_firewall(self, facts: Mapping[str, LinkFacts]) -> None:
        """What was found of it last is still so while nft's tables and the links are the same."""
        with self._within():
            stamp = (generation(), *sorted((link.name, link.index) for link in facts.values()))
        if stamp != self._firewall[0]:
            self._firewall = (stamp, {})

    def _holds(self, step: Step) -> bool:
        if not isinstance(plain(step), LoadRuleset | AddQueueRule):
            return self._host.holds(step)
        known = self._firewall[1]
        if step not in known:
            known[step] = self._whole(step) if _is_ruleset(step) else self._host.holds(step)
        return known[step]

    def _whole(self, step: Step) -> bool:
        """The rules are compared with what the kernel showed of them when they were whole, word for word."""
        with self._within():
            present = firewall.listed()
        if self._baseline:
            return present == self._baseline
        if self._host.holds(step):
            self._baseline = present
        return bool(self._baseline)

    def _new_host(self) -> Host:
        return Host(self._links, Ledger(self._run_dir.ledger), self._nics, dict([self._room] if self._room else []))

    def _within(self) -> AbstractContextManager[bool]:
        """Where the lanes are."""
        return self._host.within(self._room[0] if self._room is not None else "")

    # --- putting right -----------------------------------------------------------------------------------------------

    def _mend(self, found: Differences) -> None:
        now = time.monotonic()
        due = [step for step in found.lacking if self._truce.allows(step, now)]
        inner = [plain(step) for step in due]
        made = [step.link for step in inner if isinstance(step, CreateLink)]
        # Nothing of a link that is new there holds, or could be asked for yet; and it is made quiet before it is up.
        if made or any(isinstance(step, MoveLink) for step in inner):
            due = [step for step in found.able if step in due or not _is_ruleset(step)]
        self._host.close()
        host = self._host = self._new_host()  # the ledger as it is now
        taken = host.mend(step for step in due if not _is_ruleset(step))
        # Last: its hooks and targets are the links that have been made.
        taken += [(step, self._reload(step)) for step in due if _is_ruleset(step)]
        for step, failure in taken:
            self._note(step, failure)
        self.remade += any(link.startswith(LANE) for link in made)

    def _reload(self, step: Step) -> str:
        self._baseline, inner = "", plain(step)
        assert isinstance(inner, LoadRuleset)
        try:
            with self._within():
                firewall.nft(inner.text)
                self._baseline = firewall.listed()
        except FirewallError as error:
            return str(error)
        return ""

    def _note(self, step: Step, failure: str) -> None:
        now = time.monotonic()
        already = self._truce.contended(step, now)
        self._truce.took(step, now)
        if failure:
            _LOG.error("not put right: %s: %s", step, failure)
        else:
            self._told.append({"at": time.time(), "what": str(step)})
            _LOG.warning("put right: %s", step)
        if not already and self._truce.contended(step, now):
            pause_s = self._truce.pause_s
            _LOG.error("%s: again and again, somebody else undoes it: from now on once in %d s", step, pause_s)

    def _follow_canaries(self) -> None:
        """What is lost is told of when it begins, changes and ends; it is also a reason to look at the whole."""
        with self._within():
            before, self._lost = self._lost, lost.told(self.failing)
        for said in watching.losses(each for each in self._lost if each not in before):
            _LOG.error("%s", said)
            self._pace.hear(time.monotonic())
        for path in {each["path"] for each in before} - {each["path"] for each in self._lost}:
            _LOG.warning("%s: canaries come back again", path)
        self.page = {**self.page, "lost": self._lost}

    def _tell(self, found: Differences) -> None:
        now = time.monotonic()
        for port in set(found.gone) - set(self._gone):
            _LOG.error("%s is gone: its mail and all else stand still until it is back", port)
        for port in set(self._gone) - set(found.gone):
            _LOG.warning("%s is back: joined again", port)
        self._gone = found.gone
        self.page = {
            "at": time.time(),
            "gone": found.gone,
            "differences": found.words(),
            "contended": [str(step) for step in found.lacking if self._truce.contended(step, now)],
            "healed": list(self._told),
            "lost": self._lost,
        }
