"""What is printed on the case beside each port: labels ↔ links, the pairs that a bridge joins, the port for management.

Pure. A label is never guessed: where two ports have equal claim to it, it is ambiguous and names both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from hwprofiles.box import Box, Nic
from hwprofiles.match import match, scores
from hwprofiles.profile import Order, Profile


class LabelError(ValueError):
    """A label that names no port, or more than one; the text says which it may be."""


@dataclass(frozen=True, slots=True)
class Case:
    """The case of one box as one profile has it. ``links`` is label → link; ``ambiguous`` label → the links that it
    may be; ``pairs`` and ``management`` are links, as far as they are here."""

    profile: str = "generic"
    links: Mapping[str, str] = field(default_factory=dict)
    ambiguous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pairs: tuple[tuple[str, str], ...] = ()
    management: str = ""

    def label(self, link: str) -> str:
        """What is printed beside the link's port, or ""."""
        return next((label for label, known in self.links.items() if known == link), "")

    def titled(self, link: str) -> str:
        """The link, and its label if it has one: ``enp2s0 (LAN2)``."""
        return f"{link} ({label})" if (label := self.label(link)) else link

    def link(self, label: str) -> str:
        """Raises `LabelError`."""
        if label in self.ambiguous:
            raise LabelError(f"{label!r} may be {' or '.join(self.ambiguous[label])}: they cannot be told apart")
        if label not in self.links:
            raise LabelError(f"{label!r} is no label of profile {self.profile}, which has {self.listed()}")
        return self.links[label]

    def listed(self) -> str:
        return ", ".join(f"{label} ({link})" for label, link in self.links.items()) or "none here"


def case(profile: Profile, box: Box) -> Case:
    """Physical ports alone are counted, and where the profile names drivers or makers of cards, only theirs: a wireless
    card in an APU shifts no label, nor does the port of a board that a bypass card is plugged into."""
    links: dict[str, str] = {}
    ambiguous: dict[str, tuple[str, ...]] = {}
    # Fewer ports than labels is a smaller model; more: a card that was added has none.
    for label, candidates in zip(profile.ports.labels, _slots(profile, box), strict=False):
        match candidates:
            case []:
                pass
            case [nic]:
                links[label] = nic.name
            case several:
                ambiguous[label] = tuple(nic.name for nic in several)
    pairs = ((links.get(one, ""), links.get(other, "")) for one, other in profile.ports.pairs)
    whole = tuple((one, other) for one, other in pairs if one and other)
    return Case(profile.name, links, ambiguous, whole, links.get(profile.ports.management, ""))


def cases(box: Box, profiles: Iterable[Profile]) -> tuple[Case, ...]:
    """Of every profile that has labels, the best for the box first."""
    return tuple(case(score.profile, box) for score in scores(box, profiles) if score.profile.ports.labels)


def case_of(box: Box, profiles: Sequence[Profile]) -> Case:
    """The case of a box whose bridge is yet to be chosen: of the profile that is right for the ports that it would
    itself bridge; without labels if there is none."""
    for found in cases(box, profiles):
        if found.pairs and _chosen(box, profiles, found.pairs[0]) == found.profile:
            return found
    chosen, _ = match(box, profiles)
    return case(chosen, box)


def resolved(
    names: Sequence[str], present: Collection[str], box: Box, profiles: Sequence[Profile], named: Profile | None = None
) -> tuple[str, ...]:
    """Ports as somebody named them → names and MACs of links. What is ``present`` (the names and MACs of all links) is
    meant as that; all else must be a label: of the profile ``named``, or of the one that is right for the ports which
    its labels give. Raises `LabelError`."""
    labels = [name for name in names if name not in present]
    if not labels:
        return tuple(names)
    if named is not None:
        return _links(names, labels, case(named, box))
    found: dict[str, tuple[str, ...]] = {}
    for each in cases(box, profiles):
        with suppress(LabelError):
            links = _links(names, labels, each)
            if _chosen(box, profiles, links) == each.profile:
                found[each.profile] = links
    match [*found.values()]:
        case [links]:
            return links
        case []:
            _links(names, labels, case_of(box, profiles))  # says which of them is none
            raise LabelError(f"{', '.join(labels)}: the labels of no profile that is for these ports")
        case _:
            raise LabelError(f"{', '.join(labels)}: labels of the profiles {' and '.join(found)}")


def default_pair(box: Box, profiles: Sequence[Profile], named: Profile | None = None) -> tuple[str, str]:
    """The links of the first pair that the profile has for a bridge. Raises `LabelError`."""
    here = case_of(box, profiles) if named is None else case(named, box)
    if not here.pairs:
        raise LabelError(f"profile {here.profile} has no pair of ports for a bridge on this box")
    return here.pairs[0]


def _links(names: Sequence[str], labels: Collection[str], here: Case) -> tuple[str, ...]:
    return tuple(here.link(name) if name in labels else name for name in names)


def _chosen(box: Box, profiles: Sequence[Profile], links: Sequence[str]) -> str:
    return match(box.only(links), profiles)[0].name


_KEY: Mapping[Order, Callable[[Nic], str]] = {
    Order.BUS: lambda nic: nic.bus,
    Order.PATH: lambda nic: nic.bus,
    Order.MAC: lambda nic: nic.mac,
}


def _slots(profile: Profile, box: Box) -> list[list[Nic]]:
    """The ports that each label may mean, in the order of the labels; those with the same key cannot be told apart."""
    nics, key = [nic for nic in box.physical if _counts(profile, nic)], _KEY[profile.ports.order]
    wanted = profile.ports.paths if profile.ports.order is Order.PATH else sorted(map(key, nics))
    return [[nic for nic in nics if key(nic) == each] for each in wanted]


def _counts(profile: Profile, nic: Nic) -> bool:
    """Each of the two where the profile asks for it."""
    asked = ((profile.match.drivers, nic.driver or ""), (profile.match.subsystem, nic.subsystem))
    return all(not patterns or _fits(value, patterns) for patterns, value in asked)


def _fits(value: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(value.lower(), pattern.lower()) for pattern in patterns)
