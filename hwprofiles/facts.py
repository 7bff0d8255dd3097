"""What this box has.

Only reads: sysfs, /proc, netlink. Changes nothing, calls no program.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from hwprofiles import sysfs
from hwprofiles.box import Box, Cpu, Firmware, Nic
from hwprofiles.ethtool import CHANNELS, COALESCE, RINGS, Ethtool
from hwprofiles.sysfs import text

_DMI = Path("/sys/class/dmi/id")
_LOOPBACK = 0x8  # IFF_LOOPBACK
_ABOVE = frozenset({"bridge", "bond", "vlan", "macvlan", "ipvlan"})


def box(ports: Iterable[str] | None = None) -> Box:
    """The facts of this machine. ``ports`` (names or MACs) are the NICs of interest, of whatever kind; None: all that
    are devices of a bus."""
    wanted = None if ports is None else list(ports)
    whole = Box(
        source=f"captured from a machine with Linux {platform.release().partition('-')[0]}",
        firmware=firmware(),
        cpu=cpu(),
        memory_mib=memory_mib(),
        nics=tuple(nics(None if wanted is None else frozenset(wanted))),
    )
    return whole if wanted is None else whole.only(wanted)


def firmware() -> Firmware:
    """DMI's three names, or the device tree's one."""
    vendor, product, board = (text(_DMI / name) for name in ("sys_vendor", "product_name", "board_name"))
    return Firmware(vendor, product or text(Path("/proc/device-tree/model")), board)


def cpu() -> Cpu:
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text(Path("/proc/cpuinfo")), re.MULTILINE)
    levels = [
        (int(text(path / "level") or 0), int(text(path / "size").removesuffix("K")))
        for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")
        if text(path / "size").endswith("K")
    ]
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    return Cpu(model[1] if model else "", os.cpu_count() or 1, max(levels)[1] if levels else None, max(nodes, 1))


def memory_mib() -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+) kB$", text(Path("/proc/meminfo")), re.MULTILINE)
    return int(found[1]) // 1024 if found else None


def nics(wanted: frozenset[str] | None) -> Iterable[Nic]:
    """By name; loopbacks are none."""
    with IPRoute() as netlink, Ethtool() as ethtool:
        links = [link for link in netlink.get_links() if not link["flags"] & _LOOPBACK]
        for link in sorted(links, key=lambda link: str(link.get_attr("IFLA_IFNAME"))):
            nic = _nic(link, ethtool) if _interesting(link, wanted) else None
            if nic is not None and (wanted is not None or nic.bus):
                yield nic


def _interesting(link: Any, wanted: frozenset[str] | None) -> bool:
    """A MAC address means a port, not the bridge or the VLAN that has it from that port."""
    kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    names = {str(link.get_attr("IFLA_IFNAME"))} | (
        {str(link.get_attr("IFLA_ADDRESS"))} if kind not in _ABOVE else set()
    )
    return wanted is None or bool(names & {*wanted, *(name.lower() for name in wanted)})


def _nic(link: Any, ethtool: Ethtool) -> Nic:
    name = str(link.get_attr("IFLA_IFNAME"))
    port = sysfs.place(name)
    device = None if port is None else sysfs.device(port)
    kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    features, fixed = _features(name, ethtool)
    return Nic(
        name=name,
        driver=_driver(port) or (None if kind is None else str(kind)),
        mac=link.get_attr("IFLA_ADDRESS") or "",
        bus="" if device is None else device.name,
        pci=_identity(device, "vendor", "device"),
        subsystem=_identity(device, "subsystem_vendor", "subsystem_device"),
        node=_node(device),
        mtu_bytes=link.get_attr("IFLA_MTU") or 0,
        rx_queues=link.get_attr("IFLA_NUM_RX_QUEUES") if port is None else len(sysfs.queues(port, "rx")),
        tx_queues=link.get_attr("IFLA_NUM_TX_QUEUES") if port is None else len(sysfs.queues(port, "tx")),
        rings=_numbers(name, ethtool, RINGS),
        channels=_numbers(name, ethtool, CHANNELS),
        coalesce=_numbers(name, ethtool, COALESCE),
        features=features,
        fixed=fixed & features.keys(),
    )


def _driver(port: Path | None) -> str | None:
    link = None if port is None else port / "device" / "driver"
    return link.resolve().name if link is not None and link.exists() else None


def _identity(device: Path | None, vendor: str, model: str) -> str:
    if device is None or not text(device / vendor):
        return ""
    return f"{text(device / vendor).removeprefix('0x')}:{text(device / model).removeprefix('0x')}"


def _node(device: Path | None) -> int | None:
    known = "" if device is None else text(device / "numa_node")
    return int(known) if known and int(known) >= 0 else None


def _numbers(name: str, ethtool: Ethtool, topic: Any) -> dict[str, int]:
    try:
        return ethtool.numbers(name, topic)
    except NetlinkError:  # a driver without it, a kernel without ethtool's family
        return {}


def _features(name: str, ethtool: Ethtool) -> tuple[dict[str, bool], frozenset[str]]:
    try:
        return ethtool.features(name)
    except NetlinkError:
        return {}, frozenset()
