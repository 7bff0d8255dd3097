r"""A wire and not a switch: what it is told about MACs, ports and protocols moves no mail past inspection.

::

    client .10 ── p0  gateway  p1 ── server .20 (protected)

Each test is somebody who sends frames that would mislead a bridge, a map or a parser.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scapy.layers.inet import GRE, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from bridge.segment import checksum
from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.host import Host
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab
from tests.kernel.frames import counters, crossing, inject, is_tcp, sightings

pytestmark = pytest.mark.kernel

CONFIG: dict[str, Any] = {
    "pickup": {"outgoing": "intercept"},
    "protected": [{"domain": "example.com", "servers": ["192.0.2.20", "2001:db8::20"]}],
}
STRANGER = "00:00:5e:00:53:66"
VERSIONS = (4, 6)


def inspected(lab: Lab, name: str, version: int = 4, **settings: Any) -> bool:
    """One message from client to server; whether it was accepted, and the gateway saw it."""
    sender = f"{name}-{time.monotonic_ns()}@example.net"
    to = lab.host("server").of_version(version)[0]
    (delivery,) = send(lab.host("client"), to, sender=sender, timeout=5, **settings)
    return bool(delivery["accepted"] and lab.gateway.wait_log(type="message", sender=sender))


def syn(lab: Lab, port: int, **macs: str) -> bytes:
    """In the client's name."""
    client, server = lab.host("client"), lab.host("server")
    frame = Ether(**{"src": STRANGER, "dst": server.mac, **macs}) / IP(src=client.ipv4, dst=server.ipv4)
    return bytes(frame / TCP(sport=port, dport=25, flags="S", seq=777))


# --- forwarding ----------------------------------------------------------------------------------------------------


def test_one_mac_in_two_vlans_behind_both_ports(gateway_lab: Lab) -> None:
    """A transparent firewall on a stick: what it gets in VLAN 10 it sends back in VLAN 20, and the other way round."""
    client, server = gateway_lab.host("client"), gateway_lab.host("server")
    a, router = "02:00:00:00:0a:0a", "02:00:00:00:0b:0b"

    def frame(number: int, source: str, destination: str, vlan: int) -> bytes:
        return bytes(Ether(src=source, dst=destination) / Dot1Q(vlan=vlan, type=0x88B5) / Raw(bytes([number]) * 50))

    hops = (
        (client, server, frame(1, a, router, 10)),
        (server, client, frame(2, a, router, 20)),
        (client, server, frame(3, router, a, 20)),
        (server, client, frame(4, router, a, 10)),
        (client, server, frame(5, a, router, 10)),
    )
    with gateway_lab.capture() as frames:
        for sender, _, octets in hops:
            inject(sender, [octets])
    for sender, receiver, octets in hops:
        assert sightings(frames, octets) == crossing(sender, receiver, gateway_lab)


REWRITE = """
table netdev other_way {{
    chain out {{ type filter hook egress device eth0 priority 0; ether saddr {own} ether saddr set {other}; }}
    chain in {{ type filter hook ingress device eth0 priority 0;
        ether daddr {other} ether daddr set {own} meta pkttype set host
    }}
}}
"""


@contextmanager
def another_way_out(host: Host, other: str) -> Iterator[None]:
    """The host's frames come from another router's MAC than the one that frames to it go to."""
    rules = host.directory / "other-way.nft"
    rules.write_text(REWRITE.format(own=host.mac, other=other))
    host.run(["nft", "-f", str(rules)])
    try:
        yield
    finally:
        host.run(["nft", "delete", "table", "netdev", "other_way"])


def leaving(frames: list[Frame], port: str) -> list[tuple[str, str]]:
    """Both MACs of each TCP frame that leaves by this port of the gateway's."""
    out = [f for f in frames if (f.host, f.interface, f.way) == ("gateway", port, Way.OUT) and is_tcp(f)]
    return [(frame.source, frame.destination) for frame in out]


@pytest.mark.parametrize("version", VERSIONS)
def test_both_macs_are_the_peers_own_where_ways_out_and_back_differ(
    gateway_lab: Lab, server: MailServer, version: int
) -> None:
    client, host = gateway_lab.host("client"), gateway_lab.host("server")
    ways = another_way_out(host, "00:00:5e:00:53:77"), another_way_out(client, "00:00:5e:00:53:78")
    with ways[0], ways[1], gateway_lab.capture() as frames:
        assert inspected(gateway_lab, "two-ways", version)
    assert set(leaving(frames, "p1")) == {("00:00:5e:00:53:78", host.mac)}  # as the client sends to the server
    syn_ack, *rest = leaving(frames, "p0")
    assert syn_ack == (host.mac, "00:00:5e:00:53:78")  # nobody had said anything yet: the SYN reversed
    assert set(rest) <= {syn_ack, ("00:00:5e:00:53:77", client.mac)}
    assert rest[-1] == ("00:00:5e:00:53:77", client.mac)  # as the server sends to the client


