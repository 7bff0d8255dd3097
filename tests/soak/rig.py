r"""The lab of a soak: mail both ways through a gateway that has small disks, a name server, and a clock to be set.

::

                              gateway
    client .10-.15 ── p0 ──┤ nsd, MTA ├── p1 ── server .20 example.com (live) .21 example.org (the MTA's)
       .16 Postfix                                     .22 Postfix (live)  .24 (the MTA's)
       .17 Exim                                        .23 Exim            .25

Starts and ends programs, mounts and unmounts; what is wrong with the box is `tests.soak.faults`' to bring about.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.host import Host, LabError, Process, json_lines
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.kernel.resolver import Resolver
from tests.soak.letters import name_of
from tests.soak.mtas import RECORDER, Mta
from tests.soak.plan import Place
from tests.soak.stepping import Clock
from tests.soak.trips import (
    ADDRESSES,
    CLIENT,
    LIVE,
    LIVE6,
    OUTSIDE,
    QUEUED,
    QUEUED_AT,
    SERVER,
    SUBMISSION,
    TRIPS,
    Trip,
    addresses,
)

BOX = "192.0.2.2"
OWN = {CLIENT: range(10, 16), SERVER: range(20, 22)}  # addresses of the soak's own programs, by their last number
WIRES: Wires = {
    wire: (
        Station(
            name,
            (
                *(f"192.0.2.{n}/24" for n in OWN[name]),
                *(f"{address}/24" for mta in ADDRESSES[name] for address in addresses(name, mta)),
                *(f"2001:db8::{n}/64" for n in OWN[name]),
            ),
        ),
    )
    for wire, name in {"outside": CLIENT, "inside": SERVER}.items()
}
NEW_MACS = {"client": "00:00:5e:00:53:71", "server": "00:00:5e:00:53:72"}
ZONES = {
    "example.com": f"mail IN A {LIVE}\nmail IN AAAA {LIVE6}\n",
    "example.org": f"@ IN MX 10 mail\nmail IN A {QUEUED}\n",
}
PEM = "peers.pem"
RUN_MIB, SPOOL_MIB, LOG_MIB_PER_MINUTE = 2, 256, 10
ENDED_S = 30.0  # a Postfix that is killed instead leaves children that hold its ports
LOG_RESERVE_MIB = 16  # of the 64 that the log never needs
PEERS_MIB, PEERS_MIB_PER_MINUTE = 256, 3  # spools of Postfix and Exim, and the latter's log
# Who has another MAC says so, and an address outlives a cable that is pulled: as hosts are.
SAID = {
    **{f"net/ipv4/conf/{link}/arp_notify": "1" for link in ("all", "default", "eth0")},
    **{f"net/ipv6/conf/{link}/ndisc_notify": "1" for link in ("all", "default", "eth0")},
    **{f"net/ipv6/conf/{link}/keep_addr_on_down": "1" for link in ("all", "default", "eth0")},
}


def config(directory: Path, where: Place) -> dict[str, Any]:
    """The defaults, but for what makes an hour show what days would."""
    return {
        "bridge": {"namespace": where.value, "management": [f"{BOX}/24"]},
        "pickup": {"outgoing": "intercept"},
        "protected": [
            {"domain": "example.com", "servers": ["mail.example.com", *ADDRESSES[SERVER].values()]},
            {"domain": "example.org", "servers": [QUEUED], "handler": "mta", "deliver_to": ["mail.example.org"]},
            *(
                {"domain": f"{mta}.example.org", "servers": [address], "handler": "mta"}
                for mta, address in QUEUED_AT.items()
            ),
        ],
        "mta": {
            "spool": str(directory / "spool"),
            "hostname": "gateway.example.com",
            "source": "client",
            "retry_s": 3,
            "retry_most_s": 10,
            "reserve_bytes": 16 << 20,
            "certificate": str(directory / PEM),
            "key": str(directory / PEM),
        },
        "relay": {"host": OUTSIDE},
        "limits": {"drain_s": 5},
        "log": {"mail": str(directory / "log" / "mail.log"), "reserve_bytes": LOG_RESERVE_MIB << 20},
    }


class Rig:
    """As a context manager: up and ready, no mail yet."""

    def __init__(self, where: Place, seed: int, minutes: float, per_s: float) -> None:
        self.where, self.seed, self.minutes, self.per_s = where, seed, minutes, per_s
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.lab = stack.enter_context(Lab(WIRES))
            self.gateway = self.lab.gateway
            self.macs = [host.mac for host in self.lab.hosts] + [*NEW_MACS.values()]
            self._disks(stack)
            self.dns = stack.enter_context(Resolver(self.gateway, self.gateway.namespace))
            self.serve_names()
            self._certificate()
            self.clock = Clock(self.gateway.directory / "clock")
            for host in self.lab.hosts:
                namespaces.set_sysctls(host.enter[-1], SAID)
            self.mtas = [mta for host in self.lab.hosts for mta in self._mtas(stack, host)]
            for host in self.lab.hosts:
                self._receiver(host, f"taken-{host.name}-behind", ["127.0.0.1"], RECORDER)
            self._servers = dict[str, list[Process]]()
            for host in self.lab.hosts:
                self.start_servers(host)
            self._start_gateway(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    # --- its parts ---------------------------------------------------------------------------------------------------

    def disk(self, name: str) -> Path:
        """One of ``run``, ``spool``, ``log``: a file system of its own."""
        return self.gateway.directory / name

    def _disks(self, stack: ExitStack) -> None:
        sizes = {"run": RUN_MIB, "spool": SPOOL_MIB, "log": int(64 + LOG_MIB_PER_MINUTE * self.minutes)}
        for name, mib in sizes.items():
            stack.enter_context(_mounted(self.disk(name), mib))

    def serve_names(self) -> None:
        """As they are when all is well."""
        self.dns.serve(ZONES)

    def _certificate(self) -> None:
        self._pem = self.gateway.directory / PEM
        subject = [
            "-subj",
            "/CN=receiver.example.com",
            "-days",
            "30",
            "-keyout",
            str(self._pem),
            "-out",
            f"{self._pem}.crt",
        ]
        words = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", *subject]
        subprocess.run(words, check=True, capture_output=True)
        self._pem.write_text(self._pem.read_text() + Path(f"{self._pem}.crt").read_text())

    def _mtas(self, stack: ExitStack, host: Host) -> Iterator[Mta]:
        for name in ADDRESSES[host.name]:
            spool = host.directory / f"spool-{name}"
            stack.enter_context(_mounted(spool, int(PEERS_MIB + PEERS_MIB_PER_MINUTE * self.minutes)))
            yield Mta(name, host, spool, self._pem)

    def start_servers(self, host: Host) -> None:
        """All that take mail from the wire, on addresses of their own; what they had is theirs again."""
        own = [f"{network}{n}" for network in ("192.0.2.", "2001:db8::") for n in OWN[host.name]]
        started = self._servers[host.name] = [self._receiver(host, f"taken-{host.name}", own)]
        for mta in self.mtas:
            if mta.host is host:
                started.append(mta.start())

    def end_servers(self, host: Host) -> None:
        for process in self._servers.pop(host.name):
            process.end(grace_s=ENDED_S)
            host.processes.remove(process)

    def _receiver(self, host: Host, record: str, addresses: list[str], port: int = 25) -> Process:
        """Its record goes on where it was."""
        words = ["--record", str(self.record(record)), "--certificate", str(self._pem), "--port", str(port), *addresses]
        process = host.spawn([host.interpreter, "-m", "tests.soak.receiver", *words])
        process.wait_for("ready")
        return process

    def record(self, name: str) -> Path:
        return self.lab.directory / f"{name}.jsonl"

    def _start_gateway(self, stack: ExitStack) -> None:
        self.gateway.interpreter, plain = self.clock.interpreter, self.gateway.interpreter
        self.gateway.configure(config(self.gateway.directory, self.where))
        stack.callback(self.gateway.stop)
        self.gateway.start()
        self.sampler = self.gateway.spawn([plain, "-m", "tests.soak.sampler", str(self.gateway.run_dir)])

    # --- what runs ---------------------------------------------------------------------------------------------------

    def routes(self) -> dict[str, list[str]]:
        """By host: the routes of its sender."""
        return {host: [self._route(name, trip) for name, trip in TRIPS.items() if trip.host == host] for host in OWN}

    def _route(self, name: str, trip: Trip) -> str:
        if trip.by:
            to, sources = f"127.0.0.1@{SUBMISSION[trip.by]}", ["127.0.0.1"]
        else:
            network = "2001:db8::" if ":" in trip.to else "192.0.2."
            to, sources = trip.to, [f"{network}{n}" for n in OWN[trip.host]]
        return ",".join((name, to, trip.domain, str(trip.share * self.per_s), *sources))

    @contextmanager
    def sending(self) -> Iterator[None]:
        """While it lasts; at its end, until what is under way has ended."""
        senders = []
        for name, routes in self.routes().items():
            host = self.lab.host(name)
            words = ["--record", str(self.record(f"sent-{name}")), "--seed", str(self.seed), *routes]
            senders.append(host.spawn([host.interpreter, "-m", "tests.soak.sender", *words]))
        try:
            yield
            if not all(sender.running for sender in senders):
                raise LabError("a sender has ended by itself: " + "".join(sender.stderr[-2000:] for sender in senders))
        finally:
            for sender in senders:
                sender.end(grace_s=90.0)

    @contextmanager
    def watched(self) -> Iterator[dict[str, Process]]:
        """Both wires, at the hosts' ends."""
        _, addresses = self.gateway.identity()
        known = [word for mac in self.macs for word in ("--host", mac)]
        known += [word for address in sorted(addresses - {BOX}) for word in ("--address", address)]
        known += ["--management", BOX]
        watchers = {
            host.name: host.spawn([host.interpreter, "-m", "tests.soak.onlooker", "eth0", *known])
            for host in self.lab.hosts
        }
        for watcher in watchers.values():
            watcher.wait_for("ready")
        try:
            yield watchers
        finally:
            for watcher in watchers.values():
                watcher.end()

    def samples(self) -> list[dict[str, Any]]:
        """All so far, the oldest first."""
        return json_lines(self.sampler.stdout)

    def latest(self) -> dict[str, Any]:
        """The last sample, read from the end of its file; empty before the first."""
        lines = tail(self.sampler.stdout_path).splitlines()
        found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return found

    def records(self, kind: str) -> Iterator[dict[str, Any]]:
        """What senders ("sent") or receivers ("taken") wrote, of all hosts."""
        for path in sorted(self.lab.directory.glob(f"{kind}-*.jsonl")):
            yield from json_lines(path.read_text())

    def queued(self) -> set[str]:
        """The names of what waits in the box, or in a mail server. Who sends is asked before who takes: what goes on
        meanwhile is in one of them, or arrives."""
        listed = self.gateway.tollbridge("queue", "list", "--json", check=False)
        names = self.at_peers() | {name_of(entry["sender"]) for entry in listed.json_lines()}
        return names | self.at_peers()

    def at_peers(self) -> set[str]:
        """The names of what waits in a Postfix or an Exim; "": a notice."""
        return {name for mta in self.mtas for name in mta.queued()}

    def drained(self) -> bool:
        """Nothing waits anywhere."""
        return (self.latest().get("queue") or {}).get("messages") == 0 and not self.at_peers()

    def logged(self) -> Iterator[dict[str, Any]]:
        """Records of the mail log."""
        path = self.disk("log") / "mail.log"
        with path.open() as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue  # the disk was full in the middle of it

    def until(self, true: Any, timeout_s: float) -> bool:
        """Whether it came true in time."""
        deadline_at = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > deadline_at:
                return False
            time.sleep(0.2)
        return True


def tail(path: Path, octets: int = 1 << 16) -> str:
    """The last whole lines of a file that grows."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - octets))
        text = file.read().decode(errors="replace")
    return text[: text.rfind("\n") + 1]


@contextmanager
def _mounted(where: Path, mib: int) -> Iterator[None]:
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "soak", where], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=False)
