"""The command `tollbridge`: reads the words, calls the verb, turns errors into one clear line and an exit status."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from bridge.flow import MAX_VLAN
from smtp_intercept.app import (
    filter_words,
    here,
    hw_words,
    queue_words,
    refusals,
    rules_words,
    signals,
    streams,
    tls_words,
    trace_words,
)
from smtp_intercept.app.defaults import CONFIG, RUN_DIR, STATE_DIR
from smtp_intercept.app.exits import Exit, listed
from smtp_intercept.app.presets import PRESETS
from smtp_intercept.app.signals import Interrupted
from smtp_intercept.app.subcommands import Parser, Subcommands, Verb, add_group, add_verb, named, place, whole
from smtp_intercept.app.template import KEYS

# What an administrator can cause and mend: said in a line, without a traceback. By module, since one that no verb has
# loaded has raised nothing.
_EXPECTED = {
    "bridge.firewall": ("FirewallError", "MissingFeatureError"),
    "bridge.host": ("StepError",),
    "bridge.plan": ("PlanError",),
    "hwprofiles.box": ("FactsError",),
    "hwprofiles.profile": ("ProfileError",),
    "pyroute2.netlink.exceptions": ("NetlinkError",),
    "smtp_intercept.app.daemon": ("StartError",),
    "smtp_intercept.app.exits": ("FailedError",),
    "smtp_intercept.app.lockout": ("LockOutError",),
    "smtp_intercept.app.mistakes": ("ConfigErrors", "RefusedError"),
    "smtp_intercept.app.rundir": ("AlreadyRunningError",),
    "smtp_intercept.app.unfinished": ("LeftoverError",),
    "smtp_intercept.mta.faults": ("SpoolError",),
}
_NEEDS_ROOT = frozenset(
    {"setup", "up", "confirm", "down", "run", "status", "plan", "demo", "guard", "doctor", "support"}
)
_HEAR_FOR_THEMSELVES = frozenset({"guard"})  # what it is told while it starts must not end it


def main(argv: Sequence[str] | None = None) -> int:
    """The command, within a process. SystemExit is argparse's."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    if arguments.verb in _NEEDS_ROOT and os.geteuid():
        return _say(f"tollbridge {arguments.verb} needs root: sudo tollbridge {arguments.verb}")
    try:
        with nullcontext() if arguments.verb in _HEAR_FOR_THEMSELVES else signals.heard():
            return _done(arguments)
    except Interrupted as error:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # a terminal has written ^C
        return _say(str(error), error.status)


def _done(arguments: argparse.Namespace) -> int:
    here.look_at(arguments.run_dir)
    verb: Verb = arguments.run
    try:
        return verb(arguments)
    except _expected() as error:
        return _say(str(error), getattr(error, "status", Exit.FAILED))
    except OSError as error:
        return _refused(error)


def _expected() -> tuple[type[Exception], ...]:
    loaded = {module: sys.modules[module] for module in _EXPECTED if module in sys.modules}
    return tuple(getattr(found, name) for module, found in loaded.items() for name in _EXPECTED[module])


def _refused(error: OSError) -> int:
    """By the operating system. A reader who has seen enough (`tollbridge plan | head`) is no error."""
    if error.errno == errno.EPIPE:
        streams.silence(sys.stdout)
        return Exit.DONE
    if error.filename == streams.OUTPUT:  # said once: what it still holds goes nowhere
        streams.silence(sys.stdout)
    return _say(refusals.said(error))


def _say(error: str, status: int = Exit.FAILED) -> int:
    streams.tell(error)
    return status


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata  # as slow to load as the rest of the command

        print(f"tollbridge {metadata.version('tollbridge')}")
        parser.exit()


def _parser() -> Parser:
    parser = Parser(
        prog="tollbridge",
        description="A transparent SMTP gateway: an invisible bridge that inspects mail and passes everything else.",
        epilog=f"Exit status: {listed()}",
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        dest=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        help="show the version and exit",
    )
    parser.add_argument("--config", type=place, default=CONFIG, help="the configuration [%(default)s]")
    parser.add_argument("--run-dir", type=place, default=RUN_DIR, help="files of the running gateway [%(default)s]")
    parser.add_argument("--state-dir", type=place, default=STATE_DIR, help="the last good configuration [%(default)s]")
    sub = parser.add_verbs("verb", "VERB")
    _add_setting_up(sub)
    _add_asking(sub)
    return parser


