"""A lab whose inner wire is a real one: two ports of this box, joined by a cable.

::

    client ── p0 ┤gateway├ A ══ cable ══ B ── server        A and B: names as on this box

The ports are moved into the lab's namespaces and back. Their settings of before are on disk first, so that a run that
was killed is made good by the next one. Refuses ports that anything uses.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from hwprofiles.nic import Nics
from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.host import Host
from smtp_intercept.app.lab.network import TWO_WIRES, Lab

_ETHERTYPE = 0x88B5  # IEEE 802, for local experiments
_CARRIER_S = 8.0  # of a copper port that negotiates
_HEARD_S = 2.0
_NET, _TREES = Path("/proc/sys/net"), ("ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh")
_UP, _LOOPBACK = 0x1, 0x8
_LINK_LOCAL = 253

Settings = Mapping[str, str]


class PortsError(Exception):
    """These ports cannot be measured on; the message names the port, the reason and the remedy."""


def refuse_used(ports: Sequence[str], spoken_for: Collection[str]) -> None:
    """`PortsError` for whatever has a purpose already. ``spoken_for`` are the bridge's ports."""
    if len(set(ports)) != 2:
        raise PortsError("--ports: name two different ports, joined by a cable")
    with IPRoute() as routes:
        links = {str(link.get_attr("IFLA_IFNAME")): link for link in routes.get_links()}
        for port in ports:
            if port not in links:
                raise PortsError(f"--ports: there is no port {port}; there are {', '.join(sorted(links))}")
            if reason := _use(port, links, routes, spoken_for):
                raise PortsError(f"--ports: {port} {reason}; choose ports that nothing uses")


def _use(port: str, links: Mapping[str, Any], routes: Any, spoken_for: Collection[str]) -> str:
    link = links[port]
    index = link["index"]
    uppers = [name for name, other in links.items() if _stands_on(other, link)]
    addresses = [
        address.get_attr("IFA_ADDRESS") for address in routes.get_addr(index=index) if address["scope"] != _LINK_LOCAL
    ]
    ways = [
        route for route in routes.get_routes() if route.get_attr("RTA_OIF") == index and route.get_attr("RTA_GATEWAY")
    ]
    named = {port, str(link.get_attr("IFLA_ADDRESS")).lower()}
    if link["flags"] & _LOOPBACK:
        return "is the loopback"
    if named & {*spoken_for, *(name.lower() for name in spoken_for)}:
        return "is one of the bridge's (bridge.ports)"
    if link.get_attr("IFLA_MASTER"):
        master = next(
            (name for name, other in links.items() if other["index"] == link.get_attr("IFLA_MASTER")), "another"
        )
        return f"belongs to {master}"
    if uppers:
        return f"carries {', '.join(sorted(uppers))}"
    if addresses:
        return f"has the address {addresses[0]}"
    return "is the way to a gateway" if ways else ""


def _stands_on(other: Any, link: Any) -> bool:
    """VLANs, macvlans; not the far end of a veth pair in this very namespace."""
    kind = other.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    return bool(kind != "veth" and other.get_attr("IFLA_LINK") == link["index"] and other["index"] != link["index"])


class LoopedLab(Lab):
    """``ports``: the gateway's and the server's, in that order. ``record`` is the file that holds what was before."""

    def __init__(self, ports: tuple[str, str], record: Path, watched: Iterable[str]) -> None:
        super().__init__(TWO_WIRES)
        self.near, self.far = ports
        self._record, self._watched = record, tuple(watched)
        self._moved: list[tuple[str, str]] = []

    def __enter__(self) -> LoopedLab:
        _write(self._record, remembered((self.near, self.far), self._watched))
        try:
            check_joined(self.near, self.far)
            super().__enter__()
        except BaseException:
            restore(self._record)
            raise
        return self

    def _join(self, name: str, port: str, mac: str, hosts: Sequence[Host]) -> None:
        if [host.name for host in hosts] != ["server"]:
            super()._join(name, port, mac, hosts)
            return
        for link, where in ((self.near, "gateway"), (self.far, "server")):
            self._moved.append((link, self._namespace(where)))
            with IPRoute() as routes:
                routes.link("set", index=routes.link_lookup(ifname=link)[0], net_ns_fd=self._namespace(where))
        self.gateway.ports = (*self.gateway.ports[:-1], self.near)

    def _set_up(self, host: Host, interface: str, vlan: int) -> None:
        super()._set_up(host, self.far if host.name == "server" else interface, vlan)

    def _remove(self) -> None:
        """The ports go home before their namespaces go: a virtual one would go with them."""
        if os.getpid() == self._owner:
            self._ignore_signals()
            for host in self._hosts.values():
                host.end()
            for link, where in self._moved:
                with suppress(NetlinkError, OSError, IndexError):
                    namespaces.set_link(where, link, net_ns_pid=os.getpid())
            for failure in restore(self._record):
                print(f"tollbridge: {failure}", file=sys.stderr)
        super()._remove()


