"""Wanted bridge × host as it is → the steps that make the one of the other. Pure: touches nothing.

Order matters: the plain bridge first, so that an interrupted run still ends as a wire; the rules last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from bridge import flow
from bridge import lane as at
from bridge.lane import LANE, PortLegs, Wanted
from bridge.ruleset import Rules, render
from bridge.steps import (
    AddAddress,
    AddNeighbour,
    AddQueueRule,
    AddRoute,
    AddRule,
    CreateLink,
    LoadModule,
    LoadRuleset,
    PolicyRule,
    RemoveAddress,
    RemoveNeighbour,
    RemoveRoute,
    Route,
    SetLink,
    SetSysctl,
    Step,
    Unmanage,
)

BRIDGE_NF = (
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-arptables",
)
# All link-local groups that 802.1D would swallow; bits 0-2 (STP, pause, LACP) the kernel refuses for a whole bridge …
GROUPS_BRIDGE = 0xFFF8
# … and all but pause for a single port (net/bridge/br_private.h, BR_GROUPFWD_RESTRICTED and _MACPAUSE).
GROUPS_PORT = 0xFFFD
_STP_GROUP = 0x0001  # a port that forwards BPDUs hands none to its own bridge (br_handle_frame)


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """One link as the kernel shows it. Addresses with prefix length, only those an administrator or DHCP gave;
    routes of all tables; neighbours (address, MAC), only permanent ones."""

    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 1500
    master: str = ""
    stp: bool = False
    addresses: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Present:
    """The host without Tollbridge; `bridge.ledger.original` gives it back where Tollbridge is. ``managers`` are the
    network managers that may run here."""

    links: Mapping[str, LinkFacts]
    sysctls: Mapping[str, str] = field(default_factory=dict)
    nft_queue: bool = False
    seed: int = 0
    managers: tuple[str, ...] = ()


class PlanError(Exception):
    """The plan cannot be made: ``key`` of the configuration, the reason, the remedy."""

    def __init__(self, key: str, reason: str, remedy: str) -> None:
        super().__init__(f"{key}: {reason}; {remedy}")
        self.key, self.reason, self.remedy = key, reason, remedy


@dataclass(frozen=True, slots=True)
class Plan:
    """``legs`` in the order of the configured ports, whose index the packet mark carries."""

    steps: tuple[Step, ...]
    legs: tuple[PortLegs, ...]
    ruleset: str


def make_plan(wanted: Wanted, present: Present) -> Plan:
    """Every step, in order; steps that already hold are left to the shell to skip. Raises `PlanError`."""
    ports = [_port(name, wanted, present) for name in wanted.ports]
    if len({port.name for port in ports}) < len(ports):
        raise PlanError("bridge.ports", "two entries name the same port", "name each port once")
    legs = tuple(PortLegs(port.name, index) for index, port in enumerate(ports))
    mac = _adoptable(wanted, present).mac if wanted.adopt else ports[0].mac
    rules = _rules(wanted, present, legs, mac)
    ruleset = render(rules)
    steps = [
        *_unmanaged(wanted, present, legs),
        *wanted.tuned_first,
        *_kernel(wanted, present),
        *(_adopted(wanted, present, ports) if wanted.adopt else _plain(wanted, present, ports, mac)),
        *_lane(wanted, present, legs, min(port.mtu for port in ports)),
        *_inwards_and_out(present),
        LoadRuleset(ruleset),
        *_queue(wanted, present),
        *wanted.tuned_last,
    ]
    return Plan(tuple(steps), legs, ruleset)


def tuning_steps(wanted: Wanted, present: Present) -> tuple[Step, ...]:
    """Those steps of the plan that suit the box to its hardware and make no bridge."""
    return (*wanted.tuned_first, *_floors(wanted, present), *wanted.tuned_last)


def _rules(wanted: Wanted, present: Present, legs: tuple[PortLegs, ...], mac: str) -> Rules:
    addresses = present.links[wanted.bridge].addresses if wanted.adopt else wanted.management
    return Rules(
        bridge=wanted.bridge,
        bridge_mac=mac,
        legs=legs,
        mail_ports=wanted.mail_ports,
        limits=wanted.limits,
        seed=present.seed,
        learned_s=wanted.learned_s,
        closed=frozenset(leg.port for name, leg in zip(wanted.ports, legs, strict=True) if name in wanted.closed),
        block=wanted.block,
        stp=wanted.stp,
        silent=not addresses and not wanted.adopt,
        nft_queue=present.nft_queue,
    )


# --- what must be true of the host --------------------------------------------------------------------------


def _port(name: str, wanted: Wanted, present: Present) -> LinkFacts:
    link = present.links.get(name) or next((link for link in present.links.values() if link.mac == name.lower()), None)
    match link:
        case None:
            known = ", ".join(sorted(n for n in present.links if n != "lo")) or "none"
            raise PlanError("bridge.ports", f"there is no interface {name}", f"present are: {known}")
        case LinkFacts(master=master) if master not in ("", wanted.bridge):
            raise PlanError(
                "bridge.ports",
                f"{link.name} is already a port of {master}",
                f"take it out: ip link set {link.name} nomaster",
            )
        case LinkFacts(addresses=addresses) if not wanted.adopt and set(addresses) - set(wanted.management):
            extra = ", ".join(a for a in addresses if a not in wanted.management)
            raise PlanError(
                "bridge.ports",
                f"{link.name} carries {extra}, and a bridged port has no address of its own",
                "list it in bridge.management to move it to the bridge, or remove it",
            )
        case _:
            return link


def _adoptable(wanted: Wanted, present: Present) -> LinkFacts:
    match present.links.get(wanted.bridge):
        case LinkFacts(kind="bridge") as bridge:
            return bridge
        case _:
            raise PlanError(
                "bridge.adopt", f"there is no bridge {wanted.bridge} to adopt", "make it, or set bridge.adopt = false"
            )


def _adopted(wanted: Wanted, present: Present, ports: Iterable[LinkFacts]) -> Iterator[Step]:
    """An adopted bridge stays its administrator's: only what makes it a wire for mail is set."""
    if present.links[wanted.bridge].stp and not wanted.stp:
        raise PlanError(
            "bridge.stp",
            f"{wanted.bridge} runs STP, and mail would go by ports that it blocks",
            "set bridge.stp = true",
        )
    for port in ports:
        if port.master != wanted.bridge:
            raise PlanError(
                "bridge.adopt", f"{port.name} is not a port of {wanted.bridge}", "add it, or set bridge.adopt = false"
            )
    yield SetLink(wanted.bridge, "nf_call_iptables", 0)
    yield SetLink(wanted.bridge, "nf_call_ip6tables", 0)


