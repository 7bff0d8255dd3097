"""The schema of a hardware profile's TOML file: its tables and keys, with their units and bounds.

Pure. Every key of every table is here, once. `profile.read` holds a file to it; a table that is made by hand is as it
was made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, with_config
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from hwprofiles.validation import mistake

LABEL_BYTES = 15  # a label stands where the name of a link may stand, and keeps to its rules
# The kernel's names (net/ethtool/common.c, netdev_features_strings) of what may be set on a bridged port.
FEATURES = (
    *("rx-gro", "rx-gro-hw", "rx-checksum", "rx-hashing", "rx-vlan-hw-parse", "tx-vlan-hw-insert"),
    *("tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-generic-segmentation", "tx-udp-segmentation"),
    *("tx-scatter-gather", "rx-ntuple-filter", "rx-vlan-filter"),
)
KINDS = ("silicom", "lanner", "gpio")  # of bypass relays: how they are told
_WHOLE = ConfigDict(extra="forbid")


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


def _said(text: str) -> str:
    if not text.strip():
        raise mistake("says nothing", "write what it is")
    return text


def _kind(text: str) -> str:
    if text not in KINDS:
        raise mistake(f"{text!r} is not one of {', '.join(KINDS)}", "choose one of them")
    return text


def _label(text: str) -> str:
    if re.search(r"[/:\s]", text) or not 1 <= len(text.encode()) <= LABEL_BYTES:
        raise mistake(
            f"{text!r} is not 1-{LABEL_BYTES} octets without '/', ':' and spaces", "shorten what the case says"
        )
    return text


def _feature(text: str) -> str:
    if text == "rx-lro":
        raise mistake("is off on every bridged port: what one joins, the next wire may not take", "leave it out")
    if text not in FEATURES:
        raise mistake("is not a known key", f"known here are {', '.join(FEATURES)}")
    return text


def _apart(pair: tuple[str, str]) -> tuple[str, str]:
    if pair[0] == pair[1]:
        raise mistake("joins a port with itself", 'write it as [["A", "B"]]')
    return pair


def _within(low: int, high: int) -> Any:
    """The lowest and the highest that make sense, in the unit of the key; the kernel would take more."""
    return Field(ge=low, le=high)


Text: TypeAlias = Annotated[StrictStr, AfterValidator(_said)]
Patterns: TypeAlias = frozenset[Text]
Label: TypeAlias = Annotated[StrictStr, AfterValidator(_label)]
Feature: TypeAlias = Annotated[StrictStr, AfterValidator(_feature)]
Pair: TypeAlias = Annotated[tuple[Label, Label], AfterValidator(_apart)]
Switch: TypeAlias = Annotated[StrictInt, _within(0, 1)]
Usecs: TypeAlias = Annotated[StrictInt, _within(0, 10_000)]
Frames: TypeAlias = Annotated[StrictInt, _within(0, 4_096)]
Descriptors: TypeAlias = Annotated[StrictInt, _within(32, 32_768)]
Queues: TypeAlias = Annotated[StrictInt, _within(1, 256)]


@dataclass(frozen=True, slots=True)
class Sysctls:
    """Floors under the kernel's own settings, in its names: raised to this where they are lower."""

    __pydantic_config__: ClassVar = _WHOLE
    somaxconn: Annotated[
        StrictInt, _within(128, 65_535)
    ]  # net.core, entries: backlog of the listener, 16 bits in older
    #                                                        kernels; SYN cookies begin where it ends
    tcp_max_syn_backlog: Annotated[StrictInt, _within(128, 1_048_576)]  # net.ipv4, entries: half-open, of one listener
    netdev_max_backlog: Annotated[StrictInt, _within(300, 1_000_000)]  # net.core, packets per CPU between two veth ends
    netdev_budget: Annotated[StrictInt, _within(64, 10_000)]  # net.core, packets that one round of polling takes
    netdev_budget_usecs: Annotated[StrictInt, _within(1_000, 100_000)]  # net.core, µs that it takes at most
    rmem_max: Annotated[StrictInt, _within(65_536, 268_435_456)]  # net.core, bytes: what a program may ask for; TCP
    wmem_max: Annotated[StrictInt, _within(65_536, 268_435_456)]  # sizes its own

    def by_name(self) -> Mapping[str, int]:
        """The same by the names that sysctl(8) uses."""
        return {f"{_TREE.get(f.name, 'net.core')}.{f.name}": getattr(self, f.name) for f in fields(self)}


