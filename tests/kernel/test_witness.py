"""The witness sees the MACs of the SYNs that leave by its device, and nothing else.

client (has the witness) ── p0 [bare bridge] p1 ── server
"""

from __future__ import annotations

import pytest

from smtp_intercept.app.lab.network import Lab

pytestmark = pytest.mark.kernel

WITNESS = """
import json, select, socket, sys
from smtp_intercept.witness import Witness
told = {}
watcher = Witness("eth0")
for family, own, server in zip((socket.AF_INET, socket.AF_INET6), sys.argv[1::2], sys.argv[2::2]):
    with socket.socket(family) as sock:
        sock.settimeout(5)
        sock.bind((own, 0))
        sock.connect((server, 25))
        here, there = sock.getsockname(), sock.getpeername()
        assert sock.recv(100).startswith(b"220")
        told[own] = [watcher.macs(here, there), watcher.macs(here, there), watcher.macs(there, here)]
print(json.dumps(told), flush=True)
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.sendto(b"x" * 60, (sys.argv[2], 25))
print(json.dumps({"other frames": bool(select.select([watcher._socket], [], [], 1.0)[0])}))
"""

# A SYN that comes in must not be seen.
CALL_BACK = "import socket, sys; print(socket.socket().connect_ex((sys.argv[1], 9)))"


def test_both_macs_of_a_session_are_told_once(bare: Lab, server: object) -> None:
    client, other = bare.host("client"), bare.host("server")
    watching = client.spawn([client.interpreter, "-c", WITNESS, client.ipv4, other.ipv4, client.ipv6, other.ipv6])
    watching.wait_for("\n")
    other.python(CALL_BACK, client.ipv4, timeout_s=10)
    told, others = watching.wait(20).check().json_lines()
    pair = [client.mac, other.mac]
    for own in (client.ipv4, client.ipv6):
        assert told[own] == [pair, None, None]
    assert others == {"other frames": False}
