"""What this box has: the driver of each port, and the profiles that came with this package.

Only reads: sysfs, netlink, our own files. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from pyroute2 import IPRoute

from hwprofiles.match import Facts
from hwprofiles.profile import Profile, read

SYSFS_NET = Path("/sys/class/net")


def profiles() -> tuple[Profile, ...]:
    """Every profile that came with this package, by name."""
    models = resources.files("hwprofiles") / "models"
    files = sorted((file for file in models.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return tuple(read(file.name.removesuffix(".toml"), file.read_text(encoding="utf-8")) for file in files)


def facts(ports: Iterable[str]) -> Facts:
    """The drivers of the ports (names of links); a port that does not exist has none."""
    return Facts({port: driver(port) for port in ports})


def driver(port: str) -> str | None:
    """The driver of a NIC from sysfs; for a virtual link, which has no device, its kind (``veth``, ``tun``)."""
    link = SYSFS_NET / port / "device" / "driver"
    return link.resolve().name if link.exists() else _kind(port)


def _kind(port: str) -> str | None:
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=port):
            for link in netlink.get_links(index):
                kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
                return None if kind is None else str(kind)
    return None
