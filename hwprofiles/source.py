"""The schema of a profile's file: its tables and keys, their units and bounds; and typed reading of them.

Pure. Every key of every table is here, once; what is not here is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from hwprofiles.shown import shown


class ProfileError(ValueError):
    """A profile that cannot be used; the text names the profile, the key and what is wrong with it."""


# The lowest and the highest that make sense, in the unit of the key; the kernel would take more.
BOUNDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "sysctl.somaxconn": (128, 65_535),  # older kernels keep a listener's backlog in 16 bits
        "sysctl.tcp_max_syn_backlog": (128, 1_048_576),
        "sysctl.netdev_max_backlog": (300, 1_000_000),
        "sysctl.netdev_budget": (64, 10_000),
        "sysctl.netdev_budget_usecs": (1_000, 100_000),
        "sysctl.rmem_max": (65_536, 268_435_456),
        "sysctl.wmem_max": (65_536, 268_435_456),
        "diverter.queue_length": (64, 65_535),
        "diverter.queues": (1, 64),
        "interceptor.workers": (1, 64),
        "memory.per_session_kib": (8, 4_096),
        "memory.sessions_percent": (1, 80),
        "limits.new_connections_per_s": (1, 1_000_000),
        "limits.new_connections_per_s_per_network": (1, 1_000_000),
        "limits.sessions": (1, 1_000_000),
        "limits.session_idle_s": (300, 3_600),
        "limits.drain_s": (0, 3_600),
        "mtu.max_bytes": (1_280, 65_535),  # least: RFC 8200 section 5
        "rings.rx": (32, 32_768),
        "rings.tx": (32, 32_768),
        "channels.combined": (1, 256),
        "channels.rx": (1, 256),
        "channels.tx": (1, 256),
        "coalesce.rx-usecs": (0, 10_000),
        "coalesce.tx-usecs": (0, 10_000),
        "coalesce.rx-frames": (0, 4_096),
        "coalesce.tx-frames": (0, 4_096),
        "coalesce.adaptive-rx": (0, 1),
        "coalesce.adaptive-tx": (0, 1),
        "bypass.watchdog_ms": (2_000, 255_000),
    }
)
# The kernel's names (net/ethtool/common.c, netdev_features_strings) of what may be set on a bridged port.
FEATURES = (
    *("rx-gro", "rx-gro-hw", "rx-checksum", "rx-hashing", "rx-vlan-hw-parse", "tx-vlan-hw-insert"),
    *("tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-generic-segmentation", "tx-udp-segmentation"),
    *("tx-scatter-gather", "rx-ntuple-filter", "rx-vlan-filter"),
)
WHOLE = ("sysctl", "diverter", "interceptor", "memory", "limits", "mtu")
TABLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        **{
            table: frozenset(key.partition(".")[2] for key in BOUNDS if key.startswith(f"{table}."))
            for table in (*WHOLE, "rings", "channels", "coalesce")
        },
        "match": frozenset({"vendor", "product", "board", "pci", "subsystem", "drivers"}),
        "ports": frozenset({"order", "labels", "paths", "management", "pairs"}),
        "bypass": frozenset({"kind", "driven_by", "pairs", "watchdog_ms"}),
        "features": frozenset(FEATURES),
        "affinity": frozenset({"rps", "xps", "irq"}),
    }
)
_NEEDED = {**{table: TABLES[table] for table in (*WHOLE, "bypass")}, "ports": frozenset({"order", "labels"})}


@dataclass(frozen=True, slots=True)
class Source:
    """One file, parsed but not yet believed."""

    name: str
    raw: Mapping[str, object]

    def error(self, key: str, reason: str) -> ProfileError:
        return ProfileError(f"profile {self.name}: {key}: {reason}")

    def check(self) -> None:
        """Every table and key is known, and those that every box needs are there."""
        whole = {"description", "sources", "match", *WHOLE}
        self._keys("", self.raw, whole | TABLES.keys(), whole)
        if "rx-lro" in self.table("features"):
            raise self.error(
                "features.rx-lro", "is off on every bridged port: what one joins, the next wire may not take"
            )
        for table, known in TABLES.items():
            if table in self.raw:
                self._keys(table, self.raw[table], known, _NEEDED.get(table, frozenset()))

    def _keys(self, table: str, value: object, known: Iterable[str], needed: Iterable[str]) -> None:
        if not isinstance(value, dict):
            raise self.error(table, "is not a table")
        prefix = f"{table}." if table else ""
        for key in sorted(value.keys() - set(known)):
            raise self.error(prefix + key, f"is unknown; known are {', '.join(sorted(known))}")
        for key in sorted(set(needed) - value.keys()):
            raise self.error(prefix + key, "is missing")

    def table(self, key: str) -> dict[str, object]:
        """Empty if the file has no such table."""
        value = self.raw.get(key, {})
        assert isinstance(value, dict)  # `check` has seen it
        return value

    def _at(self, path: str) -> object:
        table, _, key = path.rpartition(".")
        return (self.table(table) if table else self.raw).get(key)

    def text(self, path: str) -> str:
        value = self._at(path)
        if not isinstance(value, str) or not value.strip():
            raise self.error(path, "is not a text")
        return value

    def texts(self, table: str, key: str) -> tuple[str, ...]:
        path = f"{table}.{key}" if table else key
        value = self._at(path)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.error(path, "is not a list of texts")
        return tuple(value)

    def choice(self, table: str, key: str, among: Sequence[str]) -> str:
        value = self.table(table).get(key)
        if not isinstance(value, str) or value not in among:
            raise self.error(f"{table}.{key}", f"{shown(value)} is not one of {', '.join(among)}")
        return str(value)

    def pairs(self, table: str) -> tuple[tuple[str, str], ...]:
        """A list of lists of two labels; none if the key is not there."""
        pairs = []
        listed = self.table(table).get("pairs", [])
        for pair in listed if isinstance(listed, list) else [None]:
            match pair:
                case [str() as one, str() as other] if one != other:
                    pairs.append((one, other))
                case _:
                    raise self.error(f"{table}.pairs", "is not a list of pairs of labels")
        return tuple(pairs)

    def known_labels(self, path: str, labels: Iterable[str], used: Iterable[str]) -> None:
        for label in used:
            if label not in labels:
                raise self.error(path, f"{label!r} is not one of ports.labels")

    def numbers(self, table: str) -> dict[str, int]:
        return {key: self.number(f"{table}.{key}", value) for key, value in self.table(table).items()}

    def number(self, path: str, value: object) -> int:
        low, high = BOUNDS[path]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(path, f"{shown(value)} is not a whole number from {low} to {high}")
        return value

    def switches(self, table: str) -> dict[str, bool]:
        for key, value in self.table(table).items():
            if not isinstance(value, bool):
                raise self.error(f"{table}.{key}", f"{shown(value)} is not true or false")
        return {key: bool(value) for key, value in self.table(table).items()}
