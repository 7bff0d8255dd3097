"""The lane's memory of who is behind which MAC address: it follows a host that changes its own, and does not pile up.

::

    client ── p0 [ gateway ] p1 ── server

    t = 0      the client opens a session and lets it rest
    t = 1      its MAC changes (a failover of its router looks the same)
    t ≤ 1 + LEARNED_S + retry   a new connection gets through, and the resting session goes on
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bridge.lane import LEARNED_S
from smtp_intercept.app.lab.host import patient
from smtp_intercept.app.lab.mail import MailServer, deliveries, send, sending
from smtp_intercept.app.lab.network import Lab
from tests.kernel.conftest import DEFAULT
from tests.kernel.frames import counters
from tests.kernel.pace import slowness

pytestmark = pytest.mark.kernel

CONFIG = {**DEFAULT, "limits": {"drain_s": 1}}
NEW_MAC = "00:00:5e:00:53:77"

# Opens a session, says so, rests, and goes on with it.
RESTING = """
import smtplib, sys, time
mail = smtplib.SMTP("192.0.2.20", 25, timeout=20, source_address=("192.0.2.10", 0))
mail.ehlo("rest.example.net")
print("resting", flush=True)
time.sleep(float(sys.argv[1]))
print(mail.noop()[0], mail.quit()[0], flush=True)
"""


def test_a_host_whose_mac_changes_is_followed(gateway_lab: Lab, server: MailServer) -> None:
    client = gateway_lab.host("client")
    resting = client.spawn([sys.executable, "-c", RESTING, str(LEARNED_S + 8)])
    resting.wait_for("resting")

    client.run(["ip", "link", "set", "eth0", "address", NEW_MAC])
    changed_at = time.monotonic()
    (delivery,) = send(client, "192.0.2.20", source="192.0.2.10", timeout=2, retries=20, timeout_s=60)

    assert delivery["accepted"], delivery
    assert time.monotonic() - changed_at < LEARNED_S + 4 * slowness()
    port = delivery["attempts"][-1]["client_port"]
    (session,) = gateway_lab.gateway.wait_log(type="session", where=lambda each: each["client"]["port"] == port)
    assert session["client"]["mac"] == NEW_MAC
    assert session["server"]["mac"] is None  # the lane put its own in that place
    assert resting.wait().stdout.split() == ["resting", "250", "221"]


# SYNs in the name of the server and of the client, from a third MAC on the client's wire, until stopped.
SPOOFER = """
import sys, time
from scapy.all import IP, TCP, Ether, sendp
ends = [("192.0.2.20", "192.0.2.21"), ("192.0.2.10", "192.0.2.20"), ("192.0.2.10", "192.0.2.21")]
ports = [40000, 25, 40001]
def frames():
    return [
        Ether(src="00:00:5e:00:53:66", dst=sys.argv[1]) / IP(src=a, dst=b) / TCP(sport=port, dport=25, flags="S")
        for a, b in ends
        for port in ports
    ]
print("spoofing", flush=True)
while True:
    sendp(frames(), iface="eth0", verbose=False)
    time.sleep(0.05)
"""


def test_spoofed_syns_stop_nobodys_mail(gateway_lab: Lab, server: MailServer) -> None:
    """Next hops are a connection's own: to spoil them one must guess its source port before its first SYN."""
    client = gateway_lab.host("client")
    spoofer = client.spawn([sys.executable, "-c", SPOOFER, gateway_lab.host("server").mac])
    spoofer.wait_for("spoofing")
    time.sleep(1)

    sent = send(client, "192.0.2.20", source="192.0.2.10", count=20, timeout=2, timeout_s=60)

    spoofer.end()
    assert [delivery["accepted"] for delivery in sent] == [True] * 20
    assert max(delivery["attempts"][0]["seconds"] for delivery in sent) < 1.0 * slowness()


SWIFT = "net.ipv4.neigh.eth0"
USUAL = {"base_reachable_time_ms": 30_000, "delay_first_probe_time": 5}


