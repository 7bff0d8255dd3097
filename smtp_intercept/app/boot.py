"""`tollbridge up --boot` and `run --boot`: nobody watches, so `up` waits for the ports, never leaves the wire cut, and
both take the last good configuration in place of a broken one.

Does not choose between mail and inspection for ever: it fails, and whoever looks finds out why.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from bridge.firewall import FirewallError, MissingFeatureError
from bridge.host import Host, StepError
from bridge.lane import LANE, Wanted
from bridge.ledger import Ledger
from bridge.links import Links
from hwprofiles.profile import ProfileError
from smtp_intercept.app import config as configuration
from smtp_intercept.app import naming, streams, unfinished, verbs
from smtp_intercept.app.config import Config, ConfigErrors
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.lastgood import or_last_good
from smtp_intercept.app.rundir import RunDir
from smtp_intercept.app.signals import undisturbed
from smtp_intercept.app.wanted import profile_of, wanted

PORTS_S = 60.0  # drivers load and links are renamed meanwhile
LANE_S = 10.0  # `up` that was killed is made again within seconds
POLL_S = 0.2
SETTLED_S = 3.0  # drivers of one kind of card come up within a second of each other
UDEV_QUEUE = Path("/run/udev/queue")  # there while udev is at work (libudev, udev_queue_get_queue_is_empty)
_FAILURES = (StepError, FirewallError, MissingFeatureError, NetlinkError, OSError)


def up(arguments: argparse.Namespace) -> int:
    """The verb. What only a person can mend (the configuration, a port that does not exist) is raised as ever, at boot
    if there is no last good configuration."""
    if arguments.boot:
        return or_last_good(_up, arguments)
    done, run_dir = verbs.up(arguments), RunDir(arguments.run_dir)
    if not run_dir.holder("run"):  # else that one's is in force
        run_dir.instead.unlink(missing_ok=True)
    return done


def run(arguments: argparse.Namespace) -> int:
    """The verb; at boot with the same configuration as `up` found. A unit hears that only a person can mend it."""
    if arguments.boot:
        _wait_for_lane(LANE_S)
        try:
            return or_last_good(verbs.run, arguments)
        except (ConfigErrors, ProfileError) as error:
            streams.tell(error)
            return Exit.MISUSE
    return verbs.run(arguments)


def _wait_for_lane(timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while LANE not in naming.present() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _up(arguments: argparse.Namespace) -> int:
    bridge = configuration.load(arguments.config).bridge
    if arguments.adopted and not bridge.adopt:
        return 0
    if bridge.adopt and not arguments.adopted and bridge.name not in naming.present():
        print(f"tollbridge: there is no {bridge.name} to adopt yet; left to `up --boot --adopted`")
        return 0
    config = wait_for(arguments.config, PORTS_S)
    try:
        return verbs.up(arguments)
    except _FAILURES as error:
        streams.tell(error)
    run_dir = RunDir(arguments.run_dir)
    return _plain_bridge(run_dir, wanted(config, profile_of(config)[0], run_dir.room))


def wait_for(path: Path, timeout_s: float) -> Config:
    """The configuration as soon as every port is there, and the bridge if it is to be adopted. A label counts the ports
    of the box, so it is believed once they have not changed for a while and udev has nothing left to do. At the end it
    is what it is, mistakes too."""
    deadline = time.monotonic() + timeout_s
    written, present, since = configuration.load(path), dict[str, str](), time.monotonic()
    while True:
        late, was, present = time.monotonic() > deadline, present, naming.present()
        if present != was or UDEV_QUEUE.exists():
            since = time.monotonic()
        try:
            config = naming.load(path)
        except ConfigErrors:
            if late:
                raise
        else:
            settled = config.bridge == written.bridge or time.monotonic() - since >= SETTLED_S
            needed = {*config.bridge.ports, *([config.bridge.name] if config.bridge.adopt else ())}
            if late or (settled and present.keys() >= needed):
                return config
        time.sleep(POLL_S)


def _plain_bridge(run_dir: RunDir, want: Wanted) -> int:
    with undisturbed(), run_dir.lock("up"), Links() as links, Host(links, Ledger(run_dir.ledger)) as host:
        unfinished.begin(run_dir, "up")  # a bridge without a lane is half of it
        failures = host.wire(host.plan(want, nft_queue=False).steps)
        if want.room and not Ledger(run_dir.ledger).moved:  # a wire in the host is better than none
            in_host = replace(want, room="")
            failures += host.wire(host.plan(in_host, nft_queue=False).steps)
    verbs.report(failures)
    streams.tell(f"{want.bridge} is a plain bridge: all mail crosses uninspected")
    return 1