def _foreign(link: str, present: Present, key: str, remedy: str) -> None:
    if link in present.links:
        raise PlanError(key, f"there is a link {link} that Tollbridge did not make", remedy)


# --- the steps, in the order of the design --------------------------------------------------------------------------


def _unmanaged(wanted: Wanted, present: Present, legs: Iterable[PortLegs]) -> Iterator[Step]:
    """First, so that no manager sees a link that it has not been told of. An adopted bridge stays whose it is."""
    ours = [LANE, *(end for leg in legs for end in (leg.wire, leg.lane))]
    links = ours if wanted.adopt else [wanted.bridge, *(leg.port for leg in legs), *ours]
    for manager in present.managers:
        yield Unmanage(manager, " ".join(links))


def _kernel(wanted: Wanted, present: Present) -> Iterator[Step]:
    if BRIDGE_NF[0] not in present.sysctls:
        yield LoadModule("br_netfilter")
    for name in BRIDGE_NF:
        yield SetSysctl(name, "0")  # the lane asks for itself; no other bridge is to pay
    # The lane must not be filtered, and the kernel takes the larger of "all" and the link's own value.
    strict = int(present.sysctls.get("net.ipv4.conf.all.rp_filter", "0"))
    if strict:
        for name in sorted(present.links):
            own = int(present.sysctls.get(f"net.ipv4.conf.{sysctl_name(name)}.rp_filter", "0"))
            yield SetSysctl(f"net.ipv4.conf.{sysctl_name(name)}.rp_filter", str(max(strict, own)))
    yield SetSysctl("net.ipv4.conf.all.rp_filter", "0")
    yield SetSysctl("net.ipv4.tcp_fwmark_accept", "1")
    yield SetSysctl("net.ipv4.fwmark_reflect", "1")  # a RST without a socket leaves as its cause came
    if _has_ipv6(present):
        yield SetSysctl("net.ipv6.fwmark_reflect", "1")
    yield SetSysctl("net.ipv4.tcp_tw_reuse", "1")  # a client may dial again from the same source port
    yield from _floors(wanted, present)
    yield SetLink("lo", "up", True)


