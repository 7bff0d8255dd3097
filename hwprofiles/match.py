"""Which profile fits the box, and why.

Pure: the facts have been read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hwprofiles.profile import Profile, ProfileError

FALLBACK = "generic"


@dataclass(frozen=True, slots=True)
class Facts:
    """The driver of each port, by the port's name; None if the kernel names none."""

    drivers: Mapping[str, str | None]


def match(facts: Facts, profiles: Iterable[Profile]) -> tuple[Profile, str]:
    """The profile whose drivers cover every port, the narrowest if several do; else the generic one.

    The text says why. `ProfileError` if there is no generic profile to fall back on.
    """
    known = {profile.name: profile for profile in profiles}
    present = set(facts.drivers.values())
    fitting = [profile for profile in known.values() if present and present <= profile.drivers]
    if fitting:
        best = min(fitting, key=lambda profile: (len(profile.drivers), profile.name))
        return best, f"{_listed(facts)}: profile {best.name} is for these"
    if FALLBACK not in known:
        raise ProfileError(f"profile {FALLBACK}: is missing")
    return known[FALLBACK], f"{_listed(facts)}: no profile is for all of these"


def named(name: str, profiles: Iterable[Profile]) -> Profile:
    """The profile of that name; `ProfileError` names those that exist."""
    known = {profile.name: profile for profile in profiles}
    if name not in known:
        raise ProfileError(f"profile {name}: is unknown; known are {', '.join(sorted(known))}")
    return known[name]


def _listed(facts: Facts) -> str:
    ports = ", ".join(f"{port} is {driver or 'of no known driver'}" for port, driver in sorted(facts.drivers.items()))
    return ports or "no ports"
