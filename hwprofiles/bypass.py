"""Relays that join the two ports of a pair: how each kind is told, and how it is asked.

Tells and asks, and decides nothing. No driver here was tried on the hardware. A relay that cannot be told is an
OSError; one that does not say how it stands is None.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hwprofiles.relay import Act

TOLD_S = 1.0  # the longest that the vendor's program may take: two that hang are less than the shortest watchdog
BPCTL = "bpctl_util"
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DRIVEN = ("silicom", "gpio")


@dataclass(frozen=True, slots=True)
class Wiring:
    """One relay: the links of the ports that it joins, and how it is driven. ``driven_by`` is the program (silicom) or
    the file of the line (gpio), "" the usual; ``watchdog_ms`` is 0 where there is none; ``apart`` is the line's value
    that keeps the ports apart."""

    ports: tuple[str, str]
    kind: str
    driven_by: str = ""
    watchdog_ms: int = 0
    apart: int = 1

    def __str__(self) -> str:
        return "-".join(self.ports)


class Relay(Protocol):
    @property
    def watchdog_ms(self) -> int:
        """0: it has none."""

    def tell(self, act: Act) -> None:
        """Idempotent. Raises OSError."""

    def joined(self) -> bool | None:
        """As it says itself. Raises OSError."""


def relay_of(wiring: Wiring) -> Relay:
    """Its driver. Raises `KeyError` for a kind that is not one of `DRIVEN`."""
    match wiring.kind:
        case "silicom":
            return Silicom(wiring.ports, wiring.watchdog_ms, wiring.driven_by or BPCTL)
        case "gpio":
            return Gpio(Path(wiring.driven_by), str(wiring.apart), str(1 - wiring.apart))
        case kind:
            raise KeyError(kind)


@dataclass(frozen=True, slots=True)
class Silicom:
    """Silicom's bpctl_util, which speaks to the module bpctl_mod. One of the two ports controls the pair: the other
    answers that it is a slave.

    Sources: Silicom Linux Bypass-SD Control Utility, readme (usage and list of commands); the texts of its answers as
    its source has them (BP_MODE_MSG and its neighbours).
    """

    ports: tuple[str, str]
    watchdog_ms: int
    program: str = BPCTL

    def tell(self, act: Act) -> None:
        for words in self._commands(act):
            self._run(*words)
        if act is Act.ARM and self.joined():
            raise OSError(f"{self.program}: the ports are still joined after set_bypass off")

    def joined(self) -> bool | None:
        said = self._run("get_bypass")
        return False if "non-Bypass mode" in said else True if "Bypass mode" in said else None

    def _commands(self, act: Act) -> tuple[tuple[str, ...], ...]:
        return {
            # The watchdog first: between the two the relay must not be left without one.
            Act.ARM: (("set_bypass_wd", str(self.watchdog_ms)), ("set_bypass", "off")),
            Act.BEAT: (("reset_bypass_wd",),),
            Act.BYPASS: (("set_bypass", "on"), ("set_bypass_wd", "0")),
            Act.RELEASE: (("set_bypass", "off"), ("set_bypass_wd", "0")),
        }[act]

    def _run(self, *words: str) -> str:
        found = shutil.which(self.program, path=PATHS)
        if found is None:
            raise OSError(f"{self.program} is missing: it comes with the card's driver")
        said = ""
        for port in self.ports:
            said = self._asked(found, port, *words)
            if "slave" not in said:
                break
        if "slave" in said or "doesn't support" in said:
            raise OSError(f"{self.program} {' '.join(words)}: {said}")
        return said

    def _asked(self, found: str, port: str, *words: str) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - fixed program
                [found, port, *words], capture_output=True, text=True, check=False, timeout=TOLD_S
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"{self.program} {' '.join(words)}: no answer for {TOLD_S:g} s") from None
        said = f"{done.stdout.strip()} {done.stderr.strip()}".strip()
        if done.returncode and "slave" not in said:
            raise OSError(f"{self.program} {' '.join(words)}: {said}")
        return said


@dataclass(frozen=True, slots=True)
class Gpio:
    """A relay on one line, by the file that holds its value (sysfs GPIO or LED). It has no watchdog: a kernel that
    stands still leaves it as it is. ``apart`` is the value that keeps the ports apart."""

    value: Path
    apart: str = "1"
    released: str = "0"

    @property
    def watchdog_ms(self) -> int:
        return 0

    def tell(self, act: Act) -> None:
        match act:
            case Act.ARM | Act.RELEASE:
                self.value.write_text(self.apart, encoding="ascii")
            case Act.BYPASS:
                self.value.write_text(self.released, encoding="ascii")
            case Act.BEAT:
                pass  # nobody listens

    def joined(self) -> bool | None:
        return {self.apart: False, self.released: True}.get(self.value.read_text(encoding="ascii").strip())


@dataclass(slots=True)
class Simulated:
    """A relay of memory, with a watchdog and a clock that is set by hand. At power-on its ports are joined."""

    watchdog_ms: int
    now: float = 0.0
    told: list[Act] = field(default_factory=list)
    _until: float | None = None

    def tell(self, act: Act) -> None:
        self.told.append(act)
        match act:
            case Act.ARM:
                self._until = self.now + self.watchdog_ms / 1000
            case Act.BEAT if not self.joined():  # one that has fallen in needs arming
                self._until = self.now + self.watchdog_ms / 1000
            case Act.BYPASS:
                self._until = None
            case Act.RELEASE:
                self._until = float("inf")
            case _:
                pass

    def joined(self) -> bool:
        return self._until is None or self.now >= self._until