# --- what was before -----------------------------------------------------------------------------------------------


def remembered(ports: Iterable[str], watched: Iterable[str]) -> dict[str, Any]:
    """Of each port: whether it was up, the settings that may be changed, as `Nics.set` takes them, and its sysctls,
    which it loses on the way."""
    with IPRoute() as routes, Nics() as nics:
        up = {port: bool(routes.link("get", ifname=port)[0]["flags"] & _UP) for port in ports}
        values = {port: {name: nics.value(port, name) for name in watched} for port in up}
    settings = {
        port: {name: value for name, value in each.items() if value is not None} for port, each in values.items()
    }
    return {port: {"up": up[port], "settings": settings[port], "sysctls": _sysctls(port)} for port in up}


def _sysctls(port: str) -> dict[str, str]:
    found = {}
    for tree in _TREES:
        for path in (_NET / tree / port).glob("*"):
            with suppress(OSError):  # a secret that was never set
                found[str(path.relative_to(_NET))] = path.read_text().strip()
    return found


def restore(record: Path) -> list[str]:
    """As the file says, and the file goes; what cannot be restored is named and stays in it. Nothing without a file."""
    if not record.exists():
        return []
    failures, left = [], {}
    for port, before in json.loads(record.read_text(encoding="utf-8")).items():
        try:
            _put_back(port, before)
        except (NetlinkError, OSError, IndexError) as error:
            failures.append(f"{port}: cannot be made as it was: {error}")
            left[port] = before
    if left:
        _write(record, left)
    else:
        record.unlink()
    return failures


def _put_back(port: str, before: Mapping[str, Any]) -> None:
    with IPRoute() as routes, Nics() as nics:
        index = routes.link_lookup(ifname=port)[0]
        for name, value in before["settings"].items():
            if nics.value(port, name) != value:
                nics.set(port, name, value)
        routes.link("set", index=index, state="up" if before["up"] else "down")
    for name, value in before["sysctls"].items():
        with suppress(OSError):  # what the kernel counts itself
            if (_NET / name).read_text().strip() != value:
                (_NET / name).write_text(value)


def _write(record: Path, what: Mapping[str, Any]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    new = record.with_suffix(".new")
    new.write_text(json.dumps(what), encoding="utf-8")
    new.replace(record)


# --- the cable -----------------------------------------------------------------------------------------------------


def check_joined(near: str, far: str) -> None:
    """A frame that leaves by one is heard at the other; `PortsError` if not."""
    with IPRoute() as routes:
        for port in (near, far):
            routes.link("set", index=routes.link_lookup(ifname=port)[0], state="up")
    deadline_at = time.monotonic() + _CARRIER_S
    while not all(_carrier(port) for port in (near, far)):
        if time.monotonic() > deadline_at:
            down = next(port for port in (near, far) if not _carrier(port))
            raise PortsError(f"--ports: {down} has no link; join {near} and {far} by a cable")
        time.sleep(0.1)
    if not _heard(near, far):
        raise PortsError(f"--ports: what leaves {near} does not arrive at {far}; join them by a cable")


def _carrier(port: str) -> bool:
    try:
        return Path(f"/sys/class/net/{port}/carrier").read_text().strip() == "1"
    except OSError:
        return _oper_up(port)


def _oper_up(port: str) -> bool:
    """A namespace whose /sys is another's."""
    with IPRoute() as routes:
        return str(routes.link("get", ifname=port)[0].get_attr("IFLA_OPERSTATE")) == "UP"


def _heard(near: str, far: str) -> bool:
    said = secrets.token_bytes(46)
    with _raw(near) as one, _raw(far) as other:
        frame = b"\xff" * 6 + one.getsockname()[4] + _ETHERTYPE.to_bytes(2, "big") + said
        deadline_at = time.monotonic() + _HEARD_S
        while time.monotonic() < deadline_at:
            one.send(frame)
            with suppress(TimeoutError):
                while said not in other.recv(2048):
                    pass
                return True
    return False


def _raw(port: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE))
    raw.bind((port, _ETHERTYPE))
    raw.settimeout(0.2)
    return raw
