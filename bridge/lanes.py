"""The steps that make the mail lanes: untagged mail's, and one for each VLAN whose mail is inspected. Pure.

A VLAN's lane is the same bridge over the same legs; only that its ports are VLAN links, which take the tag off on the
way in and put it back on the way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bridge import flow
from bridge import lane as at
from bridge.lane import LANE, Lane, PortLegs
from bridge.steps import AddNeighbour, AddRoute, AddRule, CreateLink, PolicyRule, Route, SetLink, SetSysctl, Step

# All link-local groups that 802.1D would swallow; bits 0-2 (STP, pause, LACP) the kernel refuses for a whole bridge …
GROUPS_BRIDGE = 0xFFF8
# … and all but pause for a single port (net/bridge/br_private.h, BR_GROUPFWD_RESTRICTED and _MACPAUSE).
GROUPS_PORT = 0xFFFD
# Of the first lane's; each lane has its own, or the kernel would take them for one route.
LINK_LOCAL_METRIC = 1024
# As fast as a wire and as quiet: no wait before forwarding, no querier, no table of groups.
WIRE = (("forward_delay", 0), ("mcast_snooping", 0))


def sysctl_name(link: str) -> str:
    """A link's name inside a sysctl's, where a dot would end it (sysctl(8))."""
    return link.replace(".", "/")


def quiet(link: str, *, has_ipv6: bool, ipv6: bool) -> Iterator[Step]:
    """No word of its own: no address made up, no router asked for, none answered for."""
    name = sysctl_name(link)
    if has_ipv6:
        if ipv6:
            yield SetSysctl(f"net.ipv6.conf.{name}.addr_gen_mode", "1")
            yield SetSysctl(f"net.ipv6.conf.{name}.accept_ra", "0")
            yield SetSysctl(f"net.ipv6.conf.{name}.router_solicitations", "0")
            yield SetSysctl(f"net.ipv6.conf.{name}.disable_ipv6", "0")  # last: what it starts has been forbidden
        else:
            yield SetSysctl(f"net.ipv6.conf.{name}.disable_ipv6", "1")


def lane_steps(legs: Iterable[PortLegs], mtu: int, *, has_ipv6: bool, learning: bool = True) -> Iterator[Step]:
    """The lane of untagged mail, with its legs."""
    yield from _bridge(Lane(), has_ipv6)
    for leg in legs:
        yield from _pair(leg.wire, leg.lane, mtu, has_ipv6)
        yield from _joined(leg.lane, Lane(), learning)
        yield SetLink(leg.wire, "up", True)
        yield SetLink(leg.lane, "up", True)
    yield SetLink(LANE, "up", True)


def tagged_steps(
    legs: Iterable[PortLegs], vlans: Iterable[int], mtu: int, *, has_ipv6: bool, learning: bool = True
) -> Iterator[Step]:
    """The lanes of these VLANs, with the legs that they share."""
    trunks = [PortLegs(leg.port, leg.index, vlan=1) for leg in legs]
    lanes = [Lane(vlan) for vlan in vlans]
    if not lanes:
        return
    for trunk in trunks:
        yield from _pair(trunk.wire, trunk.trunk, mtu, has_ipv6)
        yield SetLink(trunk.wire, "up", True)
        yield SetLink(trunk.trunk, "up", True)
    for lane in lanes:
        yield from _bridge(lane, has_ipv6)
        for trunk in trunks:
            port = PortLegs(trunk.port, trunk.index, lane.vlan).lane
            yield CreateLink(port, "vlan", parent=trunk.trunk, vlan=lane.vlan)
            yield SetLink(port, "mtu", mtu)
            yield from _silent(port, has_ipv6)
            yield from _joined(port, lane, learning)
            yield SetLink(port, "up", True)
        yield SetLink(lane.link, "up", True)


def links_of(legs: Iterable[PortLegs], vlans: Iterable[int]) -> Iterator[str]:
    """The names of all links that the two would make."""
    lanes = [Lane(), *map(Lane, vlans)]
    yield from (lane.link for lane in lanes)
    for leg in legs:
        yield leg.wire
        yield from (PortLegs(leg.port, leg.index, lane.vlan).lane for lane in lanes)
        if len(lanes) > 1:
            trunk = PortLegs(leg.port, leg.index, vlan=1)
            yield from (trunk.wire, trunk.trunk)


def _bridge(lane: Lane, has_ipv6: bool) -> Iterator[Step]:
    yield CreateLink(lane.link, "bridge")
    yield SetLink(lane.link, "address", at.LANE_MAC)
    for attribute, value in (("stp_state", 0), *WIRE, ("nf_call_iptables", 1), ("nf_call_ip6tables", 1)):
        yield SetLink(lane.link, attribute, value)
    yield from quiet(lane.link, has_ipv6=has_ipv6, ipv6=True)
    yield SetSysctl(f"net.ipv4.conf.{sysctl_name(lane.link)}.rp_filter", "0")
    yield SetSysctl(f"net.ipv4.conf.{sysctl_name(lane.link)}.arp_ignore", "8")


def _pair(one: str, other: str, mtu: int, has_ipv6: bool) -> Iterator[Step]:
    yield CreateLink(one, "veth", other)
    for end in (one, other):
        yield SetLink(end, "mtu", mtu)
        yield from _silent(end, has_ipv6)


def _silent(end: str, has_ipv6: bool) -> Iterator[Step]:
    yield from quiet(end, has_ipv6=has_ipv6, ipv6=False)
    yield SetSysctl(f"net.ipv4.conf.{sysctl_name(end)}.arp_ignore", "8")


def _joined(port: str, lane: Lane, learning: bool) -> Iterator[Step]:
    yield SetLink(port, "master", lane.link)
    yield SetLink(port, "port_group_fwd_mask", GROUPS_PORT)
    if not learning:
        yield SetLink(port, "port_learning", 0)


def inwards_and_out(lane: Lane, *, has_ipv6: bool) -> Iterator[Step]:
    """Marked frames from the lane belong to this host; what marked sockets send leaves by it."""
    mark, mask = flow.magic(lane.vlan) | flow.DIVERT, flow.MAGIC_MASK | flow.DIVERT
    families = [(4, "0.0.0.0/0", at.NEXT_HOP4)] + ([(6, "::/0", at.NEXT_HOP6)] if has_ipv6 else [])
    for family, everything, next_hop in families:
        if not lane.vlan:
            if family == 6:  # where an administrator has switched it off for all, the loopback has no routes either
                yield SetSysctl("net.ipv6.conf.lo.disable_ipv6", "0")
            scope = 254 if family == 4 else 0
            yield AddRoute(Route(everything, "lo", table=at.INWARD_TABLE, kind="local", scope=scope))
        if family == 6:  # a route for link-local addresses holds for one device (net/ipv6/route.c, rt6_need_strict)
            metric = LINK_LOCAL_METRIC + lane.vlan
            yield AddRoute(Route("fe80::/10", lane.link, table=at.INWARD_TABLE, kind="local", metric=metric))
        yield AddRule(PolicyRule(family, lane.link, mark, mask, at.INWARD_TABLE))
        yield AddNeighbour(lane.link, next_hop, at.NEXT_HOP_MAC)
        yield AddRoute(Route(everything, lane.link, table=lane.outward, gateway=next_hop, onlink=True))
        yield AddRule(PolicyRule(family, "lo", mark, mask, lane.outward))
