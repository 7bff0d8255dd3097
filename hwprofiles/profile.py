"""A hardware profile: the settings that suit one kind of box, read from TOML.

Pure. It chooses and applies nothing. A profile is our own file: an unknown or a missing key is an error, never a guess.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class ProfileError(ValueError):
    """A profile that cannot be used; the text names the profile, the key and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Sysctls:
    """Floors under the kernel's own settings, in its names: numbers of entries, raised to this where they are lower."""

    somaxconn: int  # net.core: backlog of the listener; SYN cookies begin where it ends
    tcp_max_syn_backlog: int  # net.ipv4: half-open connections of one listener
    netdev_max_backlog: int  # net.core: packets per CPU that wait between the two ends of a veth

    def by_name(self) -> Mapping[str, int]:
        """The same by the names that sysctl(8) uses."""
        return {
            "net.core.somaxconn": self.somaxconn,
            "net.ipv4.tcp_max_syn_backlog": self.tcp_max_syn_backlog,
            "net.core.netdev_max_backlog": self.netdev_max_backlog,
        }


@dataclass(frozen=True, slots=True)
class Limits:
    """What the configuration's [limits] are when it is silent."""

    new_connections_per_s: int
    new_connections_per_s_per_network: int
    next_hops: int
    sessions: int
    session_idle_s: int
    drain_s: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of box. ``drivers`` are the drivers of the ports that it fits; none: it fits any.
    ``queue_length`` is the number of SYNs that may wait for the diverter."""

    name: str
    description: str
    drivers: frozenset[str]
    sysctls: Sysctls
    queue_length: int
    limits: Limits


# The lowest and the highest that make sense; the kernel would take more.
_BOUNDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "somaxconn": (128, 65_535),  # older kernels keep a listener's backlog in 16 bits
        "tcp_max_syn_backlog": (128, 1_048_576),
        "netdev_max_backlog": (300, 1_000_000),
        "queue_length": (64, 65_535),
        "new_connections_per_s": (1, 1_000_000),
        "new_connections_per_s_per_network": (1, 1_000_000),
        "next_hops": (64, 4_194_304),
        "sessions": (1, 1_000_000),
        "session_idle_s": (300, 3_600),
        "drain_s": (0, 3_600),
    }
)
_TABLES = {
    "match": {"drivers"},
    "sysctl": set(Sysctls.__slots__),
    "diverter": {"queue_length"},
    "limits": set(Limits.__slots__),
}


def read(name: str, text: str) -> Profile:
    """The profile in ``text`` (TOML), which is called ``name``; `ProfileError` for anything but a whole profile."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {name}: {error}") from None
    source = _Source(name, raw)
    source.require("", raw, {"description", *_TABLES})
    for table, keys in _TABLES.items():
        source.require(table, raw[table], keys)
    return Profile(
        name=name,
        description=source.text("description"),
        drivers=source.drivers(),
        sysctls=Sysctls(**source.numbers("sysctl")),
        queue_length=source.numbers("diverter")["queue_length"],
        limits=Limits(**source.numbers("limits")),
    )


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    raw: Mapping[str, object]

    def error(self, key: str, reason: str) -> ProfileError:
        return ProfileError(f"profile {self.name}: {key}: {reason}")

    def require(self, table: str, value: object, keys: set[str]) -> None:
        if not isinstance(value, dict):
            raise self.error(table, "is not a table")
        prefix = f"{table}." if table else ""
        for key in sorted(value.keys() - keys):
            raise self.error(prefix + key, f"is unknown; known are {', '.join(sorted(keys))}")
        for key in sorted(keys - value.keys()):
            raise self.error(prefix + key, "is missing")

    def text(self, key: str) -> str:
        value = self.raw[key]
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, "is not a text")
        return value

    def drivers(self) -> frozenset[str]:
        drivers = self.table("match")["drivers"]
        if not isinstance(drivers, list) or not all(isinstance(driver, str) and driver for driver in drivers):
            raise self.error("match.drivers", "is not a list of driver names")
        return frozenset(drivers)

    def numbers(self, table: str) -> dict[str, int]:
        return {key: self.number(f"{table}.{key}", value) for key, value in self.table(table).items()}

    def number(self, key: str, value: object) -> int:
        low, high = _BOUNDS[key.rpartition(".")[2]]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(key, f"{value!r} is not a whole number from {low} to {high}")
        return value

    def table(self, key: str) -> dict[str, object]:
        value = self.raw[key]
        assert isinstance(value, dict)  # `require` has seen it
        return value
