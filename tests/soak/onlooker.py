"""Watches one end of a wire for frames of the box itself: a source MAC that is no host's, an address that is the box's.

``python -m tests.soak.onlooker eth0 --host MAC… --address IP… --management IP``; what the box says under the address
that an administrator gave it is no secret. A line of JSON for each such frame, the first fifty,
and one with the counts at SIGTERM. Looks at heads only, keeps nothing, outlives its interface.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import struct
import time
from ipaddress import ip_address

ETH_P_ALL, SOL_PACKET, PACKET_STATISTICS, PACKET_OUTGOING, SO_RCVBUFFORCE = 3, 263, 6, 4, 33
HEAD_OCTETS, BUFFER_BYTES, SHOWN = 64, 32 << 20, 50
# Where the addresses are: by EtherType, source and destination (of ARP: sender and target).
PLACES = {0x0800: (26, 30, 4), 0x0806: (28, 38, 4), 0x86DD: (22, 38, 16)}


class Onlooker:
    """``macs`` are those that hosts have, ``addresses`` those that nobody but the box has, ``managed`` those that it
    may show."""

    def __init__(self, interface: str, macs: set[bytes], addresses: set[bytes], managed: set[bytes]) -> None:
        self._interface, self._macs, self._addresses, self._managed = interface, macs, addresses, managed
        self.counts = {"frames": 0, "own": 0, "lost": 0}
        self._ended = False

    def run(self) -> None:
        """Until SIGTERM."""
        signal.signal(signal.SIGTERM, self._end)
        print("ready", flush=True)
        while not self._ended:
            try:
                with self._listening() as sock:
                    self._watch(sock)
            except OSError:  # gone, down, or not there yet
                time.sleep(0.05)
        print(json.dumps(self.counts), flush=True)

    def _end(self, *_: object) -> None:
        self._ended = True

    def _listening(self) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        sock.settimeout(0.2)
        sock.bind((self._interface, ETH_P_ALL))
        return sock

    def _watch(self, sock: socket.socket) -> None:
        head = bytearray(HEAD_OCTETS)
        try:
            while not self._ended:
                try:
                    size, address = sock.recvfrom_into(head)
                except TimeoutError:
                    socket.if_nametoindex(self._interface)  # another one of that name is another one
                    if sock.getsockname()[0] != self._interface:
                        return
                    continue
                if address[2] != PACKET_OUTGOING:
                    self.judge(bytes(head[:size]))
        finally:
            self.counts["lost"] += struct.unpack("=II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]

    def judge(self, head: bytes) -> None:
        """One frame that came in, or its first octets."""
        self.counts["frames"] += 1
        source, destination = _addresses(head)
        known = head[6:12] in self._macs or source in self._managed
        if known and not {source, destination} & self._addresses:
            return
        self.counts["own"] += 1
        if self.counts["own"] <= SHOWN:
            print(json.dumps({"at": time.time(), "own": head.hex()}), flush=True)


def _addresses(head: bytes) -> tuple[bytes, bytes]:
    """Source and destination; empty in what has none."""
    source, destination, size = PLACES.get(int.from_bytes(head[12:14], "big"), (0, 0, 0))
    return head[source : source + size], head[destination : destination + size]


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _address(text: str) -> bytes:
    return ip_address(text).packed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interface")
    parser.add_argument("--host", action="append", type=_mac, required=True, metavar="MAC")
    parser.add_argument("--address", action="append", default=[], type=_address)
    parser.add_argument("--management", action="append", default=[], type=_address)
    arguments = parser.parse_args()
    known = (set(each) for each in (arguments.host, arguments.address, arguments.management))
    Onlooker(arguments.interface, *known).run()


if __name__ == "__main__":
    main()
