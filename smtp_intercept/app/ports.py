"""The ports of this box as `tollbridge setup` shows them. Only reads: netlink and sysfs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bridge.lane import LANE
from bridge.links import Links
from hwprofiles.facts import nics

_SYSFS = Path("/sys/class/net")
_OWN = re.compile(rf"lo$|{LANE}")
_NO_PORTS = frozenset({"bridge", "bond", "vlan", "tun", "wireguard", "dummy"})


@dataclass(frozen=True, slots=True)
class Port:
    """One link that a cable may be in. ``carrier`` is None while the link is down: nobody knows then."""

    name: str
    mac: str
    driver: str
    carrier: bool | None
    master: str = ""
    addresses: tuple[str, ...] = ()

    def __str__(self) -> str:
        link = {True: "link", False: "no link", None: "down"}[self.carrier]
        uses = [f"in {self.master}"] if self.master else []
        uses += [f"carries {', '.join(self.addresses)}"] if self.addresses else []
        return f"{self.name:<12} {self.mac}  {link:<8} {self.driver}{'  ' if uses else ''}{'; '.join(uses)}"


def found() -> tuple[Port, ...]:
    """By name; no loopback, no bridge, nothing that is made of others."""
    with Links() as links:
        facts = [link for link in links.facts().values() if link.kind not in _NO_PORTS and not _OWN.match(link.name)]
    drivers = {nic.name: nic.driver for nic in nics(frozenset(at.name for at in facts))}
    ports = (
        Port(at.name, at.mac, drivers.get(at.name) or "unknown driver", _carrier(at.name), at.master, at.addresses)
        for at in facts
    )
    return tuple(sorted(ports, key=lambda port: port.name))


def _carrier(name: str) -> bool | None:
    try:
        return (_SYSFS / name / "carrier").read_text(encoding="ascii").strip() == "1"
    except OSError:  # EINVAL while the link is down
        return None
