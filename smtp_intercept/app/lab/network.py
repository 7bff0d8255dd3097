"""Builds a lab, hands out its hosts and wires, and removes it whatever happens.

The interface that tests and the demo speak is `Lab.host`, `Lab.gateway`, `Lab.wire` and `Lab.capture`; nothing outside
this package knows that the hosts are namespaces.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from ipaddress import ip_interface
from types import FrameType, TracebackType
from typing import Any, NoReturn

from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.capture import Frame, recorded
from smtp_intercept.app.lab.gateway import Gateway
from smtp_intercept.app.lab.host import Host

# MACs from the range for documentation, RFC 9542 §2.1.1: stations from the bottom, gateway ports from the top.
MAC = "00:00:5e:00:53:{:02x}"
PORT_MACS_FROM = 0xF0
HOST_INTERFACE = "eth0"
SWITCH_LEG = "leg"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Hosts are quiet: what a capture holds is what a test caused. The gateway's namespace keeps the kernel's defaults.
QUIET = {
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv4/ip_local_port_range": "10000 65000",  # thousands of connections within one TIME_WAIT
}
# The address of a VLAN's link is nothing that a host tells the rest of the trunk.
OWN_VLAN = {"net/ipv4/conf/all/arp_ignore": "1"}
SWITCH = {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}


@dataclass(frozen=True, slots=True)
class Station:
    """A host to build: its name and its addresses with prefix length, all on one interface. With a VID it is in that
    VLAN, and its wire a trunk: everything that it says has the tag."""

    name: str
    addresses: tuple[str, ...]
    vlan: int = 0


@dataclass(frozen=True, slots=True)
class Wire:
    """A wire: the gateway's port on it, and every (host, interface) that has an end of it, the gateway's last."""

    name: str
    port: str
    ends: tuple[tuple[Host, str], ...]


Wires = Mapping[str, Sequence[Station]]

TWO_WIRES: Wires = {
    "outside": (
        Station(
            "client",
            tuple(f"192.0.2.{n}/24" for n in range(10, 16)) + tuple(f"2001:db8::{n}/64" for n in range(10, 16)),
        ),
    ),
    "inside": (Station("server", ("192.0.2.20/24", "192.0.2.21/24", "2001:db8::20/64", "2001:db8::21/64")),),
}
THREE_WIRES: Wires = {**TWO_WIRES, "third": (Station("other", ("192.0.2.30/24", "2001:db8::30/64")),)}


def missing() -> list[str]:
    """Why a lab cannot be built here: one sentence for each thing; empty if it can."""
    reasons = [f"the program {name!r} is not installed" for name in ("ip", "nft") if not shutil.which(name)]
    if os.geteuid() != 0:
        return [*reasons, "network namespaces need root"]
    return reasons


class Lab:
    """Hosts on wires around a gateway, as a context manager::

        with Lab() as lab:
            lab.gateway.bridge_bare()
            lab.host("client").run(["true"])

    ``wires`` maps a wire's name to the stations on it; the n-th wire ends in the gateway's port ``p<n>``. A wire with
    one station is a veth pair; with more there is a switch. ``mtu`` is in octets. ``offload=False``: hosts send no
    frame above the MTU, as on a real wire. The gateway's ports start down. ``str(lab)`` draws the lab.
    """

    def __init__(self, wires: Wires = TWO_WIRES, *, mtu: int = 1500, offload: bool = True) -> None:
        self._plan, self.mtu, self.offload = wires, mtu, offload
        self._hosts: dict[str, Host] = {}
        self._wires: dict[str, Wire] = {}
        self._handlers: dict[signal.Signals, Any] = {}
        self._owner = os.getpid()
        self.keep = False  # True: leave everything in place; the next lab to start removes it

    def __enter__(self) -> Lab:
        self._catch_signals()
        try:
            self.prefix, self.directory, self._lock = namespaces.claim()
        except BaseException:
            self._restore_signals()
            raise
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def host(self, name: str) -> Host:
        """The host of that name; `KeyError` if there is none."""
        return self._hosts[name]

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts but the gateway."""
        return tuple(host for host in self._hosts.values() if host is not self.gateway)

    def wire(self, name: str) -> Wire:
        """The wire of that name; `KeyError` if there is none."""
        return self._wires[name]

    @property
    def wires(self) -> tuple[Wire, ...]:
        """All wires, in the order of the gateway's ports."""
        return tuple(self._wires.values())

    def capture(self, *names: str) -> AbstractContextManager[list[Frame]]:
        """Record the named wires (none named: all) at every end, hosts' and gateway's, while the context lasts.

        The list is empty until the context ends; then it holds all frames, oldest first. Each crossing of the box is
        seen four times: OUT at the sender, IN and OUT at the gateway's ports, IN at the receiver.
        """
        wires = [self._wires[name] for name in names] or self.wires
        room = self.gateway.room  # ports are there as soon as it is
        return recorded((room if host is self.gateway else host, end) for wire in wires for host, end in wire.ends)

    def __str__(self) -> str:
        left, last = f"{'':>14}", len(self._wires) - 1
        lines = []
        for index, wire in enumerate(self.wires):
            stations = ", ".join(" ".join([host.name, *_two(host)]) for host, _ in wire.ends[:-1])
            corner = "┐" if index == 0 else "┘" if index == last else "┤"
            lines.append(f"{wire.name:>10} {wire.port} ─{corner}           {stations}")
        lines.insert(len(lines) // 2 if last else 1, f"{left}─├─ gateway"[1:])
        return "\n".join(lines)

    def _build(self) -> None:
        self.gateway = Gateway(**self._fields("gateway"), ports=tuple(f"p{index}" for index in range(len(self._plan))))
        self._hosts["gateway"] = self.gateway
        namespaces.make(self._namespace("gateway"), {})
        serial = 0
        for index, (name, stations) in enumerate(self._plan.items()):
            ends = []
            for station in stations:
                serial += 1
                ends.append((self._build_station(station, MAC.format(serial)), HOST_INTERFACE))
            self._join(name, f"p{index}", MAC.format(PORT_MACS_FROM + index), [host for host, _ in ends])
            self._wires[name] = Wire(name, f"p{index}", (*ends, (self.gateway, f"p{index}")))
            for station, (host, interface) in zip(stations, ends, strict=True):
                self._set_up(host, interface, station.vlan)
            if len(ends) > 1:
                namespaces.wait_forwarding(self._namespace(f"switch-{name}"), SWITCH_LEG, len(ends))

    def _namespace(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def _fields(self, name: str) -> dict[str, Any]:
        directory = self.directory / name
        directory.mkdir()
        return {"name": name, "enter": ("ip", "netns", "exec", self._namespace(name)), "directory": directory}

    def _build_station(self, station: Station, mac: str) -> Host:
        addresses = tuple(ip_interface(address) for address in station.addresses)
        host = Host(**self._fields(station.name), addresses=addresses, mac=mac)
        self._hosts[station.name] = host
        namespaces.make(self._namespace(station.name), QUIET | (OWN_VLAN if station.vlan else {}))
        return host

    def _join(self, name: str, port: str, mac: str, hosts: Sequence[Host]) -> None:
        """Lay the wire: one pair, or a switch in a namespace of its own with a pair to every end."""
        gateway = (self._namespace("gateway"), port, mac)
        ends = [(self._namespace(host.name), HOST_INTERFACE, host.mac) for host in hosts]
        if len(ends) == 1:
            namespaces.wire(ends[0], gateway, self.mtu)
            return
        switch = self._namespace(f"switch-{name}")
        namespaces.make(switch, SWITCH)
        legs = [f"{SWITCH_LEG}{number}" for number in range(len(ends) + 1)]
        for leg, end in zip(legs, [*ends, gateway], strict=True):
            namespaces.wire(end, (switch, leg, ""), self.mtu)
        namespaces.add_switch(switch, "switch", legs)
        namespaces.unfilter_bridges(switch)

    def _set_up(self, host: Host, interface: str, vlan: int) -> None:
        name = self._namespace(host.name)
        at = namespaces.add_vlan(name, interface, vlan) if vlan else interface
        namespaces.add_addresses(name, at, host.addresses)
        if not self.offload:
            host.run(["ethtool", "-K", interface, "tso", "off", "gso", "off", "gro", "off"])
        namespaces.set_link(name, interface, state="up")
        if vlan:
            namespaces.set_link(name, at, state="up")

    def _remove(self) -> None:
        """End programs, remove namespaces and files. A second Ctrl-C must not stop this half-way."""
        if os.getpid() != self._owner:
            return  # a fork of the lab's process must not remove what is not its own
        self._ignore_signals()
        try:
            if self.keep:
                return
            with ExitStack() as steps:
                steps.callback(namespaces.release, self.prefix, self._lock)
                for host in self._hosts.values():
                    steps.callback(host.end)
        finally:
            self._restore_signals()

    def _catch_signals(self) -> None:
        """SIGTERM and SIGHUP become an exception, as SIGINT is already: the context always ends."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.getsignal(number) for number in ENDINGS}
            for number, handler in self._handlers.items():
                if handler is signal.SIG_DFL:
                    signal.signal(number, _interrupt)

    def _ignore_signals(self) -> None:
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)

    def _restore_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _two(host: Host) -> list[str]:
    return [addresses[0] for addresses in (host.of_version(4), host.of_version(6)) if addresses]
