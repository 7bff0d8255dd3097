"""Takes steps on this host and takes them back: looks whether a step holds, writes down its inverse, performs it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from bridge import managers
from bridge.firewall import FirewallError
from bridge.hands import Hands, modprobe
from bridge.lane import LANE, Wanted
from bridge.ledger import Ledger, original
from bridge.links import Links, read_sysctls
from bridge.plan import Plan, Present, make_plan, sysctls_read, tuning_steps
from bridge.steps import (
    CreateLink,
    SetLink,
    SetNic,
    SetSysctl,
    Step,
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
        self._hands = Hands(links, nics or Nics())
        self._ledger = ledger

    def holds(self, step: Step) -> bool:
        """Whether the host is already as the step would make it."""
        return self._hands.holds(step)

    # --- planning --------------------------------------------------------------------------------------------------

    def present(self, wanted: Wanted, *, nft_queue: bool) -> Present:
        """The host as it was before Tollbridge (see `bridge.ledger.original`)."""
        links = self._hands.links.facts()
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
        undone = [undo for undo in reversed(unwanted) if not self._hands.lost(undo) and not self._hands.holds(undo)]
        return [*undone, *(step for step in steps if not self._hands.holds(step))]

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
            if not self._hands.holds(step):
                progress(step)
                refusals += self._try(step) if isinstance(step, SetNic) else self._take(step)
        return refusals

    @property
    def undoing(self) -> frozenset[Step]:
        """What `down` would perform now."""
        return frozenset(self._ledger.entries.values())

    def up_one(self, step: Step) -> None:
        """One step more, of no plan; `down` undoes it. Raises `StepError`."""
        if not self._hands.holds(step):
            self._take(step)

    def wire(self, steps: Iterable[Step], progress: Progress = _silent) -> list[str]:
        """Only what makes the plain bridge of a plan. Returns what could not be done, in words."""
        plain = takewhile(lambda step: step != CreateLink(LANE, "bridge"), steps)
        return [why for _, why in self.mend(plain, progress) if why]

    def mend(self, steps: Iterable[Step], progress: Progress = _silent) -> list[tuple[Step, str]]:
        """Take those of the steps that do not hold, each whatever became of the one before, and undo nothing. Returns
        them, each with what went wrong, in words, or ""."""
        taken: list[tuple[Step, str]] = []
        for step in steps:
            try:
                if not self._hands.holds(step):
                    progress(step)
                    self._take(step)
                    taken.append((step, ""))
            except (StepError, *Failure) as error:
                taken.append((step, str(error)))
        return taken

    def down(self, progress: Progress = _silent, among: Among = _every) -> list[str]:
        """Everything back, newest first. Returns what could not be undone, in words, and keeps it in the ledger."""
        return [str(failure) for failure in self._undo(self._names(among), progress)]

    def _names(self, among: Among) -> list[str]:
        return [name for name, undo in self._ledger.entries.items() if among(undo)]

    def _try(self, step: SetNic) -> list[Refused]:
        """What was refused and left as it was leaves no entry; what was half done leaves one."""
        if (before := self._hands.nics.value(step.link, step.setting)) is None:
            return [Refused(step, "the port has none")]
        known = key(step) in self._ledger.entries
        try:
            self._take(step)
        except StepError as error:
            if not known and self._hands.nics.holds(step.link, step.setting, before):
                self._ledger.forget([key(step)])
            return [Refused(step, _said(error))]
        return []

    def _take(self, step: Step) -> tuple[()]:
        try:
            if not self._on_own_link(step):
                self._ledger.record(key(step), self._hands.inverse(step))
            self._hands.perform(step)
        except Failure as error:
            if not self._hands.holds(step):  # or somebody else has done it meanwhile: a manager that lets go of a port
                raise StepError(step, str(error)) from error
        return ()

    def _undo(self, keys: list[str], progress: Callable[[Step], None]) -> list[StepError]:
        """Goes on after a failure."""
        failures, undone, step = [], [], None
        for name in reversed(keys):
            step = self._ledger.entries[name]
            try:
                if not self._hands.lost(step) and not self._hands.holds(step):
                    progress(step)
                    self._hands.perform(step)
                undone.append(name)
            except Failure as error:
                failures.append(StepError(step, str(error)))
        try:
            self._ledger.forget(undone)
        except OSError as error:  # it will be found undone the next time
            assert step is not None
            failures.append(StepError(step, f"the ledger cannot be written: {error}"))
        return failures

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


def has_dot1q() -> bool:
    """Whether the kernel can make VLAN links; loads its module, as a rule that nft tries loads its own."""
    with suppress(OSError):
        modprobe("-q", "8021q")
    return _VLANS.exists()
