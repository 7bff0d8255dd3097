"""Relays that join the two ports of a pair: how each kind is told. Nothing in the product switches one yet.

No driver here was tried on the hardware. A relay that cannot be told is an OSError.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hwprofiles.relay import Act

TOLD_S = 2.0  # the longest that the vendor's program may take: a beat that waits longer is none


class Relay(Protocol):
    def tell(self, act: Act) -> None:
        """Idempotent. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Silicom:
    """Silicom's bpctl_util, which speaks to the module bpctl_mod. ``port`` is the one that controls its pair.

    Source: Silicom Linux Bypass-SD Control Utility, readme (usage and list of commands).
    """

    port: str
    watchdog_ms: int
    program: str = "bpctl_util"

    def tell(self, act: Act) -> None:
        for words in self._commands(act):
            self._run(*words)

    def _commands(self, act: Act) -> tuple[tuple[str, ...], ...]:
        return {
            # The watchdog first: between the two the relay must not be left without one.
            Act.ARM: (("set_bypass_wd", str(self.watchdog_ms)), ("set_bypass", "off")),
            Act.BEAT: (("reset_bypass_wd",),),
            Act.BYPASS: (("set_bypass", "on"), ("set_bypass_wd", "0")),
        }[act]

    def _run(self, *words: str) -> None:
        found = shutil.which(self.program)
        if found is None:
            raise OSError(f"{self.program} is missing: it comes with the card's driver")
        try:
            done = subprocess.run(  # noqa: S603 - fixed program
                [found, self.port, *words], capture_output=True, text=True, check=False, timeout=TOLD_S
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"{self.program} {' '.join(words)}: no answer for {TOLD_S:g} s") from None
        if done.returncode:
            raise OSError(f"{self.program} {' '.join(words)}: {(done.stderr or done.stdout).strip()}")


@dataclass(frozen=True, slots=True)
class Gpio:
    """A relay on one line, by the file that holds its value (sysfs GPIO or LED). It has no watchdog: a kernel that
    stands still leaves it as it is. ``apart`` is the value that keeps the ports apart."""

    value: Path
    apart: str = "1"
    joined: str = "0"

    def tell(self, act: Act) -> None:
        match act:
            case Act.ARM | Act.BEAT:
                self.value.write_text(self.apart, encoding="ascii")
            case Act.BYPASS:
                self.value.write_text(self.joined, encoding="ascii")


@dataclass(slots=True)
class Simulated:
    """A relay of memory, with a watchdog and a clock that is set by hand."""

    watchdog_ms: int
    now: float = 0.0
    told: list[Act] = field(default_factory=list)
    _until: float | None = None

    def tell(self, act: Act) -> None:
        self.told.append(act)
        match act:
            case Act.ARM:
                self._until = self.now + self.watchdog_ms / 1000
            case Act.BEAT if not self.joined:  # one that has fallen in needs arming
                self._until = self.now + self.watchdog_ms / 1000
            case Act.BYPASS:
                self._until = None
            case _:
                pass

    @property
    def joined(self) -> bool:
        return self._until is None or self.now >= self._until
