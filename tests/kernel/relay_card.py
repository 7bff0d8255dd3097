"""A bypass card for a lab of two wires, in a namespace of its own between the wires and the gateway's ports.

::

                 ┌──────────── card ────────────┐
    client eth0 ─┤ w0 ══════ g0 ────────────────┼─ p0        apart: each wire ends in a port of the box
                 │ ║ joined: w0 ═ w1            │  gateway
    server eth0 ─┤ w1 ══════ g1 ────────────────┼─ p1        joined: one wire, and the ports have no carrier
                 └──────────────────────────────┘

Its relay is `hwprofiles.bypass.Simulated` on the machine's clock, with its watchdog; the box tells it by a program that
is called and answers as bpctl_util.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from hwprofiles.bypass import Simulated
from hwprofiles.relay import Act
from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.host import Host, Process
from smtp_intercept.app.lab.network import Lab

TICK_S = 0.02
WORDS = {"set_bypass on": Act.BYPASS, "reset_bypass_wd": Act.BEAT}
PROGRAM = """\
#!/bin/sh
if [ "$1" = p1 ]; then echo "The interface is a slave interface or doesn't support Bypass."; exit 1; fi
shift
mkfifo {place}/answer.$$
echo "$$ $*" > {place}/asked
timeout 5 cat {place}/answer.$$
rm {place}/answer.$$
"""


class Card:
    """Lay it into a lab before the gateway is started. At power-on the ports are joined."""

    def __init__(self, lab: Lab) -> None:
        self._host = self._lay(lab)
        self.program = self._host.directory / "bpctl_util"
        self.program.write_text(PROGRAM.format(place=self._host.directory))
        self.program.chmod(0o755)
        os.mkfifo(self._host.directory / "asked", 0o600)
        self._process: Process = self._host.spawn(
            [self._host.interpreter, str(Path(__file__)), str(self._host.directory)]
        )
        self._process.wait_for("ready")

    def told(self) -> list[str]:
        """What it was told, oldest first, but for questions."""
        return [line for line in self._process.stdout.splitlines()[1:] if not line.startswith("get_")]

    def joined(self) -> bool:
        return (self._host.directory / "joined").exists()

    def becomes(self, *, joined: bool, within_s: float = 30.0) -> bool:
        deadline_at = time.monotonic() + within_s
        while self.joined() is not joined:
            if time.monotonic() > deadline_at:
                return False
            time.sleep(TICK_S)
        return True

    def _lay(self, lab: Lab) -> Host:
        name, gateway = f"{lab.prefix}-card", lab.gateway.namespace
        namespaces.make(name, {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"})
        directory = lab.directory / "card"
        directory.mkdir()
        for index, port in enumerate(lab.gateway.ports):
            mac = _mac(gateway, port)
            lab.gateway.run(["ip", "link", "set", port, "netns", name])
            lab.hosts[0].run(["ip", "-n", name, "link", "set", port, "name", f"w{index}"])
            namespaces.wire((gateway, port, mac), (name, f"g{index}", ""), lab.mtu)
        return Host("card", ("ip", "netns", "exec", name), directory)

    def close(self) -> None:
        self._host.end()


def _mac(namespace: str, port: str) -> str:
    def ask() -> str:
        with IPRoute() as ip:
            (link,) = ip.get_links(*ip.link_lookup(ifname=port))
            return str(link.get_attr("IFLA_ADDRESS"))

    return namespaces.inside(namespace, ask)


# --- the program in the card's namespace ---------------------------------------------------------------------------


class Board:
    """The relay and what it switches."""

    def __init__(self, place: Path) -> None:
        self._place, self._ip = place, IPRoute()
        self._relay = Simulated(0)
        for name in ("left", "right", "wire"):
            self._ip.link("add", ifname=name, kind="bridge", br_forward_delay=0, br_mcast_snooping=0)
            self._set(name, state="up")
        for link in ("w0", "w1"):
            self._set(link, state="up")
        self._switch(joined=True)

    def _set(self, name: str, **what: Any) -> None:
        self._ip.link("set", index=self._ip.link_lookup(ifname=name)[0], **what)

    def _switch(self, *, joined: bool) -> None:
        self.joined, flag = joined, self._place / "joined"
        for index, side in enumerate(("left", "right")):
            self._set(f"g{index}", state="down" if joined else "up")
            for link in (f"w{index}", f"g{index}"):
                to = "wire" if joined and link.startswith("w") else side
                self._set(link, master=self._ip.link_lookup(ifname=to)[0])
        flag.touch() if joined else flag.unlink(missing_ok=True)

    def tick(self) -> None:
        self._relay.now = time.monotonic()
        if self._relay.joined() is not self.joined:
            self._switch(joined=not self.joined)

    def told(self, words: str) -> str:
        print(words, flush=True)
        self._relay.now = time.monotonic()
        match words.split():
            case ["set_bypass_wd", ms]:
                was_joined, self._relay.watchdog_ms = self._relay.joined(), int(ms)
                if not was_joined:
                    self._relay.tell(Act.ARM if int(ms) else Act.RELEASE)
            case ["set_bypass", "off"]:  # with the watchdog that was set before
                self._relay.tell(Act.ARM if self._relay.watchdog_ms else Act.RELEASE)
            case ["get_bypass"]:
                return f"The interface is in the {'' if self._relay.joined() else 'non-'}Bypass mode."
            case _:
                self._relay.tell(WORDS[words])
        self.tick()
        return "completed successfully."


def main() -> None:
    place = Path(sys.argv[1])
    asked = os.open(place / "asked", os.O_RDWR | os.O_NONBLOCK)
    assert stat.S_ISFIFO(os.fstat(asked).st_mode)
    board = Board(place)
    print("ready", flush=True)
    while True:
        board.tick()
        if not select.select([asked], [], [], TICK_S)[0]:
            continue
        for line in os.read(asked, 65536).decode().splitlines():
            caller, _, words = line.partition(" ")
            answer = board.told(words)
            _answer(place / f"answer.{caller}", answer)


def _answer(path: Path, text: str) -> None:
    """As soon as the caller listens; one that has gone hears nothing."""
    deadline_at = time.monotonic() + 4.0  # the caller listens for five
    while time.monotonic() < deadline_at:
        try:
            end = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO: it has not opened it yet
            time.sleep(0.001)
            continue
        os.write(end, f"{text}\n".encode())
        os.close(end)
        return


if __name__ == "__main__":
    main()
