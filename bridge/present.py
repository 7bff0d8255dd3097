"""The host as it is found, as far as plans ask. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.steps import Route

# What br_netfilter would do to all that crosses a bridge: off on the lanes' bridges.
BRIDGE_NF = (
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-arptables",
)


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """One link as the kernel shows it. Addresses with prefix length, only those an administrator or DHCP gave;
    routes of all tables; neighbours (address, MAC), only permanent ones. ``filters_vlans``: a bridge that knows which
    port is in which VLAN; ``vlan`` is the VID of a VLAN link on the link ``parent``."""

    name: str
    kind: str = ""
    index: int = 0
    mac: str = ""
    mtu: int = 1500
    master: str = ""
    stp: bool = False
    filters_vlans: bool = False
    parent: str = ""
    vlan: int = 0
    ethernet: bool = True
    addresses: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Present:
    """The host without Tollbridge; `bridge.ledger.original` gives it back where Tollbridge is. ``dot1q``: the kernel
    can make VLAN links. ``managers`` are the network managers that may run here."""

    links: Mapping[str, LinkFacts]
    sysctls: Mapping[str, str] = field(default_factory=dict)
    nft_queue: bool = False
    dot1q: bool = True
    seed: int = 0
    managers: tuple[str, ...] = ()
