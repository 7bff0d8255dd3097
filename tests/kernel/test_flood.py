r"""Floods of spoofed SYNs to the protected server, and what becomes of everybody else meanwhile.

::

    attacker ─┐
              ├─ p0  gateway  p1 ── server .20 (protected, with a backlog that is not the bottleneck)
    client  ──┘

| flood                       | limited by               | the real client          |
|-----------------------------|--------------------------|--------------------------|
| from everywhere, at its max | new_connections_per_s    | gets through within 3 s  |
| from one /24, at its max    | ..._per_network          | gets through, inspected  |
| from everywhere, 5,000/s    | nothing: SYN cookies     | gets through, inspected  |
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.lane import BRIDGED, LEARNED_S, NETWORKS, Limits
from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.host import Host, Process
from smtp_intercept.app.lab.mail import MailServer, deliveries, sending
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.kernel.frames import entries
from tests.tools import program

pytestmark = [pytest.mark.kernel, pytest.mark.alone]

WIRES: Wires = {
    "outside": (
        Station("client", ("192.0.2.10/24", "2001:db8::10/64")),
        Station("attacker", ("192.0.2.66/24", "2001:db8::66/64")),
    ),
    "inside": (Station("server", ("192.0.2.20/24", "2001:db8::20/64")),),
}
CONFIG: dict[str, Any] = {
    "protected": [{"domain": "example.com", "servers": ["192.0.2.20", "2001:db8::20"]}],
    "limits": {"drain_s": 1},
}
VERSIONS = (4, 6)
FLOOD_S = 6.0
THROUGH_S = 3.0  # from the client's first SYN
THROUGH_RATIO = 0.95
TRIES_EVERY_S = 0.25
SETTLED_S = 30.0
GROWTH_BYTES = 64 << 20  # of all processes together: tables of 65,536 SYNs and 16,384 half-open connections
LIMITS = Limits()
SIZES = {
    **{("netdev", "map", f"client_{end}"): LIMITS.hops(LEARNED_S) for end in ("src", "dst")},
    **{("netdev", "map", f"pair_{end}"): LIMITS.taught(LEARNED_S) for end in ("src", "dst")},
    **{("netdev", "map", f"server_{end}"): LIMITS.kept for end in ("src", "dst")},
    **{("netdev", "set", name): LIMITS.kept for name in ("kept", "ended", "fresh_client", "fresh_server")},
    **{("netdev", "set", f"rate{v}"): NETWORKS for v in VERSIONS},
    **{("inet", "set", f"admitted{v}"): LIMITS.admitted for v in VERSIONS},
    **{("inet", "set", f"bridged{v}"): BRIDGED for v in VERSIONS},
}
FLOOD = Path(__file__).with_name("flood.py")
SOMEWHERE = {4: "10.0.0.0/8", 6: "2001:db8:f000::/36"}
ONE_NETWORK = {4: "198.51.100.0/24", 6: "2001:db8:66::/64"}


def flood(lab: Lab, version: int, sources: str, **settings: float) -> Process:
    attacker, server = lab.host("attacker"), lab.host("server")
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    where = ["--to", server.mac, "--by", attacker.mac, "--sources", sources]
    command = [attacker.interpreter, "-m", "tests.kernel.flood", server.of_version(version)[0], *where, *words]
    process = attacker.spawn(command)
    process.wait_for("ready")
    return process


def hping(lab: Lab) -> Process:
    path, environment = program("hping3")
    settings = [f"{name}={value}" for name, value in environment.items()]
    attack = [path, "--flood", "--rand-source", "-S", "-p", "25", "-q", lab.host("server").ipv4]
    return lab.host("attacker").spawn(["env", *settings, "timeout", str(FLOOD_S), *attack])


def rss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


def memory_bytes(lab: Lab) -> int:
    return sum(map(rss_bytes, lab.gateway.pids().values()))


@dataclass(frozen=True)
class Account:
    """What the client saw: tries of mail with the seconds to the server's SYN-ACK, None for no mail; and pings."""

    connect_s: tuple[float | None, ...]
    pings: dict[str, Any]

    @property
    def through(self) -> float:
        """The share of the tries that got through in time."""
        return sum(s is not None and s <= THROUGH_S for s in self.connect_s) / len(self.connect_s)

    def __str__(self) -> str:
        slowest = max((s for s in self.connect_s if s is not None), default=None)
        times = sorted(self.pings["times_ms"])
        middle = f"{times[len(times) // 2]:.2f} ms" if times else "none"
        return (
            f"mail {self.through:.0%} of {len(self.connect_s)} within {THROUGH_S:.0f} s (slowest {slowest}), "
            f"ping {self.pings['received']} of {self.pings['sent']}, median {middle}"
        )


