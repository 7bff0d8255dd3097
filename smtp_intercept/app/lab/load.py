"""Mail for so many seconds, as fast as it is taken: how many messages were answered 250, as a line of JSON.

``python -m smtp_intercept.app.lab.load SERVER --from A --from B --seconds 5``. Refuses to retry: an error is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

_PORT = 25
_BEGIN = (b"EHLO client.example.net\r\n",)
_MESSAGE = (b"MAIL FROM:<load@example.net>\r\n", b"RCPT TO:<user@example.com>\r\n", b"DATA\r\n")
_END = (b"QUIT\r\n",)


@dataclass
class Counted:
    messages: int = 0
    connections: int = 0
    errors: int = 0
    took_s: float = 0.0


@dataclass
class Sender:
    """One process's connections. ``keep``: messages go one after another over those that are there."""

    server: str
    sources: Iterator[str]
    body: bytes
    keep: bool
    counted: Counted = field(default_factory=Counted)

    def __post_init__(self) -> None:
        self._epoll, self._open = select.epoll(), dict[int, tuple[socket.socket, Iterator[bytes]]]()

    def run(self, parallel: int, seconds: float) -> Counted:
        for _ in range(parallel):
            self._dial()
        began_at = time.monotonic()
        while (left_s := began_at + seconds - time.monotonic()) > 0:
            for fd, _ in self._epoll.poll(left_s):
                self._go_on(fd)
        self.counted.took_s = time.monotonic() - began_at
        return self.counted

    def _dial(self) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((next(self.sources), 0))
        sock.connect_ex((self.server, _PORT))
        self._epoll.register(sock, select.EPOLLIN)
        self._open[sock.fileno()] = sock, self._words()
        self.counted.connections += 1

    def _words(self) -> Iterator[bytes]:
        yield from _BEGIN
        while True:
            yield from (*_MESSAGE, self.body)
            self.counted.messages += 1  # asked for the next word: the last one was answered
            if not self.keep:
                yield from _END
                return

    def _go_on(self, fd: int) -> None:
        sock, words = self._open[fd]
        try:
            reply = sock.recv(4096)
            if reply[:1] not in b"23":
                raise ConnectionError
            word = next(words, b"")
            if word:
                sock.setblocking(True)
                sock.sendall(word)
                sock.setblocking(False)
                return
        except OSError:
            self.counted.errors += 1
        self._epoll.unregister(fd)
        del self._open[fd]
        sock.close()
        self._dial()


def forked(processes: int, work: Sender, parallel: int, seconds: float) -> list[Counted]:
    """The same in several processes at once."""
    pipes = []
    for number in range(processes):
        read, write = os.pipe()
        if not os.fork():
            try:
                for _ in range(number):  # not all from the same address first
                    next(work.sources)
                counted = Sender(work.server, work.sources, work.body, work.keep).run(parallel, seconds)
                os.write(write, json.dumps(vars(counted)).encode())
            finally:
                os._exit(0)
        os.close(write)
        pipes.append(read)
    return [Counted(**json.loads(os.read(pipe, 4096))) for pipe in pipes]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server")
    parser.add_argument("--from", dest="sources", action="append", required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--parallel", type=int, default=10, help="connections of each process")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args(argv)
    line = b"x" * 70 + b"\r\n"
    body = b"Subject: load\r\n\r\n" + line * max(1, arguments.size // len(line)) + b".\r\n"
    work = Sender(arguments.server, cycle(arguments.sources), body, arguments.keep)
    every = forked(arguments.processes, work, arguments.parallel, arguments.seconds)
    total = Counted(
        sum(each.messages for each in every),
        sum(each.connections for each in every),
        sum(each.errors for each in every),
        max(each.took_s for each in every),
    )
    print(json.dumps(vars(total)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
