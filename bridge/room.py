"""The steps of a room of the wire's own: ports moved into a network namespace, and a leg out of it to the host. Pure.

What the host's firewall, routes, sysctls and services are decides nothing in there; and nothing in there is the host's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from bridge.lane import HOST_LEG, ROOM_LEG
from bridge.lanes import quiet
from bridge.moves import MakeRoom
from bridge.steps import (
    AddAddress,
    AddStation,
    CreateLink,
    Inside,
    SetLink,
    SetSysctl,
    Step,
)

# A new namespace has the first one's values of these (net/ipv4/devinet.c, devinet_init_net).
_INHERITED = (
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.default.forwarding",
    "net.ipv4.conf.all.log_martians",
)
_LOCAL_BIT = 0x02  # of the first octet: locally administered (IEEE 802, clause 8.4)


def inside(room: str, steps: Iterable[Step]) -> Iterator[Step]:
    """The steps, taken in the room if there is one."""
    return (Inside(room, step) for step in steps) if room else iter(steps)


def made(room: str) -> Iterator[Step]:
    """An empty room, as if the host had no sysctls of its own."""
    yield MakeRoom(room)
    yield from inside(room, (SetSysctl(name, "0") for name in _INHERITED))


def leg_mac(mac: str, taken: Collection[str]) -> str:
    """Of the host's end: a port's own would be taken for the bridge's. Locally administered, from ``mac``."""
    first, rest = int(mac[:2], 16) | _LOCAL_BIT, mac[2:]
    candidates = (f"{first ^ change:02x}{rest}" for change in range(0, 256, 4))
    return next(candidate for candidate in candidates if candidate not in taken)


def _quiet_ipv6(speaks: bool) -> Iterator[Step]:
    """Every setting each time: the leg outlives a change of its addresses."""
    settings = {"addr_gen_mode": "1", "accept_ra": "0", "router_solicitations": "0"}
    for name, value in {**settings, "disable_ipv6": "0" if speaks else "1"}.items():
        yield SetSysctl(f"net.ipv6.conf.{HOST_LEG}.{name}", value)


def leg(room: str, bridge: str, mac: str, addresses: Collection[str], *, has_ipv6: bool) -> Iterator[Step]:
    """The box's own way to the wire: it hears what is sent to it and to everybody, and says only what the host says."""
    yield CreateLink(HOST_LEG, "veth", ROOM_LEG, peer_room=room)
    yield SetLink(HOST_LEG, "address", mac)
    yield from (_quiet_ipv6(any(":" in address for address in addresses)) if has_ipv6 else ())
    port = [
        *quiet(ROOM_LEG, has_ipv6=has_ipv6, ipv6=False),
        SetLink(ROOM_LEG, "master", bridge),
        SetLink(ROOM_LEG, "port_learning", 0),
        SetLink(ROOM_LEG, "port_unicast_flood", 0),
        AddStation(ROOM_LEG, mac),
        SetLink(ROOM_LEG, "up", True),
    ]
    yield from inside(room, port)
    for address in addresses:
        yield AddAddress(HOST_LEG, address)
    yield SetLink(HOST_LEG, "up", True)
