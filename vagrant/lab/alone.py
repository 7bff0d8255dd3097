"""The machines by QEMU alone, as a `Runner`."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.host import LabError
from vagrant.lab import places, plan, qemu
from vagrant.lab.access import Access
from vagrant.lab.box import Box
from vagrant.lab.doing import Progress
from vagrant.lab.plan import Machine
from vagrant.lab.runner import Choice

PROVISION_S = 1200.0  # half a minute on a quiet machine
STUCK_S = 240.0  # half a minute on a quiet machine, a minute on a busy one


@dataclass
class Alone:
    """Four QEMU processes in a network namespace."""

    choice: Choice
    machines: tuple[Machine, ...]

    @cached_property
    def box(self) -> Box:
        return Box(Path(self.choice.box))

    @cached_property
    def access(self) -> Access:
        return Access(qemu.INSIDE, places.RUN / "ssh_config")

    @cached_property
    def serial(self) -> Mapping[str, str]:
        return {machine.name: str(qemu.console(machine.name)) for machine in self.machines}

    def boot(self, stage: Path, progress: Progress) -> None:
        if not (namespaces.NAMESPACES / qemu.NAMESPACE).exists():
            self.remove()
            qemu.lay_wires(self.machines)
        ports = {
            machine.name: {"HostName": "127.0.0.1", "Port": str(self._port(machine.name))} for machine in self.machines
        }
        common = {"IdentityFile": str(self.box.key)}
        hosts = {name: {**options, **common} for name, options in ports.items()}
        self.access.config.write_text(plan.ssh_config(hosts, str(places.RUN)))
        for machine in self.machines:
            self.power(machine.name, on=True)
        progress.say(f"power: {len(self.machines)} machines by QEMU, {self.choice.acceleration}")
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda machine: self._provision(machine, stage, progress), self.machines))

    def _provision(self, machine: Machine, stage: Path, progress: Progress) -> None:
        with progress.step(f"{machine.name}: SSH answers"):
            self._let_in(machine.name, progress)
        with progress.step(f"{machine.name}: provisioned"):
            self.access.push(machine.name, stage, plan.PROVISION)
            self.access.run(machine.name, machine.provision, timeout_s=PROVISION_S)

    def _let_in(self, name: str, progress: Progress) -> None:
        """An emulated processor now and then hangs while its kernel boots: such a machine gets its power anew, once."""
        try:
            self.access.wait(name, STUCK_S)
        except LabError as error:
            progress.say(f"{error}: its power is cut and given again")
            self.power(name, on=False)
            self.power(name, on=True)
            self.access.wait(name)

    def power(self, name: str, *, on: bool) -> None:
        if not on:
            qemu.power_off(name)
            self.access.forget(name)
        elif qemu.pid(name) is None:
            (machine,) = (machine for machine in self.machines if machine.name == name)
            qemu.start(machine, self.box, self.choice.acceleration, self._port(name))

    def set_link(self, machine: str, card: str, *, up: bool) -> None:
        qemu.set_link(machine, card, up=up)

    def remove(self) -> None:
        for machine in self.machines:
            if self.access.config.exists():
                self.access.forget(machine.name)
        qemu.remove(self.machines)

    def _port(self, name: str) -> int:
        return qemu.PORTS_FROM + [machine.name for machine in self.machines].index(name)
