"""A mail server that takes everything and keeps nothing, for loads: several processes that share a port.

``python -m smtp_intercept.app.lab.sink ADDRESS --processes N``: "ready" once it listens; runs until SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
from contextlib import suppress

_END = b"\r\n.\r\n"
_OK, _GO, _BYE = b"250 2.0.0 Ok\r\n", b"354 Go on\r\n", b"221 2.0.0 Bye\r\n"


class Taking:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self._rest, self._data = sock, b"", False
        sock.sendall(b"220 sink.example.com ESMTP\r\n")

    def hear(self) -> bool:
        """False at its end."""
        octets = self.sock.recv(262_144)
        self._rest += octets
        while self._data or b"\n" in self._rest:
            if self._data:
                at = self._rest.find(_END)
                if at < 0:
                    self._rest = self._rest[-len(_END) :]
                    break
                self._rest, self._data = self._rest[at + len(_END) :], False
                self.sock.sendall(_OK)
                continue
            line, _, self._rest = self._rest.partition(b"\n")
            if not self._answer(line[:4].upper()):
                return False
        return bool(octets)

    def _answer(self, verb: bytes) -> bool:
        self._data = verb == b"DATA"
        self.sock.sendall({b"DATA": _GO, b"QUIT": _BYE}.get(verb, _OK))
        return verb != b"QUIT"


def serve(address: str, port: int, ready: int) -> None:
    listener = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    listener.bind((address, port))
    listener.listen(4096)
    os.write(ready, b".")
    epoll, open_now = select.epoll(), dict[int, Taking]()
    epoll.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                with suppress(OSError):
                    taking = Taking(listener.accept()[0])
                    taking.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    open_now[taking.sock.fileno()] = taking
                    epoll.register(taking.sock, select.EPOLLIN)
                continue
            more = False
            with suppress(OSError):
                more = open_now[fd].hear()
            if not more:
                open_now.pop(fd).sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    read, write = os.pipe()
    children = []
    for _ in range(arguments.processes):
        if not (pid := os.fork()):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            serve(arguments.address, arguments.port, write)
        children.append(pid)

    def end(*_: object) -> None:
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    for _ in children:
        os.read(read, 1)
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
