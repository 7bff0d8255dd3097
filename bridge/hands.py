"""Takes single steps in one network namespace: whether a step holds, what would undo it, the doing itself.

Remembers nothing and decides nothing; `bridge.host` does.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import assert_never

from bridge import firewall, managers
from bridge.links import Links
from bridge.moves import MakeRoom, MoveLink, RemoveRoom, ReturnLink
from bridge.steps import (
    AddAddress,
    AddNeighbour,
    AddQueueRule,
    AddRoute,
    AddRule,
    AddStation,
    CreateLink,
    DeleteLink,
    Inside,
    LoadModule,
    LoadRuleset,
    Manage,
    RemoveAddress,
    RemoveNeighbour,
    RemoveQueueRule,
    RemoveRoute,
    RemoveRule,
    RemoveStation,
    Route,
    SetLink,
    SetNic,
    SetSysctl,
    Step,
    UnloadModule,
    UnloadRuleset,
    Unmanage,
)
from bridge.sysctls import read_sysctl, sysctl_path, write_sysctl
from hwprofiles.nic import Nics

_IPV6_CONF, _ADDR_GEN_MODE = "net.ipv6.conf.", ".addr_gen_mode"


class Hands:
    """The network namespace that the process is in."""

    def __init__(self, links: Links, nics: Nics) -> None:
        self.links = links
        self.nics = nics

    def lost(self, step: Step) -> bool:
        """There is nothing left to undo: a link that was taken out of the box took its settings along, a port that has
        left its bridge the port's."""
        match step:
            case SetLink(link, attribute):
                return self.links.attribute(link, attribute) is None
            case SetNic(link, setting):
                return self.nics.value(link, setting) is None
            case AddAddress(link) | AddNeighbour(link) | AddRoute(Route(_, link)):
                return self.links.index(link) is None
            case _:
                return False

    def holds(self, step: Step) -> bool:
        """Whether the host is already as the step would make it."""
        links = self.links
        match step:
            case CreateLink(link):
                return links.index(link) is not None
            case DeleteLink(link):
                return links.index(link) is None
            case SetLink(link, attribute, value):
                return links.attribute(link, attribute) == value
            case SetNic(link, setting, value):
                return self.nics.holds(link, setting, value)
            case SetSysctl(name, value):
                found = self._sysctl(name)
                return found in (value, None) if _link_gone(name) else found == value
            case LoadModule():
                return read_sysctl("net.bridge.bridge-nf-call-iptables") is not None
            case UnloadModule(module):
                return not Path(f"/sys/module/{module}").exists()
            case AddAddress(link, address):
                return links.has_address(link, address)
            case RemoveAddress(link, address):
                return not links.has_address(link, address)
            case AddRoute(route):
                return links.has_route(route)
            case RemoveRoute(route):
                return not links.has_route(route)
            case AddRule(rule):
                return links.has_rule(rule, first=True)
            case RemoveRule(rule):
                return not links.has_rule(rule)
            case AddNeighbour(link, address, mac):
                return links.has_neighbour(link, address, mac)
            case RemoveNeighbour(link, address):
                return not links.has_neighbour(link, address)
            case LoadRuleset(text):
                return firewall.loaded(text)
            case UnloadRuleset():
                return False
            case AddQueueRule():
                return firewall.has_queue_rule(step)
            case RemoveQueueRule(family, link, mark, queue, bypass):
                return not firewall.has_queue_rule(AddQueueRule(family, link, mark, queue, bypass))
            case Unmanage(manager, named):
                return managers.told(manager, named.split()) and not managers.managed(manager, named.split())
            case Manage(manager):
                return managers.untold(manager)
            case AddStation(port, mac):
                return links.has_station(port, mac)
            case RemoveStation(port, mac):
                return not links.has_station(port, mac)
            case MakeRoom() | RemoveRoom() | MoveLink() | ReturnLink() | Inside():
                raise ValueError(f"{step} is taken between two network namespaces")
            case _:
                assert_never(step)

    def _sysctl(self, name: str) -> str | None:
        """As `read_sysctl`, but `addr_gen_mode` is asked by netlink: for as long as anybody holds the lock of the links
        the read of its file is begun anew, at the whole cost of a processor (addrconf_sysctl_addr_gen_mode)."""
        if name.endswith(_ADDR_GEN_MODE):
            link = name.removeprefix(_IPV6_CONF).removesuffix(_ADDR_GEN_MODE).replace("/", ".")
            if (value := self.links.attribute(link, "addr_gen_mode")) is not None:
                return str(value)
        return read_sysctl(name)

    def inverse(self, step: Step) -> Step:
        match step:
            case CreateLink(link, _, peer):
                return DeleteLink(link, peer)
            case SetLink(link, attribute):
                before = self.links.attribute(link, attribute)
                return SetLink(link, attribute, 0 if before is None else before)
            case SetNic(link, setting):
                return SetNic(link, setting, self.nics.value(link, setting) or "")
            case SetSysctl(name):
                return SetSysctl(name, self._sysctl(name) or "0")
            case LoadModule(module):
                return UnloadModule(module)
            case AddAddress(link, address):
                return RemoveAddress(link, address)
            case RemoveAddress(link, address):
                return AddAddress(link, address, self.links.broadcast(link, address))
            case AddRoute(route):
                return RemoveRoute(route)
            case RemoveRoute(route):
                return AddRoute(route)
            case AddRule(rule):
                return RemoveRule(rule)
            case AddNeighbour(link, address):
                return RemoveNeighbour(link, address)
            case LoadRuleset():
                return UnloadRuleset()
            case RemoveNeighbour(link, address, mac):
                return AddNeighbour(link, address, mac)
            case AddQueueRule(family, link, mark, queue, bypass):
                return RemoveQueueRule(family, link, mark, queue, bypass, not firewall.has_raw_table(family))
            case Unmanage(manager, named):
                return Manage(manager, " ".join(managers.managed(manager, named.split())))
            case AddStation(port, mac):
                return RemoveStation(port, mac)
            case MakeRoom() | RemoveRoom() | MoveLink() | ReturnLink() | Inside():
                raise ValueError(f"{step} is taken between two network namespaces")
            case (
                DeleteLink()
                | UnloadModule()
                | RemoveRule()
                | UnloadRuleset()
                | RemoveQueueRule()
                | Manage()
                | RemoveStation()
            ):
                raise ValueError(f"{step} is taken only to undo")
            case _:
                assert_never(step)

    def perform(self, step: Step) -> None:
        links = self.links
        match step:
            case CreateLink(link, kind, peer, parent, vlan):
                links.create(link, kind, peer, parent, vlan)
            case DeleteLink(link):
                links.delete(link)
            case SetLink(link, attribute, value):
                links.set_attribute(link, attribute, value)
            case SetNic(link, setting, value):
                self.nics.set(link, setting, value)
            case SetSysctl(name, value):
                write_sysctl(name, value)
            case LoadModule(module):
                modprobe(module)
            case UnloadModule(module):
                modprobe("-r", module)
            case AddAddress(link, address, broadcast):
                links.address("add", link, address, broadcast)
            case RemoveAddress(link, address):
                links.address("del", link, address)
            case AddRoute(route):
                links.route("add", route)
            case RemoveRoute(route):
                links.route("del", route)
            case AddRule(rule):
                links.rule("add", rule)
            case RemoveRule(rule):
                links.rule("del", rule)
            case AddNeighbour(link, address, mac):
                links.neighbour("replace", link, address, mac)
            case RemoveNeighbour(link, address):
                links.neighbour("del", link, address)
            case LoadRuleset(text):
                firewall.nft(text)
            case UnloadRuleset():
                firewall.remove()
            case AddQueueRule():
                firewall.add_queue_rule(step)
            case RemoveQueueRule():
                firewall.remove_queue_rule(step)
            case Unmanage(manager, named):
                managers.tell(manager, named.split())
            case Manage(manager, named):
                managers.untell(manager, named.split())
            case AddStation(port, mac):
                links.station("add", port, mac)
            case RemoveStation(port, mac):
                links.station("del", port, mac)
            case MakeRoom() | RemoveRoom() | MoveLink() | ReturnLink() | Inside():
                raise ValueError(f"{step} is taken between two network namespaces")
            case _:
                assert_never(step)


def _link_gone(name: str) -> bool:
    """A sysctl of a link that has gone needs no undoing."""
    return not sysctl_path(name).exists()


def modprobe(*arguments: str) -> None:
    program = shutil.which("modprobe", path="/usr/sbin:/sbin")
    if program is None:
        raise OSError("modprobe is missing; install it: apt-get install kmod")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - fixed program
    if done.returncode:
        raise OSError(done.stderr.strip())
