"""What is not mail, or is not picked up, crosses exactly once, byte for byte, TTL and both MACs included.

::

    sender ──→ p0  gateway  p1 ──→ receiver        the same octets at all four places, and nowhere twice

First single frames of every kind (`KINDS`, from either side, in one capture), then whole connections: passed mail,
mail in IP fragments, mail whose path turns out to be narrower than the wire.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.eap import EAPOL
from scapy.layers.igmp import IGMP
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6MLQuery2,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
    fragment6,
)
from scapy.layers.l2 import ARP, LLC, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Raw

from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.capture import Frame
from smtp_intercept.app.lab.host import Host
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import TWO_WIRES, Lab
from tests.kernel.conftest import DEFAULT
from tests.kernel.frames import counters, crossing, inject, is_tcp, sightings

HERE = Path(__file__).parent
JUMBO_MTU, NARROW_MTU = 9000, 1300
VERSIONS = (4, 6)
FRAGMENTED = {4: ("192.0.2.50", "192.0.2.51"), 6: ("2001:db8::50", "2001:db8::51")}  # passed, intercepted
CONFIG: dict[str, Any] = {
    **DEFAULT,
    "pickup": {
        **DEFAULT["pickup"],
        "rule": [
            *({"client": passed, "action": "pass"} for passed, _ in FRAGMENTED.values()),
            *DEFAULT["pickup"]["rule"],
        ],
    },
}


@pytest.fixture(scope="module")
def lab(lanes: None) -> Iterator[Lab]:
    """Hosts that send what they mean: no frame above the MTU, every checksum in its place."""
    with Lab(TWO_WIRES, mtu=JUMBO_MTU, offload=False) as lab:
        for host in lab.hosts:
            host.run(["ethtool", "-K", "eth0", "tx", "off"])
        yield lab


# --- single frames -------------------------------------------------------------------------------------------------


def ip(a: Host, b: Host, **fields: Any) -> Any:
    return IP(src=a.ipv4, dst=b.ipv4, id=4711, **fields)


def ip6(a: Host, b: Host, **fields: Any) -> Any:
    return IPv6(src=a.ipv6, dst=b.ipv6, **fields)


def inner(a: Host, b: Host, transport: Any) -> tuple[Any, Any]:
    """The packet, IPv4 and IPv6, about which `a` tells its sender `b` something: it went from `b` to `a`."""
    return ip(b, a) / transport, ip6(b, a) / transport


def errors(a: Host, b: Host, transport: Any) -> list[Any]:
    """ICMP errors of every kind about a packet that `b` is said to have sent."""
    about4, about6 = inner(a, b, transport / Raw(b"what came too far"))
    return [
        *(ip(a, b) / ICMP(type=3, code=code) / about4 for code in (0, 1, 3, 13)),
        ip(a, b) / ICMP(type=3, code=4, nexthopmtu=1400) / about4,
        ip(a, b) / ICMP(type=11, code=0) / about4,
        ip(a, b) / ICMP(type=12, code=0) / about4,
        *(ip6(a, b) / ICMPv6DestUnreach(code=code) / about6 for code in (0, 1, 3, 4)),
        ip6(a, b) / ICMPv6PacketTooBig(mtu=1400) / about6,
        ip6(a, b) / ICMPv6TimeExceeded(code=0) / about6,
        ip6(a, b) / ICMPv6ParamProblem(code=1) / about6,
    ]


def fragments4(a: Host, b: Host, transport: Any) -> list[Any]:
    return list(fragment(ip(a, b) / transport, 1480))


def fragments6(a: Host, b: Host, transport: Any) -> list[Any]:
    return list(fragment6(ip6(a, b) / IPv6ExtHdrFragment(id=4712) / transport, 1480))


def tcp(port: int, octets: int = 100, flags: str = "PA") -> Any:
    return TCP(sport=33333, dport=port, seq=7, ack=9, flags=flags) / Raw(
        bytes(range(port, port + 100)) * (octets // 100)
    )


def groups(a: Host, b: Host) -> list[Any]:
    hop = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    alert = [IPOption_Router_Alert()]
    return [
        IP(src=a.ipv4, dst="224.0.0.251", ttl=255) / UDP(sport=5353, dport=5353) / Raw(b"mDNS"),
        IP(src=a.ipv4, dst="239.1.2.3", ttl=1) / UDP(dport=5004) / Raw(b"a stream"),
        IP(src=a.ipv4, dst="224.0.0.1", ttl=1, options=alert) / IGMP(type=0x11, gaddr="0.0.0.0"),
        IP(src=a.ipv4, dst="239.1.2.3", ttl=1, options=alert) / IGMP(type=0x16, gaddr="239.1.2.3"),
        IPv6(src="fe80::1", dst="ff02::1", hlim=1) / hop / ICMPv6MLQuery2(),
        IPv6(src="fe80::1", dst="ff02::16", hlim=1) / hop / ICMPv6MLReport2(),
        IPv6(src=a.ipv6, dst="ff0e::1:2") / UDP(dport=5004) / Raw(b"a stream"),
    ]


def neighbours(a: Host, b: Host) -> list[Any]:
    link = ICMPv6NDOptSrcLLAddr(lladdr=a.mac)
    return [
        IPv6(src=a.ipv6, dst="ff02::1:ff00:77", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::77") / link,
        ip6(a, b, hlim=255) / ICMPv6ND_NA(tgt="2001:db8::78", R=0, S=0) / ICMPv6NDOptDstLLAddr(lladdr=a.mac),
        IPv6(src="fe80::1", dst="ff02::2", hlim=255) / ICMPv6ND_RS() / link,
        IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_RA(routerlifetime=0) / link / prefix(),
    ]


def prefix() -> Any:
    return ICMPv6NDOptPrefixInfo(prefix="2001:db8:7::", prefixlen=64)


def whereabouts(a: Host, b: Host) -> list[Any]:
    everybody = "ff:ff:ff:ff:ff:ff"
    return [
        Ether(src=a.mac, dst=everybody) / ARP(op=1, hwsrc=a.mac, psrc=a.ipv4, pdst="192.0.2.77"),
        Ether(src=a.mac, dst=b.mac) / ARP(op=2, hwsrc=a.mac, psrc=a.ipv4, hwdst=b.mac, pdst="192.0.2.78"),
        Ether(src=a.mac, dst=everybody) / ARP(op=1, hwsrc=a.mac, psrc=a.ipv4, pdst=a.ipv4) / Raw(bytes(18)),
        Ether(src=a.mac, dst=everybody, type=0x8035) / ARP(ptype=0x0800, op=3, hwsrc=a.mac, hwdst=a.mac),
    ]


def group_frame(a: Host, last: int, kind: int, payload: bytes) -> Any:
    """To one of the 802.1D group addresses."""
    return Ether(src=a.mac, dst=f"01:80:c2:00:00:{last:02x}", type=kind) / Raw(payload)


def tagged(a: Host, b: Host, *packets: Any) -> list[Any]:
    return [Ether(src=a.mac, dst=b.mac) / Dot1Q(vlan=42, prio=3) / packet for packet in packets]


def odd(a: Host, b: Host) -> list[Any]:
    """What only a wire lets through: no checksum, no life left, options, padding, no known protocol at all."""
    short = bytes(ip(a, b) / UDP(dport=7) / Raw(b"short"))
    return [
        ip(a, b, ttl=1) / UDP(dport=7) / Raw(b"a router would end this"),
        ip(a, b, chksum=0xBAD) / UDP(dport=7) / Raw(b"wrong checksum"),
        ip(a, b, options=[IPOption_Router_Alert()]) / UDP(dport=7) / Raw(b"options"),
        ip6(a, b, hlim=1) / UDP(dport=7) / Raw(b"a router would end this"),
        Ether(src=a.mac, dst=b.mac, type=0x0800) / Raw(short.ljust(46, b"\xaa")),
        Ether(src=a.mac, dst=b.mac, type=0x88B5) / Raw(b"local experiment"),
        Dot3(src=a.mac, dst=b.mac) / LLC(dsap=0xE0, ssap=0xE0, ctrl=3) / Raw(b"802.3 with LLC"),
    ]


def bpdu(a: Host) -> Any:
    root = STP(rootmac=a.mac, bridgemac=a.mac)
    return Dot3(src=a.mac, dst="01:80:c2:00:00:00") / LLC(dsap=0x42, ssap=0x42, ctrl=3) / root


Kind = Callable[[Host, Host], Sequence[Any]]
KINDS: dict[str, Kind] = {
    "LLDP": lambda a, b: [group_frame(a, 0x0E, 0x88CC, b"\x02\x07\x04" + bytes(6) + b"\x04\x02\x07p\0\0")],
    "802.1X EAPOL": lambda a, b: [Ether(src=a.mac, dst="01:80:c2:00:00:03") / EAPOL(version=2, type=1)],
    "LACP": lambda a, b: [group_frame(a, 0x02, 0x8809, b"\x01\x01\x01\x14" + bytes(106))],
    "STP BPDU": lambda a, b: [bpdu(a)],
    "ARP and RARP": whereabouts,
    "IPv6 neighbour discovery": neighbours,
    "multicast, IGMP and MLD": groups,
    "broadcast": lambda a, b: [
        Ether(src=a.mac, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / BOOTP(xid=77)
        / DHCP(options=[("message-type", "discover"), "end"])
    ],
    "jumbo UDP": lambda a, b: [
        ip(a, b, flags="DF") / UDP(dport=7) / Raw(b"4" * (JUMBO_MTU - 28)),
        ip6(a, b) / UDP(dport=7) / Raw(b"6" * (JUMBO_MTU - 48)),
    ],
    "fragmented UDP": lambda a, b: [
        *fragments4(a, b, UDP(sport=25, dport=25) / Raw(b"u" * 5000)),
        *fragments6(a, b, UDP(sport=25, dport=25) / Raw(b"u" * 5000)),
    ],
    "ping": lambda a, b: [ip(a, b) / ICMP(id=7, seq=1) / Raw(b"!"), ip6(a, b) / ICMPv6EchoRequest(id=7, data=b"!")],
    "ICMP errors about UDP": lambda a, b: errors(a, b, UDP(sport=53, dport=53)),
    "ICMP errors about TCP": lambda a, b: errors(a, b, TCP(sport=33333, dport=80)),
    "ICMP errors about mail that is not ours": lambda a, b: errors(a, b, TCP(sport=33334, dport=25)),
    "TCP to other ports": lambda a, b: [
        make(a, b) / tcp(port, flags=flags) for make in (ip, ip6) for port in (24, 26, 80) for flags in ("S", "PA", "F")
    ],
    "fragmented TCP to another port": lambda a, b: [*fragments4(a, b, tcp(80, 5000)), *fragments6(a, b, tcp(80, 5000))],
    "mail of a connection from before": lambda a, b: [
        *(make(a, b) / tcp(25, flags=flags) for make in (ip, ip6) for flags in ("A", "PA", "FA", "R")),
        ip(a, b, ttl=1) / tcp(25),
        ip6(a, b, hlim=1) / tcp(25),
    ],
    "fragmented mail of a connection from before": lambda a, b: fragments4(a, b, tcp(25, 5000)),
    "VLAN-tagged": lambda a, b: [
        *tagged(a, b, ip(a, b) / UDP(dport=7) / Raw(b"t"), ip6(a, b) / UDP(dport=7) / Raw(b"t"), ARP(psrc=a.ipv4)),
        *tagged(a, b, *fragments4(a, b, tcp(25, 5000)), *errors(a, b, TCP(dport=25))),
        Ether(src=a.mac, dst=b.mac) / Dot1AD(vlan=7) / Dot1Q(vlan=42) / ip(a, b) / UDP(dport=7) / Raw(b"QinQ"),
        Ether(src=a.mac, dst=b.mac) / Dot1Q(vlan=0, prio=5) / ip(a, b) / UDP(dport=7) / Raw(b"priority"),
    ],
    "VLAN-tagged mail": lambda a, b: tagged(
        a, b, *(make(a, b) / tcp(25, flags=flags) for make in (ip, ip6) for flags in ("S", "PA", "FA"))
    ),
    "odd frames": odd,
}
# The kernel puts IPv6 fragments of mail together on the lane and cuts them again as they were, but under a number of
# its own (br_ip6_fragment): all but the Identification crosses. TCP over IPv6 does not fragment unless one tampers.
KINDS6: dict[str, Kind] = {
    "fragmented mail of a connection from before, IPv6": lambda a, b: fragments6(a, b, tcp(25, 5000)),
}
TAGGED_SYNS = 2 * 2  # IPv4 and IPv6, from either side


def octets(packet: Any, a: Host, b: Host) -> bytes:
    """The frame; a packet without an Ethernet header gets that of its addresses."""
    match packet:
        case Ether() | Dot3():
            return bytes(packet)
        case IP(dst=group) if group.startswith(("224.", "239.")):
            low = struct.unpack("!I", bytes(map(int, group.split("."))))[0] & 0x7FFFFF
            return bytes(Ether(src=a.mac, dst=(0x01005E000000 | low).to_bytes(6, "big").hex(":")) / packet)
        case IPv6(dst=group) if group.startswith("ff"):
            last = bytes(packet)[36:40]
            return bytes(Ether(src=a.mac, dst=(b"\x33\x33" + last).hex(":")) / packet)
        case _:
            return bytes(Ether(src=a.mac, dst=b.mac) / packet)


def made(kind: str, a: Host, b: Host) -> list[bytes]:
    return [octets(packet, a, b) for packet in (KINDS | KINDS6)[kind](a, b)]


@pytest.fixture(scope="module")
def crossed(gateway_lab: Lab) -> list[Frame]:
    """All that is seen anywhere while every frame of every kind is sent once from either side."""
    client, server = gateway_lab.host("client"), gateway_lab.host("server")
    with gateway_lab.capture() as frames:
        for a, b in ((client, server), (server, client)):
            inject(a, [frame for kind in (*KINDS, *KINDS6) for frame in made(kind, a, b)])
    return frames


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sender", "receiver"), [("client", "server"), ("server", "client")])
def test_frames_cross_once_and_byte_for_byte(
    gateway_lab: Lab, crossed: list[Frame], kind: str, sender: str, receiver: str
) -> None:
    a, b = gateway_lab.host(sender), gateway_lab.host(receiver)
    frames = made(kind, a, b)
    assert len(set(frames)) == len(frames) > 0
    seen = {frame[12:92].hex(): sightings(crossed, frame) for frame in frames}
    assert seen == dict.fromkeys(seen, crossing(a, b, gateway_lab))


@pytest.mark.parametrize("kind", KINDS6)
@pytest.mark.parametrize(("sender", "receiver"), [("client", "server"), ("server", "client")])
def test_ipv6_fragments_of_tcp_cross_under_another_number(
    gateway_lab: Lab, crossed: list[Frame], kind: str, sender: str, receiver: str
) -> None:
    a, b = gateway_lab.host(sender), gateway_lab.host(receiver)
    anonymous = [replace(frame, data=without_number(frame.data)) for frame in crossed]
    seen = {data[12:92].hex(): sightings(anonymous, without_number(data)) for data in made(kind, a, b)}
    assert seen == dict.fromkeys(seen, crossing(a, b, gateway_lab))


def without_number(frame: bytes) -> bytes:
    """An IPv6 fragment without its Identification (RFC 8200 §4.5), any other frame as it is."""
    fragmented = frame[12:14] == b"\x86\xdd" and frame[20] == 44
    return frame[:58] + bytes(4) + frame[62:] if fragmented else frame


def test_tagged_mail_is_counted_as_not_inspected(gateway_lab: Lab, crossed: list[Frame]) -> None:
    assert gateway_lab.gateway.status()["not_inspected"]["tagged"] == TAGGED_SYNS


# --- whole connections ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mailbox(gateway_lab: Lab) -> MailServer:
    return MailServer.start(gateway_lab.host("server"))


@pytest.mark.parametrize("version", VERSIONS)
def test_passed_mail_is_the_same_at_both_ends(gateway_lab: Lab, mailbox: MailServer, version: int) -> None:
    """Every frame of the connection, in order; and not one of them was turned inwards or sent by us."""
    client, server = gateway_lab.host("client"), gateway_lab.host("server")
    source, sender = client.of_version(version)[3], f"passed-{version}@example.net"
    before = counters(gateway_lab)
    with gateway_lab.capture() as frames:
        (delivery,) = send(client, server.of_version(version)[0], source=source, sender=sender, size=200_000)
    after = counters(gateway_lab)
    assert delivery["accepted"]
    assert mailbox.messages(sender=sender)[0]["sha256"] == delivery["sha256"]
    mail = [frame for frame in frames if is_tcp(frame)]
    for a, b in ((client, server), (server, client)):
        places = [
            [f.data for f in mail if (f.host, f.interface, f.way) == place] for place in crossing(a, b, gateway_lab)
        ]
        assert len(places[0]) > 10
        assert places == [places[0]] * 4
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {"queued": 1}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("intercepted", [False, True], ids=["passed", "intercepted"])
def test_mail_in_fragments(gateway_lab: Lab, mailbox: MailServer, version: int, intercepted: bool) -> None:
    client, server = gateway_lab.host("client"), gateway_lab.host("server")
    source, to = FRAGMENTED[version][intercepted], server.of_version(version)[0]
    server.run(["ip", "neighbour", "replace", source, "lladdr", client.mac, "dev", "eth0", "nud", "permanent"])
    before = counters(gateway_lab)["turned_inwards"]
    with gateway_lab.capture() as frames:
        said = client.python(HERE / "strange_client.py", source, to, server.mac).json()
    assert said[1].startswith("220 ")
    assert said[-1].startswith("221 ")
    hung.wait_until(lambda: bool(of_client(mailbox.sessions(), source)), "the server's session is over")
    sessions = of_client(mailbox.sessions(), source)
    assert [entry["helo"] for entry in sessions] == [".".join(["x" * 60] * 7)]
    if intercepted:
        hung.wait_until(lambda: bool(of_client(gateway_lab.gateway.mail_log("session"), source)), "and the gateway's")
    assert len(of_client(gateway_lab.gateway.mail_log("session"), source)) == intercepted
    assert (counters(gateway_lab)["turned_inwards"] > before) == intercepted
    sent = [frame.data for frame in frames if frame.host == "client" and is_fragment(frame)]
    assert len(sent) > 3
    if not intercepted:
        seen = [replace(frame, data=without_number(frame.data)) for frame in frames]
        assert [sightings(seen, without_number(f)) for f in sent] == [crossing(client, server, gateway_lab)] * len(sent)


def of_client(records: Sequence[dict[str, Any]], address: str) -> list[dict[str, Any]]:
    return [each for each in records if each["client"]["address"] == address]


def is_fragment(frame: Frame) -> bool:
    match frame.ethertype:
        case 0x0800:
            return bool(int.from_bytes(frame.data[20:22], "big") & 0x3FFF)
        case 0x86DD:
            return frame.data[20] == 44
        case _:
            return False


NARROW = f"""
table inet narrow {{
    chain in {{
        type filter hook input priority 0
        tcp dport 25 meta length > {NARROW_MTU} drop
    }}
}}
"""


@pytest.fixture(scope="module")
def narrow(gateway_lab: Lab, mailbox: MailServer) -> Iterator[None]:
    """Before the server there is a link that takes no more than `NARROW_MTU`, and a router that says so."""
    server, gateway = gateway_lab.host("server"), gateway_lab.gateway
    gateway.room.run(["ethtool", "-K", "p1", "tso", "off", "gso", "off"])  # frames are counted one by one
    rules = server.directory / "narrow.nft"
    rules.write_text(NARROW)
    router = server.spawn([server.interpreter, str(HERE / "narrow_path.py"), str(NARROW_MTU)])
    router.wait_for("ready")
    server.run(["nft", "-f", str(rules)])
    yield
    server.run(["nft", "delete", "table", "inet", "narrow"])
    router.end()


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("intercepted", [False, True], ids=["passed", "intercepted"])
def test_mail_whose_path_is_narrower_than_the_wire(
    gateway_lab: Lab, mailbox: MailServer, version: int, intercepted: bool
) -> None:
    """The router's error goes to whoever sent the packet: to the client of a passed connection, byte for byte, and to
    the gateway's own stack for an intercepted one; the client of that goes on in full size and hears of nothing."""
    client, server = gateway_lab.host("client"), gateway_lab.host("server")
    source, sender = client.of_version(version)[0 if intercepted else 3], f"narrow-{version}-{intercepted}@example.net"
    for host in (client, gateway_lab.gateway):  # what an earlier connection was told
        host.run(["ip", f"-{version}", "route", "flush", "cache"])
    with gateway_lab.capture() as frames:
        (delivery,) = send(client, server.of_version(version)[0], source=source, sender=sender, size=100_000)
    assert delivery["accepted"]
    assert mailbox.messages(sender=sender)[0]["sha256"] == delivery["sha256"]
    told = [frame.data for frame in frames if frame.host == "server" and is_too_big(frame)]
    assert told
    heard = [frame.data for frame in frames if frame.host == "client" and is_too_big(frame)]
    assert heard == ([] if intercepted else told)
    last = [len(f.data) - 14 for f in frames if f.host == "server" and f.way.name == "IN" and is_tcp(f)][-8:]
    assert max(last) <= NARROW_MTU
    if intercepted:
        whole = [f for f in frames if f.host == "client" and f.way.name == "OUT" and len(f.data) > NARROW_MTU + 14]
        assert len(whole) > len(told)


def is_too_big(frame: Frame) -> bool:
    match frame.ethertype:
        case 0x0800:
            return frame.data[23] == 1 and frame.data[34:36] == b"\x03\x04"
        case 0x86DD:
            return frame.data[20] == 58 and frame.data[54] == 2
        case _:
            return False
