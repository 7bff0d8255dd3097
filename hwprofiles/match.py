"""Which profile fits the box, and why.

Pure: the facts have been read elsewhere. Each criterion answers yes, no, or is not asked; a profile fits if none
answers no, and of those that fit the one with the most points is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hwprofiles.box import Box
from hwprofiles.profile import Profile, ProfileError

FALLBACK = "generic"


@dataclass(frozen=True, slots=True)
class Criterion:
    """``found`` are the box's values; ``every``: all of them must fit, not one."""

    key: str
    points: int
    found: Callable[[Box], tuple[str, ...]]
    every: bool = False


# A model says more than its maker, a card that does something special more than the chip on it.
CRITERIA = (
    Criterion("product", 64, lambda box: (box.firmware.product,)),
    Criterion("board", 32, lambda box: (box.firmware.board,)),
    Criterion("subsystem", 32, lambda box: tuple(nic.subsystem for nic in box.nics)),
    Criterion("pci", 16, lambda box: tuple(nic.pci for nic in box.nics)),
    Criterion("vendor", 8, lambda box: (box.firmware.vendor,)),
    Criterion("drivers", 4, lambda box: tuple(nic.driver or "" for nic in box.nics), every=True),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """To one criterion: None if the profile does not ask it."""

    criterion: str
    fits: bool | None
    points: int
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """One profile against one box. Of equals, the one for fewer drivers, then the first by name."""

    profile: Profile
    answers: tuple[Answer, ...]

    @property
    def fits(self) -> bool:
        return all(answer.fits is not False for answer in self.answers)

    @property
    def points(self) -> int:
        return sum(answer.points for answer in self.answers if answer.fits)

    @property
    def _rank(self) -> tuple[int, int, str]:
        return (-self.points, len(self.profile.drivers), self.profile.name)

    def why(self) -> str:
        """One line."""
        asked = [answer for answer in self.answers if answer.fits is not None]
        words = [f"{a.criterion} {'is' if a.fits else 'is not:'} {_listed(a.found)}" for a in asked]
        return f"{self.points} points: {'; '.join(words) if words else 'asks for nothing'}"


def scores(box: Box, profiles: Iterable[Profile]) -> tuple[Score, ...]:
    """Every profile, those that fit first, the best of them at the top."""
    every = [Score(profile, tuple(_answer(c, box, profile) for c in CRITERIA)) for profile in profiles]
    return tuple(sorted(every, key=lambda score: (not score.fits, *score._rank)))


def match(box: Box, profiles: Iterable[Profile]) -> tuple[Profile, str]:
    """The profile that fits best, and why. `ProfileError` if there is no generic profile to fall back on."""
    ranked = scores(box, profiles)
    if all(score.profile.name != FALLBACK for score in ranked):
        raise ProfileError(f"profile {FALLBACK}: is missing")
    best = ranked[0]
    if best.profile.name != FALLBACK:
        return best.profile, f"{_ports(box)}: profile {best.profile.name} has {best.why()}"
    return best.profile, f"{_ports(box)}: no other profile is for this box"


def named(name: str, profiles: Iterable[Profile]) -> Profile:
    """The profile of that name; `ProfileError` names those that exist."""
    known = {profile.name: profile for profile in profiles}
    if name not in known:
        raise ProfileError(f"profile {name}: is unknown; known are {', '.join(sorted(known))}")
    return known[name]


def _answer(criterion: Criterion, box: Box, profile: Profile) -> Answer:
    patterns: frozenset[str] = getattr(profile.match, criterion.key)
    found = criterion.found(box)
    if not patterns:
        return Answer(criterion.key, None, 0, found)
    fitting = [any(fnmatchcase(value.lower(), pattern.lower()) for pattern in patterns) for value in found]
    fits = bool(fitting) and (all(fitting) if criterion.every else any(fitting))
    return Answer(criterion.key, fits, criterion.points, found)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(value or "unknown" for value in values)) or "nothing"


def _ports(box: Box) -> str:
    ports = ", ".join(f"{nic.name} is {nic.driver or 'of no known driver'}" for nic in box.nics)
    return ports or "no ports"
