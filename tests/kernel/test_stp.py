r"""With ``bridge.stp`` the box is a switch in a ring, and mail takes the one way that the spanning tree left open.

::

                       ┌ p1 ── eth0 root ── server (on the root itself)
    client ── p0  gateway        │ eth1
                       └ p2 ╳ eth0 spare        ╳ the port that the spanning tree blocks

The other switches are quick (hello 1 s, forward delay 2 s), so a way that breaks is replaced after about 4 s.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.host import SOON_S, Host, patient
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab, Station, Wires

pytestmark = pytest.mark.kernel

WIRES: Wires = {
    "outside": (Station("client", ("192.0.2.10/24", "2001:db8::10/64")),),
    "left": (Station("root", ("192.0.2.20/24", "2001:db8::20/64")),),
    "right": (Station("spare", ()),),
}
CONFIG = {
    "bridge": {"stp": True},
    "protected": [{"domain": "example.com", "servers": ["192.0.2.20", "2001:db8::20"]}],
}
QUICK = "stp_state 1 hello_time 100 forward_delay 200 max_age 600 mcast_snooping 0"
CONVERGED_S = 12.0  # listening, learning, and the hello that tells of a better root
FAILED_OVER_S = 10.0
VERSIONS = (4, 6)


def switch(host: Host, *ports: str, priority: int) -> None:
    """Make the host a switch, with its addresses on the switch itself and its own MAC."""
    host.run(
        ["ip", "link", "add", "sw", "address", host.mac, "type", "bridge", "priority", str(priority), *QUICK.split()]
    )
    host.run(["ip", "address", "flush", "dev", "eth0"])
    for port in ports:
        host.run(["ip", "link", "set", port, "master", "sw", "up"])
    host.run(["ip", "link", "set", "sw", "up"])
    for address in host.addresses:
        host.run(["ip", "address", "add", str(address), "dev", "sw", *(["nodad"] if address.version == 6 else [])])


def port_state(lab: Lab, port: str) -> str:
    words = lab.gateway.room.run(["ip", "-d", "link", "show", port]).stdout.split()
    return words[words.index("state", words.index("bridge_slave")) + 1]


def until(true: Callable[[], bool], timeout_s: float, what: str) -> float:
    """How long it took; fails when it takes too long."""
    began_at = time.monotonic()
    while not true():
        assert time.monotonic() - began_at < patient(timeout_s), f"not within {timeout_s} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began_at


def states(lab: Lab) -> dict[str, str]:
    return {port: port_state(lab, port) for port in lab.gateway.ports}


def hurry(lab: Lab) -> None:
    """The gateway's own forward delay, in force until it has heard the root's, is 15 s."""
    lab.gateway.room.run(["ip", "link", "set", "br0", "down"])
    lab.gateway.room.run(["ip", "link", "set", "br0", "type", "bridge", "forward_delay", "200"])
    lab.gateway.room.run(["ip", "link", "set", "br0", "up"])


@contextmanager
def converged(wires: Wires, config: Mapping[str, Any]) -> Iterator[Lab]:
    """The ring as it has settled, without the daemon."""
    with Lab(wires) as lab:
        root, spare = lab.host("root"), lab.host("spare")
        ends = [(f"{lab.prefix}-{host.name}", "eth1", "") for host in (root, spare)]
        namespaces.wire(ends[0], ends[1], lab.mtu)
        switch(root, "eth0", "eth1", priority=0)
        switch(spare, "eth0", "eth1", priority=4096)
        lab.gateway.configure(config)
        lab.gateway.tollbridge("up")
        hurry(lab)
        forwarding = {"p0": "forwarding", "p1": "forwarding", "p2": "blocking"}
        until(lambda: states(lab) == forwarding, CONVERGED_S, "p0 and p1 forward, p2 blocks")
        yield lab


@pytest.fixture(scope="module")
def ring(lanes: None) -> Iterator[Lab]:
    with converged(WIRES, CONFIG) as lab:
        MailServer.start(lab.host("root"))
        yield lab


def delivered(lab: Lab, version: int, timeout: float = 3.0, retries: int = 0) -> bool:
    server = lab.host("root").of_version(version)[0]
    (delivery,) = send(lab.host("client"), server, timeout=timeout, retries=retries)
    return bool(delivery["accepted"])


def sessions(lab: Lab) -> int:
    return len(lab.gateway.mail_log("session"))


def wait_told(lab: Lab) -> None:
    """Until the daemon has told the lane what it sees of the ports."""

    def told() -> bool:
        listed = lab.gateway.room.run(["nft", "list", "set", "netdev", "tollbridge", "forwarding"]).stdout
        forwarding = {port for port, state in states(lab).items() if state == "forwarding"}
        return {port for port in lab.gateway.ports if re.search(rf"\b{port}\b", listed)} == forwarding

    until(told, SOON_S, "the lane knows which ports forward")


def mail(frames: Sequence[Frame], interface: str, way: Way) -> list[Frame]:
    """The frames from or to port 25 that a port of the gateway saw."""
    return [
        frame
        for frame in frames
        if frame.host == "gateway"
        and (frame.interface, frame.way) == (interface, way)
        and b"\x00\x19" in ports_of(frame)
    ]


def ports_of(frame: Frame) -> tuple[bytes, bytes]:
    at = {0x0800: 34, 0x86DD: 54}.get(frame.ethertype, len(frame.data))
    return frame.data[at : at + 2], frame.data[at + 2 : at + 4]


@pytest.mark.parametrize("version", VERSIONS)
def test_without_the_daemon_mail_takes_the_plain_bridge_and_is_counted(ring: Lab, version: int) -> None:
    before = ring.gateway.status()["not_inspected"]["not_forwarding"]
    assert delivered(ring, version)
    assert ring.gateway.status()["not_inspected"]["not_forwarding"] > before


@pytest.fixture(scope="module")
def inspecting(ring: Lab) -> Lab:
    ring.gateway.spawn_daemon()
    wait_told(ring)
    return ring


@pytest.mark.parametrize("version", VERSIONS)
def test_mail_is_intercepted_and_leaves_by_the_port_that_forwards_only(inspecting: Lab, version: int) -> None:
    before = sessions(inspecting)
    with inspecting.capture() as frames:
        assert delivered(inspecting, version)
    assert len(inspecting.gateway.wait_sessions(before)) == 1
    assert mail(frames, "p2", Way.OUT) == []
    client, root = inspecting.host("client").mac, inspecting.host("root").mac
    assert {frame.source for frame in mail(frames, "p1", Way.OUT)} == {client}
    assert {frame.source for frame in mail(frames, "p0", Way.OUT)} == {root}
    syns = [frame for frame in mail(frames, "p1", Way.OUT) if frame.packet["TCP"].flags == "S"]
    assert len(syns) == 1


SYN = """
import socket, sys
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether
frame = Ether(dst=sys.argv[1], src="00:00:5e:00:53:77")
if vlan := int(sys.argv[3]):
    frame /= Dot1Q(vlan=vlan)
