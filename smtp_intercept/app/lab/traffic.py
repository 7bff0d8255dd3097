"""Traffic that is not mail: a TCP stream to an echo server, hashed both ways, and ping with its TTL. Prints JSON.

Refuses to interpret: what differs is for the caller to see.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import selectors
import socket
import struct
import threading
import time
from typing import Any

CHUNK_BYTES = 1 << 16
ICMP = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}  # request, reply
IPV6_RECVHOPLIMIT, IPV6_HOPLIMIT = 51, 52


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def echo(connection: socket.socket) -> None:
    """Send back all that comes, then say what it was."""
    digest, size = hashlib.sha256(), 0
    with connection:
        client = connection.getpeername()[:2]
        while data := connection.recv(CHUNK_BYTES):
            digest.update(data)
            size += len(data)
            connection.sendall(data)
    print(json.dumps({"client": client, "bytes": size, "sha256": digest.hexdigest()}), flush=True)


def serve(arguments: argparse.Namespace) -> None:
    """Echo on every address until killed."""
    selector = selectors.DefaultSelector()
    for address in arguments.addresses:
        sock = socket.create_server((address, arguments.port), family=family_of(address), backlog=1024)
        selector.register(sock, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            threading.Thread(target=echo, args=(key.fileobj.accept()[0],), daemon=True).start()


def stream(arguments: argparse.Namespace) -> dict[str, Any]:
    """Send ``--size`` octets of noise, read the echo; both hashes."""
    source = (arguments.source, 0) if arguments.source else None
    began_at = time.monotonic()
    sock = socket.create_connection((arguments.server, arguments.port), arguments.timeout, source)
    sent, received, size = hashlib.sha256(), hashlib.sha256(), 0
    noise = random.Random(arguments.size)  # noqa: S311

    def write() -> None:
        left = arguments.size
        while left:
            data = noise.randbytes(min(left, CHUNK_BYTES))
            sent.update(data)
            sock.sendall(data)
            left -= len(data)
        sock.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    writer.start()
    while data := sock.recv(CHUNK_BYTES):
        received.update(data)
        size += len(data)
    writer.join()
    hashes = {"sent_sha256": sent.hexdigest(), "received_sha256": received.hexdigest()}
    return {**hashes, "bytes": size, "client_port": sock.getsockname()[1], "seconds": time.monotonic() - began_at}


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return int(~(total + (total >> 16)) & 0xFFFF)


def request(family: socket.AddressFamily, identity: int, sequence: int, payload: bytes) -> bytes:
    """An echo request; the kernel fills in ICMPv6's checksum."""
    head = struct.pack("!BBHHH", ICMP[family][0], 0, 0, identity, sequence)
    total = checksum(head + payload + bytes(len(payload) % 2)) if family == socket.AF_INET else 0
    return head[:2] + struct.pack("!H", total) + head[4:] + payload


def reply(sock: socket.socket, identity: int, sequence: int) -> tuple[int, bytes]:
    """(TTL, payload) of the reply to one request; `TimeoutError` if none comes."""
    while True:
        packet, ancillary, _, _ = sock.recvmsg(CHUNK_BYTES, 256)
        ttl = packet[8]
        if sock.family == socket.AF_INET:
            packet = packet[(packet[0] & 15) * 4 :]
        else:
            (ttl,) = [
                struct.unpack("=i", value)[0]
                for level, kind, value in ancillary
                if (level, kind) == (socket.IPPROTO_IPV6, IPV6_HOPLIMIT)
            ]
        if packet[0] == ICMP[sock.family][1] and struct.unpack_from("!HH", packet, 4) == (identity, sequence):
            return ttl, packet[8:]


def ping(arguments: argparse.Namespace) -> dict[str, Any]:
    """``--count`` pings one after another; how many came back unchanged, with which TTLs and after what time."""
    family = family_of(arguments.server)
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    identity, payload = os.getpid() & 0xFFFF, os.urandom(arguments.size)
    ttls, times_ms, same = [], [], 0
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1)
        sock.settimeout(arguments.timeout)
        if arguments.source:
            sock.bind((arguments.source, 0))
        for sequence in range(arguments.count):
            began_at = time.monotonic()
            sock.sendto(request(family, identity, sequence, payload), (arguments.server, 0))
            try:
                ttl, echoed = reply(sock, identity, sequence)
            except TimeoutError:
                continue
            ttls.append(ttl)
            times_ms.append((time.monotonic() - began_at) * 1000)
            same += echoed == payload
            time.sleep(arguments.interval)
    return {"sent": arguments.count, "received": len(ttls), "unchanged": same, "ttls": ttls, "times_ms": times_ms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    server = verbs.add_parser("serve")
    server.add_argument("addresses", nargs="+")
    server.add_argument("--port", type=int, default=7)
    for name in ("stream", "ping"):
        client = verbs.add_parser(name)
        client.add_argument("server")
        client.add_argument("--source", default="")
        client.add_argument("--timeout", type=float, default=5.0, help="seconds")
        client.add_argument("--size", type=int, default={"stream": 1 << 20, "ping": 56}[name], help="octets")
        client.add_argument("--port", type=int, default=7)
        client.add_argument("--count", type=int, default=3)
        client.add_argument("--interval", type=float, default=0.01, help="seconds")
    arguments = parser.parse_args()
    if arguments.verb == "serve":
        serve(arguments)
    else:
        print(json.dumps({"stream": stream, "ping": ping}[arguments.verb](arguments)))


if __name__ == "__main__":
    main()
