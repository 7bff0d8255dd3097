"""A TCP stream that costs its ends as little as can be: zeros by sendfile, thrown away unread. No mail, no port 25.

Many connections one after the other, because one and the same takes half as long again as another, on the barest
bridge. Prints their seconds in all, each from the connection to the receiver's word that all has come.
"""

from __future__ import annotations

import argparse
import os
import socket
import time

CHUNK_BYTES = 1 << 20


def serve(address: str, port: int) -> None:
    """One stream at a time, each answered with one octet."""
    with socket.create_server((address, port)) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                # MSG_TRUNC: TCP counts the octets and copies none (tcp(7)).
                while connection.recv(CHUNK_BYTES, socket.MSG_TRUNC):
                    pass
                connection.sendall(b".")


def stream(address: str, port: int, size_bytes: int) -> float:
    """Seconds for so many octets."""
    noughts = os.memfd_create("noughts")
    os.truncate(noughts, CHUNK_BYTES)
    with socket.create_connection((address, port)) as sock:
        began_at, left = time.perf_counter(), size_bytes
        while left > 0:
            left -= os.sendfile(sock.fileno(), noughts, 0, min(left, CHUNK_BYTES))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b"."
        return time.perf_counter() - began_at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("serve", "stream"))
    parser.add_argument("address")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--size", type=int, default=1 << 30, help="octets in all")
    parser.add_argument("--times", type=int, default=1, help="in so many connections")
    arguments = parser.parse_args()
    # One processor for each end, always the same: where the scheduler puts them is worth a factor of two.
    mine = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {mine[0] if arguments.verb == "stream" else mine[-1]})
    if arguments.verb == "serve":
        serve(arguments.address, arguments.port)
    else:
        size = arguments.size // arguments.times
        print(sum(stream(arguments.address, arguments.port, size) for _ in range(arguments.times)))


if __name__ == "__main__":
    main()
