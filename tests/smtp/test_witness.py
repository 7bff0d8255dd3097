"""The witness sees the MACs of the SYNs that leave by its device, and nothing else.

twa (gateway's place) ── tw0 ══ tw1 ── twb (the server)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from smtp_intercept import witness
from smtp_intercept.witness import _key

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2 to build network namespaces"
)

SCRIPT = """
import json, select, socket, sys
from smtp_intercept.witness import Witness
told = {}
watcher = Witness("tw0")
for family, own, server in (
    (socket.AF_INET, "198.18.0.1", "198.18.0.2"), (socket.AF_INET6, "2001:db8:7::1", "2001:db8:7::2")
):
    sock = socket.socket(family)
    sock.settimeout(5)
    sock.bind((own, 0))
    sock.connect((server, 25))
    here, there = sock.getsockname(), sock.getpeername()
    sock.sendall(b"EHLO c\\r\\n")
    sock.recv(100)
    told[own] = [watcher.macs(here, there), watcher.macs(here, there), watcher.macs(there, here)]
    sock.close()
raw = watcher._socket
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.sendto(b"x" * 60, ("198.18.0.2", 25))
told["other frames"] = bool(select.select([raw], [], [], 0.5)[0])
print(json.dumps(told))
"""

SERVER = """
import socket, threading
def serve(family, address):
    with socket.create_server((address, 25), family=family) as listener:
        print("ready", flush=True)
        sock, _ = listener.accept()
        sock.recv(100)
        sock.sendall(b"250 c")
        sock.recv(100)
places = (socket.AF_INET, "198.18.0.2"), (socket.AF_INET6, "2001:db8:7::2")
threads = [threading.Thread(target=serve, args=place) for place in places]
[t.start() for t in threads]
[t.join() for t in threads]
# A SYN that comes in must not be seen.
back = socket.socket()
back.settimeout(1)
try:
    back.connect(("198.18.0.1", 9))
except OSError:
    pass
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def wire() -> Iterator[dict[str, str]]:
    """Two namespaces and a veth pair; yields the MACs."""
    macs = {"tw0": "02:00:00:07:00:01", "tw1": "02:00:00:07:00:02"}
    places = {"twa": ("tw0", "1"), "twb": ("tw1", "2")}
    try:
        for place in places:
            ip("netns", "add", place)
        ip("link", "add", "tw0", "netns", "twa", "type", "veth", "peer", "name", "tw1", "netns", "twb")
        for place, (device, host) in places.items():
            ip("-n", place, "link", "set", device, "address", macs[device], "up")
            ip("-n", place, "addr", "add", f"198.18.0.{host}/24", "dev", device)
            ip("-n", place, "addr", "add", f"2001:db8:7::{host}/64", "dev", device, "nodad")
        yield macs
    finally:
        for place in places:
            subprocess.run(["ip", "netns", "del", place], check=False, capture_output=True)


def in_namespace(place: str, script: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", place, sys.executable, "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_both_macs_of_a_session_are_told_once(wire: dict[str, str]) -> None:
    with in_namespace("twb", SERVER) as server:
        assert server.stdout is not None
        assert [server.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        with in_namespace("twa", SCRIPT) as client:
            out, problems = client.communicate(timeout=20)
        server.wait(20)
    assert client.returncode == 0, problems
    told: dict[str, Any] = json.loads(out)
    pair = [wire["tw0"], wire["tw1"]]
    for own in ("198.18.0.1", "2001:db8:7::1"):
        assert told[own] == [pair, None, None]
    assert told["other frames"] is False


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="No such device"):
        witness.Witness("tw-none")


def test_the_oldest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "MAX_REMEMBERED", 2)
    watcher = witness.Witness("lo")
    for port in (1, 2, 1, 3):
        watcher._remember((b"\x7f\0\0\1", b"\x7f\0\0\2", port, 25), (f"client {port}", "server"))
    told = [watcher.macs(("127.0.0.1", port), ("127.0.0.2", 25)) for port in (1, 2, 3)]
    assert told == [("client 1", "server"), None, ("client 3", "server")]
    watcher.close()


@pytest.mark.parametrize("length", range(58))
def test_a_frame_cut_short_is_no_witness(length: int) -> None:
    frame = bytes(12) + b"\x86\xdd" + b"\x60" + bytes(60)
    assert _key(frame[:length]) is None
    assert _key(frame) is not None