@pytest.fixture
def swift(gateway_lab: Lab) -> Iterator[None]:
    """A client that doubts in a second what it doubts in half a minute."""
    client = gateway_lab.host("client")
    client.run(["sysctl", "-qw", *(f"{SWIFT}.{name}={n}" for name, n in zip(USUAL, (1000, 1), strict=True))])
    client.run(["ip", "neigh", "flush", "all"])
    yield
    client.run(["sysctl", "-qw", *(f"{SWIFT}.{name}={n}" for name, n in USUAL.items())])


@contextmanager
def dialling(lab: Lab) -> Iterator[Callable[[float], list[dict[str, Any]]]]:
    """All the time; what was accepted of what began since a moment."""
    ends = lab.host("client"), "192.0.2.20"
    process = sending(*ends, source="192.0.2.10", count=0, parallel=4, interval=0.2, timeout=2)

    def accepted(since: float) -> list[dict[str, Any]]:
        return [each for each in deliveries(process) if each["accepted"] and each["began_at"] >= since]

    try:
        until(lambda: len(accepted(0)) > 4, 20)
        yield accepted
    finally:
        process.end()


def until(true: Callable[[], bool], timeout_s: float) -> None:
    deadline_at = time.monotonic() + patient(timeout_s)
    while not true():
        assert time.monotonic() < deadline_at
        time.sleep(0.1)


def all_inspected(lab: Lab, those: list[dict[str, Any]]) -> bool:
    ports = {entry["client"]["port"] for entry in lab.gateway.mail_log("session")}
    return {each["attempts"][-1]["client_port"] for each in those} <= ports


def test_a_server_that_is_elsewhere_and_does_not_say_so_is_found(
    gateway_lab: Lab, server: MailServer, swift: None
) -> None:
    """Its gratuitous ARP was lost (a switch that still learns its port), and its client dials all the time: each
    handshake of ours would confirm the MAC that nobody has, for ever."""
    host, before = gateway_lab.host("server"), counters(gateway_lab)["silent"]
    with dialling(gateway_lab) as accepted:
        host.run(["ip", "link", "set", "eth0", "address", NEW_MAC])
        since = time.time() + 0.5
        until(lambda: len(accepted(since)) > 8, 40)
    host.run(["ip", "link", "set", "eth0", "address", host.mac])
    gateway_lab.host("client").run(["ip", "neigh", "flush", "all"])
    assert counters(gateway_lab)["silent"] > before
    until(lambda: all_inspected(gateway_lab, accepted(since)), 20)


DROPPING = ["nft", "add table inet mute; add chain inet mute in { type filter hook input priority 0; policy drop; }"]


def test_a_server_that_speaks_again_is_inspected_at_once(gateway_lab: Lab, server: MailServer) -> None:
    """The client's own SYNs ask meanwhile; the handshake that one of them would begin is not left to them."""
    host, before = gateway_lab.host("server"), counters(gateway_lab)["silent_answers"]
    with dialling(gateway_lab) as accepted:
        host.run(DROPPING)
        silent = counters(gateway_lab)["silent"]
        until(lambda: counters(gateway_lab)["silent"] > silent + 4, 20)
        host.run(["nft", "delete table inet mute"])
        since = time.time()
        until(lambda: len(accepted(since)) > 8, 20)
    assert counters(gateway_lab)["silent_answers"] > before
    until(lambda: all_inspected(gateway_lab, accepted(since)), 20)


ONE_LOST = (
    "add table inet deaf; add chain inet deaf in { type filter hook input priority 0; }; "
    "add rule inet deaf in tcp sport 40000 drop"
)
HANGING = """
import socket, time
s = socket.create_connection(("192.0.2.20", 25), 5, ("192.0.2.10", 40000))
time.sleep(12)
"""


def test_a_dial_that_is_lost_among_others_harms_nobody(gateway_lab: Lab, server: MailServer) -> None:
    """A server that answers the others of the same pair is there."""
    host, client = gateway_lab.host("server"), gateway_lab.host("client")
    before = counters(gateway_lab)
    with dialling(gateway_lab) as accepted:
        host.run(["nft", ONE_LOST])
        since = time.time()
        client.run([client.interpreter, "-c", HANGING])
        host.run(["nft", "delete table inet deaf"])
    after = counters(gateway_lab)
    assert after["silent"] == before["silent"]
    those = accepted(since)
    assert len(those) > 40
    assert {len(each["attempts"]) for each in those} == {1}
