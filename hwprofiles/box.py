"""The facts of a box: what its firmware, its CPUs, its memory and its NICs say of themselves; to and from JSON.

Pure. What has not been found out is None or empty: a fact is never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from hwprofiles.shown import shown

FORMAT = 1  # of the file; a reader refuses others

_T = TypeVar("_T")


class FactsError(ValueError):
    """A file of facts that cannot be used; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """As DMI has it (/sys/class/dmi/id); where there is no DMI, ``product`` is the device tree's model."""

    vendor: str = ""
    product: str = ""
    board: str = ""


@dataclass(frozen=True, slots=True)
class Cpu:
    model: str = ""
    cores: int = 1  # as the kernel counts them: threads
    cache_kib: int | None = None  # of the last level, of one CPU's cache
    nodes: int = 1  # of NUMA


@dataclass(frozen=True, slots=True)
class Nic:
    """One port. ``bus`` is the address of the device ("0000:01:00.0", "vmbus:…"), "" for a virtual link. ``features``:
    each the kernel's name → whether it is on; ``fixed``: those that cannot be changed. ``rings`` and ``channels``:
    the numbers that ethtool shows, by its names ("rx", "rx-max"); ``coalesce`` in µs and frames."""

    name: str
    driver: str | None = None
    mac: str = ""
    bus: str = ""
    pci: str = ""  # vendor:device
    subsystem: str = ""  # vendor:device of the card's maker
    node: int | None = None  # of NUMA
    mtu_bytes: int = 1500
    rx_queues: int = 1
    tx_queues: int = 1
    rings: Mapping[str, int] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)
    coalesce: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, bool] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Box:
    """``source`` says where the facts are from: captured from a machine, or written from named documents."""

    source: str
    firmware: Firmware = Firmware()
    cpu: Cpu = Cpu()
    memory_mib: int | None = None
    nics: tuple[Nic, ...] = ()

    def only(self, ports: Iterable[str]) -> Box:
        """The same with those NICs alone, which are named by their links or their MACs; a port that is not there has
        no driver."""
        known = {**{nic.mac: nic for nic in self.nics if nic.mac}, **{nic.name: nic for nic in self.nics}}
        return replace(self, nics=tuple(known.get(port) or known.get(port.lower()) or Nic(port) for port in ports))

    @property
    def physical(self) -> tuple[Nic, ...]:
        """The NICs that are devices of a bus."""
        return tuple(nic for nic in self.nics if nic.bus)


def to_json(box: Box) -> str:
    """The file of facts; keys sorted, so that two captures can be compared line by line."""
    data = {"format": FORMAT, **asdict(box)}
    for nic in data["nics"]:
        nic["fixed"] = sorted(nic["fixed"])
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> Box:
    """The reverse. What is not said in the file has its default; what is unknown to us is an error: `FactsError`."""
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise FactsError(f'is not a file of facts: "format": {FORMAT} is missing')
        _known(Box, "box", data)
        return Box(
            source=str(data.pop("source")),
            firmware=_record(Firmware, data.pop("firmware", {})),
            cpu=_record(Cpu, data.pop("cpu", {})),
            memory_mib=data.pop("memory_mib", None),
            nics=tuple(_nic(nic) for nic in data.pop("nics", ())),
            **data,
        )
    except json.JSONDecodeError as error:
        raise FactsError(f"is not JSON: {error}") from None
    except RecursionError:
        raise FactsError("is not a file of facts: values are nested too deeply") from None
    except (AttributeError, TypeError):  # a number where a list belongs, and the like
        raise FactsError(
            "is not a file of facts: a value is of the wrong kind; write it with `hw facts --json`"
        ) from None


def _record(kind: type[_T], data: Any) -> _T:
    _known(kind, kind.__name__.lower(), data)
    return kind(**data)


def _known(kind: type, name: str, data: Any) -> None:
    """That a table has what that kind of fact needs, and nothing else."""
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}
    if not isinstance(data, dict) or data.keys() - known:
        raise FactsError(f"{name}: {shown(data)} is not a table of {', '.join(sorted(known))}")
    if missing := [key for key, needed in known.items() if needed and key not in data]:
        raise FactsError(f"{name}: {', '.join(missing)} is missing")


def _nic(data: Any) -> Nic:
    nic = _record(Nic, data)
    return replace(nic, fixed=frozenset(nic.fixed))
