"""The verbs of `tollbridge hw` for bypass relays: out of the path, back into it, and the process that keeps them."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from hwprofiles.bypass import relay_of
from hwprofiles.relay import Act
from smtp_intercept.app import keeper, naming, relays, streams
from smtp_intercept.app.config import Config
from smtp_intercept.app.exits import Exit, FailedError
from smtp_intercept.app.lastgood import BROKEN
from smtp_intercept.app.relays import LOCK, POLL_S, SAYS_S, Relays
from smtp_intercept.app.rundir import AlreadyRunningError, RunDir, read_json
from smtp_intercept.app.streams import warn
from smtp_intercept.app.verbs import report
from smtp_intercept.app.wanted import profile_of


def keep(arguments: argparse.Namespace) -> int:
    """Until SIGTERM or SIGINT; done at once where there is no relay to keep, or somebody keeps them. 2 for a
    configuration that is broken: starting again does not mend it."""
    _needs_root(arguments)
    try:
        config, wanted = _wanted(arguments)
    except BROKEN as error:
        streams.tell(error)
        return Exit.MISUSE
    warn(wanted.missed)
    try:
        return keeper.run(RunDir(arguments.run_dir), config, wanted)
    except AlreadyRunningError as error:
        print(error)
        return 0


def bypass(arguments: argparse.Namespace) -> int:
    """By the keeper if there is one, else at once; lasts until `arm` or `down`, or until the box starts anew."""
    _needs_root(arguments)
    run_dir, (_, wanted) = RunDir(arguments.run_dir), _wanted(arguments)
    _needs_relays(wanted)
    run_dir.make()
    run_dir.bypassed.touch()
    if run_dir.holder(LOCK):
        return _shown(run_dir, "bypassed")
    failures = []
    for wiring in wanted.wirings:
        try:
            relay_of(wiring).tell(Act.BYPASS)
            print(f"relay {wiring}: bypassed")
        except OSError as error:
            failures.append(f"relay {wiring}: {error}")
    return report(failures)


def arm(arguments: argparse.Namespace) -> int:
    _needs_root(arguments)
    run_dir, (_, wanted) = RunDir(arguments.run_dir), _wanted(arguments)
    _needs_relays(wanted)
    run_dir.bypassed.unlink(missing_ok=True)
    if not run_dir.holder(LOCK):
        raise FailedError("nobody keeps the relays, so they are not armed: tollbridge up")
    return _shown(run_dir, "armed")


def _wanted(arguments: argparse.Namespace) -> tuple[Config, Relays]:
    """Of the configuration that is in force: after a boot with a broken one that is the last good one."""
    instead = read_json(RunDir(arguments.run_dir).instead)
    config = naming.load(Path(instead["in_force"]) if instead else arguments.config)
    profile, _ = profile_of(config)
    return config, relays.relays(config, profile, naming.case_here(profile))


def _shown(run_dir: RunDir, state: str) -> int:
    """As soon as every relay is in that state; 1 if one is not in time."""
    deadline_at, page = time.monotonic() + SAYS_S, relays.page(run_dir)
    while not all(relay["state"] == state for relay in page) and time.monotonic() < deadline_at:
        time.sleep(POLL_S)
        page = relays.page(run_dir)
    for relay in page:
        print(_line(relay))
    return 0 if all(relay["state"] == state for relay in page) else 1


def _line(relay: dict[str, Any]) -> str:
    why = f": {relay['why']}" if relay["why"] else ""
    return f"relay {'-'.join(relay['ports'])}: {relay['state']}{why}"


def _needs_relays(wanted: Relays) -> None:
    if not wanted.wirings:
        reason = (
            "; ".join(wanted.missed) or "this box has none that is known: [[bypass]] in the configuration names them"
        )
        raise FailedError(f"no bypass relay to tell: {reason}")


def _needs_root(arguments: argparse.Namespace) -> None:
    if os.geteuid():
        raise FailedError(f"tollbridge hw {arguments.hw_verb} needs root: sudo tollbridge hw {arguments.hw_verb}")