def _floors(wanted: Wanted, present: Present) -> Iterator[Step]:
    for name, least in wanted.sysctls_at_least.items():
        if name in present.sysctls and int(present.sysctls[name]) < least:
            yield SetSysctl(name, str(least))


def _plain(wanted: Wanted, present: Present, ports: list[LinkFacts], mac: str) -> Iterator[Step]:
    bridge = wanted.bridge
    _foreign(bridge, present, "bridge.name", "choose another name, or set bridge.adopt = true to use it")
    yield CreateLink(bridge, "bridge")
    yield SetLink(bridge, "address", mac)
    for attribute, value in (("stp_state", int(wanted.stp)), *(_SWITCH if wanted.stp else _WIRE)):
        yield SetLink(bridge, attribute, value)
    yield SetLink(bridge, "group_fwd_mask", GROUPS_BRIDGE)
    yield from _quiet(bridge, present, ipv6=any(":" in address for address in wanted.management))
    for port in ports:
        yield from _without_addresses(port)
        yield from _quiet(port.name, present, ipv6=False)
        yield SetLink(port.name, "up", True)
        yield SetLink(port.name, "master", bridge)
        yield SetLink(port.name, "port_group_fwd_mask", GROUPS_PORT & ~_STP_GROUP if wanted.stp else GROUPS_PORT)
    yield SetLink(bridge, "up", True)
    for address in wanted.management:
        yield AddAddress(bridge, address)
    default = {"::/0" if ":" in gateway else "0.0.0.0/0": gateway for gateway in wanted.gateway}
    for destination, gateway in default.items():
        yield AddRoute(Route(destination, bridge, gateway=gateway))
    for route in dict.fromkeys(replace(route, link=bridge) for port in ports for route in port.routes):
        if route.destination not in default:
            yield AddRoute(route)  # the administrator may be at the other end of it


# As fast as a wire and as quiet: no wait before forwarding, no querier, no table of groups.
_WIRE = (("forward_delay", 0), ("mcast_snooping", 0))
# With STP the box is a switch among others: it waits as long as 802.1D has it wait, or as the root bridge says.
_SWITCH = (("forward_delay", 1500), ("mcast_snooping", 0))


def _without_addresses(port: LinkFacts) -> Iterator[Step]:
    """What the kernel would drop with the last address comes first, and the first address last: its fellows of the
    same network go with it. What goes unseen is never brought back."""
    for route in port.routes:
        yield RemoveRoute(route)
    for address, mac in port.neighbours:
        yield RemoveNeighbour(port.name, address, mac)
    for address in reversed(port.addresses):
        yield RemoveAddress(port.name, address)


def _quiet(link: str, present: Present, *, ipv6: bool) -> Iterator[Step]:
    """No word of its own: no address made up, no router asked for, none answered for."""
    name = sysctl_name(link)
    if _has_ipv6(present):
        if ipv6:
            yield SetSysctl(f"net.ipv6.conf.{name}.addr_gen_mode", "1")
            yield SetSysctl(f"net.ipv6.conf.{name}.accept_ra", "0")
            yield SetSysctl(f"net.ipv6.conf.{name}.router_solicitations", "0")
            yield SetSysctl(f"net.ipv6.conf.{name}.disable_ipv6", "0")  # last: what it starts has been forbidden
        else:
            yield SetSysctl(f"net.ipv6.conf.{name}.disable_ipv6", "1")


