"""The machines by Vagrant, as a `Runner`: with this computer's libvirt or VirtualBox and public boxes, or, where the
processor is emulated, the lab's own box and a libvirtd of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vagrant.lab import libvirtd, places, plan
from vagrant.lab.access import Access
from vagrant.lab.box import Box
from vagrant.lab.doing import Progress, run
from vagrant.lab.plan import Machine
from vagrant.lab.runner import Choice

UP_S, DOWN_S, ADD_S = 3600.0, 300.0, 300.0
DOTFILES = places.KEPT / "vagrant"
CONSOLES = places.KEPT / "consoles"
VIRSH = ("virsh", "-q", "-c", "qemu:///system")
# provider → what cuts the power, gives it, pulls a cable and puts it back
DOMAIN = "tollbridge-{name}"
COMMANDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "libvirt": {
        "off": (*VIRSH, "destroy", DOMAIN),
        "on": (*VIRSH, "start", DOMAIN),
        "down": (*VIRSH, "domif-setlink", DOMAIN, "{mac}", "down"),
        "up": (*VIRSH, "domif-setlink", DOMAIN, "{mac}", "up"),
    },
    "virtualbox": {
        "off": ("VBoxManage", "controlvm", DOMAIN, "poweroff"),
        "on": ("VBoxManage", "startvm", DOMAIN, "--type", "headless"),
        "down": ("VBoxManage", "controlvm", DOMAIN, "setlinkstate{number}", "off"),
        "up": ("VBoxManage", "controlvm", DOMAIN, "setlinkstate{number}", "on"),
    },
}


def provider() -> str:
    """What Vagrant is to use: VAGRANT_DEFAULT_PROVIDER, or VirtualBox where it is, else libvirt."""
    return os.environ.get("VAGRANT_DEFAULT_PROVIDER") or ("virtualbox" if shutil.which("VBoxManage") else "libvirt")


def addresses(ssh_config: str) -> dict[str, dict[str, str]]:
    """Host → options, of what `vagrant ssh-config` says; those that lead there, for root."""
    hosts: dict[str, dict[str, str]] = {}
    for key, value in re.findall(r"^ *(\w+) (.*)$", ssh_config, re.MULTILINE):
        if key == "Host":
            hosts[value] = {}
        elif key in ("HostName", "Port", "IdentityFile"):
            hosts[list(hosts)[-1]][key] = value
    return hosts


@dataclass
class ByVagrant:
    """The machines of vagrant/Vagrantfile."""

    choice: Choice
    machines: tuple[Machine, ...]

    @cached_property
    def access(self) -> Access:
        return Access(libvirtd.INSIDE if self.choice.own else (), places.RUN / "ssh_config")

    @cached_property
    def serial(self) -> Mapping[str, str]:
        return {machine.name: str(CONSOLES / f"{machine.name}.log") for machine in self.machines}

    @property
    def settings(self) -> dict[str, str]:
        """The environment of every `vagrant`."""
        common = {
            "VAGRANT_CWD": str(places.VAGRANT),
            "VAGRANT_DOTFILE_PATH": str(DOTFILES / "machines"),
            "VAGRANT_DEFAULT_PROVIDER": "libvirt" if self.choice.own else provider(),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "LAB_SUITE": self.choice.suite,
            "LAB_ACCEL": self.choice.acceleration,
            "LAB_DEB": str(places.KEPT / "stage/tollbridge.deb"),
            "LAB_CONSOLES": str(CONSOLES),
        }
        if not self.choice.own:
            return common
        return common | {
            "VAGRANT_HOME": str(DOTFILES / "home"),
            "LAB_BOX": self.box_name,
            "LAB_KEY": str(Box(Path(self.choice.box)).key),
        }

    @property
    def box_name(self) -> str:
        return f"tollbridge/{Path(self.choice.box).name}"

    def boot(self, stage: Path, progress: Progress) -> None:
        CONSOLES.mkdir(exist_ok=True)
        (DOTFILES / "home").mkdir(parents=True, exist_ok=True)
        if self.choice.own:
            libvirtd.start()
            progress.say("libvirtd: a lab's own, in a namespace of its own")
            self._add_box(progress)
        for machine in self.machines:
            self._forget(machine.name)
        with progress.step("vagrant up: machines booted and provisioned"):
            self._vagrant("up", "--provision", timeout_s=UP_S)
        hosts = addresses(self._vagrant("ssh-config"))
        self.access.config.write_text(plan.ssh_config(hosts, str(places.RUN)))

    def power(self, name: str, *, on: bool) -> None:
        self._command("on" if on else "off", name=name)
        if not on:
            self._forget(name)

    def set_link(self, machine: str, card: str, *, up: bool) -> None:
        cards = {one.name: one for other in self.machines if other.name == machine for one in other.cards}
        number = list(cards).index(card) + 2  # VirtualBox counts from 1, and the first one is Vagrant's own
        self._command("up" if up else "down", name=machine, mac=cards[card].mac, number=str(number))

    def remove(self) -> None:
        for machine in self.machines:
            self._forget(machine.name)
        if self.choice.own and libvirtd.running() is None:
            return
        self._vagrant("destroy", "--force", timeout_s=DOWN_S)
        if self.choice.own:
            for volume in run([*libvirtd.INSIDE, *VIRSH, "vol-list", "default"], check=False).split():
                if volume.startswith(
                    "tollbridge-VAGRANTSLASH-"
                ):  # the plugin's copy of the box, which it never removes
                    run([*libvirtd.INSIDE, *VIRSH, "vol-delete", volume, "default"])
            libvirtd.stop()

    def _forget(self, name: str) -> None:
        if self.access.config.exists():
            self.access.forget(name)

    def _command(self, what: str, **names: str) -> None:
        words = COMMANDS[self.settings["VAGRANT_DEFAULT_PROVIDER"]][what]
        run([*self.access.enter, *(word.format(**names) for word in words)])

    def _vagrant(self, *words: str, timeout_s: float = 60.0) -> str:
        settings = [f"{name}={value}" for name, value in self.settings.items()]
        return run([*self.access.enter, "env", *settings, "vagrant", *words], timeout_s=timeout_s)

    def _add_box(self, progress: Progress) -> None:
        """What Vagrant calls a box: a tar of image and metadata. It keeps a copy of its own."""
        if self.box_name in self._vagrant("box", "list"):
            return
        directory = Path(self.choice.box)
        with progress.step("vagrant: box added"):
            archive = directory / "lab.box"
            run(["tar", "-C", directory, "-cf", archive, "metadata.json", "box.img"], timeout_s=ADD_S)
            about = {"name": self.box_name, "versions": [{"version": "1", "providers": [_described(archive)]}]}
            (directory / "about.json").write_text(json.dumps(about))
            self._vagrant("box", "add", str(directory / "about.json"), timeout_s=ADD_S)
            archive.unlink()


def _described(archive: Path) -> dict[str, str]:
    return {"name": "libvirt", "url": archive.as_uri()}