packet = frame / IP(src="192.0.2.77", dst="192.0.2.10") / TCP(sport=7777, dport=25)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[2], 0))
s.send(bytes(packet))
"""


def injected(lab: Lab, host: str, port: str, vlan: int = 0) -> dict[str, int]:
    """How often a SYN that a switch sends towards the gateway came in by its port and went out to the client."""
    client = lab.host(f"client{vlan or ''}").mac
    with lab.capture() as frames:
        lab.host(host).python(SYN, client, "eth0", str(vlan))
    found = [frame for frame in frames if frame.source == "00:00:5e:00:53:77" and frame.host == "gateway"]
    return {
        "in": sum((frame.interface, frame.way) == (port, Way.IN) for frame in found),
        "out": sum(frame.way is Way.OUT for frame in found),
    }


def test_what_comes_in_by_the_blocked_port_goes_nowhere(inspecting: Lab) -> None:
    assert injected(inspecting, "spare", "p2") == {"in": 1, "out": 0}
    assert injected(inspecting, "root", "p1") == {"in": 1, "out": 1}  # the check sees what it looks for


def test_when_the_way_breaks_mail_takes_the_other_and_is_intercepted(inspecting: Lab) -> None:
    for version in VERSIONS:  # the lane knows the way that is about to break
        assert delivered(inspecting, version)
    inspecting.host("root").run(["ip", "link", "set", "eth0", "down"])
    until(lambda: port_state(inspecting, "p2") == "forwarding", FAILED_OVER_S, "p2 forwards")
    wait_told(inspecting)
    before = sessions(inspecting)
    with inspecting.capture("outside", "right") as frames:
        for version in VERSIONS:
            assert delivered(inspecting, version)
    assert len(inspecting.gateway.wait_sessions(before, 2)) == 2
    assert mail(frames, "p2", Way.OUT)


def test_a_tree_rebuilt_while_its_ports_go_on_forwarding_leaves_no_stale_way(inspecting: Lab) -> None:
    inspecting.host("root").run(["ip", "link", "set", "eth0", "up"])
    until(lambda: port_state(inspecting, "p1") == "forwarding", CONVERGED_S, "p1 forwards")
    until(lambda: port_state(inspecting, "p2") == "blocking", CONVERGED_S, "p2 blocks")
    wait_told(inspecting)
    before = sessions(inspecting)
    for version in VERSIONS:
        assert delivered(inspecting, version)
    assert len(inspecting.gateway.wait_sessions(before, 2)) == 2


def test_when_the_daemon_is_killed_mail_goes_on(inspecting: Lab) -> None:
    """SIGKILL to the supervisor: its children die with it, the lane empties itself after a few seconds."""
    assert inspecting.gateway.run_process
    inspecting.gateway.run_process.end(grace_s=0)
    before = sessions(inspecting)
    for wait_s in (0.0, 3.0, 4.0):  # at once; without a beat; with no port known to forward
        time.sleep(wait_s)
        for version in VERSIONS:
            assert delivered(inspecting, version, timeout=6.0, retries=1)
    assert sessions(inspecting) == before
