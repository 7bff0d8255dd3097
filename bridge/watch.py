"""What of a plan no longer holds, what of that is put right now, and when to look again.

Pure: time is an argument. Takes no step and asks the host nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from bridge.moves import MoveLink
from bridge.present import LinkFacts
from bridge.steps import (
    AddAddress,
    AddNeighbour,
    AddRoute,
    CreateLink,
    Inside,
    LoadRuleset,
    SetLink,
    SetNic,
    SetSysctl,
    Step,
    Unmanage,
    key,
    plain,
)

# What raises no event, sysctls, is looked at so often; all of it, in case an event was lost, so often.
QUICK_S, WHOLE_S = 1.0, 5.0
# Those who change much at once, a firewall that is started, are waited for …
SETTLE_S = 0.05
# … and who never stops is followed with a twentieth of a processor, but within the two seconds that are promised.
SHARE, REST_S = 20, (0.2, 1.2)
# A thing put right so often, with never so long a time between, is somebody else's too.
OFTEN, QUIET_S = 5, 120.0
# It is put right no more often than this: with "pass" mail is bridged meanwhile, with "block" it must not cross.
TRUCE_S, TRUCE_BLOCKING_S = 30.0, 2.0
REMEMBERED = 256  # contended things; a plan of 64 VLANs has thousands of steps


@dataclass(frozen=True, slots=True)
class Expected:
    """What `up` made: its steps, less what the hardware refused, and the bridge's ``ports``."""

    steps: tuple[Step, ...]
    ports: tuple[str, ...]
    block: bool = False

    def now(self, mtus: Iterable[int]) -> tuple[Step, ...]:
        """The steps as they are wanted while the ports have these MTUs: lane and legs have the least of them."""
        mtu = min(mtus, default=0)
        watched = (step for step in self.steps if not isinstance(plain(step), Unmanage))
        return tuple(_of_mtu(step, mtu) if mtu else step for step in watched)

    @property
    def quick(self) -> tuple[Step, ...]:
        """What has to be asked for, because nobody tells of it."""
        return tuple(step for step in self.steps if isinstance(plain(step), SetSysctl))


def _of_mtu(step: Step, mtu: int) -> Step:
    match step:
        case Inside(_, inner):
            return replace(step, step=_of_mtu(inner, mtu))
        case SetLink(_, "mtu"):
            return replace(step, value=mtu)
        case _:
            return step


def subject(step: Step) -> str:
    """The link that a step is about, where it is one link's own setting; else ""."""
    match plain(step):
        case SetLink(link) | SetNic(link) | AddAddress(link) | AddNeighbour(link):
            return link
        case AddRoute(route):
            return route.link
        case MoveLink(link):
            return link
        case SetSysctl(name) if ".conf." in name:
            return name.split(".")[3].replace("/", ".")
        case _:
            return ""


def filtering(expected: Expected, present: Mapping[str, LinkFacts]) -> tuple[str, ...]:
    """Bridges of somebody else's (`adopt`) that know by now which port is in which VLAN, which `plan` refuses: mail
    between ports of different VLANs would meet in the lane."""
    own = {step.link for step in map(plain, expected.steps) if isinstance(step, CreateLink)}
    bridges = {present[port].master for port in expected.ports if port in present}
    return tuple(sorted(name for name in bridges - own if name in present and present[name].filters_vlans))


@dataclass(frozen=True, slots=True)
class Differences:
    """``gone``: ports that are not there; ``down``: ports that somebody has taken down; ``lacking``: steps to take;
    ``able``: all that could be taken."""

    gone: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    lacking: tuple[Step, ...] = ()
    able: tuple[Step, ...] = ()

    def words(self) -> list[str]:
        return [
            *(f"{port} is not there" for port in self.gone),
            *(f"{port} is down" for port in self.down),
            *map(str, self.lacking),
        ]


def differences(
    expected: Expected,
    steps: Iterable[Step],
    lacking: Collection[Step],
    present: Collection[str],
    held: Collection[str] = (),
) -> Differences:
    """Of the ``steps`` those that do not hold are ``lacking``, while these links are ``present``. Ports ``held`` down
    are so by the gateway itself. Whoever takes a port down means it: only one that has come back is brought up."""
    gone = tuple(port for port in expected.ports if port not in present)
    links = [step for step in map(plain, lacking) if isinstance(step, SetLink)]
    back = {step.link for step in links if step.attribute == "master"}
    ups = [step.link for step in links if step.attribute == "up" and step.link in expected.ports]
    down = tuple(link for link in ups if link not in gone and link not in back)
    able = tuple(
        step
        for step in steps
        if subject(step) not in gone
        if not (_brings_up(step) and subject(step) in (*down, *held))
        if not (isinstance(plain(step), LoadRuleset) and gone)  # its text names the port
    )
    due = tuple(step for step in able if step in lacking)
    return Differences(gone, tuple(port for port in down if port not in held), due, able)


def _brings_up(step: Step) -> bool:
    inner = plain(step)
    return isinstance(inner, SetLink) and inner.attribute == "up"


@dataclass(slots=True)
class Truce:
    """How often one thing may be put right. Somebody who always puts it back is recognised, told of, and not followed
    for ever."""

    pause_s: float = TRUCE_S
    _last: dict[str, tuple[int, float]] = field(default_factory=dict)

    def allows(self, step: Step, now: float) -> bool:
        times, at = self._last.get(key(step), (0, now))
        return times < OFTEN or now - at >= self.pause_s or now - at > QUIET_S

    def took(self, step: Step, now: float) -> None:
        name = key(step)
        times, at = self._last.pop(name, (0, now))
        self._last[name] = (1 if now - at > QUIET_S else times + 1, now)
        while len(self._last) > REMEMBERED:
            del self._last[next(iter(self._last))]

    def contended(self, step: Step, now: float) -> bool:
        times, at = self._last.get(key(step), (0, now))
        return times >= OFTEN and now - at <= QUIET_S


@dataclass(slots=True)
class Pace:
    """When to compare. An event has it done at once, but a flood of them costs no more than `SHARE`."""

    _heard_at: float | None = None
    _whole_at: float = float("-inf")
    _quick_at: float = float("-inf")
    _rest_s: float = REST_S[0]

    def hear(self, now: float) -> None:
        if self._heard_at is None:
            self._heard_at = now

    @property
    def listens(self) -> bool:
        """Whether one more event would change anything."""
        return self._heard_at is None

    def whole_in(self, now: float) -> float:
        """Seconds until the whole is due; 0 or less if it is."""
        if self._heard_at is None:
            return self._whole_at + WHOLE_S - now
        return max(self._heard_at + SETTLE_S, self._whole_at + self._rest_s) - now

    def quick_in(self, now: float) -> float:
        return self._quick_at + QUICK_S - now

    def compared(self, now: float, took_s: float, *, whole: bool) -> None:
        self._quick_at = now
        if whole:
            self._whole_at, self._heard_at = now, None
            self._rest_s = min(max(SHARE * took_s, REST_S[0]), REST_S[1])
