"""The RST of a rejected SYN, checked by scapy, which computes every checksum anew."""

from __future__ import annotations

import pytest
from scapy.all import IP, TCP, IPv6, Raw

from bridge.flow import parse_syn
from bridge.refuse import reset

V4 = IP(src="192.0.2.10", dst="192.0.2.20")
V6 = IPv6(src="2001:db8::10", dst="2001:db8::20")


@pytest.mark.parametrize("network", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("sequence", "payload", "acknowledged"),
    [(7, b"", 8), (0xFFFF_FFFF, b"", 0), (7, b"EHLO", 12)],
    ids=["plain", "sequence wraps", "SYN with payload"],
)
def test_the_reset_answers_for_the_server(network: IP, sequence: int, payload: bytes, acknowledged: int) -> None:
    syn = parse_syn(bytes(network / TCP(sport=40000, dport=25, flags="S", seq=sequence) / Raw(payload)))

    answer = type(network)(reset(syn))

    assert (answer.src, answer.dst) == (network.dst, network.src)
    tcp = answer[TCP]
    assert (tcp.sport, tcp.dport, tcp.flags, tcp.seq, tcp.ack) == (25, 40000, "RA", 0, acknowledged)
    carried = tcp.chksum
    del tcp.chksum
    assert type(network)(bytes(answer))[TCP].chksum == carried
