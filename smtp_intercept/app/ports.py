"""The ports of this box as `tollbridge setup` shows them, and which of them a bridge may have. Only reads: netlink,
sysfs, /proc."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.lane import HOST_LEG, LANE
from hwprofiles.case import Case, case_of
from hwprofiles.shelf import profiles
from smtp_intercept.app import seen

_SYSFS = Path("/sys/class/net")
_PROC = Path("/proc/net")
_OWN = re.compile(rf"lo$|{LANE}|{HOST_LEG}")
NO_PORTS = frozenset({"bridge", "bond", "vlan", "tun", "wireguard", "dummy", "ifb"})


@dataclass(frozen=True, slots=True)
class Port:
    """One link that a cable may be in. ``carrier`` is None while the link is down: nobody knows then. ``uses`` are what
    the box has it for besides ``addresses`` and ``master``."""

    name: str
    mac: str
    driver: str
    carrier: bool | None
    master: str = ""
    addresses: tuple[str, ...] = ()
    label: str = ""
    uses: tuple[str, ...] = ()

    @property
    def free(self) -> bool:
        """Nobody would miss it, and the box is not reached by it."""
        return not (self.master or self.addresses or self.uses)

    def __str__(self) -> str:
        link = {True: "link", False: "no link", None: "down"}[self.carrier]
        uses = [f"in {self.master}"] if self.master else []
        uses += [f"carries {', '.join(self.addresses)}"] if self.addresses else []
        uses += self.uses
        label = f"{self.label:<8} " if self.label else ""
        return f"{label}{self.name:<12} {self.mac}  {link:<8} {self.driver}{'  ' if uses else ''}{'; '.join(uses)}"


def found() -> tuple[tuple[Port, ...], Case]:
    """By name; no loopback, no bridge, nothing that is made of others. And what is printed beside them."""
    known = [link for link in seen.links().values() if link.kind not in NO_PORTS and not _OWN.match(link.name)]
    drivers = {nic.name: nic.driver for nic in seen.box(at.name for at in known).nics}
    case = case_of(seen.box(), profiles())
    default = default_links(_text(_PROC / "route"), _text(_PROC / "ipv6_route"))
    ports = (
        Port(
            name=at.name,
            mac=at.mac,
            driver=drivers.get(at.name) or "unknown driver",
            carrier=_carrier(at.name),
            master=at.master,
            addresses=at.addresses,
            label=case.label(at.name),
            uses=tuple(_uses(at.name, at.master, case, default)),
        )
        for at in known
    )
    return tuple(sorted(ports, key=lambda port: port.name)), case


def proposed(ports: tuple[Port, ...], here: Case) -> tuple[str, ...]:
    """Two free ports for a bridge: the profile's pair, else the first two with a link, else the first two; () if there
    are not two. Never one that the box is reached by."""
    free = [port.name for port in ports if port.free]
    wired = [port.name for port in ports if port.free and port.carrier]
    pairs = [pair for pair in here.pairs if set(pair) <= set(free)]
    others = wired if len(wired) > 1 else free
    return pairs[0] if pairs else tuple(others[:2]) if len(others) > 1 else ()


def default_links(route4: str, route6: str) -> frozenset[str]:
    """The links of default routes, from the texts of /proc/net/route and ipv6_route. Pure."""
    rows4, rows6 = ([line.split() for line in text.splitlines()] for text in (route4, route6))
    found4 = {row[0] for row in rows4 if row[1:2] == ["00000000"] and row[7] == "00000000"}
    return frozenset(found4 | {row[9] for row in rows6 if row[0] == "0" * 32 and row[1] == "00" and row[9] != "lo"})


def _uses(name: str, master: str, here: Case, default: frozenset[str]) -> Iterator[str]:
    above = sorted(path.name.removeprefix("upper_") for path in (_SYSFS / name).glob("upper_*"))
    if name in default or default & {*above}:
        yield "carries the default route"
    if others := [link for link in above if link != master]:
        yield f"below {', '.join(others)}"
    if name == here.management:
        yield "for management, as the hardware profile has it"


def _carrier(name: str) -> bool | None:
    try:
        return (_SYSFS / name / "carrier").read_text(encoding="ascii").strip() == "1"
    except OSError:  # EINVAL while the link is down
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:  # a kernel without IPv6
        return ""
