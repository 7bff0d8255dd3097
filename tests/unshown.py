"""What a machine may leave unshown: the tests that may be skipped, where, why, and what shows the same elsewhere.

A skip is a claim about the machine. One that is not here, or not true here, fails the run (`judged`); the others are
told at its end in plain words (`told`). To add one: a `Claim` below, and ``CLAIM.skip()`` or ``@CLAIM.mark``.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import pytest

from bridge.host import has_dot1q
from hwprofiles.sysfs import NET, place
from vagrant.lab.places import INTERFACE

NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Claim:
    """``lacking`` asks this machine. ``elsewhere``: where the same is shown, or that it is not."""

    reason: str
    elsewhere: str
    lacking: Callable[[], bool]

    def skip(self) -> None:
        """Skip the test if it is true here."""
        if self.lacking():
            pytest.skip(self.reason)

    @property
    def mark(self) -> pytest.MarkDecorator:
        return pytest.mark.skipif(self.lacking(), reason=self.reason)


def _fails(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, timeout=20, check=False).returncode != 0


@cache
def _no_macvlan() -> bool:
    made = "ip link add a type veth peer name b && ip link add link a name c type macvlan"
    return _fails("unshare", "--net", "sh", "-c", made)


@cache
def _private() -> bool:
    return _fails("setpriv", f"--reuid={NOBODY}", "--clear-groups", "test", "-r", __file__)


def _without_nic() -> bool:
    return not any((port / "device/driver").exists() and place(port.name) for port in NET.iterdir())


NOT_ROOT = Claim("needs root", "`make test` asks sudo for it", lambda: os.geteuid() != 0)
DOT1Q = Claim(
    "this kernel has no 802.1Q (module 8021q)",
    "tests/stock shows mail in VLANs on a Debian kernel; all of it there: make stock TESTS=tests/kernel/test_vlan.py",
    lambda: not has_dot1q(),
)
NO_DOT1Q = Claim(
    "this kernel has 802.1Q",
    "what is said where it is missing shows on a kernel without it, nowhere else",
    has_dot1q,
)
GUEST = Claim(
    "this kernel was not booted a moment ago, nor for this test alone",
    "tests/stock shows the same in a virtual machine with a Debian kernel",
    lambda: not os.environ.get("TOLLBRIDGE_STOCK_KERNEL"),
)
DEBIAN_KERNEL = Claim(
    "Debian's amd64 kernel runs in no virtual machine on this architecture",
    "on amd64",
    lambda: platform.machine() != "x86_64",
)
CPUS = Claim(
    "one CPU has nothing to spread",
    "on a machine with two or more",
    lambda: os.cpu_count() == 1,
)
MACVLAN = Claim(
    "this kernel has no macvlan",
    "that a port which carries one is refused shows on a kernel that has it, as Debian's",
    _no_macvlan,
)
NIC = Claim(
    "this machine has no NIC with a driver in sysfs",
    "on hardware, and in virtual machines with PCI cards",
    _without_nic,
)
CHECKOUT = Claim(
    "only root may read this checkout",
    "what the commands say without privilege shows in a checkout that everybody may read, as below /srv",
    _private,
)
LITTLE_ENDIAN = Claim(
    "the tables of the kernel in this test are a little-endian machine's",
    "on amd64 and arm64",
    lambda: sys.byteorder == "big",
)
LAB = Claim(
    "the lab of virtual machines is not up",
    "make lab",
    lambda: not INTERFACE.exists(),
)
CLAIMS = tuple(value for value in list(globals().values()) if isinstance(value, Claim))

# By marker: what a run of pytest leaves to other commands.
OTHER_RUNS: Mapping[str, str] = MappingProxyType(
    {
        "installed": "the package, installed, upgraded and purged in Debian 12 and 13: make deb-test",
        "vm": "the lab of virtual machines: make lab-test",
    }
)


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why it was skipped."""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return said.removeprefix("Skipped: ")


def judged(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A skip that nobody claims becomes a failure."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    if not any(claim.reason == reason(report) and claim.lacking() for claim in CLAIMS):
        report.outcome = "failed"
        report.longrepr = (
            f"{report.nodeid} was skipped: {reason(report)}\n"
            "A skip is a claim about the machine, and this one is not in tests/unshown.py, or not true here. Make the "
            "test run (what it needs comes by the Makefile: make tools), or add a Claim there and skip by it."
        )


def told(skipped: Iterable[str], markers: str) -> list[str]:
    """In plain words what was not shown, by the reasons of all skips and pytest's -m."""
    elsewhere = {claim.reason: claim.elsewhere for claim in CLAIMS}
    return [
        *(f"{n} {'test' if n == 1 else 'tests'}: {why}; {elsewhere[why]}" for why, n in Counter(skipped).items()),
        *(f"another command's: {what}" for marker, what in OTHER_RUNS.items() if f"not {marker}" in markers),
    ]
