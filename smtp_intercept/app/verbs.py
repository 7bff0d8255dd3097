"""What each verb of the command does. Parses nothing, catches nothing that an administrator should see."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from bridge import firewall, ifupdown
from bridge.host import Host
from bridge.lane import LANE, Lane, Wanted
from bridge.ledger import Ledger
from bridge.links import Links
from bridge.plan import Plan
from bridge.present import LinkFacts
from bridge.steps import AddAddress, Step, to_json
from hwprofiles.case import Case
from hwprofiles.nic import Nics
from smtp_intercept.app import config as configuration
from smtp_intercept.app import (
    hangup,
    inforce,
    lastgood,
    lockout,
    memory,
    naming,
    processlog,
    relays,
    streams,
    trial,
    unfinished,
    watcher,
)
from smtp_intercept.app.config import Config
from smtp_intercept.app.daemon import Daemon, StartError, needs_mta
from smtp_intercept.app.exits import FailedError
from smtp_intercept.app.objections import Asked, Verb, probe, refuse
from smtp_intercept.app.rundir import AlreadyRunningError, RunDir, read_json, write_json
from smtp_intercept.app.signals import ASKS, Change, heed_asks, undisturbed
from smtp_intercept.app.streams import warn
from smtp_intercept.app.wanted import Fit, fit, tuned, wanted

GUARD_EVERY_S = 0.1
STOP_WAIT_S = 15  # beyond the time that the daemon gives its sessions


def print_step(step: Step) -> None:
    print(f"  {step}", flush=True)


@contextmanager
def host_of(run_dir: RunDir) -> Iterator[Host]:
    with Links() as links, Nics() as nics, Host(links, Ledger(run_dir.ledger), nics) as host:
        yield host


def load_tuned(arguments: argparse.Namespace) -> tuple[Fit, Wanted]:
    config = naming.load(arguments.config)
    found = fit(config)
    return found, tuned(config, found, RunDir(arguments.run_dir).room)


# --- what `up` would do ---------------------------------------------------------------------------


def say_ports(config: Config, case: Case) -> None:
    if case.links:
        print(f"# ports as on the case: {', '.join(map(case.titled, config.bridge.ports))}")


def plan(arguments: argparse.Namespace) -> int:
    found, want = load_tuned(arguments)
    with undisturbed():
        nft_queue = probe(want)
    warn(found.tuning.unfit)
    case = naming.case_here(found.profile)
    with host_of(RunDir(arguments.run_dir)) as host:
        made = host.plan(want, nft_queue=nft_queue)
        held = [host.holds(step) for step in made.steps]
        lockout.warn(host.pending(made.steps))
    warn(ifupdown.conflicts([leg.port for leg in made.legs]))
    if arguments.json:
        steps = [{**to_json(step), "holds": done} for step, done in zip(made.steps, held, strict=True)]
        print(json.dumps({"steps": steps, "ruleset": made.ruleset}))
        return 0
    say_ports(found.config, case)
    for step, done in zip(made.steps, held, strict=True):
        print(f"{'=' if done else '+'} {step}")
    for wiring in relays.relays(found.config, found.profile, case).wirings:
        print(f"+ relay   {wiring}: arm ({wiring.kind}), once the box bridges")
    print(f"\n# {sum(held)} of {len(held)} steps already hold (=). The ruleset:\n\n{made.ruleset}", end="")
    return 0


# --- up and down --------------------------------------------------------------------------


def up(arguments: argparse.Namespace) -> int:
    """A step that fails, or a signal between two, takes a first `up` back whole. A later one that fails leaves what
    worked before it, and no signal ends it. Raises `LockOutError` if it would cut off who typed it, unless it undoes
    itself (``confirm``) or nobody did (``boot``)."""
    found, want = load_tuned(arguments)
    warn(found.tuning.unfit)
    run_dir = RunDir(arguments.run_dir)
    with undisturbed() as change, run_dir.lock("up"), host_of(run_dir) as host:
        nft_queue = probe(want)
        asked = Asked(found.config, want, host, run_dir)
        text = configuration.read(arguments.config)
        refuse(asked, Verb.UP, text, arguments.config)
        made = host.plan(want, nft_queue=nft_queue)
        warn(ifupdown.conflicts([leg.port for leg in made.legs]))
        pending = host.pending(made.steps)
        _mind_the_way_in(pending, arguments)
        run_dir.plan.unlink(missing_ok=True)  # half of one plan and half of another is nothing to keep
        with unfinished.change(run_dir, "up", host) as begun:
            if arguments.confirm:
                _start_guard(arguments, run_dir)
            refused = host.up(made.steps, partial(_next, change if begun.first else None))
            if begun.first:
                change.check()
            watcher.write_down(run_dir, made, refused, block=want.block)
            run_dir.made.write_text(text, encoding="utf-8")
        warn(refused)
        wanted_relays = relays.relays(found.config, found.profile, naming.case_here(found.profile))
        warn(relays.begin(arguments, run_dir, found.config, wanted_relays))
        host.announce([step for step in pending if isinstance(step, AddAddress)])
        _say_up(made, want, run_dir)
        if not arguments.boot and not run_dir.holder("run"):
            with host.within(want.room):
                warn(trial.in_the_way(found.config, made.legs, made.vlans))
        warn(
            f"{arguments.config}: {each}: restart `tollbridge run`"
            for each in inforce.of_run(run_dir, arguments.config)
        )
        if arguments.confirm:
            print(f"undone by itself in {arguments.confirm} s; to keep it: tollbridge confirm")
    return 0


def _next(change: Change | None, step: Step) -> None:
    """Before each step."""
    if change is not None:
        change.check()
    print_step(step)


def _mind_the_way_in(pending: list[Step], arguments: argparse.Namespace) -> None:
    if not arguments.boot:
        lockout.warn(pending)
        if not arguments.confirm:
            lockout.refuse(pending)


def _say_up(made: Plan, want: Wanted, run_dir: RunDir) -> None:
    ports = ", ".join(leg.port for leg in made.legs)
    tagged = f", untagged and of VLAN {_list(made.vlans)}," if made.vlans else ""
    fate = f"{'stops' if want.block else 'crosses uninspected'} until `tollbridge run` inspects it"
    if pid := run_dir.holder("run"):
        ready = (read_json(run_dir.status) or {}).get("ready")
        fate = (
            f"is inspected by the daemon that runs (process {pid})" if ready else f"waits for process {pid} to be ready"
        )
    print(f"up: {want.bridge} over {ports}; mail{tagged} {fate}")
    if lost := [vlan for vlan in want.vlans if vlan not in made.vlans]:
        warn(
            [f"bridge.vlans: this kernel has no 802.1Q (module 8021q): mail of VLAN {_list(lost)} {_uninspected(want)}"]
        )


def _uninspected(want: Wanted) -> str:
    return "is dropped" if want.block else "crosses uninspected"


def _list(vlans: Iterable[int]) -> str:
    return ", ".join(map(str, vlans))


def down(arguments: argparse.Namespace) -> int:
    run_dir = RunDir(arguments.run_dir)
    _end_daemon(run_dir)
    with undisturbed(), run_dir.lock("up"), host_of(run_dir) as host:
        run_dir.pending.unlink(missing_ok=True)
        run_dir.plan.unlink(missing_ok=True)
        run_dir.made.unlink(missing_ok=True)
        with suppress(OSError):  # a full disk does not keep anybody from undoing
            unfinished.begin(run_dir, "down")
        given_back = [undo for undo in host.undoing if isinstance(undo, AddAddress)]
        failures = [*relays.release(run_dir), *host.down(print_step)]
        host.announce(given_back)
        if not failures:
            unfinished.end(run_dir)
            print("down: the host is as it was")
        return report(failures)


def report(failures: list[str]) -> int:
    for failure in failures:
        streams.tell(failure)
    return 1 if failures else 0


def _end_daemon(run_dir: RunDir) -> None:
    pid = run_dir.holder("run")
    if not pid:
        return
    with suppress(ProcessLookupError):
        os.kill(pid, ASKS)
        os.kill(pid, signal.SIGCONT)  # a stopped process hears nothing else
    deadline = time.monotonic() + _drain_s(run_dir) + STOP_WAIT_S
    while run_dir.holder("run"):
        if time.monotonic() > deadline:
            raise FailedError(f"the daemon (process {pid}) does not end: kill -9 {pid}, then tollbridge down again")
        time.sleep(0.1)


def _drain_s(run_dir: RunDir) -> float:
    try:
        return configuration.load(run_dir.effective).limits.drain_s or 0
    except configuration.ConfigErrors:  # it has just begun, or the disk was full
        return 0


# --- commit and confirm --------------------------------------------------------------------------


def _start_guard(arguments: argparse.Namespace, run_dir: RunDir) -> None:
    """A process of its own session, so that it outlives the shell; started before the first step is taken."""
    token = secrets.token_hex(8)
    write_json(run_dir.pending, {"token": token, "due": time.clock_gettime(time.CLOCK_BOOTTIME) + arguments.confirm})
    words = ["--config", str(arguments.config.absolute()), "--run-dir", str(arguments.run_dir.absolute())]
    with (run_dir.path / "guard.log").open("w", encoding="utf-8") as log:
        subprocess.Popen(  # noqa: S603 - own module
            [sys.executable, "-P", "-m", "smtp_intercept.app", *words, "guard", "--token", token],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def guard(arguments: argparse.Namespace) -> int:
    """Waits; if its `up` is still unconfirmed when the time is over, or somebody ends this process, undoes it."""
    run_dir = RunDir(arguments.run_dir)
    with undisturbed() as change:  # a session that ends may take all its processes with it
        while (pending := read_json(run_dir.pending)) is not None and pending["token"] == arguments.token:
            left = pending["due"] - time.clock_gettime(time.CLOCK_BOOTTIME)
            if (left <= 0 or change.interrupted) and _taken_back(run_dir, arguments.token):
                print("not confirmed: undoing", flush=True)
                return _patiently(down, arguments)
            time.sleep(min(max(left, GUARD_EVERY_S), 0.5))
    return 0


def _taken_back(run_dir: RunDir, token: str) -> bool:
    """Takes the right to confirm away, whatever else runs; False if it has to be tried again."""
    try:
        with run_dir.lock("up"):  # no other `up --confirm` now
            if (pending := read_json(run_dir.pending)) is None or pending["token"] != token:
                return False
            run_dir.pending.unlink()
            return True
    except (AlreadyRunningError, FileNotFoundError):  # an `up` that hangs; a `confirm` that came just in time
        return False


def _patiently(verb: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """The verb, as soon as no other `up` or `down` is at work."""
    while True:
        try:
            return verb(arguments)
        except AlreadyRunningError:
            time.sleep(GUARD_EVERY_S)


def confirm(arguments: argparse.Namespace) -> int:
    try:
        RunDir(arguments.run_dir).pending.unlink()  # whoever removes it has decided
    except FileNotFoundError:
        raise FailedError("nothing waits for a confirmation: `up --confirm` was not run, or its time is over") from None
    print("confirmed")
    return 0


# --- the daemon --------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> int:
    processlog.begin()
    hangup.ignore()
    heed_asks()
    text = configuration.read(arguments.config)
    config = naming.parse(text, arguments.config)
    found = fit(config)
    profile, run_dir = found.profile, RunDir(arguments.run_dir)
    want = wanted(config, profile, run_dir.room)
    with run_dir.lock("run"), host_of(run_dir) as host:
        refuse(Asked(config, want, host, run_dir), Verb.RUN, text, arguments.config)
        made = host.plan(want, nft_queue=True)
        _need_lanes(host, made, want.room)
        if not (instead := getattr(arguments, "instead", False)):
            run_dir.instead.unlink(missing_ok=True)
        named = config.model_copy(update={"bridge": config.bridge.model_copy(update={"profile": profile.name})})
        run_dir.effective.write_text(configuration.effective(named, profile), encoding="utf-8")
        run_dir.running.write_text(text, encoding="utf-8")
        case = naming.case_here(profile)
        write_json(run_dir.labels, {leg.port: case.label(leg.port) for leg in made.legs if case.label(leg.port)})
        # What is in force instead of it is kept already.
        keep = None if instead else partial(lastgood.keep, arguments.state_dir, text)
        effective = configuration.load(run_dir.effective)
        if found.box.memory_mib:
            memory.bind(memory.reckoned(effective, profile, found.box.memory_mib, mta=needs_mta(effective)))
        return Daemon(effective, run_dir, made.legs, arguments.config, keep, made.vlans, want.room).run()


def _need_lanes(host: Host, made: Plan, room: str) -> None:
    where = f" in the network namespace {room}" if room else ""
    with host.within(room) as there:
        links = _links() if there else {}
        if LANE not in links:
            raise StartError(f"there is no mail lane ({LANE}){where}; make it first: tollbridge up")
        if missing := [vlan for vlan in made.vlans if Lane(vlan).link not in links]:
            raise StartError(f"bridge.vlans: no mail lane for {_list(missing)}; make it first: tollbridge up")
        if not firewall.complete():
            raise StartError("the mail lane has no rules: `up` was cut short; repair it: tollbridge up")


def _links() -> Mapping[str, LinkFacts]:
    with Links() as links:
        return links.facts()
