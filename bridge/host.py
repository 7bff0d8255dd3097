"""Takes steps on this host, and in the room of the wire's own, and takes them back: looks whether a step holds, writes
down its inverse, performs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Self

from pyroute2.netlink.exceptions import NetlinkError

from bridge import managers
from bridge.announce import announce, await_way_out
from bridge.firewall import FirewallError
from bridge.hands import modprobe
from bridge.lane import HOST_LEG, LANE, Wanted
from bridge.ledger import Ledger, original
from bridge.links import Links
from bridge.machine import seed
from bridge.moves import RemoveRoom
from bridge.namespace import Namespace, ask_fresh
from bridge.places import Places
from bridge.plan import Plan, make_plan, sysctls_read, tuning_steps
from bridge.present import BRIDGE_NF, LinkFacts, Present
from bridge.steps import (
    AddAddress,
    CreateLink,
    Inside,
    SetLink,
    SetNic,
    SetSysctl,
    Step,
    key,
    plain,
)
from bridge.sysctls import read_sysctls, writable_sysctls
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

    def __init__(
        self, links: Links, ledger: Ledger, nics: Nics | None = None, kept: Mapping[str, Namespace] | None = None
    ) -> None:
        """``kept`` are rooms that somebody keeps open, whatever becomes of their names."""
        self._places = Places(links, nics or Nics(), kept or {})
        self._ledger = ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What it holds open of network namespaces."""
        self._places.close()

    @contextmanager
    def within(self, room: str) -> Iterator[bool]:
        """The process is in that room while the context lasts, or stays in the host where ``room`` is ""; False if
        there is none of that name."""
        if not room:
            yield True
            return
        with self._places.hands_in(room) as hands:
            yield hands is not None

    def holds(self, step: Step) -> bool:
        """Whether the host is already as the step would make it."""
        return self._places.holds(step)

    @contextmanager
    def still(self) -> Iterator[dict[str, LinkFacts]]:
        """While the context lasts everything is read once; the links of the host and of the ledger's room."""
        with self._places.still(self._ledger.room) as facts:
            yield facts

    # --- planning --------------------------------------------------------------------------------------------------

    def present(self, wanted: Wanted, *, nft_queue: bool) -> Present:
        """The host as it was before Tollbridge (see `bridge.ledger.original`). Sysctls are of where the lanes are to
        be: a room that is not there yet will have those of any new network namespace."""
        links = {**self._away(), **self._places.host.links.facts()}
        dot1q = not wanted.vlans or has_dot1q()
        found = Present(
            links,
            self._sysctls(wanted, links),
            nft_queue=nft_queue,
            dot1q=dot1q,
            seed=seed(),
            managers=managers.present(),
        )
        return original(found, self._ledger.entries.values(), wanted.room)

    def _away(self) -> dict[str, LinkFacts]:
        """The ports that are in a room, as bare as they came there."""
        facts = {room: self._places.facts_in(room) for room in self._ledger.moved.values()}
        return {
            link: replace(facts[room][link], master="", addresses=(), routes=(), neighbours=())
            for link, room in self._ledger.moved.items()
            if link in facts[room]
        }

    def _sysctls(self, wanted: Wanted, links: Iterable[str]) -> dict[str, str]:
        names = sysctls_read(links, wanted.sysctls_at_least)
        if not wanted.room:
            return read_sysctls(names)
        try:
            with self._places.hands_in(wanted.room) as room:
                found = writable_sysctls(names) if room is not None else ask_fresh(lambda: writable_sysctls(names))
        except PermissionError:  # who only asks is told what may be
            found = read_sysctls(names)
        return {**read_sysctls(BRIDGE_NF), **found}

    def plan(self, wanted: Wanted, *, nft_queue: bool) -> Plan:
        return make_plan(wanted, self.present(wanted, nft_queue=nft_queue))

    def tuning(self, wanted: Wanted) -> tuple[Step, ...]:
        """Only what suits the box to its hardware; see `bridge.plan.tuning_steps`."""
        wanted = replace(wanted, room=self._ledger.room)  # where the ports are now
        return tuning_steps(wanted, self.present(wanted, nft_queue=True))

    def pending(self, steps: Iterable[Step]) -> list[Step]:
        """What `up` would do for these steps, in its order: what it would undo, and the steps that do not hold."""
        steps = list(steps)
        wanted = {key(step) for step in steps}
        unwanted = [undo for name, undo in self._ledger.entries.items() if name not in wanted]
        undone = [undo for undo in reversed(unwanted) if not self._places.lost(undo) and not self._places.holds(undo)]
        return [*undone, *(step for step in steps if not self._places.holds(step))]

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
            if not self._places.holds(step):
                progress(step)
                refusals += self._try(step) if isinstance(plain(step), SetNic) else self._take(step)
        return refusals

    @property
    def undoing(self) -> frozenset[Step]:
        """What `down` would perform now."""
        return frozenset(self._ledger.entries.values())

    def announce(self, added: Iterable[AddAddress]) -> None:
        """Tell the neighbours where these addresses are now, once the wire is one again."""
        by_link: dict[str, list[str]] = {}
        for step in added:
            by_link.setdefault(step.link, []).append(step.address)
        if HOST_LEG in by_link:
            with self._places.hands_in(self._ledger.room) as hands:
                if hands is not None:
                    await_way_out(hands.links, self._ledger.moved)
        for link, addresses in by_link.items():
            announce(link, addresses)

    def up_one(self, step: Step) -> None:
        """One step more, of no plan; `down` undoes it. Raises `StepError`."""
        if not self._places.holds(step):
            self._take(step)

    def wire(self, steps: Iterable[Step], progress: Progress = _silent) -> list[str]:
        """Only what makes the plain bridge of a plan. Returns what could not be done, in words."""
        wire = takewhile(lambda step: plain(step) != CreateLink(LANE, "bridge"), steps)
        return [why for _, why in self.mend(wire, progress) if why]

    def mend(self, steps: Iterable[Step], progress: Progress = _silent) -> list[tuple[Step, str]]:
        """Take those of the steps that do not hold, each whatever became of the one before, and undo nothing. Returns
        them, each with what went wrong, in words, or ""."""
        taken: list[tuple[Step, str]] = []
        for step in steps:
            try:
                if not self._places.holds(step):
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

    def _try(self, step: Step) -> list[Refused]:
        """What was refused and left as it was leaves no entry; what was half done leaves one."""
        setting, undo = plain(step), self._places.inverse(step)
        before = plain(undo)
        assert isinstance(setting, SetNic)
        assert isinstance(before, SetNic)
        if not before.value:
            return [Refused(setting, "the port has none")]
        known = key(step) in self._ledger.entries
        try:
            self._take(step)
        except StepError as error:
            if not known and self._places.holds(undo):
                self._ledger.forget([key(step)])
            return [Refused(setting, _said(error))]
        return []

    def _take(self, step: Step) -> tuple[()]:
        try:
            if not self._on_own_link(step):
                self._ledger.record(key(step), self._places.inverse(step))
            self._places.perform(step)
        except Failure as error:
            if not self._places.holds(step):  # or somebody else has done it meanwhile: a manager that lets go of a port
                raise StepError(step, str(error)) from error
        return ()

    def _undo(self, keys: list[str], progress: Callable[[Step], None]) -> list[StepError]:
        """Goes on after a failure."""
        failures, undone, step = [], [], None
        going = {step.room for step in map(self._ledger.entries.__getitem__, keys) if isinstance(step, RemoveRoom)}
        for name in reversed(keys):
            step = self._ledger.entries[name]
            try:
                if not _goes_along(step, going) and not self._places.lost(step) and not self._places.holds(step):
                    progress(step)
                    self._places.perform(step)
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
        """A setting of a link of ours goes with the link, and one of a port with its move; whatever plan comes next
        sets it too."""
        room = step.room if isinstance(step, Inside) else ""
        own, moved = self._ledger.mine(room), self._ledger.moved if room else {}
        match plain(step):
            case SetLink(link, attribute):
                return link in own or (link in moved and attribute not in _LASTING)
            case SetSysctl(name):
                link = name.split(".")[3].replace("/", ".") if ".conf." in name else ""
                return link in own or link in moved
            case _:
                return False


# Of a port, what it takes along from one network namespace into another.
_LASTING = frozenset({"mtu", "address"})


def _goes_along(step: Step, going: Collection[str]) -> bool:
    """Whether this inverse is spared, for its room goes away as a whole; what a port would take along is not."""
    match step:
        case Inside(room, SetNic()):
            return False
        case Inside(room, SetLink(_, attribute)) if attribute in _LASTING:
            return False
        case Inside(room):
            return room in going
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


def has_dot1q() -> bool:
    """Whether the kernel can make VLAN links; loads its module, as a rule that nft tries loads its own."""
    with suppress(OSError):
        modprobe("-q", "8021q")
    return _VLANS.exists()
