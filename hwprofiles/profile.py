"""A hardware profile: the settings that suit one kind of box, read from TOML.

Pure. It chooses and applies nothing. A profile is our own file: an unknown key is an error, never a guess; a table that
every box needs must be whole, and what a table of tuning leaves out stays as the driver has it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum

from hwprofiles.source import ProfileError, Source

__all__ = ["Bypass", "Limits", "Match", "Order", "Ports", "Profile", "ProfileError", "Spread", "Sysctls", "read"]


LABEL_BYTES = 15  # a label stands where the name of a link may stand, and keeps to its rules


class Order(Enum):
    """What the ports of the case are counted by."""

    BUS = "bus"
    MAC = "mac"
    PATH = "path"  # each by the bus path that the profile gives


class Spread(Enum):
    """Which CPUs serve a queue or an interrupt."""

    KEEP = "keep"  # as the kernel, the driver or irqbalance has it
    ALL = "all"  # every CPU serves every queue
    EACH = "each"  # one CPU each, in turn


@dataclass(frozen=True, slots=True)
class Sysctls:
    """Floors under the kernel's own settings, in its names: raised to this where they are lower."""

    somaxconn: int  # net.core, entries: backlog of the listener; SYN cookies begin where it ends
    tcp_max_syn_backlog: int  # net.ipv4, entries: half-open connections of one listener
    netdev_max_backlog: int  # net.core, packets per CPU that wait between the two ends of a veth
    netdev_budget: int  # net.core, packets that one round of polling takes
    netdev_budget_usecs: int  # net.core, µs that it takes at most
    rmem_max: int  # net.core, bytes: what a program may ask for; TCP sizes its own
    wmem_max: int  # net.core, bytes

    def by_name(self) -> Mapping[str, int]:
        """The same by the names that sysctl(8) uses."""
        return {f"{_TREE.get(f.name, 'net.core')}.{f.name}": getattr(self, f.name) for f in fields(self)}


_TREE = {"tcp_max_syn_backlog": "net.ipv4"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the configuration's [limits] are when it is silent."""

    new_connections_per_s: int
    new_connections_per_s_per_network: int
    sessions: int
    session_idle_s: int
    drain_s: int


@dataclass(frozen=True, slots=True)
class Match:
    """What a box must have for the profile to be for it: each key that is given must fit, by any of its patterns
    (``*`` and ``?`` as in a shell, capitals or not). ``drivers`` must be those of every port, ``pci`` and
    ``subsystem`` (vendor:device) fit one port at least."""

    vendor: frozenset[str] = frozenset()
    product: frozenset[str] = frozenset()
    board: frozenset[str] = frozenset()
    pci: frozenset[str] = frozenset()
    subsystem: frozenset[str] = frozenset()
    drivers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ports:
    """What is printed on the case. ``labels`` in ``order``; ``paths`` are theirs on the bus where that is the order.
    ``pairs`` are what a bridge joins, unless the configuration says otherwise."""

    order: Order = Order.BUS
    labels: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    management: str = ""
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Bypass:
    """Relays that join the two ports of a pair when nobody keeps them apart."""

    kind: str = "none"  # none, silicom, lanner, gpio
    driven_by: str = ""  # the program or the driver in words; gpio: the file of the line
    pairs: tuple[tuple[str, str], ...] = ()
    watchdog_ms: int = 0


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
    ports: Ports = Ports()
    bypass: Bypass = Bypass()
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


def read(name: str, text: str) -> Profile:
    """The profile in ``text`` (TOML), which is called ``name``; `ProfileError` for anything but a whole profile."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {name}: {error}") from None
    source = Source(name, raw)
    source.check()
    return Profile(
        name=name,
        description=source.text("description"),
        sources=source.texts("", "sources"),
        match=Match(**{key: frozenset(source.texts("match", key)) for key in source.table("match")}),
        sysctls=Sysctls(**source.numbers("sysctl")),
        limits=Limits(**source.numbers("limits")),
        ports=_ports(source),
        bypass=_bypass(source),
        rings=source.numbers("rings"),
        channels=source.numbers("channels"),
        coalesce=source.numbers("coalesce"),
        features=source.switches("features"),
        rps=_spread(source, "rps"),
        xps=_spread(source, "xps"),
        irq=_spread(source, "irq"),
        mtu_max_bytes=source.numbers("mtu")["max_bytes"],
        queue_length=source.numbers("diverter")["queue_length"],
        queues=source.numbers("diverter")["queues"],
        workers=source.numbers("interceptor")["workers"],
        per_session_kib=source.numbers("memory")["per_session_kib"],
        sessions_percent=source.numbers("memory")["sessions_percent"],
    )


def _spread(source: Source, key: str) -> Spread:
    among = [spread.value for spread in Spread]
    return Spread(source.choice("affinity", key, among)) if key in source.table("affinity") else Spread.KEEP


def _ports(source: Source) -> Ports:
    table = source.table("ports")
    ports = Ports(
        order=Order(source.choice("ports", "order", [o.value for o in Order])) if table else Order.BUS,
        labels=source.texts("ports", "labels"),
        paths=source.texts("ports", "paths"),
        management=source.text("ports.management") if "management" in table else "",
        pairs=source.pairs("ports"),
    )
    if len(set(ports.labels)) < len(ports.labels):
        raise source.error("ports.labels", "names a port twice")
    for label in ports.labels:
        if re.search(r"[/:\s]", label) or len(label.encode()) > LABEL_BYTES:
            raise source.error("ports.labels", f"{label!r} is not 1-{LABEL_BYTES} octets without '/', ':' and spaces")
    if len(ports.paths) != (len(ports.labels) if ports.order is Order.PATH else 0):
        raise source.error("ports.paths", 'needs one for each label where order = "path", and only there')
    source.known_labels("ports.pairs", ports.labels, [label for pair in ports.pairs for label in pair])
    source.known_labels("ports.management", ports.labels, [ports.management] if ports.management else [])
    return ports


def _bypass(source: Source) -> Bypass:
    table = source.table("bypass")
    if not table:
        return Bypass()
    bypass = Bypass(
        kind=source.choice("bypass", "kind", ["silicom", "lanner", "gpio"]),
        driven_by=source.text("bypass.driven_by"),
        pairs=source.pairs("bypass"),
        watchdog_ms=source.number("bypass.watchdog_ms", table["watchdog_ms"]),
    )
    labels = source.texts("ports", "labels")
    source.known_labels("bypass.pairs", labels, [label for pair in bypass.pairs for label in pair])
    if bypass.kind == "gpio" and (not bypass.driven_by.startswith("/") or len(bypass.pairs) != 1):
        raise source.error("bypass.driven_by", "is the absolute path of the one pair's line")
    return bypass
