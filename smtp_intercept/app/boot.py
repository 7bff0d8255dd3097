"""`tollbridge up --boot` and `run --boot`: nobody watches, so `up` waits for the ports, never leaves the wire cut, and
both take the last good configuration in place of a broken one.

Does not choose between mail and inspection for ever: it fails, and whoever looks finds out why.
"""

from __future__ import annotations

import argparse
import sys
import time

from pyroute2.netlink.exceptions import NetlinkError

from bridge.firewall import FirewallError, MissingFeatureError
from bridge.host import Host, StepError
from bridge.lane import Wanted
from bridge.ledger import Ledger
from bridge.links import Links
from smtp_intercept.app import config as configuration
from smtp_intercept.app import verbs
from smtp_intercept.app.lastgood import or_last_good
from smtp_intercept.app.rundir import RunDir
from smtp_intercept.app.wanted import profile_of, wanted

PORTS_S = 60.0  # drivers load and links are renamed meanwhile
POLL_S = 0.2
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
    """The verb; at boot with the same configuration as `up` found."""
    if arguments.boot:
        return or_last_good(verbs.run, arguments)
    return verbs.run(arguments)


def _up(arguments: argparse.Namespace) -> int:
    config = configuration.load(arguments.config)
    bridge = config.bridge
    if arguments.adopted and not bridge.adopt:
        return 0
    if bridge.adopt and not arguments.adopted and not wait_for((bridge.name,), 0.0):
        print(f"tollbridge: there is no {bridge.name} to adopt yet; left to `up --boot --adopted`")
        return 0
    wait_for((*bridge.ports, bridge.name) if bridge.adopt else bridge.ports, PORTS_S)
    try:
        return verbs.up(arguments)
    except _FAILURES as error:
        print(f"tollbridge: {error}", file=sys.stderr)
    return _plain_bridge(RunDir(arguments.run_dir), wanted(config, profile_of(config)[0]))


def wait_for(ports: tuple[str, ...], timeout_s: float) -> bool:
    """Until every link (its name or MAC address) is there; False if one is not."""
    deadline = time.monotonic() + timeout_s
    while True:
        with Links() as links:
            facts = links.facts()
        present = {*facts, *(link.mac for link in facts.values())}
        if all(port in present or port.lower() in present for port in ports):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)


def _plain_bridge(run_dir: RunDir, want: Wanted) -> int:
    with run_dir.lock("up"), Links() as links:
        host = Host(links, Ledger(run_dir.ledger))
        failures = host.wire(host.plan(want, nft_queue=False).steps)
    for failure in failures:
        print(f"tollbridge: {failure}", file=sys.stderr)
    print(f"tollbridge: {want.bridge} is a plain bridge: all mail crosses uninspected", file=sys.stderr)
    return 1
