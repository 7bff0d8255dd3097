"""What each verb of `tollbridge hw` does: facts, the choice of a profile, and its settings made and undone.

The settings are steps of `bridge.host`, in the same ledger as the bridge: `up` makes and `down` undoes them too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict

from hwprofiles.box import Box, FactsError, from_json, to_json
from hwprofiles.case import case
from hwprofiles.match import Score, named, scores
from hwprofiles.match import match as choose
from hwprofiles.profile import Profile
from hwprofiles.shelf import profiles
from smtp_intercept.app import naming, seen
from smtp_intercept.app.exits import FailedError
from smtp_intercept.app.given import GivenError, text
from smtp_intercept.app.rundir import RunDir
from smtp_intercept.app.signals import undisturbed
from smtp_intercept.app.streams import warn
from smtp_intercept.app.verbs import host_of, load_tuned, print_step, report
from smtp_intercept.app.wanted import is_tuning

MAX_FACTS_BYTES = 4 << 20  # a kilobyte for each of thousands of ports; more is the wrong file


def facts(arguments: argparse.Namespace) -> int:
    box = _box(arguments)
    if arguments.json or not sys.stdout.isatty():
        print(to_json(box), end="")
        return 0
    _say("firmware", " / ".join(filter(None, asdict(box.firmware).values())) or "says nothing")
    cache = "" if box.cpu.cache_kib is None else f", {box.cpu.cache_kib} KiB of cache"
    _say("cpu", f"{box.cpu.model or 'unknown'}, {box.cpu.cores} CPUs on {box.cpu.nodes} node(s){cache}")
    _say("memory", "unknown" if box.memory_mib is None else f"{box.memory_mib} MiB")
    for nic in box.nics:
        ring = f"rings {nic.rings.get('rx', '-')} of {nic.rings.get('rx-max', '-')}"
        where = " ".join(filter(None, (nic.bus, nic.pci)))
        _say(nic.name, f"{nic.driver or 'no driver'} {where} {nic.mac}, {nic.rx_queues} rx queue(s), {ring}")
    return 0


def detect(arguments: argparse.Namespace) -> int:
    """The table of scores, and what the case says of the ports."""
    box, every = _box(arguments), profiles()
    chosen, why = choose(box, every)
    here = case(chosen, seen.box() if arguments.replayed is None else box)  # labels count all ports, bridged or not
    if arguments.json:
        table = {score.profile.name: {"fits": score.fits, "points": score.points} for score in scores(box, every)}
        print(json.dumps({"profile": chosen.name, "because": why, "scores": table, "labels": here.links}))
        return 0
    print(f"{chosen.name}: {chosen.description}\n  {why}\n")
    print("\n".join(_row(score) for score in scores(box, every)))
    for label, links in here.ambiguous.items():
        print(f"\n  {label} may be {' or '.join(links)}: they cannot be told apart")
    if here.links:
        print("\n  ports on the case: " + ", ".join(f"{label} is {port}" for label, port in here.links.items()))
        print(f"  for the bridge: {_pairs(chosen)}; for management: {chosen.ports.management or 'none of its own'}")
    return 0


def _row(score: Score) -> str:
    answers = " ".join(f"{a.criterion}:{'yes' if a.fits else 'no'}" for a in score.answers if a.fits is not None)
    points = f"{score.points:>3}" if score.fits else "  -"
    return f"  {points}  {score.profile.name:<16} {answers or 'asks for nothing'}"


def _pairs(profile: Profile) -> str:
    return ", ".join("-".join(pair) for pair in profile.ports.pairs) or "no pairs known"


def show(arguments: argparse.Namespace) -> int:
    profile = named(arguments.profile, profiles()) if arguments.profile else choose(_box(arguments), profiles())[0]
    print(f"{profile.name}: {profile.description}\n")
    for source in profile.sources:
        print(f"  source: {source}")
    for key, value in asdict(profile).items():
        if key not in ("name", "description", "sources") and value not in ({}, (), ""):
            print(f"  {key}: {json.dumps(value, default=_plain)}")
    return 0


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else getattr(value, "value", str(value))


def plan(arguments: argparse.Namespace) -> int:
    _needs_root(arguments)
    found, want = load_tuned(arguments)
    print(f"# hardware profile {found.profile.name}: {found.why}")
    with host_of(RunDir(arguments.run_dir)) as host:
        for step in host.tuning(want):
            print(f"{'=' if host.holds(step) else '+'} {step}")
    warn(found.tuning.unfit)
    return 0


def apply(arguments: argparse.Namespace) -> int:
    """Idempotent; takes back what another profile had set."""
    _needs_root(arguments)
    found, want = load_tuned(arguments)
    warn(found.tuning.unfit)
    run_dir = RunDir(arguments.run_dir)
    with undisturbed(), run_dir.lock("up"), host_of(run_dir) as host:
        warn(host.up(host.tuning(want), print_step, among=is_tuning))
    print(f"applied: profile {found.profile.name}; undone by: tollbridge hw revert")
    return 0


def revert(arguments: argparse.Namespace) -> int:
    _needs_root(arguments)
    run_dir = RunDir(arguments.run_dir)
    with undisturbed(), run_dir.lock("up"), host_of(run_dir) as host:
        failures = host.down(print_step, among=is_tuning)
    return report(failures)


def tune(arguments: argparse.Namespace) -> int:
    from smtp_intercept.app import tune as measuring  # the lab: nothing that the daemon should load

    return measuring.tune(arguments)


def _box(arguments: argparse.Namespace) -> Box:
    """That of the file, else this one: the ports of the bridge if there is a configuration, else all devices."""
    if arguments.replayed is not None:
        try:
            return from_json(text(arguments.replayed, MAX_FACTS_BYTES))
        except (GivenError, FactsError) as error:
            raise FailedError(f"--facts {arguments.replayed}: {error}") from None
    if arguments.hw_verb != "facts" and arguments.config.exists():
        return seen.box(naming.load(arguments.config).bridge.ports)
    return seen.box()


def _needs_root(arguments: argparse.Namespace) -> None:
    if os.geteuid():
        raise FailedError(f"tollbridge hw {arguments.hw_verb} needs root: sudo tollbridge hw {arguments.hw_verb}")


def _say(what: str, text: str) -> None:
    print(f"{what:<10} {text}")
