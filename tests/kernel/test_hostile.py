r"""SYNs that no honest host sends, to a server whose mail is intercepted (.20) and to one whose mail is not (.21).

::

    client .10 ── p0  gateway  p1 ── server .20 protected, .21 not

Each of them meets one of three fates at the first; at the second a gateway is a wire, but for what no host would take.
Whatever they do, the diverter lives, and no frame on the wires is the gateway's own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import pytest
from scapy.layers.inet import IP, TCP, IPOption, IPOption_LSRR, IPOption_RR, fragment
from scapy.layers.inet6 import (
    HBHOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from bridge.flow import MAX_EXTENSIONS
from bridge.lane import LANE_MAC, NEXT_HOP4, NEXT_HOP6, NEXT_HOP_MAC
from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.host import patient
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab
from tests.kernel.frames import give_away, inject

pytestmark = pytest.mark.kernel

CONFIG: dict[str, Any] = {
    "pickup": {"outgoing": "pass"},
    "protected": [{"domain": "example.com", "servers": ["192.0.2.20", "2001:db8::20"]}],
}
CLIENT_MAC, SERVER_MAC = "00:00:5e:00:53:01", "00:00:5e:00:53:02"
FIRST_PORT = 20000
REPORTED_S = 2.5  # the diverter reports once a second, the daemon writes that down


class Fate(Enum):
    """Of a SYN to the protected server."""

    BRIDGED = "the server gets the same octets"
    ANSWERED = "a SYN-ACK comes in the server's name; the server did not get these octets"
    SWALLOWED = "nobody gets anything"


BRIDGED, ANSWERED, SWALLOWED = Fate
Build: TypeAlias = Callable[[str, int], Any]


@dataclass(frozen=True)
class Probe:
    """``build`` makes the frame (or frames) from the server's address and the source port that names the probe.
    ``counted``: the reason that `status` gives for not inspecting it. ``passed``: its fate where mail is passed."""

    name: str
    build: Build
    fate: Fate
    counted: str | None = None
    passed: Fate = BRIDGED


def ether(**fields: Any) -> Any:
    return Ether(**{"src": CLIENT_MAC, "dst": SERVER_MAC, **fields})


def ipv4(server: str, **fields: Any) -> Any:
    return ether() / IP(**{"src": "192.0.2.10", "dst": server, **fields})


def ipv6(server: str, **fields: Any) -> Any:
    return ether() / IPv6(**{"src": "2001:db8::10", "dst": server, **fields})


def tcp(port: int, **fields: Any) -> Any:
    return TCP(**{"sport": port, "dport": 25, "flags": "S", "seq": 1000, **fields})


def cut(packet: Any, octets: int) -> Any:
    """So many octets of a TCP header, in a datagram that says no more."""
    return Raw(bytes(packet)[:octets])


def options(*octets: int) -> Any:
    """A TCP header with so many octets of options, as they are."""
    return lambda port: Raw(bytes(tcp(port, dataofs=5 + len(octets) // 4, chksum=0)) + bytes(octets))


def pad() -> list[Any]:
    return [PadN(optdata=bytes(4))]


def chain(server: str, port: int, *headers: Any) -> Any:
    packet = ipv6(server)
    for header in headers:
        packet /= header
    return packet / tcp(port)


def pieces(server: str, port: int, first: int) -> list[Any]:
    """An IPv6 SYN of 40 octets with its options in two fragments, the first of so many octets."""
    whole = bytes(IPv6(src="2001:db8::10", dst=server) / tcp(port, options=[("MSS", 1440), ("NOP", None)] * 4))[40:]
    header = {"id": port, "nh": 6}
    return [
        ipv6(server) / IPv6ExtHdrFragment(m=1, offset=0, **header) / Raw(whole[:first]),
        ipv6(server) / IPv6ExtHdrFragment(m=0, offset=first // 8, **header) / Raw(whole[first:]),
    ]


def dropped(name: str, build: Build, counted: str) -> Probe:
    """One that no host makes: it reaches nobody, neither where mail is intercepted nor where it is passed."""
    return Probe(name, build, SWALLOWED, counted, passed=SWALLOWED)


# fmt: off
IPV4 = (
    Probe("an honest one", lambda s, p: ipv4(s) / tcp(p), ANSWERED),
    # The TCP header.
    Probe("12 octets of TCP", lambda s, p: ipv4(s, proto=6) / cut(tcp(p), 12), BRIDGED),
    Probe("19 octets of TCP", lambda s, p: ipv4(s, proto=6) / cut(tcp(p), 19), BRIDGED, "no_listener"),
    Probe("the frame cut", lambda s, p: Raw(bytes(ipv4(s) / tcp(p))[:50]), BRIDGED),
    dropped("data offset 0", lambda s, p: ipv4(s) / tcp(p, dataofs=0), "malformed"),
    dropped("data offset 4", lambda s, p: ipv4(s) / tcp(p, dataofs=4), "malformed"),
    dropped("data offset 15, no options", lambda s, p: ipv4(s) / tcp(p, dataofs=15), "malformed"),
    Probe("options: MSS of 0 octets", lambda s, p: ipv4(s, proto=6) / options(2, 0, 255, 255)(p), SWALLOWED),
    Probe("options: one beyond the end", lambda s, p: ipv4(s, proto=6) / options(1, 1, 8, 40)(p), SWALLOWED),
    Probe("payload", lambda s, p: ipv4(s) / tcp(p) / Raw(b"EHLO early.example\r\n"), ANSWERED),
    dropped("SYN FIN", lambda s, p: ipv4(s) / tcp(p, flags="SF"), "odd_flags"),
    dropped("SYN RST", lambda s, p: ipv4(s) / tcp(p, flags="SR"), "odd_flags"),
    Probe("SYN ACK", lambda s, p: ipv4(s) / tcp(p, flags="SA"), BRIDGED),
    Probe("SYN PSH URG", lambda s, p: ipv4(s) / tcp(p, flags="SPU"), ANSWERED),
    Probe("SYN with ECN", lambda s, p: ipv4(s) / tcp(p, flags="SEC"), ANSWERED),
    dropped("all flags", lambda s, p: ipv4(s) / tcp(p, flags="FSRPAUEC"), "odd_flags"),
    Probe("no flag", lambda s, p: ipv4(s) / tcp(p, flags=0), BRIDGED),
    Probe("wrong TCP checksum", lambda s, p: ipv4(s) / tcp(p, chksum=0x1234), SWALLOWED),
    Probe("from port 25", lambda s, p: ipv4(s, src="192.0.2.11") / tcp(25), ANSWERED),
    Probe("from port 0", lambda s, p: ipv4(s, src="192.0.2.12") / tcp(0), ANSWERED),
    # The IPv4 header.
    Probe("wrong IP checksum", lambda s, p: ipv4(s, chksum=0x1234) / tcp(p), SWALLOWED, passed=SWALLOWED),
    Probe("header length 16", lambda s, p: ipv4(s, ihl=4) / tcp(p), BRIDGED),
    Probe("longer than its frame", lambda s, p: ipv4(s, len=400) / tcp(p), BRIDGED),
    Probe("record route", lambda s, p: ipv4(s, options=[IPOption_RR(routers=["0.0.0.0"] * 4)]) / tcp(p), ANSWERED),
    Probe("timestamps", lambda s, p: ipv4(s, options=[IPOption(b"\x44\x0c\x05\x01" + bytes(8))]) / tcp(p), ANSWERED),
    Probe("source route", lambda s, p: ipv4(s, options=[IPOption_LSRR(routers=["192.0.2.99"])]) / tcp(p), SWALLOWED),
    Probe("TTL 1", lambda s, p: ipv4(s, ttl=1) / tcp(p), ANSWERED),
    Probe("tagged", lambda s, p: ether() / Dot1Q(vlan=5) / ipv4(s)[IP] / tcp(p), BRIDGED, "tagged"),
    # Fragments.
    dropped(
        "8 octets a fragment",
        lambda s, p: fragment(ipv4(s, id=p) / tcp(p), 8), "tiny_fragments",
    ),
    Probe("16 octets a fragment", lambda s, p: fragment(ipv4(s, id=p) / tcp(p), 16), ANSWERED),
    Probe("a fragment missing", lambda s, p: fragment(ipv4(s, id=p) / tcp(p), 16)[:1], SWALLOWED, passed=SWALLOWED),
    # Addresses that nobody has, and that the box must not be made to answer.
    *(
        dropped(f"from {source}", lambda s, p, source=source: ipv4(s, src=source) / tcp(p), "malformed")  # type: ignore[misc]
        for source in ("127.0.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255")
    ),
    dropped("from itself", lambda s, p: ipv4(s, src=s) / tcp(p), "malformed"),
    dropped("from itself, port 25", lambda s, p: ipv4(s, src=s) / tcp(25), "malformed"),
    Probe("from the lane's next hop", lambda s, p: ipv4(s, src=NEXT_HOP4) / tcp(p), ANSWERED),
    # MACs.
    Probe("to all", lambda s, p: ether(dst="ff:ff:ff:ff:ff:ff") / ipv4(s)[IP] / tcp(p), BRIDGED, "no_station"),
    Probe("to a group", lambda s, p: ether(dst="01:00:5e:00:00:01") / ipv4(s)[IP] / tcp(p), BRIDGED, "no_station"),
    dropped("to the lane's MAC", lambda s, p: ether(dst=LANE_MAC) / ipv4(s)[IP] / tcp(p), "lane_macs"),
    dropped("to the next hop's MAC", lambda s, p: ether(dst=NEXT_HOP_MAC) / ipv4(s)[IP] / tcp(p), "lane_macs"),
    Probe(
        "from a group",
        lambda s, p: ether(src="01:00:5e:00:53:01") / ipv4(s)[IP] / tcp(p), SWALLOWED, passed=SWALLOWED,
    ),
    Probe(
        "from nobody",
        lambda s, p: ether(src="00:00:00:00:00:00") / ipv4(s)[IP] / tcp(p), SWALLOWED, passed=SWALLOWED,
    ),
)
IPV6 = (
    Probe("an honest one", lambda s, p: chain(s, p), ANSWERED),
    Probe("hop-by-hop options", lambda s, p: chain(s, p, IPv6ExtHdrHopByHop(options=pad())), ANSWERED),
    Probe("destination options", lambda s, p: chain(s, p, IPv6ExtHdrDestOpt(options=pad())), ANSWERED),
    Probe(
        "both",
        lambda s, p: chain(s, p, IPv6ExtHdrHopByHop(options=pad()), IPv6ExtHdrDestOpt(options=pad())), ANSWERED,
    ),
    Probe(
        "routing header, used up",
        lambda s, p: chain(s, p, IPv6ExtHdrRouting(addresses=["2001:db8::99"], segleft=0)), ANSWERED,
    ),
    dropped(
        "too many headers",
        lambda s, p: chain(s, p, *[IPv6ExtHdrDestOpt(options=pad())] * MAX_EXTENSIONS), "malformed",
    ),
    Probe(
        "atomic fragment",
        lambda s, p: chain(s, p, IPv6ExtHdrFragment(id=p, m=0, offset=0)), ANSWERED, passed=ANSWERED,
    ),
    Probe("two fragments", lambda s, p: pieces(s, p, 24), ANSWERED, passed=ANSWERED),
    dropped(
        "two fragments, the first of 8 octets",
        lambda s, p: pieces(s, p, 8), "tiny_fragments",
    ),
    dropped(
        "a fragment of options alone",
        lambda s, p: ipv6(s) / IPv6ExtHdrFragment(m=1, offset=0, id=p, nh=60) / Raw(bytes([6, 0, 1, 4, 0, 0, 0, 0])),
        "late_header",
    ),
    Probe(
        "250 octets of options",
        lambda s, p: chain(s, p, IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E, optdata=bytes(240))])), ANSWERED,
    ),
    Probe("12 octets of TCP", lambda s, p: ipv6(s, nh=6) / cut(tcp(p), 12), BRIDGED),
    dropped("data offset 4", lambda s, p: ipv6(s) / tcp(p, dataofs=4), "malformed"),
    Probe("longer than its frame", lambda s, p: ipv6(s, plen=400) / tcp(p), BRIDGED),
    *(
        dropped(f"from {source}", lambda s, p, source=source: ipv6(s, src=source) / tcp(p), "malformed")  # type: ignore[misc]
        for source in ("::1", "::", "ff02::1", "::ffff:192.0.2.10")
    ),
    dropped("from itself", lambda s, p: ipv6(s, src=s) / tcp(25), "malformed"),
    Probe("from the lane's next hop", lambda s, p: ipv6(s, src=NEXT_HOP6) / tcp(p), ANSWERED),
    Probe("to all", lambda s, p: ether(dst="33:33:00:00:00:01") / ipv6(s)[IPv6] / tcp(p), BRIDGED, "no_station"),
)
# fmt: on
PROBES = {4: IPV4, 6: IPV6}
SERVERS = {(4, True): "192.0.2.20", (4, False): "192.0.2.21", (6, True): "2001:db8::20", (6, False): "2001:db8::21"}


@dataclass(frozen=True)
class Sent:
    """One probe as it went out, and what became of it."""

    probe: Probe
    port: int
    octets: tuple[bytes, ...]
    fate: Fate | None


@dataclass(frozen=True)
class Shot:
    """All probes of one kind, sent at one server."""

    sent: tuple[Sent, ...]
    not_inspected: Counter[str]
    own: list[str]


def frames_of(built: Any) -> tuple[bytes, ...]:
    return tuple(bytes(frame) for frame in (built if isinstance(built, list) else [built]))


def answers(frames: Iterable[Frame]) -> set[tuple[str, int]]:
    """Where SYN-ACKs went that reached the client: address and port."""
    arrived = [frame.packet for frame in frames if (frame.host, frame.way) == ("client", Way.IN)]
    syn_acks = [packet for packet in arrived if TCP in packet and packet[TCP].flags.value & 0x12 == 0x12]
    return {(packet.payload.dst, packet[TCP].dport) for packet in syn_acks}


def source_of(octets: bytes) -> str:
    packet = Ether(octets)
    return str(packet[IPv6].src if IPv6 in packet else packet[IP].src if IP in packet else "")


def fate(octets: Sequence[bytes], port: int, at_server: set[bytes], answered: set[tuple[str, int]]) -> Fate | None:
    """None: something else than the three, such as other octets."""
    if set(octets) <= at_server:
        return BRIDGED
    if at_server & set(octets):
        return None
    return ANSWERED if (source_of(octets[0]), port) in answered else SWALLOWED


def shoot(lab: Lab, version: int, protected: bool) -> Shot:
    server, client = SERVERS[version, protected], lab.host("client")
    built = [
        (probe, FIRST_PORT + number, frames_of(probe.build(server, FIRST_PORT + number)))
        for number, probe in enumerate(PROBES[version])
    ]
    before = reasons(lab)
    with lab.capture() as frames:
        inject(client, [octets for _, _, all_octets in built for octets in all_octets])
        hung.wait_until(lambda: not queued(lab), "every SYN has its verdict")
        time.sleep(0.5)
    expected = Counter(probe.counted for probe in PROBES[version] if probe.counted is not None)
    time.sleep(REPORTED_S)
    deadline_at = time.monotonic() + patient(20.0)  # a report may be late; what is missing then is told below
    while reasons(lab) - before != expected and time.monotonic() < deadline_at:
        time.sleep(0.2)
    at_server = {frame.data for frame in frames if (frame.host, frame.way) == ("server", Way.IN)}
    injected = {octets for _, _, all_octets in built for octets in all_octets}
    answered = answers(frames)
    return Shot(
        tuple(
            Sent(probe, port, octets, fate(octets, _port(octets[0], port), at_server, answered))
            for probe, port, octets in built
        ),
        reasons(lab) - before,
        give_away(lab, [frame for frame in frames if frame.data not in injected]),
    )


def queued(lab: Lab) -> int:
    """SYNs that wait for the diverter: the third column of nfnetlink_queue's file."""
    rows = lab.gateway.room.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout.splitlines()
    return sum(int(row.split()[2]) for row in rows)


