"""Wanted bridge × host as it is → the steps that make the one of the other. Pure: touches nothing.

Order matters: the plain bridge first, so that an interrupted run still ends as a wire; the rules last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from bridge import flow
from bridge.lane import HOST_LEG, LANE, QUEUE_NUMBER, Lane, PortLegs, Wanted
from bridge.lanes import (
    GROUPS_BRIDGE,
    GROUPS_PORT,
    WIRE,
    inwards_and_out,
    lane_steps,
    links_of,
    quiet,
    sysctl_name,
    tagged_steps,
)
from bridge.moves import MoveLink
from bridge.present import BRIDGE_NF, LinkFacts, Present
from bridge.room import inside, leg, leg_mac, made
from bridge.ruleset import Rules, render
from bridge.steps import (
    AddAddress,
    AddQueueRule,
    AddRoute,
    CreateLink,
    LoadModule,
    LoadRuleset,
    RemoveAddress,
    RemoveNeighbour,
    RemoveRoute,
    Route,
    SetLink,
    SetSysctl,
    Step,
    Unmanage,
)

# Of what may be a port; the kernel says so by its own flag only since Linux 6.14 (IFLA_NETNS_IMMUTABLE).
_STAYING = frozenset({"bond", "team"})
_STP_GROUP = 0x0001  # a port that forwards BPDUs hands none to its own bridge (br_handle_frame)


class PlanError(Exception):
    """The plan cannot be made: ``key`` of the configuration, the reason, the remedy; ``every`` has the others too."""

    def __init__(self, key: str, reason: str, remedy: str, others: Iterable[PlanError] = ()) -> None:
        self.key, self.reason, self.remedy = key, reason, remedy
        self.every = (self, *others)
        super().__init__("\n".join(f"{each.key}: {each.reason}; {each.remedy}" for each in self.every))


@dataclass(frozen=True, slots=True)
class Plan:
    """``legs`` in the order of the configured ports, whose index the packet mark carries; ``vlans`` are the VIDs whose
    mail gets a lane: all that are wanted, or none where the kernel has no VLANs."""

    steps: tuple[Step, ...]
    legs: tuple[PortLegs, ...]
    ruleset: str
    vlans: tuple[int, ...] = ()


def make_plan(wanted: Wanted, present: Present) -> Plan:
    """Every step, in order; steps that already hold are left to the shell to skip. Raises `PlanError`."""
    ports = _each_port(wanted, present)
    if len({port.name for port in ports}) < len(ports):
        raise PlanError("bridge.ports", "two entries name the same port", "name each port once")
    legs = tuple(PortLegs(port.name, index) for index, port in enumerate(ports))
    if not present.dot1q:
        wanted = replace(wanted, vlans=())
    _untaken(wanted, present, ports)
    mac = _adoptable(wanted, present).mac if wanted.adopt else ports[0].mac
    rules = _rules(wanted, present, legs, mac)
    ruleset = render(rules)
    bridge = _adopted(wanted, present, ports) if wanted.adopt else _plain(wanted, present, ports, mac)
    steps = [
        *_unmanaged(wanted, present, legs),
        *_module(present),
        *(_moved(wanted.room, ports) if wanted.room else ()),
        *inside(wanted.room, (*wanted.tuned_first, *_kernel(wanted, present), *bridge)),
        *_management(wanted, present, ports, rules.bridge_mac),
        *inside(
            wanted.room,
            (
                *_lanes(rules, present, min(port.mtu for port in ports), in_host=not wanted.room),
                LoadRuleset(ruleset),
                *_queue(wanted, present),
                *wanted.tuned_last,
            ),
        ),
    ]
    return Plan(tuple(steps), legs, ruleset, wanted.vlans)


def tuning_steps(wanted: Wanted, present: Present) -> tuple[Step, ...]:
    """Those steps of the plan that suit the box to its hardware and make no bridge."""
    return tuple(inside(wanted.room, (*wanted.tuned_first, *_floors(wanted, present), *wanted.tuned_last)))


def _rules(wanted: Wanted, present: Present, legs: tuple[PortLegs, ...], mac: str) -> Rules:
    addresses = present.links[wanted.bridge].addresses if wanted.adopt else wanted.management
    macs = {link.mac for link in present.links.values()}
    own = leg_mac(mac, macs) if wanted.room and wanted.management else mac
    return Rules(
        bridge=wanted.bridge,
        bridge_mac=own,
        legs=legs,
        mail_ports=wanted.mail_ports,
        limits=wanted.limits,
        seed=present.seed,
        vlans=wanted.vlans,
        learned_s=wanted.learned_s,
        closed=frozenset(leg.port for name, leg in zip(wanted.ports, legs, strict=True) if name in wanted.closed),
        block=wanted.block,
        stp=wanted.stp,
        is_wire=wanted.is_wire,
        adopted=wanted.adopt,
        silent=bool(wanted.room) or (not addresses and not wanted.adopt),
        nft_queue=present.nft_queue,
        queues=wanted.queues,
    )


# --- what must be true of the host --------------------------------------------------------------------------


def _each_port(wanted: Wanted, present: Present) -> list[LinkFacts]:
    ports, refused = [], []
    for name in wanted.ports:
        try:
            ports.append(_port(name, wanted, present))
        except PlanError as error:
            refused.append(error)
    if refused:
        first, *others = refused
        raise PlanError(first.key, first.reason, first.remedy, others)
    return ports


def _port(name: str, wanted: Wanted, present: Present) -> LinkFacts:
    link = present.links.get(name) or next((link for link in present.links.values() if link.mac == name.lower()), None)
    match link:
        case None:
            known = ", ".join(sorted(n for n in present.links if n != "lo")) or "none"
            raise PlanError("bridge.ports", f"there is no interface {name}", f"present are: {known}")
        case LinkFacts(kind=kind) if wanted.room and kind in _STAYING:
            raise PlanError(
                "bridge.namespace",
                f"{link.name} is a {kind}, which the kernel moves into no other network namespace",
                'set bridge.namespace = "host"',
            )
        case LinkFacts(kind="bridge") | LinkFacts(ethernet=False):  # br_add_if() in net/bridge/br_if.c
            what = "is a bridge itself" if link.kind == "bridge" else "is not Ethernet"
            raise PlanError("bridge.ports", f"{link.name} {what}, and cannot be a port", "name an Ethernet port")
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


def _untaken(wanted: Wanted, present: Present, ports: Iterable[LinkFacts]) -> None:
    """A VLAN link on a port takes that VLAN off the bridge; a lane would take its mail from it."""
    names = {port.name for port in ports}
    for link in present.links.values():
        if link.parent in names and link.vlan in wanted.vlans:
            raise PlanError(
                "bridge.vlans",
                f"{link.name} takes VLAN {link.vlan} from {link.parent}, so that nothing of it is bridged",
                f"remove it, or put it on the bridge instead ({wanted.bridge}.{link.vlan}), or do not list the VLAN",
            )


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
    if present.links[wanted.bridge].filters_vlans:
        raise PlanError(
            "bridge.adopt",
            f"{wanted.bridge} filters VLANs, and mail between ports of different VLANs would meet in the lane",
            f"switch it off (ip link set {wanted.bridge} type bridge vlan_filtering 0), or let Tollbridge make its own "
            "bridge, with the VLANs in bridge.vlans",
        )
    for port in ports:
        if port.master != wanted.bridge:
            raise PlanError(
                "bridge.adopt", f"{port.name} is not a port of {wanted.bridge}", "add it, or set bridge.adopt = false"
            )
    yield SetLink(wanted.bridge, "nf_call_iptables", 0)
    yield SetLink(wanted.bridge, "nf_call_ip6tables", 0)


def _foreign(link: str, present: Present, key: str, remedy: str) -> None:
    """What has the name of a link of ours, where that is to be."""
    if link in present.links:
        raise PlanError(key, f"there is a link {link} that Tollbridge did not make", remedy)


# --- the steps, in the order of the design --------------------------------------------------------------------------


def _unmanaged(wanted: Wanted, present: Present, legs: Iterable[PortLegs]) -> Iterator[Step]:
    """First, so that no manager sees a link that it has not been told of. An adopted bridge stays whose it is."""
    legs = tuple(legs)
    ports = [leg.port for leg in legs]
    ours = [HOST_LEG] if wanted.room else list(links_of(legs, wanted.vlans))
    links = ours if wanted.adopt else [*([] if wanted.room else [wanted.bridge]), *ports, *ours]
    for manager in present.managers:
        yield Unmanage(manager, " ".join(links))


def _moved(room: str, ports: Iterable[LinkFacts]) -> Iterator[Step]:
    yield from made(room)
    for port in ports:
        yield from _without_addresses(port)
        yield MoveLink(port.name, room)


def _module(present: Present) -> Iterator[Step]:
    if BRIDGE_NF[0] not in present.sysctls:
        yield LoadModule("br_netfilter")


def _kernel(wanted: Wanted, present: Present) -> Iterator[Step]:
    for name in BRIDGE_NF:
        yield SetSysctl(name, "0")  # the lane asks for itself; no other bridge is to pay
    if not wanted.room:
        yield from _loose(present)
    yield SetSysctl("net.ipv4.conf.all.rp_filter", "0")
    yield SetSysctl("net.ipv4.tcp_fwmark_accept", "1")
    yield SetSysctl("net.ipv4.fwmark_reflect", "1")  # a RST without a socket leaves as its cause came
    if _has_ipv6(present):
        yield SetSysctl("net.ipv6.fwmark_reflect", "1")
    yield SetSysctl("net.ipv4.tcp_tw_reuse", "1")  # a client may dial again from the same source port
    yield from _floors(wanted, present)
    yield SetLink("lo", "up", True)


def _loose(present: Present) -> Iterator[Step]:
    """The lane must not be filtered, and the kernel takes the larger of "all" and the link's own value."""
    strict = int(present.sysctls.get("net.ipv4.conf.all.rp_filter", "0"))
    if strict:
        for name in sorted(present.links):
            own = int(present.sysctls.get(f"net.ipv4.conf.{sysctl_name(name)}.rp_filter", "0"))
            yield SetSysctl(f"net.ipv4.conf.{sysctl_name(name)}.rp_filter", str(max(strict, own)))


