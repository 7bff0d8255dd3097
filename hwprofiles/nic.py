"""Reads and makes the settings of a port by the names of `hwprofiles.tuning`: netlink, sysfs and /proc/irq.

Chooses nothing and remembers nothing. A refusal is an OSError or a `NetlinkError`, for the caller to name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from pyroute2.netlink.exceptions import NetlinkError

from hwprofiles import sysfs
from hwprofiles.ethtool import CHANNELS, COALESCE, RINGS, Ethtool, Topic

Refusal = (OSError, NetlinkError)
_TOPICS = {"rings": RINGS, "channels": CHANNELS, "coalesce": COALESCE}
_SWITCH = {"on": True, "off": False}


class Driver(Protocol):
    """What of `Ethtool` is needed here."""

    def numbers(self, port: str, topic: Topic) -> dict[str, int]: ...
    def set_number(self, port: str, topic: Topic, name: str, value: int) -> None: ...
    def features(self, port: str) -> tuple[dict[str, bool], frozenset[str]]: ...
    def set_feature(self, port: str, name: str, on: bool) -> None: ...
    def close(self) -> None: ...


class Nics:
    """The settings of this network namespace's ports."""

    def __init__(self, driver: Driver | None = None) -> None:
        self._driver: Driver = driver or Ethtool()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._driver.close()

    def value(self, port: str, name: str) -> str | None:
        """As `set` takes it; None if the port has no such thing. Of queues and interrupts: one mask each."""
        topic, _, key = name.partition(".")
        try:
            if topic == "features":
                on = self._driver.features(port)[0].get(key)
                return None if on is None else "on" if on else "off"
            if topic in _TOPICS:
                number = self._driver.numbers(port, _TOPICS[topic]).get(key)
                return None if number is None else str(number)
            return " ".join(f"{_read(path):x}" for path, _ in _masks(port, topic)) or None
        except Refusal:
            return None

    def holds(self, port: str, name: str, value: str) -> bool:
        """Whether the setting already is as ``value`` would make it."""
        if name not in _FILES:
            return self.value(port, name) == value
        files = _masks(port, name)
        try:
            return bool(files) and [_read(path) for path, _ in files] == _wanted(files, value)
        except OSError:  # a single queue has no XPS, though it has the file
            return False

    def set(self, port: str, name: str, value: str) -> None:
        topic, _, key = name.partition(".")
        if topic == "features":
            self._driver.set_feature(port, key, _SWITCH[value])
        elif topic in _TOPICS:
            self._driver.set_number(port, _TOPICS[topic], key, int(value))
        elif not (files := _masks(port, topic)):
            raise OSError(errno.ENOENT, "the port has none")
        else:
            for (path, _), mask in zip(files, _wanted(files, value), strict=True):
                path.write_text(grouped(mask))


# --- masks of CPUs --------------------------------------------------------------------------------------------------


def _queue_files(kind: str, file: str) -> Callable[[Path], list[tuple[Path, int]]]:
    return lambda port: [(queue / file, number) for number, queue in enumerate(sysfs.queues(port, kind))]


# setting → the files of it that a port has, each with the number of its queue
_FILES: dict[str, Callable[[Path], list[tuple[Path, int]]]] = {
    "rps": _queue_files("rx", "rps_cpus"),
    "xps": _queue_files("tx", "xps_cpus"),
    "irq": lambda port: [(irq / "smp_affinity", queue) for irq, queue in sysfs.interrupts(port)],
}


def _masks(port: str, name: str) -> list[tuple[Path, int]]:
    place = sysfs.place(port)
    return [] if place is None else [(path, queue) for path, queue in _FILES[name](place) if path.exists()]


def _wanted(files: list[tuple[Path, int]], value: str) -> list[int]:
    """ "all", "each", or a mask for each file in turn, which is what `Nics.value` gave."""
    cpus = os.cpu_count() or 1
    match value:
        case "all":
            return [(1 << cpus) - 1 for _ in files]
        case "each":
            return [1 << queue % cpus for _, queue in files]
        case _:
            return [int(mask, 16) for (_, _), mask in zip(files, cycle(value.split()), strict=False)]


def _read(path: Path) -> int:
    return int(path.read_text().replace(",", "") or "0", 16)


def grouped(mask: int) -> str:
    """As the kernel parses it: words of 32 bits, the highest first (lib/bitmap-str.c)."""
    words: list[str] = []
    while mask or not words:
        words.append(f"{mask & 0xFFFFFFFF:08x}")
        mask >>= 32
    return ",".join(reversed(words))
