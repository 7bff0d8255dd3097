"""A router with a narrow link behind it: tells the sender of each mail packet that is too big, as RFC 1191 and RFC 8201
have it, but no more than one a second. ``MTU``, of the narrow link, in octets. Drops nothing: that is nft's part.
"""

from __future__ import annotations

import socket
import sys
import time

from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether

ETH_P_ALL = 3
IP_TYPES = (b"\x08\0", b"\x86\xdd")
EVERY_S = 1.0  # and none that comes so late that its connection has ended
ROUTER4, ROUTER6 = "192.0.2.99", "2001:db8::99"


def answer(frame: bytes, mtu: int) -> bytes | None:
    """The ICMP error for one frame, or None if it is no mail packet that is too big."""
    packet = frame[14:]
    version = packet[0] >> 4
    protocol, ports = (packet[9], packet[20:24]) if version == 4 else (packet[6], packet[40:44])
    if len(packet) <= mtu or protocol != socket.IPPROTO_TCP or ports[2:] != b"\0\x19":
        return None
    ether = Ether(src=frame[:6], dst=frame[6:12])
    if version == 4:
        error = IP(src=ROUTER4, dst=socket.inet_ntoa(packet[12:16]))
        return bytes(ether / error / ICMP(type=3, code=4, nexthopmtu=mtu) / packet[:28])
    to = socket.inet_ntop(socket.AF_INET6, packet[8:24])
    return bytes(ether / IPv6(src=ROUTER6, dst=to) / ICMPv6PacketTooBig(mtu=mtu) / packet[:600])


def main(mtu: int) -> None:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.bind(("eth0", ETH_P_ALL))
    print("ready", flush=True)
    told_at = float("-inf")
    while True:
        frame, (_, _, kind, *_) = wire.recvfrom(1 << 16)
        if kind != socket.PACKET_HOST or frame[12:14] not in IP_TYPES or time.monotonic() - told_at < EVERY_S:
            continue
        if error := answer(frame, mtu):
            wire.send(error)
            told_at = time.monotonic()


if __name__ == "__main__":
    main(int(sys.argv[1]))