def _floors(wanted: Wanted, present: Present) -> Iterator[Step]:
    for name, least in wanted.sysctls_at_least.items():
        if name in present.sysctls and int(present.sysctls[name]) < least:
            yield SetSysctl(name, str(least))


def _plain(wanted: Wanted, present: Present, ports: list[LinkFacts], mac: str) -> Iterator[Step]:
    bridge, in_host = wanted.bridge, not wanted.room
    if in_host:
        _foreign(bridge, present, "bridge.name", "choose another name, or set bridge.adopt = true to use it")
    yield CreateLink(bridge, "bridge")
    yield SetLink(bridge, "address", mac)
    for attribute, value in (("stp_state", int(wanted.stp)), *(_SWITCH if wanted.stp else WIRE)):
        yield SetLink(bridge, attribute, value)
    yield SetLink(bridge, "group_fwd_mask", GROUPS_BRIDGE)
    speaks = in_host and any(":" in address for address in wanted.management)
    yield from quiet(bridge, has_ipv6=_has_ipv6(present), ipv6=speaks)
    for port in ports:
        if in_host:
            yield from _without_addresses(port)
        yield from quiet(port.name, has_ipv6=_has_ipv6(present), ipv6=False)
        yield SetLink(port.name, "up", True)
        yield SetLink(port.name, "master", bridge)
        yield SetLink(port.name, "port_group_fwd_mask", GROUPS_PORT & ~_STP_GROUP if wanted.stp else GROUPS_PORT)
        if wanted.is_wire:
            yield SetLink(port.name, "port_learning", 0)
    yield SetLink(bridge, "up", True)