def _lane(wanted: Wanted, present: Present, legs: Iterable[PortLegs], mtu: int) -> Iterator[Step]:
    _foreign(LANE, present, "bridge.name", f"rename it: {LANE} is the mail lane")
    yield CreateLink(LANE, "bridge")
    yield SetLink(LANE, "address", at.LANE_MAC)
    for attribute, value in (("stp_state", 0), *_WIRE, ("nf_call_iptables", 1), ("nf_call_ip6tables", 1)):
        yield SetLink(LANE, attribute, value)
    yield from _quiet(LANE, present, ipv6=True)
    yield SetSysctl(f"net.ipv4.conf.{LANE}.rp_filter", "0")
    yield SetSysctl(f"net.ipv4.conf.{LANE}.arp_ignore", "8")
    for leg in legs:
        for end in (leg.wire, leg.lane):
            _foreign(end, present, "bridge.ports", "rename it: the name belongs to a leg of the mail lane")
        yield CreateLink(leg.wire, "veth", leg.lane)
        for end in (leg.wire, leg.lane):
            yield SetLink(end, "mtu", mtu)
            yield from _quiet(end, present, ipv6=False)
            yield SetSysctl(f"net.ipv4.conf.{end}.arp_ignore", "8")
        yield SetLink(leg.lane, "master", LANE)
        yield SetLink(leg.lane, "port_group_fwd_mask", GROUPS_PORT)
        yield SetLink(leg.wire, "up", True)
        yield SetLink(leg.lane, "up", True)
    yield SetLink(LANE, "up", True)


def _inwards_and_out(present: Present) -> Iterator[Step]:
    """Marked frames from the lane belong to this host; what marked sockets send leaves by the lane."""
    mark, mask = flow.MAGIC | flow.DIVERT, flow.MAGIC_MASK | flow.DIVERT
    families = [(4, "0.0.0.0/0", at.NEXT_HOP4)] + ([(6, "::/0", at.NEXT_HOP6)] if _has_ipv6(present) else [])
    for family, everything, next_hop in families:
        yield AddRoute(Route(everything, "lo", table=at.INWARD_TABLE, kind="local", scope=254 if family == 4 else 0))
        yield AddRule(PolicyRule(family, LANE, mark, mask, at.INWARD_TABLE))
        yield AddNeighbour(LANE, next_hop, at.NEXT_HOP_MAC)
        yield AddRoute(Route(everything, LANE, table=at.OUTWARD_TABLE, gateway=next_hop, onlink=True))
        yield AddRule(PolicyRule(family, "lo", mark, mask, at.OUTWARD_TABLE))


def _queue(wanted: Wanted, present: Present) -> Iterator[Step]:
    if not present.nft_queue:
        for family in (4, 6) if _has_ipv6(present) else (4,):
            yield AddQueueRule(family, LANE, flow.MAGIC | flow.QUEUE, at.QUEUE_NUMBER, bypass=not wanted.block)


def _has_ipv6(present: Present) -> bool:
    return "net.ipv6.conf.all.disable_ipv6" in present.sysctls


def sysctl_name(link: str) -> str:
    """A link's name inside a sysctl's, where a dot would end it (sysctl(8))."""
    return link.replace(".", "/")


def sysctls_read(links: Iterable[str], at_least: Iterable[str]) -> list[str]:
    """The sysctls that `make_plan` looks at."""
    every = ["net.ipv6.conf.all.disable_ipv6", "net.ipv4.conf.all.rp_filter", *BRIDGE_NF, *at_least]
    return every + [f"net.ipv4.conf.{sysctl_name(link)}.rp_filter" for link in links]
