"""What the spanning tree has decided about this host's bridges: sysfs and rtnetlink. Decides nothing itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bridge.lane import LANE, Lane
from bridge.links import Links


def forwards(port: str) -> bool:
    """The bridge port's STP state is forwarding (3, linux/if_bridge.h)."""
    try:
        return Path(f"/sys/class/net/{port}/brport/state").read_text(encoding="ascii").strip() == "3"
    except OSError:
        return False


def topology_changes(bridge: str) -> bool:
    """The spanning tree is being rebuilt, here or elsewhere: hosts may now live behind other ports (802.1D §8.3.5)."""
    return Path(f"/sys/class/net/{bridge}/bridge/topology_change").read_text(encoding="ascii").strip() == "1"


def forget_hosts(vlans: Iterable[int] = ()) -> None:
    """The lanes' bridges take no part in the spanning tree: they learn anew who lives where, or send to a dead port."""
    with Links() as links:
        for lane in (LANE, *(Lane(vlan).link for vlan in vlans)):
            links.forget_hosts(lane)
