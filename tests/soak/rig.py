r"""The lab of a soak: mail both ways through a gateway that has small disks, a name server, and a clock to be set.

::

                              gateway
    client .10-.15 ── p0 ──┤ nsd, MTA ├── p1 ── server .20 example.com (live) .21 example.org (the MTA's)

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
from smtp_intercept.app.lab.network import Lab
from tests.kernel.resolver import Resolver
from tests.soak.plan import Place
from tests.soak.stepping import Clock

LIVE, QUEUED, LIVE6 = "192.0.2.20", "192.0.2.21", "2001:db8::20"
OUTSIDE, BOX = "192.0.2.10", "192.0.2.2"
NEW_MACS = {"client": "00:00:5e:00:53:71", "server": "00:00:5e:00:53:72"}
ZONES = {
    "example.com": f"mail IN A {LIVE}\nmail IN AAAA {LIVE6}\n",
    "example.org": f"@ IN MX 10 mail\nmail IN A {QUEUED}\n",
}
# Of all mail a second: what is live and comes in, what goes out, over IPv6, what the MTA keeps.
SHARES = {"live": 0.5, "out": 0.2, "six": 0.1, "queue": 0.2}
PEM = "peers.pem"
RUN_MIB, SPOOL_MIB, LOG_MIB_PER_MINUTE = 2, 256, 10
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
            {"domain": "example.com", "servers": ["mail.example.com"]},
            {"domain": "example.org", "servers": [QUEUED], "handler": "mta", "deliver_to": ["mail.example.org"]},
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
        "log": {"mail": str(directory / "log" / "mail.log")},
    }


class Rig:
    """As a context manager: up and ready, no mail yet."""

    def __init__(self, where: Place, seed: int, minutes: float, per_s: float) -> None:
        self.where, self.seed, self.minutes, self.per_s = where, seed, minutes, per_s
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.lab = stack.enter_context(Lab())
            self.gateway = self.lab.gateway
            self.macs = [host.mac for host in self.lab.hosts] + [*NEW_MACS.values()]
            self._disks(stack)
            self.dns = stack.enter_context(Resolver(self.gateway, self.gateway.namespace))
            self.serve_names()
            self._certificate()
            self.clock = Clock(self.gateway.directory / "clock")
            for host in self.lab.hosts:
                namespaces.set_sysctls(host.enter[-1], SAID)
            self.receivers = {host.name: self.start_receiver(host) for host in self.lab.hosts}
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

    def start_receiver(self, host: Host) -> Process:
        """On all of the host's addresses; its record goes on where it was."""
        record, addresses = self.record(f"taken-{host.name}"), [str(address.ip) for address in host.addresses]
        words = ["--record", str(record), "--certificate", str(self._pem), *addresses]
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
        client, server = self.lab.host("client"), self.lab.host("server")
        four, six = client.of_version(4), client.of_version(6)
        rates = {name: str(share * self.per_s) for name, share in SHARES.items()}
        out = ("out", OUTSIDE, "example.net", rates["out"], *server.of_version(4))
        return {
            "client": [
                ",".join(("live", LIVE, "example.com", rates["live"], *four)),
                ",".join(("six", LIVE6, "example.com", rates["six"], *six)),
                ",".join(("queue", QUEUED, "example.org", rates["queue"], *four)),
            ],
            "server": [",".join(out)],
        }

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

    def queued(self) -> list[str]:
        """The senders of what waits in the box."""
        listed = self.gateway.tollbridge("queue", "list", "--json", check=False)
        return [entry["sender"] for entry in listed.json_lines()]

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
