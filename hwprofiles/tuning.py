"""Profile × facts → the settings of each port, in the order in which they must be made, and what the port cannot do.

Pure. Asks for no more than the port has; what it might still refuse is told by whoever performs the setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hwprofiles.box import Box, Nic
from hwprofiles.profile import Profile, Spread


@dataclass(frozen=True, slots=True)
class Setting:
    """``name`` is "rings.rx", "features.rx-lro", "rps" and the like; ``value`` a number, on, off, all or each."""

    port: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """What the profile asks for and the port cannot do."""

    port: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.port}: {self.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Tuning:
    """``first`` may take a link down for seconds, and a new number of queues forgets what was set of them; ``last``
    needs ports that are up, for a port that is down has no interrupts."""

    first: tuple[Setting, ...]
    last: tuple[Setting, ...]
    unfit: tuple[Unfit, ...]


def tuning(profile: Profile, box: Box) -> Tuning:
    """For every NIC among the facts."""
    first: list[Setting] = []
    last: list[Setting] = []
    unfit: list[Unfit] = []
    for nic in box.nics:
        for found in (
            *_lro(nic),
            *_numbers(profile, nic, box.cpu.cores),
            *_features(profile, nic),
            *_mtu(profile, nic),
        ):
            (unfit if isinstance(found, Unfit) else first).append(found)  # type: ignore[arg-type]
        last += _affinity(profile, nic, box.cpu.cores)
    return Tuning(tuple(first), tuple(last), tuple(unfit))


def _lro(nic: Nic) -> Iterator[Setting | Unfit]:
    """Off, whatever the profile: what LRO joins cannot be forwarded as it came (Documentation: dev_disable_lro)."""
    if "rx-lro" in nic.features:
        if "rx-lro" not in nic.fixed:
            yield Setting(nic.name, "features.rx-lro", "off")
        elif nic.features["rx-lro"]:
            yield Unfit(nic.name, "features.rx-lro", "is on, and the driver cannot turn it off")


def _numbers(profile: Profile, nic: Nic, cores: int) -> Iterator[Setting | Unfit]:
    """Channels first: a driver that makes its queues anew gives them the rings and the coalescing of before."""
    for kind, wanted in profile.channels.items():
        if most := nic.channels.get(f"{kind}-max", 0):
            yield Setting(nic.name, f"channels.{kind}", str(min(wanted, most, cores)))
        else:
            yield Unfit(nic.name, f"channels.{kind}", "the driver has none to set")
    for kind, wanted in profile.rings.items():
        if most := nic.rings.get(f"{kind}-max", 0):
            yield Setting(nic.name, f"rings.{kind}", str(min(wanted, most)))
        else:
            yield Unfit(nic.name, f"rings.{kind}", "the driver has none to set")
    for kind, wanted in profile.coalesce.items():
        if kind in nic.coalesce:
            yield Setting(nic.name, f"coalesce.{kind}", str(wanted))
        else:
            yield Unfit(nic.name, f"coalesce.{kind}", "the driver has none to set")


def _features(profile: Profile, nic: Nic) -> Iterator[Setting | Unfit]:
    for name, on in profile.features.items():
        if name in nic.features and name not in nic.fixed:
            yield Setting(nic.name, f"features.{name}", "on" if on else "off")
        elif nic.features.get(name, False) is not on:
            yield Unfit(nic.name, f"features.{name}", f"is {'off' if on else 'on'}, and the driver cannot change it")


def _mtu(profile: Profile, nic: Nic) -> Iterator[Unfit]:
    if nic.mtu_bytes > profile.mtu_max_bytes:
        yield Unfit(nic.name, "mtu", f"{nic.mtu_bytes} bytes are more than the {profile.mtu_max_bytes} of the hardware")


def _affinity(profile: Profile, nic: Nic, cores: int) -> Iterator[Setting]:
    if cores < 2:
        return
    if profile.rps is not Spread.KEEP:
        yield Setting(nic.name, "rps", profile.rps.value)
    if profile.xps is not Spread.KEEP and _tx_queues(profile, nic, cores) > 1:  # the kernel has none for a single queue
        yield Setting(nic.name, "xps", profile.xps.value)
    if profile.irq is not Spread.KEEP and nic.bus:
        yield Setting(nic.name, "irq", profile.irq.value)


def _tx_queues(profile: Profile, nic: Nic, cores: int) -> int:
    """As many as there will be: XPS comes after the channels, and is planned before them."""
    for kind in ("tx", "combined"):
        if kind in profile.channels and (most := nic.channels.get(f"{kind}-max", 0)):
            return min(profile.channels[kind], most, cores)
    return nic.tx_queues
