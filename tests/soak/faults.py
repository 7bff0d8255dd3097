"""Brings each fault of the plan about in the lab, by the programs with which people and accidents do it, and ends it.

`ACTS` has the same names as `plan.FAULTS`. What `smtp_intercept.app.simulate` knows it is asked for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from smtp_intercept.app import simulate
from smtp_intercept.app.lab.host import Host, LabError
from tests.kernel.replug import join_again
from tests.soak.plan import KINDS, Planned
from tests.soak.rig import NEW_MACS, Rig

SERVICE_S, SERVICE_TRIES = 1.0, 5  # as a service manager restarts what has ended
DAY_S = 86_400.0
PORTS = {"p0": "client", "p1": "server"}
_IPTABLES = """*filter
:INPUT {policy} [0:0]
:FORWARD {policy} [0:0]
:OUTPUT ACCEPT [0:0]
{rules}COMMIT
"""
_ALLOWED = "-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"
# As nftables.service does: all that there is goes first.
_NFT = """flush ruleset
table inet filter {{
 chain input {{
 type filter hook input priority 0; policy {policy};
 iif lo accept
 tcp dport 22 accept
 }}
}}
"""
Act = Callable[[Rig, Planned], AbstractContextManager[None]]


def pids(rig: Rig, kind: str) -> list[int]:
    """Of the processes of that kind that run now."""
    return [pid for name, pid in rig.gateway.pids().items() if name.partition("-")[0] == kind]


def _send(rig: Rig, kind: str, number: signal.Signals) -> None:
    for pid in pids(rig, kind):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def _kill(kind: str, rig: Rig, _: Planned) -> Iterator[None]:
    _send(rig, kind, signal.SIGKILL)
    if kind == "supervisor":
        serve_again(rig)
    yield


@contextmanager
def _stop(kind: str, rig: Rig, _: Planned) -> Iterator[None]:
    stopped = pids(rig, kind)
    _send(rig, kind, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:  # one that was taken for hung has been ended meanwhile
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def serve_again(rig: Rig) -> None:
    """What a unit with ``Restart=always`` does. `LabError` if it does not start either."""
    gateway, process = rig.gateway, rig.gateway.run_process
    if process is not None and process in gateway.processes:
        process.wait()
        gateway.processes.remove(process)
    for left in reversed(range(SERVICE_TRIES)):
        time.sleep(SERVICE_S)
        try:
            gateway.spawn_daemon()
            return
        except LabError:
            if not left:
                raise


@contextmanager
def _restart(rig: Rig, _: Planned) -> Iterator[None]:
    rig.gateway.stop(down=False)
    rig.gateway.spawn_daemon()
    yield


@contextmanager
def _hang_up(rig: Rig, _: Planned) -> Iterator[None]:
    for kind in KINDS:
        _send(rig, kind, signal.SIGHUP)
    yield


@contextmanager
def _up(rig: Rig, _: Planned) -> Iterator[None]:
    rig.gateway.tollbridge("up")
    yield


def _where(rig: Rig, where: str) -> Host:
    return rig.gateway.room if where == "room" else rig.gateway


@contextmanager
def _flush(where: str, rig: Rig, _: Planned) -> Iterator[None]:
    _where(rig, where).run(["nft", "flush", "ruleset"])
    yield


@contextmanager
def _flush_routing(rig: Rig, _: Planned) -> Iterator[None]:
    room = rig.gateway.room
    for family in ("-4", "-6"):
        room.run(["ip", family, "rule", "flush"])
    yield
    for family in ("-4", "-6"):  # the kernel's own, which nobody can do without
        room.run(["ip", family, "rule", "add", "pref", "32766", "table", "main"], check=False)


@contextmanager
def _firewall(where: str, rig: Rig, planned: Planned) -> Iterator[None]:
    host, nft = _where(rig, where), planned.chance % 2
    load = partial(_load_nft if nft else _load_iptables, host)
    load("DROP", _ALLOWED)
    try:
        yield
    finally:
        if nft:
            host.run(["nft", "delete", "table", "inet", "filter"])
        else:
            load("ACCEPT", "")


def _load_iptables(host: Host, policy: str, rules: str) -> None:
    _feed(host, ["iptables-restore"], _IPTABLES.format(policy=policy, rules=rules))


def _load_nft(host: Host, policy: str, _: str) -> None:
    _feed(host, ["nft", "-f", "-"], _NFT.format(policy=policy.lower()))


def _feed(host: Host, command: list[str], text: str) -> None:
    done = subprocess.run([*host.enter, *command], input=text, text=True, check=False, capture_output=True)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr}")


@contextmanager
def _simulated(name: str, rig: Rig, _: Planned) -> Iterator[None]:
    """While it lasts, or until it is undone."""
    words = ["-m", simulate.__name__, "--run-dir", str(rig.gateway.run_dir), name]
    command = ["env", f"{simulate.WORD}=1", rig.gateway.interpreter, *words]
    condition = simulate.CONDITIONS[name]
    process = rig.gateway.spawn(command)
    if not condition.lasts:
        process.wait().check()
    try:
        yield
    finally:
        process.end(grace_s=10.0)
        rig.gateway.processes.remove(process)
        if condition.undo:
            rig.gateway.run([*command, "--undo"])


@contextmanager
def _replug(rig: Rig, planned: Planned) -> Iterator[None]:
    port, station = list(PORTS.items())[planned.chance % 2]
    room = rig.gateway.room
    mac, own = (_mac(host, link) for host, link in ((room, port), (rig.lab.host(station), "eth0")))
    room.run(["ip", "link", "del", port])
    try:
        yield
    finally:
        join_again(rig.lab, port, station, mac, own)


@contextmanager
def _no_carrier(rig: Rig, planned: Planned) -> Iterator[None]:
    host = rig.lab.hosts[planned.chance % 2]
    host.run(["ip", "link", "set", "eth0", "down"])
    try:
        yield
    finally:
        host.run(["ip", "link", "set", "eth0", "up"])


@contextmanager
def _another_mac(station: str, rig: Rig, _: Planned) -> Iterator[None]:
    host = rig.lab.host(station)
    other = NEW_MACS[station] if _mac(host, "eth0") == host.mac else host.mac
    host.run(["ip", "link", "set", "eth0", "address", other])
    yield


def _mac(host: Host, link: str) -> str:
    return host.run(["cat", f"/sys/class/net/{link}/address"]).stdout.strip()


@contextmanager
def _clock(days: float, rig: Rig, _: Planned) -> Iterator[None]:
    rig.clock.set(days * DAY_S)
    try:
        yield
    finally:
        rig.clock.set(0)


@contextmanager
def _full(disk: str, rig: Rig, _: Planned) -> Iterator[None]:
    filler = rig.disk(disk) / "filler"
    fill(filler)
    try:
        yield
    finally:
        filler.unlink()


def fill(path: Path) -> None:
    """To the last octet."""
    with path.open("wb", buffering=0) as file:
        room = os.statvfs(path)
        with suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_frsize))
        with suppress(OSError):
            file.seek(0, os.SEEK_END)
            while file.write(bytes(4096)):
                pass


@contextmanager
def _no_dns(rig: Rig, _: Planned) -> Iterator[None]:
    rig.dns.stop()
    try:
        yield
    finally:
        rig.serve_names()


@contextmanager
def _flood(rig: Rig, planned: Planned) -> Iterator[None]:
    client, server = rig.lab.host("client"), rig.lab.host("server")
    ends = ["--to", server.mac, "--by", client.mac, "--sources", "198.51.100.0/24"]
    pace = ["--rate", "3000", "--seconds", str(planned.lasts_s)]
    flood = client.spawn([client.interpreter, "-m", "tests.kernel.flood", server.ipv4, *ends, *pace])
    try:
        yield
    finally:
        flood.end()
        client.processes.remove(flood)


@contextmanager
def _server_away(rig: Rig, _: Planned) -> Iterator[None]:
    server = rig.lab.host("server")
    rig.end_servers(server)
    try:
        yield
    finally:
        rig.start_servers(server)


ACTS: Mapping[str, Act] = {
    **{f"kill-{kind}": partial(_kill, kind) for kind in KINDS},
    **{f"stop-{kind}": partial(_stop, kind) for kind in KINDS},
    "restart": _restart,
    "hang-up": _hang_up,
    "up-again": _up,
    "flush-room": partial(_flush, "room"),
    "flush-host": partial(_flush, "host"),
    "flush-routing": _flush_routing,
    "firewall-room": partial(_firewall, "room"),
    "firewall-host": partial(_firewall, "host"),
    "port-gone": partial(_simulated, "port-gone"),
    "port-new": _replug,
    "no-carrier": _no_carrier,
    "mtu": partial(_simulated, "mtu-raised"),
    "client-mac": partial(_another_mac, "client"),
    "server-mac": partial(_another_mac, "server"),
    "clock-ahead": partial(_clock, 40),
    "clock-back": partial(_clock, -3),
    "run-full": partial(_full, "run"),
    "log-full": partial(_full, "log"),
    "spool-full": partial(_full, "spool"),
    "no-dns": _no_dns,
    "flood": _flood,
    "server-away": _server_away,
}