# --- who would have mail go past -----------------------------------------------------------------------------------


def test_a_neighbours_frame_with_the_servers_mac(gateway_lab: Lab, server: MailServer) -> None:
    client, host = gateway_lab.host("client"), gateway_lab.host("server")
    claim = Ether(src=host.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=host.mac, psrc="192.0.2.99", pdst="192.0.2.98"
    )
    assert inspected(gateway_lab, "heard-of")  # the server's answer says where it lives
    for _ in range(2):
        inject(client, [bytes(claim)])
        assert inspected(gateway_lab, "claimed")
    assert not any(gateway_lab.gateway.status()["dropped"].values())


def test_one_spoofed_syn_from_the_inside(gateway_lab: Lab, server: MailServer) -> None:
    client, host = gateway_lab.host("client"), gateway_lab.host("server")
    inject(host, [syn(gateway_lab, 43210, dst="02:11:22:33:44:66")])
    time.sleep(0.2)
    assert inspected(gateway_lab, "fresh")
    assert int(client.run([sys.executable, "-c", FROM_PORT, client.ipv4, "43210", host.ipv4]).stdout) == 220
    assert inspected(gateway_lab, "after")
    assert gateway_lab.gateway.wait_log(type="session", where=lambda each: each["client"]["port"] == 43210)


FROM_PORT = """
import socket, sys, time
def address(text, port):
    return socket.getaddrinfo(text, port, type=socket.SOCK_STREAM)[0][4]
for attempt in range(5):
    s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(5)
    try:
        s.bind(address(sys.argv[1], int(sys.argv[2])))
        s.connect(address(sys.argv[3], 25))
        said = s.recv(99)
        s.sendall(b"QUIT\\r\\n")
        s.recv(99)
        print(said[:3].decode() or 0)
        break
    except OSError as error:
        print(error, file=sys.stderr)
        time.sleep(0.5)
else:
    print(0)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_both_ports_are_mails(gateway_lab: Lab, server: MailServer, version: int) -> None:
    client, host = gateway_lab.host("client"), gateway_lab.host("server")
    source, to = client.of_version(version)[1], host.of_version(version)[0]
    before = counters(gateway_lab)["no_next_hop"]
    assert int(client.run([sys.executable, "-c", FROM_PORT, source, "25", to]).stdout) == 220
    (session,) = gateway_lab.gateway.wait_log(type="session", where=lambda each: each["client"]["address"] == source)
    assert session["client"]["port"] == 25
    assert counters(gateway_lab)["no_next_hop"] == before


def test_mail_between_link_local_addresses(gateway_lab: Lab) -> None:
    client, host = gateway_lab.host("client"), gateway_lab.host("server")
    for each, address in ((client, "fe80::10"), (host, "fe80::20")):
        each.run(["ip", "address", "replace", f"{address}/64", "dev", "eth0", "nodad"])
        each.run(["ip", "address", "replace", f"169.254.0.{address[-2:]}/16", "dev", "eth0", "scope", "link"])
    listener = host.spawn([sys.executable, "-c", LISTENER])
    listener.wait_for("ready")
    for source, to in (("fe80::10%eth0", "fe80::20%eth0"), ("169.254.0.10", "169.254.0.20")):
        before = len(gateway_lab.gateway.mail_log("session"))
        assert int(client.run([sys.executable, "-c", FROM_PORT, source, "41000", to]).stdout) == 220
        assert len(gateway_lab.gateway.wait_sessions(before)) == 1, source
    listener.end()


LISTENER = """
import socket, threading
def serve(family, address):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address)
    s.listen()
    def loop():
        while True:
            c, _ = s.accept()
            c.sendall(b"220 here\\r\\n")
            c.recv(99)
            c.sendall(b"221 bye\\r\\n")
            c.close()
    threading.Thread(target=loop, daemon=True).start()
