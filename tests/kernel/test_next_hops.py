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

import pytest

from bridge.lane import LEARNED_S
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

pytestmark = pytest.mark.kernel

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
    assert time.monotonic() - changed_at < LEARNED_S + 4
    session = gateway_lab.gateway.wait_log(type="session")[-1]
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
    assert max(delivery["attempts"][0]["seconds"] for delivery in sent) < 1.0