@contextmanager
def watched(client: Host, server: Host, version: int, seconds: float) -> Iterator[list[Account]]:
    """While the context lasts, a client pings and sends mail; the account is there after it."""
    accounts: list[Account] = []
    address = server.of_version(version)[0]
    count = int(seconds / 0.05)
    ping = client.spawn(
        client.program("traffic", "ping", address, "--count", str(count), "--interval", "0.04", "--timeout", "1")
    )
    mail = sending(
        client, address, count=0, duration=seconds, interval=TRIES_EVERY_S, parallel=2, timeout=THROUGH_S + 2, size=500
    )
    yield accounts
    pings, _ = ping.wait().check().json(), mail.wait(60).check()
    first = [entry["attempts"][0] for entry in deliveries(mail)]
    accounts.append(Account(tuple(a.get("connect_s") if a["outcome"] == "accepted" else None for a in first), pings))


@pytest.fixture(scope="module")
def strong(lab: Lab) -> Lab:
    """The server's own SYN queue is not the bottleneck."""
    server = lab.host("server")
    for name, value in (("tcp_syncookies", 1), ("tcp_max_syn_backlog", 1 << 16), ("tcp_synack_retries", 1)):
        server.run(["sysctl", "-qw", f"net.ipv4.{name}={value}"])
    server.run(["sysctl", "-qw", "net.core.somaxconn=65536"])
    MailServer.start(server)
    return lab


def under_flood(lab: Lab, version: int) -> Account:
    with watched(lab.host("client"), lab.host("server"), version, FLOOD_S - 1) as accounts:
        attack = hping(lab) if version == 4 else flood(lab, 6, SOMEWHERE[6], seconds=FLOOD_S)
        attack.wait()
        lab.host("attacker").processes.remove(attack)
    return accounts[0]


@pytest.fixture(scope="module")
def wire(strong: Lab) -> dict[int, Account]:
    """The same floods over a bare bridge."""
    strong.gateway.bridge_bare()
    try:
        return {version: under_flood(strong, version) for version in VERSIONS}
    finally:
        strong.gateway.unbridge()


@pytest.fixture(scope="module")
def box(strong: Lab, wire: object, gateway_lab: Lab) -> Lab:
    return gateway_lab


def intercepted(lab: Lab, version: int, count: int, **settings: Any) -> tuple[int, int]:
    """Send so many messages, a connection each; how many were accepted, how many of them the mail log has."""
    sender = f"n{time.monotonic_ns()}.{{n}}@example.net"
    process = sending(
        lab.host("client"), lab.host("server").of_version(version)[0], count=count, sender=sender, size=500, **settings
    )
    process.wait().check()
    sent = deliveries(process)
    logged = {entry["sender"] for entry in lab.gateway.mail_log("message")}  # written before it was accepted
    return sum(entry["accepted"] for entry in sent), sum(entry["sender"] in logged for entry in sent)


def cookies(lab: Lab) -> dict[str, int]:
    listed = lab.gateway.room.run(["cat", "/proc/net/netstat"]).stdout
    names, values = (line.split() for line in listed.splitlines()[:2])
    return {name: int(value) for name, value in zip(names, values, strict=True) if name.startswith("Syncookies")}


def settle(lab: Lab) -> None:
    """Until nothing of an earlier flood is on its way any more, and mail is inspected."""
    deadline_at = time.monotonic() + SETTLED_S
    while True:
        before = lab.gateway.status()["kernel"]["queued"], cookies(lab)
        time.sleep(1.0)
        page = lab.gateway.status()
        if page["live"] and (page["kernel"]["queued"], cookies(lab)) == before:
            return
        assert time.monotonic() < deadline_at, f"still at work on the flood before: {before}, {page['kernel']}"


@pytest.mark.parametrize("version", VERSIONS)
def test_flood_from_everywhere(box: Lab, wire: dict[int, Account], version: int) -> None:
    intercepted(box, version, 20)
    before = box.gateway.status()
    memory = memory_bytes(box)
    account = under_flood(box, version)
    after = box.gateway.status()
    grown = memory_bytes(box) - memory
    filled = {table: entries(box, *table) for table in SIZES}
    missed = {name: n - before["not_inspected"].get(name, 0) for name, n in after["not_inspected"].items()}
    full = {name: (number, SIZES[name]) for name, number in filled.items()}
    print(f"\nbare bridge: {wire[version]}\n    gateway: {account}")
    print(f"{missed}\n{full}\ngrown {grown >> 20} MiB, queue {after['queue']}")
    assert after["live"]
    assert after["restarts"] == dict.fromkeys(after["restarts"], 0)
    assert grown < GROWTH_BYTES
    assert all(number <= size for number, size in full.values())
    assert missed["rate"] > 10_000
    assert "more connections per second than new_connections_per_s" in box.gateway.tollbridge("status").stdout
    assert account.through >= min(THROUGH_RATIO, wire[version].through)
    assert account.pings["received"] >= 0.98 * min(account.pings["sent"], wire[version].pings["received"])
    assert intercepted(box, version, 20) == (20, 20)  # at once


