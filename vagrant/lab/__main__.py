"""The command line of the lab, `python -m vagrant.lab --help`; `make lab`, `lab-test` and `lab-down` call it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from vagrant.lab import plan, runner, verbs
from vagrant.lab.doing import Progress
from vagrant.lab.runner import Acceleration, Choice, Way


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vagrant.lab", description="The lab of virtual machines.")
    verb = parser.add_subparsers(dest="verb", required=True)
    for name, text in (
        ("up", "bring the machines up and provision them"),
        ("run", "up, run the tests, report, keep the machines"),
        ("test", "up, run the tests, report, take the machines away"),
    ):
        one = verb.add_parser(name, help=text)
        one.add_argument("--suite", choices=list(plan.Suite), default=plan.Suite.BOOKWORM, help="[%(default)s]")
        one.add_argument(
            "--runner", choices=list(Way), help="[vagrant where it can use hardware virtualization, else qemu]"
        )
        one.add_argument(
            "--accelerate", choices=list(Acceleration), help="[kvm where it is this machine's own, else tcg]"
        )
        if name != "up":
            one.add_argument("pytest", nargs="*", help="which tests, after --; all of the marker vm")
    verb.add_parser("down", help="take the machines away")
    ssh = verb.add_parser("ssh", help="a shell, or a command, on a machine")
    ssh.add_argument("machine")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    power = verb.add_parser("power", help="cut a machine's power, or give it back")
    power.add_argument("way", choices=["on", "off"])
    power.add_argument("machine", choices=[machine.name for machine in runner.planned()])
    link = verb.add_parser("link", help="pull a cable, or put it back")
    link.add_argument("way", choices=["up", "down"])
    link.add_argument("link", choices=list(plan.LINKS))
    return parser


def _choice(arguments: argparse.Namespace) -> Choice:
    acceleration = Acceleration(arguments.accelerate or os.environ.get("LAB_ACCEL") or runner.acceleration())
    way = Way(arguments.runner or runner.way(acceleration))
    return Choice(plan.Suite(arguments.suite), way, acceleration)


def _run(arguments: argparse.Namespace, progress: Progress) -> int:
    lab = verbs.up(_choice(arguments), progress)
    choice = runner.noted()
    assert choice
    return verbs.test(lab, choice, arguments.pytest, progress)


def _test(arguments: argparse.Namespace, progress: Progress) -> int:
    try:
        return _run(arguments, progress)
    finally:
        verbs.down(progress)


def _ssh(arguments: argparse.Namespace) -> int:
    words = [*verbs.present().access.ssh, arguments.machine, *arguments.command]
    return subprocess.run(words, check=False).returncode  # noqa: S603 - the operator's own


def _do(arguments: argparse.Namespace, progress: Progress) -> int:
    match arguments.verb:
        case "run":
            return _run(arguments, progress)
        case "test":
            return _test(arguments, progress)
        case "ssh":
            return _ssh(arguments)
        case "up":
            verbs.up(_choice(arguments), progress)
        case "down":
            verbs.down(progress)
        case "power":
            verbs.power(arguments.machine, on=arguments.way == "on")
        case "link":
            verbs.link(arguments.link, up=arguments.way == "up")
    return 0


def main() -> int:
    arguments = _parser().parse_args()
    return verbs.guarded(lambda: _do(arguments, Progress()))


if __name__ == "__main__":
    sys.exit(main())
