"""A SYN from its bytes: what scapy builds is read back; what strangers mangle is refused, never raised through."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.all import IP, TCP, UDP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, Raw

from bridge.flow import (
    MAGIC,
    MAGIC_MASK,
    MAX_EXTENSIONS,
    MAX_PORTS,
    MAX_VLAN,
    MalformedPacketError,
    Mark,
    Syn,
    magic,
    parse_syn,
    vlan_of,
)

CLIENT4, SERVER4 = "192.0.2.10", "192.0.2.20"
CLIENT6, SERVER6 = "2001:db8::10", "2001:db8::20"
V4 = IP(src=CLIENT4, dst=SERVER4)
V6 = IPv6(src=CLIENT6, dst=SERVER6)
TCP_SYN = TCP(sport=40000, dport=25, flags="S", seq=7, options=[("MSS", 1460), ("WScale", 7)])


def expected(client: str, server: str, payload: int = 0) -> Syn:
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    return Syn(socket.inet_pton(family, client), socket.inet_pton(family, server), 40000, 25, 7, payload)


@pytest.mark.parametrize(
    ("packet", "syn"),
    [
        pytest.param(V4 / TCP_SYN, expected(CLIENT4, SERVER4), id="IPv4"),
        pytest.param(V6 / TCP_SYN, expected(CLIENT6, SERVER6), id="IPv6"),
        pytest.param(
            IP(src=CLIENT4, dst=SERVER4, options=b"\x01" * 12) / TCP_SYN, expected(CLIENT4, SERVER4), id="IPv4 options"
        ),
        pytest.param(
            V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP_SYN, expected(CLIENT6, SERVER6), id="extensions"
        ),
        pytest.param(V6 / IPv6ExtHdrFragment(offset=0, m=1) / TCP_SYN, expected(CLIENT6, SERVER6), id="first fragment"),
        pytest.param(V4 / TCP(sport=40000, dport=25, flags="SEC", seq=7), expected(CLIENT4, SERVER4), id="ECN"),
        pytest.param(
            V4 / TCP(sport=40000, dport=25, flags="S", seq=7) / Raw(b"EHLO x"),
            expected(CLIENT4, SERVER4, 6),
            id="payload",
        ),
    ],
)
def test_a_syn_is_read(packet: IP, syn: Syn) -> None:
    assert parse_syn(bytes(packet)) == syn


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"\x00" * 60, "version 0", id="version"),
        pytest.param(bytes(V4 / TCP_SYN)[:30], "truncated TCP", id="cut in TCP"),
        pytest.param(bytes(V4 / TCP_SYN)[:12], "IPv4 header", id="cut in IPv4"),
        pytest.param(bytes(V6 / TCP_SYN)[:30], "truncated IPv6", id="cut in IPv6"),
        pytest.param(bytes(V4 / TCP(dport=25, flags="S", dataofs=3)), "data offset", id="data offset too small"),
        pytest.param(
            bytes(V4 / TCP(dport=25, flags="S", dataofs=15)), "data offset", id="data offset beyond the packet"
        ),
        pytest.param(bytes(V4 / TCP(dport=25, flags="SA")), "flags", id="SYN-ACK"),
        pytest.param(bytes(V4 / TCP(dport=25, flags="SF")), "flags", id="SYN-FIN"),
        pytest.param(bytes(V4 / UDP(dport=25)), "protocol 17", id="UDP"),
        pytest.param(bytes(IP(src=CLIENT4, dst=SERVER4, frag=3) / TCP_SYN), "fragment", id="later fragment"),
        pytest.param(bytes(V6 / IPv6ExtHdrFragment(offset=5) / TCP_SYN), "fragment", id="later IPv6 fragment"),
        pytest.param(bytes(V6 / UDP(dport=25)), "next header 17", id="UDP over IPv6"),
    ],
)
def test_what_is_not_a_readable_syn_is_named(packet: bytes, reason: str) -> None:
    with pytest.raises(MalformedPacketError, match=reason):
        parse_syn(packet)


def test_extension_headers_are_followed_up_to_the_limit_and_no_further() -> None:
    def chain(length: int) -> bytes:
        packet = V6
        for _ in range(length):
            packet = packet / IPv6ExtHdrDestOpt()
        return bytes(packet / TCP_SYN)

    assert parse_syn(chain(MAX_EXTENSIONS - 1)) == expected(CLIENT6, SERVER6)
    with pytest.raises(MalformedPacketError, match="more IPv6 extension headers"):
        parse_syn(chain(MAX_EXTENSIONS))


@given(st.binary(max_size=120))
def test_no_bytes_break_the_parser(packet: bytes) -> None:
    with contextlib.suppress(MalformedPacketError):
        assert isinstance(parse_syn(packet), Syn)


@given(st.data())
def test_no_mangled_syn_breaks_the_parser(data: st.DataObject) -> None:
    packet = bytearray(bytes(data.draw(st.sampled_from([V4 / TCP_SYN, V6 / IPv6ExtHdrHopByHop() / TCP_SYN]))))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedPacketError):
        parse_syn(bytes(packet[: data.draw(st.integers(0, len(packet)))]))


@given(st.integers(0, 15), st.integers(0, MAX_PORTS - 1), st.integers(0, MAX_VLAN))
def test_a_mark_is_read_back(tag: int, port: int, vlan: int) -> None:
    for mark in (Mark(tag, port, vlan).encode(), Mark(tag, port, vlan).away()):
        assert Mark.decode(mark) == Mark(tag, port, vlan)
        assert vlan_of(mark) == vlan
        assert (mark & MAGIC_MASK == MAGIC) is (vlan == 0)


@pytest.mark.parametrize("mark", [0, 1, 0x7B25_0000, 0x7B25_0002, 0x1234_0001, magic(4095) | 1])
def test_a_mark_of_others_is_nobodys(mark: int) -> None:
    assert Mark.decode(mark) is None


NOBODY4 = ("0.0.0.1", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255")
NOBODY6 = ("::", "::1", "ff02::1", "::ffff:192.0.2.10")


@pytest.mark.parametrize(
    ("client", "server", "reason"),
    [
        *((client, SERVER4, "no host") for client in NOBODY4),
        *((client, SERVER6, "no host") for client in NOBODY6),
        (CLIENT4, "224.0.0.1", "no host"),
        (CLIENT6, "ff02::1", "no host"),
        (SERVER4, SERVER4, "to itself"),
        (SERVER6, SERVER6, "to itself"),
    ],
)
def test_a_syn_that_the_box_must_not_be_made_to_answer_is_refused(client: str, server: str, reason: str) -> None:
    head = IPv6(src=client, dst=server) if ":" in client else IP(src=client, dst=server)
    with pytest.raises(MalformedPacketError, match=reason):
        parse_syn(bytes(head / TCP_SYN))


@pytest.mark.parametrize("client", ["1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255", "::2:1", "fe80::1"])
def test_the_neighbours_of_those_addresses_are_hosts(client: str) -> None:
    head = IPv6(src=client, dst=SERVER6) if ":" in client else IP(src=client, dst=SERVER4)
    assert parse_syn(bytes(head / TCP_SYN)).client_port == 40000
