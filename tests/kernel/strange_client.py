"""A mail client without a TCP stack: it says EHLO in one segment that it cuts into IP fragments.

``SOURCE SERVER SERVER_MAC``; SOURCE must be no address of this host, or the kernel would answer for it. Prints what the
server said, one JSON list. Speaks just enough TCP for that.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from scapy.config import conf
from scapy.layers.inet import IP, TCP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

PORT = 40025
FRAGMENT_OCTETS = 96
PATIENCE_S = 10.0
EHLO = b"EHLO " + b".".join([b"x" * 60] * 7) + b"\r\n"


class Segments:
    """One connection."""

    def __init__(self, source: str, server: str, mac: str) -> None:
        self._socket: Any = conf.L2socket(iface="eth0")
        self._ether = Ether(src=self._socket.ins.getsockname()[4].hex(":"), dst=mac)
        self._source, self._server = source, server
        self._seq, self._ack = 1000, 0

    def packet(self, flags: str, data: bytes = b"") -> Any:
        tcp = TCP(sport=PORT, dport=25, flags=flags, seq=self._seq, ack=self._ack, window=65535) / Raw(data)
        self._seq += len(data) + ("S" in flags) + ("F" in flags)
        if ":" in self._server:
            return IPv6(src=self._source, dst=self._server) / tcp
        return IP(src=self._source, dst=self._server, id=77) / tcp

    def send(self, packet: Any) -> None:
        self._socket.send(self._ether / packet)

    def send_in_fragments(self, packet: Any) -> None:
        if IP in packet:
            fragments = fragment(packet, FRAGMENT_OCTETS)
        else:
            head = IPv6(src=packet.src, dst=packet.dst) / IPv6ExtHdrFragment(id=77)
            fragments = fragment6(head / packet[TCP], FRAGMENT_OCTETS + 40)
        for part in fragments:
            self.send(part)

    def hear(self) -> bytes:
        """The next segment that brings something; acknowledged."""
        while True:
            if not self._socket.select([self._socket], PATIENCE_S):
                raise TimeoutError(f"nothing from {self._server} for {PATIENCE_S} s")
            frame = self._socket.recv()
            if frame is None or TCP not in frame or frame[TCP].dport != PORT or frame[TCP].sport != 25:
                continue
            tcp = frame[TCP]
            data = bytes(tcp[Raw].load) if Raw in tcp else b""
            new = len(data) + ("S" in tcp.flags) + ("F" in tcp.flags)
            if "S" in tcp.flags:
                self._ack = tcp.seq
            if new and tcp.seq == self._ack:
                self._ack = (tcp.seq + new) & 0xFFFFFFFF
                self.send(self.packet("A"))
                return data


def main(source: str, server: str, mac: str) -> None:
    segments = Segments(source, server, mac)
    segments.send(segments.packet("S"))
    said = [segments.hear(), segments.hear()]  # the handshake, the banner
    segments.send_in_fragments(segments.packet("PA", EHLO))
    while b"250 " not in said[-1]:
        said.append(segments.hear())
    segments.send(segments.packet("PA", b"QUIT\r\n"))
    while b"221 " not in said[-1]:
        said.append(segments.hear())
    segments.send(segments.packet("RA"))
    print(json.dumps([data.decode("latin-1") for data in said]))


if __name__ == "__main__":
    main(*sys.argv[1:])
