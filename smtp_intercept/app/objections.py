"""Why `up` or `run` would refuse this configuration on this host: one table, which both ask first, and `check` too.

Reads and tries, and leaves nothing behind. What the text of the file alone shows is found before (`validated`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Flag, auto
from functools import cache
from pathlib import Path

from bridge import firewall, namespace
from bridge.firewall import MissingFeatureError
from bridge.host import Host
from bridge.lane import QUEUE_NUMBER, Wanted
from bridge.plan import PlanError
from bridge.steps import SetSysctl
from bridge.sysctls import sysctl_path
from smtp_intercept.app import listening
from smtp_intercept.app.accounts import USERS, NoAccountError, account
from smtp_intercept.app.certificate import certificate
from smtp_intercept.app.config import Config, located
from smtp_intercept.app.daemon import needs_mta
from smtp_intercept.app.mistakes import Mistake, MistakeError, RefusedError
from smtp_intercept.app.password import relay_password
from smtp_intercept.app.rule_schema import written
from smtp_intercept.app.rundir import RunDir
from smtp_intercept.app.tls_checks import takes_part
from smtp_intercept.app.writable import why_no_spool, why_not_appended
from smtp_intercept.inspect.lists import ListError, read_list
from smtp_intercept.inspect.written import files
from smtp_intercept.mta.faults import NoQueueError, SpoolError
from smtp_intercept.mta.listing import Filter
from smtp_intercept.mta.postmaster import queue_in

QUEUES = Path("/proc/net/netfilter/nfnetlink_queue")


class Verb(Flag):
    """Who refuses."""

    UP = auto()
    RUN = auto()


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked about: a configuration as this box has it, and the host."""

    config: Config
    want: Wanted
    host: Host
    run_dir: RunDir

    @property
    def runs(self) -> bool:
        """Whether a daemon of ours holds now what another one would be refused."""
        return self.run_dir.holder("run") not in (0, os.getpid())


@dataclass(frozen=True, slots=True)
class Objection:
    """``root``: only root can tell. ``first``: what comes after it cannot be asked if it refuses."""

    by: Verb
    find: Callable[[Asked], Iterable[Mistake]]
    root: bool = True


def probe(want: Wanted) -> bool:
    """`firewall.probe`, in a network namespace like the one that the lanes will have; once for a command."""
    return _probed(apart=bool(want.room))


@cache
def _probed(*, apart: bool) -> bool:
    return namespace.ask_fresh(firewall.probe) if apart else firewall.probe()


def _features(asked: Asked) -> Iterator[Mistake]:
    try:
        probe(asked.want)
    except MissingFeatureError as error:
        yield Mistake((), str(error), "")


def _plan(asked: Asked) -> Iterator[Mistake]:
    """All that the bridge and the lanes ask of the host's links; and what `up` will have to write."""
    try:
        made = asked.host.plan(asked.want, nft_queue=True)
    except PermissionError:  # without root nobody looks into a network namespace
        return
    except PlanError as error:
        yield from (Mistake(tuple(each.key.split(".")), each.reason, each.remedy) for each in error.every)
        return
    for step in made.steps:
        if isinstance(step, SetSysctl) and not asked.host.holds(step) and _read_only(path := sysctl_path(step.name)):
            yield Mistake((), f"{path} cannot be written", "run on the host itself, or in a container that may")


def _read_only(path: Path) -> bool:
    """One that is not there yet comes with its module or its link."""
    return not os.geteuid() and path.exists() and not os.access(path, os.W_OK)


def _ipv6(asked: Asked) -> Iterator[Mistake]:
    if not Path("/proc/net/if_inet6").exists():
        for index, interface in enumerate(asked.config.bridge.management):
            if interface.version == 6:
                at = ("bridge", "management", index)
                yield Mistake(
                    at, f"{interface} is IPv6, which this kernel does not have", "remove it, or boot with IPv6"
                )


def _user(asked: Asked) -> Iterator[Mistake]:
    try:
        for kind in USERS:
            account(kind)
    except NoAccountError as error:
        yield Mistake((), str(error), "")


def _mail_log(asked: Asked) -> Iterator[Mistake]:
    path = Path(asked.config.log.mail)
    if why := why_not_appended(path):
        yield Mistake(("log", "mail"), f"{path} {why}", "choose another file")


