"""Takes steps on this host and takes them back: looks whether a step holds, writes down its inverse, performs it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import assert_never

from pyroute2.netlink.exceptions import NetlinkError

from bridge import firewall, managers
from bridge.firewall import FirewallError
from bridge.lane import LANE, Wanted
from bridge.ledger import Ledger, original
from bridge.links import Links, read_sysctl, read_sysctls, sysctl_path, write_sysctl
from bridge.plan import Plan, Present, make_plan, sysctls_read, tuning_steps
from bridge.steps import (
    AddAddress,
    AddNeighbour,
    AddQueueRule,
    AddRoute,
    AddRule,
    CreateLink,
    DeleteLink,
    LoadModule,
    LoadRuleset,
    Manage,
    RemoveAddress,
    RemoveNeighbour,
    RemoveQueueRule,
    RemoveRoute,
    RemoveRule,
    Route,
    SetLink,
    SetNic,
    SetSysctl,
    Step,
    UnloadModule,
    UnloadRuleset,
    Unmanage,
    key,
)
from hwprofiles.nic import Nics

_VLANS = Path("/proc/net/vlan")  # there as soon as the kernel has 802.1Q (net/8021q/vlanproc.c)

Failure = (OSError, NetlinkError, FirewallError)


class StepError(Exception):
    """A step failed; what was done stands in the ledger and `down` undoes it."""

    def __init__(self, step: Step, reason: str) -> None:
        super().__init__(f"cannot do «{step}»: {reason}")
        self.step, self.reason = step, reason


@dataclass(frozen=True, slots=True)
class Refused:
    """A setting that the hardware would not take: it works without, only not as well."""

    step: SetNic
    reason: str

    def __str__(self) -> str:
        return f"{self.step.link}: {self.step.setting} = {self.step.value}: refused: {self.reason}"


Progress = Callable[[Step], None]
Among = Callable[[Step], bool]


def _silent(_: Step) -> None: ...


def _every(_: Step) -> bool:
    return True


class Host:
    """This network namespace and the ledger of what Tollbridge did to it."""

    def __init__(self, links: Links, ledger: Ledger, nics: Nics | None = None) -> None:
        self._links = links
        self._ledger = ledger
        self._nics = nics or Nics()

    # --- planning --------------------------------------------------------------------------------------------------

    def present(self, wanted: Wanted, *, nft_queue: bool) -> Present:
        """The host as it was before Tollbridge (see `bridge.ledger.original`)."""
        links = self._links.facts()
        sysctls = read_sysctls(sysctls_read(links, wanted.sysctls_at_least))
        dot1q = not wanted.vlans or has_dot1q()
        found = Present(links, sysctls, nft_queue=nft_queue, dot1q=dot1q, seed=_seed(), managers=managers.present())
        return original(found, self._ledger.entries.values())

    def plan(self, wanted: Wanted, *, nft_queue: bool) -> Plan:
        return make_plan(wanted, self.present(wanted, nft_queue=nft_queue))

    def tuning(self, wanted: Wanted) -> tuple[Step, ...]:
        """Only what suits the box to its hardware; see `bridge.plan.tuning_steps`."""
        return tuning_steps(wanted, self.present(wanted, nft_queue=True))

    def pending(self, steps: Iterable[Step]) -> list[Step]:
        """What `up` would do for these steps, in its order: what it would undo, and the steps that do not hold."""
        steps = list(steps)
        wanted = {key(step) for step in steps}
        unwanted = [undo for name, undo in self._ledger.entries.items() if name not in wanted]
        undone = [undo for undo in reversed(unwanted) if not self._on_lost_link(undo) and not self.holds(undo)]
        return [*undone, *(step for step in steps if not self.holds(step))]

    # --- doing -----------------------------------------------------------------------------------------------------

    def up(self, steps: Iterable[Step], progress: Progress = _silent, among: Among = _every) -> list[Refused]:
        """Idempotent. First undoes what an earlier plan did and this one does not want, as far as the inverse is
        ``among`` those of this kind of plan. Returns what the hardware refused; raises `StepError` for all else."""
        steps = list(steps)
        wanted = {key(step) for step in steps}
        for failure in self._undo([name for name in self._names(among) if name not in wanted], progress):
            raise failure
        refusals: list[Refused] = []
        for step in steps:
            if not self.holds(step):
                progress(step)
                refusals += self._try(step) if isinstance(step, SetNic) else self._take(step)
        return refusals

    def up_one(self, step: Step) -> None:
        """One step more, of no plan; `down` undoes it. Raises `StepError`."""
        if not self.holds(step):
            self._take(step)

    def wire(self, steps: Iterable[Step], progress: Progress = _silent) -> list[str]:
        """Only what makes the plain bridge of a plan, each step whatever became of the one before. Returns what
        could not be done, in words."""
        failures: list[str] = []
        for step in takewhile(lambda step: step != CreateLink(LANE, "bridge"), steps):
            try:
                if not self.holds(step):
                    progress(step)
                    self._take(step)
            except (StepError, *Failure) as error:
                failures.append(str(error))
        return failures

    def down(self, progress: Progress = _silent, among: Among = _every) -> list[str]:
        """Everything back, newest first. Returns what could not be undone, in words, and keeps it in the ledger."""
        return [str(failure) for failure in self._undo(self._names(among), progress)]

    def _names(self, among: Among) -> list[str]:
        return [name for name, undo in self._ledger.entries.items() if among(undo)]

    def _try(self, step: SetNic) -> list[Refused]:
        """What was refused and left as it was leaves no entry; what was half done leaves one."""
        if (before := self._nics.value(step.link, step.setting)) is None:
            return [Refused(step, "the port has none")]
        known = key(step) in self._ledger.entries
        try:
            self._take(step)
        except StepError as error:
            if not known and self._nics.holds(step.link, step.setting, before):
                self._ledger.forget([key(step)])
            return [Refused(step, _said(error))]
        return []

    def _take(self, step: Step) -> tuple[()]:
        try:
            if not self._on_own_link(step):
                self._ledger.record(key(step), self._inverse(step))
            self._perform(step)
        except Failure as error:
            if not self.holds(step):  # or somebody else has done it meanwhile: a manager that lets go of a port
                raise StepError(step, str(error)) from error
        return ()

    def _undo(self, keys: list[str], progress: Callable[[Step], None]) -> list[StepError]:
        """Goes on after a failure."""
        failures, undone = [], []
        for name in reversed(keys):
            step = self._ledger.entries[name]
            try:
                if not self._on_lost_link(step) and not self.holds(step):
                    progress(step)
                    self._perform(step)
                undone.append(name)
            except Failure as error:
                failures.append(StepError(step, str(error)))
        self._ledger.forget(undone)
        return failures

    def _on_lost_link(self, step: Step) -> bool:
        """A link that was taken out of the box took its settings along, a port that has left its bridge the port's."""
        match step:
            case SetLink(link, attribute):
                return self._links.attribute(link, attribute) is None
            case SetNic(link, setting):
                return self._nics.value(link, setting) is None
            case AddAddress(link) | AddNeighbour(link) | AddRoute(Route(_, link)):
                return self._links.index(link) is None
            case _:
                return False

    def _on_own_link(self, step: Step) -> bool:
        """A setting of a link of ours goes with the link; whatever plan comes next sets it too."""
        own = self._ledger.mine
        match step:
            case SetLink(link):
                return link in own
            case SetSysctl(name):
                link = name.split(".")[3].replace("/", ".") if ".conf." in name else ""
                return link in own
            case _:
                return False

    # --- each kind of step -------------------------------------------------------------------------------------------

    def holds(self, step: Step) -> bool:
        """Whether the host is already as the step would make it."""
        links = self._links
        match step:
            case CreateLink(link):
                return links.index(link) is not None
            case DeleteLink(link):
                return links.index(link) is None
            case SetLink(link, attribute, value):
                return links.attribute(link, attribute) == value
            case SetNic(link, setting, value):
                return self._nics.holds(link, setting, value)
            case SetSysctl(name, value):
                return read_sysctl(name) in (value, None) if _link_gone(name) else read_sysctl(name) == value
            case LoadModule():
                return read_sysctl("net.bridge.bridge-nf-call-iptables") is not None
            case UnloadModule(module):
                return not Path(f"/sys/module/{module}").exists()
            case AddAddress(link, address):
                return links.has_address(link, address)
            case RemoveAddress(link, address):
                return not links.has_address(link, address)
            case AddRoute(route):
                return links.has_route(route)
            case RemoveRoute(route):
                return not links.has_route(route)
            case AddRule(rule):
                return links.has_rule(rule)
            case RemoveRule(rule):
                return not links.has_rule(rule)
            case AddNeighbour(link, address):
                return links.has_neighbour(link, address)
            case RemoveNeighbour(link, address):
                return not links.has_neighbour(link, address)
            case LoadRuleset(text):
                return firewall.loaded(text)
            case UnloadRuleset():
                return False
            case AddQueueRule():
                return firewall.has_queue_rule(step)
            case RemoveQueueRule(family, link, mark, queue, bypass):
                return not firewall.has_queue_rule(AddQueueRule(family, link, mark, queue, bypass))
            case Unmanage(manager, named):
                return managers.told(manager, named.split()) and not managers.managed(manager, named.split())
            case Manage(manager):
                return managers.untold(manager)
            case _:
                assert_never(step)

    def _inverse(self, step: Step) -> Step:
        match step:
            case CreateLink(link, _, peer):
                return DeleteLink(link, peer)
            case SetLink(link, attribute):
                before = self._links.attribute(link, attribute)
                return SetLink(link, attribute, 0 if before is None else before)
            case SetNic(link, setting):
                return SetNic(link, setting, self._nics.value(link, setting) or "")
            case SetSysctl(name):
                return SetSysctl(name, read_sysctl(name) or "0")
            case LoadModule(module):
                return UnloadModule(module)
            case AddAddress(link, address):
                return RemoveAddress(link, address)
            case RemoveAddress(link, address):
                return AddAddress(link, address, self._links.broadcast(link, address))
            case AddRoute(route):
                return RemoveRoute(route)
            case RemoveRoute(route):
                return AddRoute(route)
            case AddRule(rule):
                return RemoveRule(rule)
            case AddNeighbour(link, address):
                return RemoveNeighbour(link, address)
            case LoadRuleset():
                return UnloadRuleset()
            case RemoveNeighbour(link, address, mac):
                return AddNeighbour(link, address, mac)
            case AddQueueRule(family, link, mark, queue, bypass):
                return RemoveQueueRule(family, link, mark, queue, bypass, not firewall.has_raw_table(family))
            case Unmanage(manager, named):
                return Manage(manager, " ".join(managers.managed(manager, named.split())))
            case DeleteLink() | UnloadModule() | RemoveRule() | UnloadRuleset() | RemoveQueueRule() | Manage():
                raise ValueError(f"{step} is taken only to undo")
            case _:
                assert_never(step)

    def _perform(self, step: Step) -> None:
        links = self._links
        match step:
            case CreateLink(link, kind, peer, parent, vlan):
                links.create(link, kind, peer, parent, vlan)
            case DeleteLink(link):
                links.delete(link)
            case SetLink(link, attribute, value):
                links.set_attribute(link, attribute, value)
            case SetNic(link, setting, value):
                self._nics.set(link, setting, value)
            case SetSysctl(name, value):
                write_sysctl(name, value)
            case LoadModule(module):
                _modprobe(module)
            case UnloadModule(module):
                _modprobe("-r", module)
            case AddAddress(link, address, broadcast):
                links.address("add", link, address, broadcast)
            case RemoveAddress(link, address):
                links.address("del", link, address)
            case AddRoute(route):
                links.route("add", route)
            case RemoveRoute(route):
                links.route("del", route)
            case AddRule(rule):
                links.rule("add", rule)
            case RemoveRule(rule):
                links.rule("del", rule)
            case AddNeighbour(link, address, mac):
                links.neighbour("replace", link, address, mac)
            case RemoveNeighbour(link, address):
                links.neighbour("del", link, address)
            case LoadRuleset(text):
                firewall.nft(text)
            case UnloadRuleset():
                firewall.remove()
            case AddQueueRule():
                firewall.add_queue_rule(step)
            case RemoveQueueRule():
                firewall.remove_queue_rule(step)
            case Unmanage(manager, named):
                managers.tell(manager, named.split())
            case Manage(manager, named):
                managers.untell(manager, named.split())
            case _:
                assert_never(step)


def _said(error: StepError) -> str:
    """The system's words for it, without numbers and files."""
    match error.__cause__:
        case NetlinkError(args=(_, str(words))):
            return words
        case OSError(strerror=str(words)):
            return words
        case _:
            return error.reason


def _seed() -> int:
    """32 bits of this machine's own, the same until it is installed anew (machine-id(5) asks for a hash)."""
    try:
        machine = Path("/etc/machine-id").read_bytes()
    except OSError:
        machine = b""
    return int.from_bytes(hashlib.sha256(b"tollbridge" + machine).digest()[:4], "big")


def _link_gone(name: str) -> bool:
    """A sysctl of a link that has gone needs no undoing."""
    return not sysctl_path(name).exists()


def has_dot1q() -> bool:
    """Whether the kernel can make VLAN links; loads its module, as a rule that nft tries loads its own."""
    with suppress(OSError):
        _modprobe("-q", "8021q")
    return _VLANS.exists()


def _modprobe(*arguments: str) -> None:
    program = shutil.which("modprobe", path="/usr/sbin:/sbin")
    if program is None:
        raise OSError("modprobe is missing; install it: apt-get install kmod")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - fixed program
    if done.returncode:
        raise OSError(done.stderr.strip())