serve(socket.AF_INET6, ("fe80::20", 25, 0, socket.if_nametoindex("eth0")))
serve(socket.AF_INET, ("169.254.0.20", 25))
print("ready", flush=True)
threading.Event().wait()
"""


# --- mail inside of something --------------------------------------------------------------------------------------


def wrapped(a: Host, b: Host) -> dict[str, list[Any]]:
    """By the name of the counter."""
    outer, link = IP(src=a.ipv4, dst=b.ipv4, id=4711), Ether(src=a.mac, dst=b.mac)
    mail = [IP(src="198.51.100.1", dst="198.51.100.2") / tcp(), IPv6(src="2001:db8:7::1", dst="2001:db8:7::2") / tcp()]
    four, six = mail
    return {
        "in_pppoe": [
            link / PPPoE(sessionid=7) / PPP(proto=0x21) / four,
            link / PPPoE(sessionid=7) / PPP(proto=0x57) / six,
        ],
        "in_mpls": [
            Ether(src=a.mac, dst=b.mac, type=0x8847) / Raw(bytes(labels)) / inner
            for inner in mail
            for labels in (b"\x00\x01\x01\x40", b"\x00\x01\x00\x40\x00\x02\x01\x40")
        ],
        "in_gre": [
            *(link / outer / GRE() / inner for inner in mail),
            link / outer / GRE(key_present=1, key=9) / four,
        ],
        "in_ip": [link / outer / inner for inner in mail],
        "in_vxlan": [link / outer / UDP(sport=9999, dport=4789) / VXLAN(vni=7) / Ether() / inner for inner in mail],
    }


def tcp() -> Any:
    return TCP(sport=40000, dport=25, flags="S", seq=9)


def test_mail_inside_of_something_crosses_and_is_counted(gateway_lab: Lab) -> None:
    client, host = gateway_lab.host("client"), gateway_lab.host("server")
    frames_of = {name: [bytes(frame) for frame in each] for name, each in wrapped(client, host).items()}
    every = [octets for each in frames_of.values() for octets in each]
    before = counters(gateway_lab)
    with gateway_lab.capture() as frames:
        inject(client, every)
    after = counters(gateway_lab)
    assert {name: after[name] - before[name] for name in frames_of} == {n: len(each) for n, each in frames_of.items()}
    for octets in every:
        assert sightings(frames, octets) == crossing(client, host, gateway_lab)


# --- fragments -----------------------------------------------------------------------------------------------------

FLOOD = 4000  # of 1,400 octets: more than the kernel keeps for all that is not whole (4 MiB)


@pytest.mark.parametrize("version", VERSIONS)
def test_fragments_of_others_do_not_wait_behind_mails(gateway_lab: Lab, version: int) -> None:
    client, host = gateway_lab.host("client"), gateway_lab.host("server")
    a, b = client.of_version(version)[0], host.of_version(version)[0]

    def parts(number: int, port: int) -> list[bytes]:
        whole = bytes(TCP(sport=44444, dport=port, flags="A", seq=1) / Raw(b"x" * 2000))
        link = Ether(src=client.mac, dst=host.mac)
        if version == 4:
            made = [
                link / IP(src=a, dst=b, id=number, proto=6, flags=more, frag=at // 8) / Raw(whole[at : at + 1400])
                for at, more in ((0, "MF"), (1400, 0))
            ]
        else:
            made = [
                link / IPv6(src=a, dst=b) / IPv6ExtHdrFragment(nh=6, id=number, m=more, offset=at // 8)
                / Raw(whole[at : at + 1400])
                for at, more in ((0, 1), (1400, 0))
            ]  # fmt: skip
        return [bytes(frame) for frame in made]

    template = parts(1, 25)[0]
    where = 18 if version == 4 else 58  # of the identification: its last two octets
    mails = [template[:where] + number.to_bytes(2) + template[where + 2 :] for number in range(2, FLOOD)]
    if version == 4:
        mails = [with_checksum(frame) for frame in mails]
    path = client.directory / "flood.hex"
    path.write_text("\n".join(frame.hex() for frame in mails))
    client.python(FLOODER, str(path))
    others = [frame for number in (60001, 60002) for frame in parts(number, 80)]
    with gateway_lab.capture() as frames:
        inject(client, others)
    for octets in others:
        assert sightings(frames, octets) == crossing(client, host, gateway_lab)


def with_checksum(frame: bytes) -> bytes:
    head = frame[14:24] + b"\0\0" + frame[26:34]
    return frame[:24] + checksum(head).to_bytes(2) + frame[26:]


FLOODER = """
import pathlib, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for line in pathlib.Path(sys.argv[1]).read_text().split():
    s.send(bytes.fromhex(line))
"""
