"""The machines that `make lab` has brought up, as its `machines.json` tells of them (vagrant/lab/__init__.py)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.lab.gateway import toml
from smtp_intercept.app.lab.network import Wire
from smtp_intercept.app.lab.remote import MAIL_LOG, RemoteGateway, RemoteHost, RemoteLab
from tests.unshown import LAB

INTERFACE = Path(__file__).parents[2] / ".tools/lab/machines.json"
CONFIG = "/etc/tollbridge/tollbridge.toml"
PORTS = {"ports": ["p0", "p1"]}
RUNS = "systemctl is-active --quiet tollbridge.service"
# An emulated machine beside other work: a hundred times slower than a real one is nothing unusual.
COMMAND_S, BOOT_S, SETTLED_S, PAUSE_S = 180.0, 900.0, 300.0, 1.0


@dataclass(frozen=True, slots=True)
class Machine:
    """``facts`` are its entry in the file."""

    name: str
    facts: dict[str, Any]

    def run(self, command: str, *, timeout_s: float = COMMAND_S, check: bool = True) -> str:
        """A shell command's output, both streams."""
        words = [*self.facts["ssh"], f"{{ {command}\n}} 2>&1"]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0 or not check, f"{self.name}: {command}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def does(self, command: str) -> bool:
        """Whether a shell command succeeds; a machine that does not answer does not."""
        try:
            words = [*self.facts["ssh"], command]
            done = subprocess.run(words, capture_output=True, timeout=COMMAND_S, check=False)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def wait(self, command: str, timeout_s: float = SETTLED_S) -> None:
        """Until a shell command succeeds; fails the test if it does not."""
        deadline_at = time.monotonic() + timeout_s
        while not self.does(command):
            assert time.monotonic() < deadline_at, f"{self.name}: not after {timeout_s:.0f} s: {command}"
            time.sleep(PAUSE_S)

    def boots(self) -> str:
        """What is different after every boot."""
        return self.run("cat /proc/sys/kernel/random/boot_id").strip()

    def wait_booted(self, before: str) -> None:
        """Until it has booted anew and systemd has started all that it will."""
        self.wait(f'[ "$(cat /proc/sys/kernel/random/boot_id)" != {before} ]', BOOT_S)
        self.wait("systemctl is-system-running | grep -E 'running|degraded'", BOOT_S)

    def power(self, way: str) -> None:
        act(self.facts[f"power_{way}"])


@dataclass(frozen=True, slots=True)
class Machines:
    client: Machine
    gateway: Machine
    server: Machine
    internet: Machine
    links: dict[str, dict[str, list[str]]]

    def link(self, name: str, way: str) -> None:
        """Pull a cable ("down") or put it back ("up")."""
        act(self.links[name][way])


PYTHON = "/usr/lib/tollbridge/bin/python3"


def station(machine: Machine, directory: Path) -> RemoteHost:
    """A machine as a host of the lab's own programs."""
    addresses = tuple(ip_interface(address) for address in machine.facts["addresses"]["lab0"])
    enter, mac = tuple(machine.facts["ssh"]), machine.facts["ports"]["lab0"]
    return RemoteHost(machine.name, enter, directory, addresses, mac, PYTHON)


def act(words: Sequence[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(words, check=True, timeout=COMMAND_S, env=environment)


@contextmanager
def configured(gateway: Machine, text: str) -> Iterator[None]:
    """The gateway with another configuration, on its disk before a test cuts its power, while the context lasts."""
    apply = "sync && systemctl reload tollbridge-bridge.service && systemctl restart tollbridge.service"
    gateway.run(f"cp {CONFIG} {CONFIG}.before && cat >{CONFIG} <<'EOF'\n{text}EOF\n{apply}", timeout_s=SETTLED_S)
    try:
        gateway.wait(RUNS)
        yield
    finally:
        gateway.run(f"mv {CONFIG}.before {CONFIG} && {apply}", timeout_s=SETTLED_S)


@contextmanager
def laboratory(machines: Machines, config: Mapping[str, Any], directory: Path) -> Iterator[RemoteLab]:
    """Client, gateway and server as a lab. The lab's servers take the place of the server's Postfix; the gateway has
    this configuration; the third machine's cable is pulled, so that whatever is on the wires is theirs."""

    def place(machine: Machine) -> Path:
        (directory / machine.name).mkdir()
        return directory / machine.name

    enter = tuple(machines.gateway.facts["ssh"])
    box = RemoteGateway("gateway", enter, place(machines.gateway), interpreter=PYTHON)
    client, server = (station(one, place(one)) for one in (machines.client, machines.server))
    wires = [
        Wire(name, port, ((host, "lab0"), (box, port)))
        for name, port, host in (("outside", "p0", client), ("inside", "p1", server))
    ]
    machines.server.run("systemctl stop postfix.service", timeout_s=SETTLED_S)
    machines.link("internet", "down")
    machines.gateway.run(f"truncate --size 0 {MAIL_LOG}")  # the same senders may have sent before
    try:
        with configured(machines.gateway, toml({**config, "bridge": {**PORTS, **config.get("bridge", {})}})):
            yield RemoteLab((client, server), box, tuple(wires))
    finally:
        for host in (client, server, box):
            host.end()
        machines.link("internet", "up")
        machines.server.run("systemctl start postfix.service", timeout_s=SETTLED_S)


@pytest.fixture(scope="session")
def machines() -> Machines:
    LAB.skip()
    told = json.loads(INTERFACE.read_text())
    hosts = {name: Machine(name, facts) for name, facts in told["machines"].items()}
    return Machines(**hosts, links=told["links"])


@pytest.fixture(scope="module")
def gateway_lab(
    request: pytest.FixtureRequest, machines: Machines, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RemoteLab]:
    """The machines as the module's lab, the gateway by the module's ``CONFIG``."""
    with laboratory(machines, request.module.CONFIG, tmp_path_factory.mktemp("lab")) as lab:
        yield lab
