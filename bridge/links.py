"""Performs and undoes steps on links, addresses, routes and rules: rtnetlink, nothing else."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from bridge.lane import PREFERENCE
from bridge.present import LinkFacts
from bridge.steps import PolicyRule, Route

ARPHRD_ETHER = 1  # linux/if_arp.h
PERMANENT = 0x80  # NUD_PERMANENT and IFA_F_PERMANENT alike (linux/neighbour.h, linux/if_addr.h)
_NOARP = 0x40  # NUD_NOARP: of a bridge's table, an entry that is static (br_fdb_add)
_FORWARDING = 3  # BR_STATE_FORWARDING
_ONLINK = 4  # RTNH_F_ONLINK
_KERNEL = 2  # RTPROT_KERNEL: the kernel makes and removes these with their addresses
_RA = 9
_LINK_SCOPE = 253
_UP = 1
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

# attribute → (where a link message has it, how a request names it)
_BRIDGE = (
    "stp_state", "forward_delay", "mcast_snooping", "group_fwd_mask", "nf_call_iptables", "nf_call_ip6tables",
    "vlan_filtering",
)  # fmt: skip


def family_of(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


class Links:
    """The host's links, as one open rtnetlink socket. Raises `NetlinkError` and OSError."""

    def __init__(self) -> None:
        self._ip = IPRoute()
        self._still: dict[tuple[Any, ...], list[Any]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._ip.close()

    # --- reading ---------------------------------------------------------------------------------------------------

    @contextmanager
    def still(self) -> Iterator[None]:
        """While the context lasts everything is read once: a comparison asks hundreds of things of one moment."""
        self._still = {}
        try:
            yield
        finally:
            self._still = None

    def _read(self, what: str, **about: Any) -> list[Any]:
        """What the kernel answers to ``get_<what>``."""
        read: Callable[..., Iterable[Any]] = getattr(self._ip, f"get_{what}")
        if self._still is None:
            return list(read(**about))
        key = (what, *about.items())
        if key not in self._still:
            self._still[key] = list(read(**about))
        return self._still[key]

    def _link(self, index: int) -> Any:
        if self._still is None:
            return self._ip.get_links(index)[0]
        return next(link for link in self._read("links") if link["index"] == index)

    def index(self, link: str) -> int | None:
        """The link's ifindex, or None."""
        if self._still is None:
            found: list[int] = self._ip.link_lookup(ifname=link)
            return found[0] if found else None
        named = (message for message in self._read("links") if message.get_attr("IFLA_IFNAME") == link)
        return next((message["index"] for message in named), None)

    def facts(self) -> dict[str, LinkFacts]:
        """All links with their administrative addresses, the routes through them and their permanent neighbours."""
        links = self._read("links")
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
        addresses, routes, neighbours = self._addresses(names), self._routes(names), self._neighbours()
        return {
            names[link["index"]]: LinkFacts(
                name=names[link["index"]],
                index=link["index"],
                kind=(link.get_attr("IFLA_LINKINFO") or _NOTHING).get_attr("IFLA_INFO_KIND") or "",
                mac=link.get_attr("IFLA_ADDRESS") or "",
                mtu=link.get_attr("IFLA_MTU") or 0,
                master=names.get(link.get_attr("IFLA_MASTER") or 0, ""),
                stp=bool(_READ["stp_state"](link, self)),
                filters_vlans=bool(_READ["vlan_filtering"](link, self)),
                parent="" if elsewhere(link) else names.get(link.get_attr("IFLA_LINK") or 0, ""),
                vlan=_READ["vlan_id"](link, self) or 0,
                ethernet=link["ifi_type"] == ARPHRD_ETHER,
                addresses=tuple(addresses.get(link["index"], ())),
                routes=tuple(routes.get(link["index"], ())),
                neighbours=tuple(neighbours.get(link["index"], ())),
            )
            for link in links
        }

    def _addresses(self, names: dict[int, str]) -> dict[int, list[str]]:
        """Not the kernel's link-local ones, nor what a router advertisement will bring again."""
        found: dict[int, list[str]] = {}
        for address in self._read("addr"):
            text = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
            flags = address.get_attr("IFA_FLAGS") or address["flags"]
            if ":" in text and (address["scope"] == _LINK_SCOPE or not flags & PERMANENT):
                continue
            found.setdefault(address["index"], []).append(f"{text}/{address['prefixlen']}")
        return found

    def _routes(self, names: dict[int, str]) -> dict[int, list[Route]]:
        found: dict[int, list[Route]] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            for route in self._read("routes", family=family):
                link = route.get_attr("RTA_OIF")
                if route["proto"] not in (_KERNEL, _RA) and link in names:
                    found.setdefault(link, []).append(_read_route(route, names[link]))
        return found

    def _neighbours(self) -> dict[int, list[tuple[str, str]]]:
        found: dict[int, list[tuple[str, str]]] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            for neighbour in self._read("neighbours", family=family):
                mac = neighbour.get_attr("NDA_LLADDR")
                if neighbour["state"] & PERMANENT and mac:
                    found.setdefault(neighbour["ifindex"], []).append((neighbour.get_attr("NDA_DST"), mac))
        return found

    def own_addresses(self) -> frozenset[bytes]:
        """Every address of this host, packed."""
        texts = [a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS") for a in self._read("addr")]
        return frozenset(socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text) for text in texts)

    def attribute(self, link: str, attribute: str) -> bool | int | str | None:
        """The present value of what `set_attribute` sets; None if there is no such link."""
        index = self.index(link)
        if index is None:
            return None
        message = self._link(index)
        value: bool | int | str | None = _READ[attribute](message, self)
        return value

    def forwards(self, link: str) -> bool:
        """It has a carrier and, as a port of a bridge, is not kept from forwarding."""
        if (index := self.index(link)) is None:
            return False
        message = self._link(index)
        state = _READ["port_state"](message, self)
        return message.get_attr("IFLA_OPERSTATE") == "UP" and state in (None, _FORWARDING)

    def has_address(self, link: str, address: str) -> bool:
        return self._address(link, address) is not None

    def broadcast(self, link: str, address: str) -> str:
        """The broadcast address that goes with one of the link's addresses; "" without one."""
        found = self._address(link, address)
        return "" if found is None else found.get_attr("IFA_BROADCAST") or ""

    def _address(self, link: str, address: str) -> Any:
        index = self.index(link)
        text, _, length = address.partition("/")
        present = () if index is None else self._read("addr", index=index)
        return next(
            (
                a
                for a in present
                if (a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")) == text and a["prefixlen"] == int(length)
            ),
            None,
        )

    def has_route(self, route: Route) -> bool:
        if (index := self.index(route.link)) is None:
            return False
        family = _FAMILY[family_of(route.destination)]
        try:
            present = [
                _read_route(r, route.link)
                for r in self._read("routes", family=family, table=route.table)
                if r.get_attr("RTA_OIF") == index
            ]
        except NetlinkError:  # the table does not exist yet
            return False
        return any(
            (p.destination, p.gateway, p.kind) == (route.destination, route.gateway, route.kind)
            and route.metric in (0, p.metric)
            for p in present
        )

    def has_rule(self, rule: PolicyRule, *, first: bool = False) -> bool:
        """``first``: and it is asked as early as `rule` would have it."""
        preferences = self._preferences(rule)
        return PREFERENCE in preferences if first else bool(preferences)

    def _preferences(self, rule: PolicyRule) -> list[int]:
        """Of all that are like it: an earlier version has put them elsewhere."""
        return [
            r.get_attr("FRA_PRIORITY") or 0
            for r in self._read("rules", family=_FAMILY[rule.family])
            if r.get_attr("FRA_IIFNAME") == rule.incoming and r.get_attr("FRA_TABLE") == rule.table
            if (r.get_attr("FRA_FWMARK"), r.get_attr("FRA_FWMASK")) == (rule.mark, rule.mask)
        ]

    def has_neighbour(self, link: str, address: str, mac: str = "") -> bool:
        """A permanent one; with a MAC, with that one."""
        index = self.index(link)
        return index is not None and any(
            n.get_attr("NDA_DST") == address and n["state"] & PERMANENT and mac in ("", n.get_attr("NDA_LLADDR"))
            for n in self._read("neighbours", family=_FAMILY[family_of(address)])
            if n["ifindex"] == index
        )

    # --- writing ---------------------------------------------------------------------------------------------------

    def create(
        self, link: str, kind: str, peer: str = "", parent: str = "", vlan: int = 0, peer_namespace: int | None = None
    ) -> None:
        """``peer_namespace`` is the descriptor of the network namespace that the peer is made in."""
        extra: dict[str, Any] = {"peer": peer} if peer else {}
        if peer_namespace is not None:
            extra = {"peer": {"ifname": peer, "net_ns_fd": peer_namespace}}
        if parent:
            extra = {"link": self._index(parent), "vlan_id": vlan}
        self._ip.link("add", ifname=link, kind=kind, **extra)

    def delete(self, link: str) -> None:
        self._ip.link("del", index=self._index(link))

    def move(self, link: str, namespace: int) -> None:
        """Into the network namespace of this descriptor."""
        self._ip.link("set", index=self._index(link), net_ns_fd=namespace)

    def set_attribute(self, link: str, attribute: str, value: bool | int | str) -> None:
        index = self._index(link)
        match attribute:
            case "up":
                self._ip.link("set", index=index, state="up" if value else "down")
            case "master":
                self._ip.link("set", index=index, master=self._index(str(value)) if value else 0)
            case str() if attribute.startswith("port_"):
                self._ip.brport("set", index=index, **{attribute.removeprefix("port_"): value})
            case "mtu" | "address":
                self._ip.link("set", index=index, **{attribute: value})
            case _:
                self._ip.link("set", index=index, kind="bridge", **{f"br_{attribute}": value})

    def forget_hosts(self, bridge: str) -> None:
        """All that the bridge has learned of who lives behind which port."""
        self._ip.link("set", index=self._index(bridge), kind="bridge", br_fdb_flush=True)

    def has_station(self, port: str, mac: str) -> bool:
        """Whether the bridge was told that this MAC lives behind the port."""
        index = self.index(port)
        return index is not None and any(
            (entry.get_attr("NDA_LLADDR"), entry["state"]) == (mac, _NOARP) and entry.get_attr("NDA_MASTER")
            for entry in self._ip.fdb("dump", ifindex=index)
        )

    def station(self, verb: str, port: str, mac: str) -> None:
        index = self._index(port)
        master = self._ip.get_links(index)[0].get_attr("IFLA_MASTER")
        self._ip.fdb(verb, ifindex=index, lladdr=mac, master=master, state=_NOARP)

    def address(self, verb: str, link: str, address: str, broadcast: str = "") -> None:
        text, _, length = address.partition("/")
        extra: dict[str, Any] = {"flags": 0x02} if ":" in text and verb == "add" else {}  # IFA_F_NODAD: no probe
        if broadcast:
            extra["broadcast"] = broadcast
        self._ip.addr(verb, index=self._index(link), address=text, prefixlen=int(length), **extra)

    def route(self, verb: str, route: Route) -> None:
        optional = {"gateway": route.gateway, "prefsrc": route.source, "priority": route.metric}
        self._ip.route(
            verb,
            family=_FAMILY[family_of(route.destination)],
            dst=route.destination,
            oif=self._index(route.link),
            table=route.table,
            type=route.kind,
            scope=route.scope,
            proto=route.protocol,
            flags=_ONLINK if route.onlink else 0,
            **{name: value for name, value in optional.items() if value},
        )

    def rule(self, verb: str, rule: PolicyRule) -> None:
        for preference in [PREFERENCE] if verb == "add" else self._preferences(rule):
            self._ip.rule(
                verb,
                family=_FAMILY[rule.family],
                iifname=rule.incoming,
                fwmark=rule.mark,
                fwmask=rule.mask,
                table=rule.table,
                priority=preference,
            )

    def neighbour(self, verb: str, link: str, address: str, mac: str = "") -> None:
        extra = {"lladdr": mac, "state": PERMANENT} if mac else {}
        self._ip.neigh(verb, family=_FAMILY[family_of(address)], dst=address, ifindex=self._index(link), **extra)

    def _index(self, link: str) -> int:
        index = self.index(link)
        if index is None:
            raise NetlinkError(19, f"no such link: {link}")
        return index

    def name(self, index: int) -> str:
        """The link's name, or "" if there is none."""
        return next((link.get_attr("IFLA_IFNAME") for link in self._read("links") if link["index"] == index), "")


def elsewhere(link: Any) -> bool:
    """What it is a part of, or the peer of, is in another network namespace: its number says nothing here."""
    return link.get_attr("IFLA_LINK_NETNSID") is not None


class _Nothing:
    def get_attr(self, _: str) -> None:
        return None


_NOTHING = _Nothing()


def _read_route(route: Any, link: str) -> Route:
    family = 6 if route["family"] == socket.AF_INET6 else 4
    destination = route.get_attr("RTA_DST") or ("::" if family == 6 else "0.0.0.0")
    return Route(
        destination=f"{destination}/{route['dst_len']}",
        link=link,
        table=route.get_attr("RTA_TABLE") or route["table"],
        gateway=route.get_attr("RTA_GATEWAY") or "",
        source=route.get_attr("RTA_PREFSRC") or "",
        metric=route.get_attr("RTA_PRIORITY") or 0,
        protocol=route["proto"],
        scope=route["scope"],
        kind={1: "unicast", 2: "local"}.get(route["type"], str(route["type"])),
        onlink=bool(route["flags"] & _ONLINK),
    )


def _info(part: str, prefix: str, attribute: str) -> Callable[[Any, Links], Any]:
    """Reads one value of IFLA_INFO_DATA (a bridge's) or IFLA_INFO_SLAVE_DATA (a bridge port's)."""

    def read(message: Any, _: Links) -> Any:
        data = (message.get_attr("IFLA_LINKINFO") or _NOTHING).get_attr(part) or _NOTHING
        return data.get_attr(f"{prefix}{attribute.upper()}")

    return read


def _addr_gen_mode(message: Any, _: Links) -> Any:
    """How IPv6 makes the link's own address, IN6_ADDR_GEN_MODE_* of linux/if_link.h; None without IPv6."""
    of_ipv6 = (message.get_attr("IFLA_AF_SPEC") or _NOTHING).get_attr("AF_INET6") or _NOTHING
    return of_ipv6.get_attr("IFLA_INET6_ADDR_GEN_MODE")


_READ: dict[str, Callable[[Any, Links], Any]] = {
    "up": lambda message, _: bool(message["flags"] & _UP),
    "mtu": lambda message, _: message.get_attr("IFLA_MTU"),
    "address": lambda message, _: message.get_attr("IFLA_ADDRESS"),
    "master": lambda message, links: links.name(message.get_attr("IFLA_MASTER") or 0),
    **{
        f"port_{name}": _info("IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_", name)
        for name in ("group_fwd_mask", "learning", "unicast_flood", "state")
    },
    "addr_gen_mode": _addr_gen_mode,
    "vlan_id": _info("IFLA_INFO_DATA", "IFLA_VLAN_", "id"),
    **{name: _info("IFLA_INFO_DATA", "IFLA_BR_", name) for name in _BRIDGE},
}