@pytest.mark.parametrize("version", VERSIONS)
def test_flood_from_one_network_leaves_the_others_inspected(box: Lab, version: int) -> None:
    settle(box)
    before = box.gateway.status()
    attack = flood(box, version, ONE_NETWORK[version], seconds=60)
    time.sleep(0.5)
    assert intercepted(box, version, 40, parallel=4) == (40, 40)
    assert attack.running, f"the flood was over too early: {attack.stderr}"
    attack.end()
    after = box.gateway.status()
    assert sum(after["put_off"].values()) - sum(before["put_off"].values()) > 10_000
    assert after["not_inspected"] == before["not_inspected"]


@pytest.mark.parametrize("version", VERSIONS)
def test_flood_within_the_rate_is_answered_by_syn_cookies_and_mail_is_inspected(box: Lab, version: int) -> None:
    settle(box)
    before = cookies(box)
    attack = flood(box, version, SOMEWHERE[version], rate=5_000, seconds=18, frames=80_000)
    deadline_at = time.monotonic() + 12
    while cookies(box)["SyncookiesSent"] < before["SyncookiesSent"] + 1_000:  # not of one instant
        assert time.monotonic() < deadline_at, "the SYN queue does not fill"
        time.sleep(0.1)
    assert intercepted(box, version, 20, parallel=2) == (20, 20)
    assert attack.running, f"the flood was over too early: {attack.stderr}"
    attack.end()
    # Most: a place may come free between two SYNs of the flood's, and whoever has it needs no cookie.
    assert cookies(box)["SyncookiesRecv"] >= before["SyncookiesRecv"] + 11


def test_syns_that_the_queue_lost_are_counted(box: Lab) -> None:
    """A diverter that stands still for less than the dead-man's switch takes, and more SYNs than the queue holds."""
    settle(box)
    before = sum(box.gateway.status()["queue"].values())  # a busy machine may have lost some in a flood before
    pid = box.gateway.pids()["diverter"]
    attack = flood(box, 4, SOMEWHERE[4], rate=9_800, seconds=3.5)
    time.sleep(0.5)
    os.kill(pid, signal.SIGSTOP)
    try:
        attack.wait()
    finally:
        os.kill(pid, signal.SIGCONT)
    hung.wait_until(lambda: sum(box.gateway.status()["queue"].values()) > before, "they are counted")
    settle(box)
    assert "SYNs lost in the queue" in box.gateway.tollbridge("status").stdout
    assert intercepted(box, 4, 5) == (5, 5)


def test_the_limits_at_their_edge(box: Lab) -> None:
    """The 20th SYN of a second is queued, the surplus counted; the third session of two is bridged and counted."""
    box.gateway.stop()
    limits = {**CONFIG["limits"], "new_connections_per_s": 20, "sessions": 2}
    with box.gateway.running({**CONFIG, "limits": limits}):
        flood(box, 4, SOMEWHERE[4], count=25, frames=25).wait()
        kernel = box.gateway.status()["kernel"]
        assert (kernel["queued"], kernel["rate"]) == (20, 5)
        time.sleep(1.5)
        idle = box.host("client").spawn([box.host("client").interpreter, "-c", HOLD, box.host("server").ipv4])
        idle.wait_for("held")
        await_sessions(box, 2)
        assert intercepted(box, 4, 1) == (1, 0)
        full = "interceptor_full"
        hung.wait_until(lambda: box.gateway.status()["not_inspected"].get(full) == 1, "it is counted, once")
        idle.end()
        await_sessions(box, 0)
        assert intercepted(box, 4, 1) == (1, 1)


def await_sessions(lab: Lab, number: int) -> None:
    """The daemon has heard of so many, and the diverter, which hears five times a second."""
    hung.wait_until(lambda: lab.gateway.state()["interceptor"].get("sessions") == number, f"{number} sessions")
    time.sleep(1.0)


HOLD = """
import socket, sys, time
held = [socket.create_connection((sys.argv[1], 25)) for _ in range(2)]
for sock in held:
    sock.recv(99)
print("held", flush=True)
time.sleep(60)
"""
