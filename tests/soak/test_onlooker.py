"""A frame of the box is told from a host's, and from what the box may show."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.soak.onlooker import Onlooker

HOST, BOX = bytes.fromhex("00005e005301"), bytes.fromhex("00005e0053f0")
CLIENT, SERVER, MANAGED, INNER = (
    ip_address(text).packed for text in ("192.0.2.10", "192.0.2.20", "192.0.2.2", "169.254.116.98")
)
INNER6 = ip_address("fe80::99").packed


def ipv4(mac: bytes, source: bytes, destination: bytes) -> bytes:
    return HOST + mac + b"\x08\x00" + bytes(12) + source + destination


def arp(mac: bytes, sender: bytes, target: bytes) -> bytes:
    return HOST + mac + b"\x08\x06" + bytes(14) + sender + bytes(6) + target


@pytest.mark.parametrize(
    ("frame", "own"),
    [
        (ipv4(HOST, CLIENT, SERVER), 0),
        (arp(HOST, CLIENT, MANAGED), 0),
        (ipv4(BOX, MANAGED, SERVER), 0),
        (arp(BOX, MANAGED, SERVER), 0),
        (ipv4(BOX, CLIENT, SERVER), 1),
        (ipv4(HOST, CLIENT, INNER), 1),
        (ipv4(BOX, INNER, SERVER), 1),
        (arp(HOST, INNER, SERVER), 1),
        (HOST + HOST + b"\x86\xdd" + bytes(8) + INNER6 + bytes(16), 1),
        (HOST + BOX + b"\x88\xcc" + bytes(40), 1),  # LLDP
        (HOST + HOST + b"\x88\xcc" + bytes(40), 0),
    ],
)
def test_whose_frame_it_is(frame: bytes, own: int) -> None:
    onlooker = Onlooker("eth0", {HOST}, {INNER, INNER6}, {MANAGED})
    onlooker.judge(frame)
    assert onlooker.counts == {"frames": 1, "own": own, "lost": 0}
