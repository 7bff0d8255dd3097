"""The lab on paper: its machines, cards and cables, and the words with which each is set up. Does nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Suite(StrEnum):
    """The Debian that the machines run."""

    BOOKWORM = "bookworm"
    TRIXIE = "trixie"


@dataclass(frozen=True, slots=True)
class Card:
    """One of the lab's network cards; the management card is none of them. ``addresses`` are with prefix length."""

    name: str
    wire: str
    mac: str
    addresses: tuple[str, ...]

    @property
    def word(self) -> str:
        """As provisioning takes it: NAME=MAC[=ADDRESS,ADDRESS...]."""
        return "=".join([self.name, self.mac, *([",".join(self.addresses)] if self.addresses else [])])


@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    cpus: int
    memory_mib: int
    cards: tuple[Card, ...]

    @property
    def provision(self) -> str:
        """The shell command that makes of a Debian this machine, in a directory with what is in provision/."""
        words = ["bash", f"{self.name}.sh", self.name, *(card.word for card in self.cards)]
        return f"cd {PROVISION} && {shlex.join(words)}"


PROVISION = "/root/lab"  # on a machine: what is in provision/, and the package
# link → the ends of cables that are pulled for it: (machine, card)
LINKS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "client-gateway": (("gateway", "p0"),),
    "gateway-server": (("gateway", "p1"), ("server", "lab0")),
    "client": (("client", "lab0"),),
    "server": (("server", "lab0"),),
    "internet": (("internet", "lab0"),),
}


def machines(text: str) -> tuple[Machine, ...]:
    """What machines.json says; ValueError or KeyError if it cannot be read."""
    return tuple(
        Machine(name, entry["cpus"], entry["memory_mib"], tuple(_card(card) for card in entry["cards"]))
        for name, entry in json.loads(text).items()
    )


def _card(entry: Mapping[str, Any]) -> Card:
    return Card(entry["name"], entry["wire"], entry["mac"], tuple(entry["addresses"]))


def wires(plan: Iterable[Machine]) -> dict[str, list[tuple[str, str]]]:
    """Wire → its ends, (machine, card)."""
    ends: dict[str, list[tuple[str, str]]] = {}
    for machine in plan:
        for card in machine.cards:
            ends.setdefault(card.wire, []).append((machine.name, card.name))
    return ends


SSH_OPTIONS = {
    "User": "root",
    "IdentitiesOnly": "yes",
    "BatchMode": "yes",
    "StrictHostKeyChecking": "no",  # machines are made anew, with new keys; the way to them stays in this computer
    "UserKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "6",
    "ControlMaster": "auto",  # a new connection costs an emulated machine two seconds
    "ControlPersist": "600",
}


def ssh_config(hosts: Mapping[str, Mapping[str, str]], sockets: str) -> str:
    """An ssh_config(5). ``hosts``: name → its own options, such as Port; ``sockets``: where kept connections are."""
    blocks = [_block(name, options) for name, options in hosts.items()]
    return "\n".join([*blocks, _block("*", {**SSH_OPTIONS, "ControlPath": f"{sockets}/%n.ssh"})])


def _block(host: str, options: Mapping[str, str]) -> str:
    return "\n".join([f"Host {host}", *(f"  {key} {value}" for key, value in options.items()), ""])


def interface(
    suite: str,
    runner: str,
    plan: Iterable[Machine],
    *,
    ssh: Sequence[str],
    rsync: Sequence[str],
    command: Sequence[str],
    serial: Mapping[str, str],
) -> dict[str, Any]:
    """What the tests are told, as this package's docstring has it. ``command`` starts this program again."""
    return {
        "suite": suite,
        "runner": runner,
        "machines": {
            machine.name: {
                "ssh": [*ssh, machine.name],
                "copy": [*rsync],
                "ports": {card.name: card.mac for card in machine.cards},
                "addresses": {card.name: list(card.addresses) for card in machine.cards},
                "power_off": [*command, "power", "off", machine.name],
                "power_on": [*command, "power", "on", machine.name],
                "serial": serial[machine.name],
            }
            for machine in plan
        },
        "links": {link: {way: [*command, "link", way, link] for way in ("down", "up")} for link in LINKS},
    }