def _add_setting_up(sub: Subcommands) -> None:
    questions = add_verb(sub, "setup", "setup.setup", "ask the few questions and write a commented configuration")
    questions.add_argument("--answers", type=place, metavar="FILE", help=f"TOML with answers: {', '.join(KEYS)}")
    questions.add_argument(
        "--preset",
        choices=PRESETS,
        metavar="NAME",
        help=f"begin with one of these instead of the defaults: {', '.join(PRESETS)}",
    )
    questions.add_argument(
        "--yes", action="store_true", help="ask nothing: take the defaults, keep the old file as .old"
    )
    add_verb(
        sub,
        "check",
        "checking.check",
        "find all that `up` and `run` would refuse, and print the whole that would be in force",
        json=True,
    )
    add_verb(sub, "plan", "verbs.plan", "print every step of `up` and the nft text, touching nothing", json=True)
    up = add_verb(sub, "up", "boot.up", "make the bridge and the mail lane; safe to run again")
    up.add_argument(
        "--confirm",
        type=whole(10, 3600, " (seconds)"),
        metavar="SECONDS",
        help="undo everything by itself after so many seconds, unless `tollbridge confirm` comes first",
    )
    up.add_argument(
        "--boot",
        action="store_true",
        help="wait for the ports; use the last good configuration if the present one is broken; if the lane cannot be "
        "made, fail, but leave a plain bridge",
    )
    up.add_argument(
        "--adopted",
        action="store_true",
        help="with --boot: do nothing unless bridge.adopt is set, and then wait for that bridge too",
    )
    add_verb(sub, "confirm", "verbs.confirm", "keep what `up --confirm` made")
    add_verb(sub, "down", "verbs.down", "stop the daemon and leave the host as it was before `up`")
    run = add_verb(sub, "run", "boot.run", "run the daemon in the foreground: mail is inspected while it runs")
    run.add_argument("--boot", action="store_true", help="use the last good configuration if the present one is broken")
    guard = sub.add_parser("guard")  # the process that `up --confirm` leaves behind; not for people
    guard.add_argument("--token", required=True)
    guard.set_defaults(run=named("verbs.guard"))


def _add_asking(sub: Subcommands) -> None:
    add_verb(sub, "status", "status.show", "show lanes, switch, sessions and counters", json=True)
    add_verb(sub, "doctor", "doctor.doctor", "look for what goes wrong in the field, and say what to do", json=True)
    support = add_verb(
        sub, "support", "support.support", "write an archive for whoever is to help, without mail or secrets"
    )
    support.add_argument("--output", type=place, metavar="FILE", help="[tollbridge-support-DATE.tar.gz, here]")
    explain = add_verb(
        sub, "explain", "asking.explain", "say what would happen to a connection, sending nothing", json=True
    )
    explain.add_argument("--from", dest="client", required=True, metavar="A", help="the client's address")
    explain.add_argument("--to", dest="server", required=True, metavar="B", help="the address it dials")
    explain.add_argument("--port", metavar="P", help="the port of arrival [the first of bridge.ports]")
    explain.add_argument(
        "--vlan", type=whole(0, MAX_VLAN), default=0, metavar="V", help="the VLAN that it is tagged with [untagged]"
    )
    explain.add_argument(
        "--running", action="store_true", help="by what the daemon runs with, not by the file as it is"
    )
    explain.add_argument("--rcpt", action="append", default=[], metavar="R", help="a recipient; may be repeated")
    rules_words.add(add_group(sub, "rules", "try the rules of the configuration on a message, sending nothing"))
    found = "say what became of a mail: its session, its replies, each attempt to deliver it"
    trace_words.add(add_verb(sub, "trace", "trace.trace", found))
    add_verb(
        sub, "reindex", "trace.reindex", "make what `trace` searches anew, from the mail log and its rotated copies"
    )
    filter_words.add(add_group(sub, "filter", "try a filter of the configuration"))
    encryption = "make an authority, show what is shown to clients in the name of servers, and who is left alone"
    tls_words.add(add_group(sub, "tls", encryption))
    queue = "show the mail that the box has accepted and not yet delivered, and change what becomes of it"
    queue_words.add(add_group(sub, "queue", queue))
    hardware = "show what the box is made of and which profile is for it, and make or undo its settings"
    hw_words.add(add_group(sub, "hw", hardware))
    demo = add_verb(
        sub, "demo", "asking.demo", "build a small network of namespaces and show the gateway at work", json=True
    )
    demo.add_argument("--keep", action="store_true", help="leave the files of the run behind")