_TREE = {"tcp_max_syn_backlog": "net.ipv4"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the configuration's [limits] are when it is silent."""

    __pydantic_config__: ClassVar = _WHOLE
    new_connections_per_s: Annotated[StrictInt, _within(1, 1_000_000)]
    new_connections_per_s_per_network: Annotated[StrictInt, _within(1, 1_000_000)]
    sessions: Annotated[StrictInt, _within(1, 1_000_000)]
    session_idle_s: Annotated[StrictInt, _within(300, 3_600)]
    drain_s: Annotated[StrictInt, _within(0, 3_600)]


@dataclass(frozen=True, slots=True)
class Match:
    """What a box must have for the profile to be for it: each key that is given must fit, by any of its patterns
    (``*`` and ``?`` as in a shell, capitals or not). ``drivers`` must be those of every port, ``pci`` and
    ``subsystem`` (vendor:device) fit one port at least."""

    __pydantic_config__: ClassVar = _WHOLE
    vendor: Patterns = frozenset()
    product: Patterns = frozenset()
    board: Patterns = frozenset()
    pci: Patterns = frozenset()
    subsystem: Patterns = frozenset()
    drivers: Patterns = frozenset()


@dataclass(frozen=True, slots=True)
class Ports:
    """What is printed on the case. ``labels`` in ``order``; ``paths`` are theirs on the bus where that is the order.
    ``pairs`` are what a bridge joins, unless the configuration says otherwise."""

    __pydantic_config__: ClassVar = _WHOLE
    order: Order
    labels: tuple[Label, ...]
    paths: tuple[Text, ...] = ()
    management: Text = ""
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class Bypass:
    """Relays that join the two ports of a pair when nobody keeps them apart."""

    __pydantic_config__: ClassVar = _WHOLE
    kind: Annotated[StrictStr, AfterValidator(_kind)]
    driven_by: Text  # the program or the driver in words; gpio: the file of the line
    pairs: tuple[Pair, ...]
    watchdog_ms: Annotated[StrictInt, _within(2_000, 255_000)]


NO_PORTS, NO_BYPASS = Ports(Order.BUS, ()), Bypass("none", "", (), 0)


@dataclass(frozen=True, slots=True)
class DiverterTable:
    """``queue_length`` is the number of SYNs that may wait for a verdict."""

    __pydantic_config__: ClassVar = _WHOLE
    queue_length: Annotated[StrictInt, _within(64, 65_535)]
    queues: Annotated[StrictInt, _within(1, 64)]


@dataclass(frozen=True, slots=True)
class InterceptorTable:
    """How many processes share the sessions."""

    __pydantic_config__: ClassVar = _WHOLE
    workers: Annotated[StrictInt, _within(1, 64)]


@dataclass(frozen=True, slots=True)
class MemoryTable:
    """What a session takes, and how much of the box's memory all of them may."""

    __pydantic_config__: ClassVar = _WHOLE
    per_session_kib: Annotated[StrictInt, _within(8, 4_096)]
    sessions_percent: Annotated[StrictInt, _within(1, 80)]


@dataclass(frozen=True, slots=True)
class MtuTable:
    """The largest frames that the box is known to carry."""

    __pydantic_config__: ClassVar = _WHOLE
    max_bytes: Annotated[StrictInt, _within(1_280, 65_535)]  # least: RFC 8200 section 5


@dataclass(frozen=True, slots=True)
class AffinityTable:
    """Which CPUs serve the ports' queues (receiving, sending) and interrupts."""

    __pydantic_config__: ClassVar = _WHOLE
    rps: Spread = Spread.KEEP
    xps: Spread = Spread.KEEP
    irq: Spread = Spread.KEEP


# By ethtool's names: descriptors; queues; µs and frames.
class RingsTable(TypedDict, total=False):
    rx: Descriptors
    tx: Descriptors


class ChannelsTable(TypedDict, total=False):
    combined: Queues
    rx: Queues
    tx: Queues


CoalesceTable = TypedDict(
    "CoalesceTable",
    {
        "rx-usecs": Usecs,
        "tx-usecs": Usecs,
        "rx-frames": Frames,
        "tx-frames": Frames,
        "adaptive-rx": Switch,
        "adaptive-tx": Switch,
    },
    total=False,
)
for _table in (RingsTable, ChannelsTable, CoalesceTable):
    with_config(_WHOLE)(_table)


@dataclass(frozen=True, slots=True)
class ProfileFile:
    """The whole of it, table by table."""

    __pydantic_config__: ClassVar = _WHOLE
    description: Text
    sources: tuple[Text, ...]
    match: Match
    sysctl: Sysctls
    mtu: MtuTable
    diverter: DiverterTable
    interceptor: InterceptorTable
    memory: MemoryTable
    limits: Limits
    ports: Ports = NO_PORTS
    bypass: Bypass = NO_BYPASS
    rings: RingsTable = field(default_factory=RingsTable)
    channels: ChannelsTable = field(default_factory=ChannelsTable)
    coalesce: CoalesceTable = field(default_factory=CoalesceTable)
    features: dict[Feature, StrictBool] = field(default_factory=dict)
    affinity: AffinityTable = AffinityTable()