def _management(wanted: Wanted, present: Present, ports: list[LinkFacts], mac: str) -> Iterator[Step]:
    """The addresses by which the box is reached: on the bridge, or on the host's end of a leg to it."""
    if wanted.adopt or (wanted.room and not wanted.management):
        return
    holder = HOST_LEG if wanted.room else wanted.bridge
    if wanted.room:
        _foreign(holder, present, "bridge.management", f"rename it: the box is to be reached by {holder}")
        yield from leg(wanted.room, wanted.bridge, mac, wanted.management, has_ipv6=_has_ipv6(present))
    else:
        for address in wanted.management:
            yield AddAddress(holder, address)
    default = {"::/0" if ":" in gateway else "0.0.0.0/0": gateway for gateway in wanted.gateway}
    for destination, gateway in default.items():
        yield AddRoute(Route(destination, holder, gateway=gateway))
    for route in dict.fromkeys(replace(route, link=holder) for port in ports for route in port.routes):
        if route.destination not in default:
            yield AddRoute(route)  # the administrator may be at the other end of it


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


def _lanes(rules: Rules, present: Present, mtu: int, *, in_host: bool) -> Iterator[Step]:
    """Untagged mail's first, and whole: what goes wrong with a VLAN must not cost it."""
    for link in links_of(rules.legs, rules.vlans) if in_host else ():
        _foreign(link, present, "bridge.name", "rename it: the mail lanes have it")
    has_ipv6 = _has_ipv6(present)
    yield from lane_steps(rules.legs, mtu, has_ipv6=has_ipv6, learning=not rules.is_wire)
    yield from inwards_and_out(Lane(), has_ipv6=has_ipv6)
    yield from tagged_steps(rules.legs, rules.vlans, mtu, has_ipv6=has_ipv6, learning=not rules.is_wire)
    for vlan in rules.vlans:
        yield from inwards_and_out(Lane(vlan), has_ipv6=has_ipv6)


def _queue(wanted: Wanted, present: Present) -> Iterator[Step]:
    if not present.nft_queue:
        lanes = f"{LANE}+" if wanted.vlans else LANE  # iptables(8): + is any ending
        for family in (4, 6) if _has_ipv6(present) else (4,):
            for queue in range(wanted.queues):
                number = QUEUE_NUMBER + queue
                yield AddQueueRule(family, lanes, flow.queue_mark(queue), number, bypass=not wanted.block)


def _has_ipv6(present: Present) -> bool:
    return "net.ipv6.conf.all.disable_ipv6" in present.sysctls


def sysctls_read(links: Iterable[str], at_least: Iterable[str]) -> list[str]:
    """The sysctls that `make_plan` looks at."""
    every = ["net.ipv6.conf.all.disable_ipv6", "net.ipv4.conf.all.rp_filter", *BRIDGE_NF, *at_least]
    return every + [f"net.ipv4.conf.{sysctl_name(link)}.rp_filter" for link in links]