def reasons(lab: Lab) -> Counter[str]:
    """Why SYNs were not inspected, or not even let through, and how many."""
    status = lab.gateway.status()
    return Counter(status["not_inspected"]) + Counter(status["dropped"])


def _port(octets: bytes, port: int) -> int:
    packet = Ether(octets)
    return int(packet[TCP].sport) if TCP in packet else port


@pytest.fixture(scope="module")
def shots(gateway_lab: Lab) -> dict[tuple[int, bool], Shot]:
    MailServer.start(gateway_lab.host("server"))
    for version in (4, 6):  # neighbours are known, or their questions would stand among the answers
        client = gateway_lab.host("client")
        client.run(client.program("traffic", "ping", SERVERS[version, True]))
    return {key: shoot(gateway_lab, *key) for key in SERVERS}


@pytest.mark.parametrize("version", PROBES)
def test_fates_where_mail_is_intercepted(shots: dict[tuple[int, bool], Shot], version: int) -> None:
    seen = {sent.probe.name: sent.fate for sent in shots[version, True].sent}
    assert seen == {probe.name: probe.fate for probe in PROBES[version]}


@pytest.mark.parametrize("version", PROBES)
def test_where_mail_is_passed_the_gateway_is_a_wire(shots: dict[tuple[int, bool], Shot], version: int) -> None:
    seen = {sent.probe.name: sent.fate for sent in shots[version, False].sent}
    assert seen == {probe.name: probe.passed for probe in PROBES[version]}


@pytest.mark.parametrize("protected", [True, False])
@pytest.mark.parametrize("version", PROBES)
def test_what_was_not_inspected_is_counted_once_and_named(
    shots: dict[tuple[int, bool], Shot], version: int, protected: bool
) -> None:
    assert shots[version, protected].not_inspected == Counter(
        probe.counted for probe in PROBES[version] if probe.counted is not None
    )


@pytest.mark.parametrize("protected", [True, False])
@pytest.mark.parametrize("version", PROBES)
def test_nothing_of_the_box_is_on_the_wires(shots: dict[tuple[int, bool], Shot], version: int, protected: bool) -> None:
    assert shots[version, protected].own == []


def test_the_processes_live_and_mail_is_inspected(gateway_lab: Lab, shots: object) -> None:
    status = gateway_lab.gateway.status()
    assert status["live"]
    assert not any(status["restarts"].values())
    assert not status["not_inspected"].get("failed")
    for version in (4, 6):
        sender = f"after{version}@example.net"
        (delivery,) = send(gateway_lab.host("client"), SERVERS[version, True], sender=sender)
        assert delivery["accepted"]
        assert gateway_lab.gateway.wait_log(type="message", sender=sender)
