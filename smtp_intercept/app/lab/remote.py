"""A host of the lab that is a machine of its own, reached by SSH: the same programs, started and ended over there.

What a program writes to its standard streams comes back; of files on that machine, what is fetched.
"""

from __future__ import annotations

import base64
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from smtp_intercept.app.lab.capture import Frame, recorded
from smtp_intercept.app.lab.gateway import Gateway
from smtp_intercept.app.lab.host import Host, LabError, Process, patient
from smtp_intercept.app.lab.network import Wire

MAIL_LOG = "/var/log/tollbridge/mail.log"
SERVICE = "tollbridge.service"
ROOM = "tollbridge"  # the network namespace in which the package's wire is, unless it is told to stay in the host's
PLACE = "/run/lab-programs"  # on that machine
KILL_S, FETCH_S = 30.0, 60.0


class RemoteProcess(Process):
    """A program on another machine; the process here is the SSH client, which ends when it does."""

    def __init__(self, argv: Sequence[str], enter: Sequence[str], output: Path) -> None:
        pid_file = f"{PLACE}/{uuid4().hex}"
        self._kill = (*enter, f"kill -s %s $(cat {pid_file})")
        script = f"mkdir -p {PLACE} && echo $$ >{pid_file} && PYTHONUNBUFFERED=1 exec {shlex.join(argv)}"
        super().__init__(argv, [*enter, script], output, dict(os.environ))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal over there; nothing happens if the program has ended."""
        if self.running:
            *enter, words = self._kill
            command = [*enter, words % number.name.removeprefix("SIG")]
            subprocess.run(command, check=False, capture_output=True, timeout=patient(KILL_S))  # noqa: S603

    def kill(self) -> None:
        """There, then here: a machine that does not answer must not hold the test."""
        try:
            self.signal(signal.SIGKILL)
        finally:
            super().kill()


@dataclass
class RemoteHost(Host):
    """``enter`` is followed by one word, which a shell over there takes apart: ``("ssh", …, "client")``. ``inside``:
    the network namespace over there in which its programs run."""

    inside: str = ""

    def start_program(self, argv: Sequence[str], output: Path) -> Process:
        """One that `Process.end` ends over there."""
        inside = ("ip", "netns", "exec", self.inside) if self.inside else ()
        return RemoteProcess([*inside, *argv], self.enter, output)

    def new_file(self, suffix: str) -> Path:
        """A path over there."""
        return Path(PLACE, f"{uuid4().hex}{suffix}")

    def fetch(self, path: Path) -> bytes:
        """A file's content, which is gone over there then: its place is in that machine's memory."""
        octets = base64.b64decode(self.run(["base64", str(path)], timeout_s=FETCH_S).stdout)
        self.run(["rm", str(path)])
        return octets


@dataclass
class RemoteGateway(RemoteHost, Gateway):
    """The box as its package has set it up; systemd starts it, not this."""

    def command(self, *verb: str) -> list[str]:
        """The product's command line over there."""
        return ["tollbridge", *verb]

    def stop(self, *, down: bool = False) -> None:
        """End the daemon; the wire stays."""
        if down:
            raise LabError("the bridge of a machine is its package's own")
        self.run(["systemctl", "stop", SERVICE])

    def read_log(self) -> str:
        """After a power cut zeros stand in the place of what was not written yet."""
        return self.run(["cat", MAIL_LOG], check=False).stdout.replace("\0", "")

    @property
    def room(self) -> Host:
        """Where the wire is; the machine itself where it has no room of its own."""
        if not self.room_name:
            return self
        if self._room is None:
            directory = self.directory / "room"
            directory.mkdir(exist_ok=True)
            self._room = RemoteHost(self.name, self.enter, directory, interpreter=self.interpreter, inside=ROOM)
        return self._room

    @property
    def room_name(self) -> str:
        """ "" if there is none."""
        return ROOM if self.run(["test", "-e", f"/run/netns/{ROOM}"], check=False).returncode == 0 else ""

    def identity(self) -> tuple[frozenset[str], frozenset[str]]:
        """All MACs and all IP addresses that the box has now, in any role."""
        places = {id(place): place for place in (self, self.room)}.values()
        links = [link for place in places for link in place.run(["ip", "-json", "address"]).json()]
        macs = {link["address"] for link in links if link["link_type"] == "ether"}
        addresses = {entry["local"] for link in links if link["ifname"] != "lo" for entry in link["addr_info"]}
        return frozenset(macs), frozenset(addresses)


@dataclass(frozen=True, slots=True)
class RemoteLab:
    """`network.Lab`'s interface: hosts that run programs, wires with captures, and a gateway with a mail log."""

    hosts: tuple[Host, ...]
    gateway: RemoteGateway
    wires: tuple[Wire, ...]

    def host(self, name: str) -> Host:
        """The host of that name; `KeyError` if there is none."""
        return {host.name: host for host in (*self.hosts, self.gateway)}[name]

    def wire(self, name: str) -> Wire:
        """The wire of that name; `KeyError` if there is none."""
        return {wire.name: wire for wire in self.wires}[name]

    def capture(self, *names: str) -> AbstractContextManager[list[Frame]]:
        """Record the named wires (none named: all) at every end, as `network.Lab.capture` does."""
        wires, room = [self.wire(name) for name in names] or self.wires, self.gateway.room
        return recorded((room if host is self.gateway else host, end) for wire in wires for host, end in wire.ends)