def _mail_ports(asked: Asked) -> Iterator[Mistake]:
    """By the real attempt, at a port of the bridge: no service is bound to that one, so it meets those of all links."""
    if asked.want.room:  # where nobody else listens
        return
    try:
        for sock in listening.listeners_on([asked.want.ports[0]], asked.config):
            sock.close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:  # any other is of a link that `_plan` has told of
            yield Mistake(("intercept", "ports"), *listening.taken(asked.config))


def _queues(asked: Asked) -> Iterator[Mistake]:
    """NFQUEUE's numbers belong to whoever binds first."""
    if asked.runs or asked.want.room:
        return
    try:
        taken = {int(line.split()[0]) for line in QUEUES.read_text("ascii").splitlines()}
    except OSError:
        return
    ours = range(QUEUE_NUMBER, QUEUE_NUMBER + asked.want.queues)
    if both := sorted(taken & set(ours)):
        numbers = ", ".join(map(str, both))
        yield Mistake((), f"another program has NFQUEUE {numbers} ({QUEUES})", "end it, or have it take another number")


def _secrets(asked: Asked) -> Iterator[Mistake]:
    """What the MTA reads while it is root."""
    if not needs_mta(asked.config):
        return
    for read in (lambda: certificate(asked.config.mta), lambda: relay_password(asked.config)):
        try:
            read()
        except MistakeError as error:
            yield from error.mistakes


def _spool(asked: Asked) -> Iterator[Mistake]:
    if not needs_mta(asked.config):
        return
    at, spool = ("mta", "spool"), Path(asked.config.mta.spool)
    try:
        uid, gid = account("mta")
    except NoAccountError:  # `_user` says so
        return
    if why := why_no_spool(spool, uid, gid):
        yield Mistake(at, f"{spool} {why}", f"choose another directory, or chown -R {uid} it while nothing runs")
    elif why := _damage(spool):
        yield Mistake(at, why, "nothing was changed")


def _damage(spool: Path) -> str:
    """What the MTA would find when it opens its queue; "" for one that is sound, or is not there yet."""
    try:
        with queue_in(spool) as queue:
            next(queue.lines(Filter()), None)
    except NoQueueError:
        return ""
    except SpoolError as error:
        return str(error)
    return ""


def _tls(asked: Asked) -> Iterator[Mistake]:
    """What the interceptor reads while it is root."""
    if takes_part(asked.config):
        from smtp_intercept.app import tls_files  # what it brings is a lot, and seldom needed

        try:
            tls_files.part(asked.config)
        except MistakeError as error:
            yield from error.mistakes


def _lists(asked: Asked) -> Iterator[Mistake]:
    """Those that rules name, for the process that hears strangers, which has a user of its own."""
    rules = asked.config.rule
    for index, rule in enumerate(rules):
        for path, kind in dict.fromkeys(files([written(rule)])):
            at = ("rule", index, "when")
            try:
                read_list(path, kind)
            except ListError as error:
                yield Mistake(at, f"{error.place}: {error.reason}", error.remedy)
            else:
                if not Path(path).stat().st_mode & stat.S_IROTH:
                    yield Mistake(at, f"{path} is not for every user to read", f"chmod o+r {path}")


OBJECTIONS = (
    Objection(Verb.UP, _features),
    Objection(Verb.UP | Verb.RUN, _plan, root=False),
    Objection(Verb.UP, _ipv6, root=False),
    Objection(Verb.RUN, _user, root=False),
    Objection(Verb.RUN, _lists),
    Objection(Verb.RUN, _mail_log),
    Objection(Verb.RUN, _mail_ports),
    Objection(Verb.RUN, _queues),
    Objection(Verb.RUN, _secrets),
    Objection(Verb.RUN, _tls),
    Objection(Verb.RUN, _spool),
)


def found(asked: Asked, by: Verb = Verb.UP | Verb.RUN) -> list[Mistake]:
    """Every one, in the order of the table; without root those that anybody can see."""
    root = not os.geteuid()
    return [
        m
        for objection in OBJECTIONS
        if objection.by & by and (root or not objection.root)
        for m in objection.find(asked)
    ]


def refuse(asked: Asked, by: Verb, text: str, path: Path) -> None:
    """Raises `RefusedError` with each of them, by its line of the file's text."""
    if mistakes := found(asked, by):
        raise RefusedError(located(mistakes, text, path).errors)
