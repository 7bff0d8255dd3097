"""A hardware profile: the settings that suit one kind of box, read from TOML.

Pure. It chooses and applies nothing. A profile is our own file: an unknown key is an error, never a guess; a table that
every box needs must be whole, and what a table of tuning leaves out stays as the driver has it.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from hwprofiles.schema import NO_BYPASS, NO_PORTS, Bypass, Limits, Match, Order, Ports, ProfileFile, Spread, Sysctls
from hwprofiles.validation import told

__all__ = ["Bypass", "Limits", "Match", "Order", "Ports", "Profile", "ProfileError", "Spread", "Sysctls", "read"]


class ProfileError(ValueError):
    """A profile that cannot be used; the text names the profile, the key and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of box. ``queue_length`` is the number of SYNs that may wait for the diverter; ``rings`` in descriptors,
    ``channels`` in queues, ``coalesce`` in µs and frames, by ethtool's names; ``features`` by the kernel's."""

    name: str
    description: str
    sources: tuple[str, ...]
    match: Match
    sysctls: Sysctls
    queue_length: int
    limits: Limits
    ports: Ports = NO_PORTS
    bypass: Bypass = NO_BYPASS
    rings: Mapping[str, int] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)
    coalesce: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, bool] = field(default_factory=dict)
    rps: Spread = Spread.KEEP
    xps: Spread = Spread.KEEP
    irq: Spread = Spread.KEEP
    mtu_max_bytes: int = 1500
    queues: int = 1
    workers: int = 1
    per_session_kib: int = 40
    sessions_percent: int = 25

    @property
    def drivers(self) -> frozenset[str]:
        return self.match.drivers

    def fitted(self, memory_mib: int | None, cores: int) -> Profile:
        """The same with no more sessions than the memory of the box has room for, and no more workers and queues than
        it has CPUs: one of them is left to its ports and to the rest."""
        busy = max(1, cores - 1)
        fit = replace(self, workers=min(self.workers, busy), queues=min(self.queues, busy))
        if memory_mib is None:
            return fit
        room = memory_mib * 1024 * self.sessions_percent // 100 // self.per_session_kib
        return replace(fit, limits=replace(self.limits, sessions=max(1, min(self.limits.sessions, room))))


_FILE = TypeAdapter(ProfileFile)


def read(name: str, text: str) -> Profile:
    """The profile in ``text`` (TOML), which is called ``name``; `ProfileError` for anything but a whole profile."""
    try:
        file = _FILE.validate_python(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {name}: {error}") from None
    except ValidationError as error:
        raise ProfileError(f"profile {name}: {'; '.join(map(_told, error.errors()))}") from None
    for key, reason in _at_odds(file):
        raise ProfileError(f"profile {name}: {key}: {reason}")
    return _profile(name, file)


def _told(details: ErrorDetails) -> str:
    """The key, what is wrong with it, and the remedy."""
    path = [str(part) for part in details["loc"] if not isinstance(part, int) and part != "[key]"]
    reason, remedy = told(details)
    if not remedy:
        known = _known(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"known here are {', '.join(sorted(known))}"
    return f"{'.'.join(path)}: {reason}; {remedy}"


def _known(path: Sequence[str]) -> tuple[str, ...]:
    """The keys of the file, or of a table of it."""
    of_file = get_type_hints(ProfileFile)
    return tuple(get_type_hints(of_file[path[0]] if path else ProfileFile).keys() - {"__pydantic_config__"})


def _at_odds(file: ProfileFile) -> Iterator[tuple[str, str]]:
    """What is sound by itself, and not together with the rest."""
    ports, bypass = file.ports, file.bypass
    if len(set(ports.labels)) < len(ports.labels):
        yield "ports.labels", "names a port twice"
    if len(ports.paths) != (len(ports.labels) if ports.order is Order.PATH else 0):
        yield "ports.paths", 'needs one for each label where order = "path", and only there'
    managed = [(ports.management,)] if ports.management else []
    for key, groups in (("ports.pairs", ports.pairs), ("ports.management", managed), ("bypass.pairs", bypass.pairs)):
        for label in (label for group in groups for label in group if label not in ports.labels):
            yield key, f"{label!r} is not one of ports.labels"
    if bypass.kind == "gpio" and (not bypass.driven_by.startswith("/") or len(bypass.pairs) != 1):
        yield "bypass.driven_by", "is the absolute path of the one pair's line"


def _profile(name: str, file: ProfileFile) -> Profile:
    numbers: dict[str, Any] = {}
    for table in (file.diverter, file.interceptor, file.memory, file.affinity):
        numbers |= {f.name: getattr(table, f.name) for f in fields(table)}
    return Profile(
        name=name,
        description=file.description,
        sources=file.sources,
        match=file.match,
        sysctls=file.sysctl,
        limits=file.limits,
        ports=file.ports,
        bypass=file.bypass,
        rings=cast(Mapping[str, int], file.rings),
        channels=cast(Mapping[str, int], file.channels),
        coalesce=cast(Mapping[str, int], file.coalesce),
        features=file.features,
        mtu_max_bytes=file.mtu.max_bytes,
        **numbers,
    )
