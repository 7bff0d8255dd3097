"""What every child process of the daemon begins with: its command line, and giving up what it does not need."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from bridge.namespace import Namespace
from bridge.privilege import die_with_parent
from smtp_intercept.app import hangup, sandbox
from smtp_intercept.app.schema import Config


def read_arguments(
    name: str, argv: list[str] | None, *descriptors: str, optional: Sequence[str] = (), many: Sequence[str] = ()
) -> argparse.Namespace:
    """``descriptors`` names what the process is handed open besides ``reports``, each by its number; those of
    ``optional`` may be None, of ``many`` there is a list. The rest is the same for all: the effective configuration,
    the ports, the VLANs that have a lane, whom to become, whose child it is; the network namespace to live in, if
    that is not the daemon's."""
    parser = argparse.ArgumentParser(prog=f"tollbridge-{name}")
    parser.add_argument("--effective", type=Path, required=True)
    for number in ("uid", "gid", "parent", "reports", *descriptors):
        parser.add_argument(f"--{number}", type=int, required=True)
    for number in ("home", *optional):
        parser.add_argument(f"--{number}", type=int)
    for number in many:
        parser.add_argument(f"--{number}", type=int, action="append", default=[])
    parser.add_argument("--port", action="append", required=True)
    parser.add_argument("--vlan", action="append", type=int, default=[])
    arguments = parser.parse_args(argv)
    if arguments.home is not None:
        Namespace(arguments.home).enter()
        os.close(arguments.home)
    return arguments


def settle_in(kind: str, arguments: argparse.Namespace, settings: Config) -> None:
    """For good: the sandbox of this kind of process, no life without the daemon. Ctrl-C is its own to pass on."""
    box = sandbox.SANDBOXES[kind](settings)
    sandbox.enter(box, settings, arguments.effective.parent, arguments.uid, arguments.gid)
    die_with_parent(signal.SIGTERM, arguments.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hangup.ignore()
    sandbox.shut(box)
