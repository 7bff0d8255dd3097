"""What the processes tell each other: JSON datagrams over socket pairs that the daemon made and hands down.

Interceptor → diverter: a proof of life. Resolver → both: the addresses of protected names. All → daemon: a report a
second.
"""

from __future__ import annotations

import contextlib
import json
import socket
from itertools import islice
from typing import Any

PROVE_EVERY_S = 0.2
REPORT_EVERY_S = 1.0
# Read from the less privileged end, so bounded; 1,024 addresses as text fit.
DATAGRAM_OCTETS = 65536
SERVERS = 1024
AT_ONCE = 64  # datagrams; one that writes without end must not keep its reader from all else


def pair() -> tuple[socket.socket, socket.socket]:
    """(writing end, reading end), both non-blocking and inheritable only by ``pass_fds``."""
    write, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (write, read):
        end.setblocking(False)
    write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * DATAGRAM_OCTETS)
    return write, read


def adopt(fd: int) -> socket.socket:
    """The inherited end with that number."""
    end = socket.socket(fileno=fd)
    end.setblocking(False)
    end.set_inheritable(False)
    return end


def tell(end: socket.socket, message: dict[str, Any]) -> None:
    """Lost if nobody reads: the next one says the same and more."""
    with contextlib.suppress(OSError):
        end.send(_written(message))


def report(end: socket.socket, message: dict[str, Any]) -> None:
    """The same of a report, whose sender is taken for hung if it does not come: of one that is longer than a datagram
    may be the longest table or list is cut to its first half until it fits, and ``cut`` is true."""
    while len(_written(message)) > DATAGRAM_OCTETS:
        longest = max(message, key=lambda key: len(_written(message[key])))
        message = {**message, longest: _first_half(message[longest]), "cut": True}
    tell(end, message)


def _written(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _first_half(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(islice(value.items(), len(value) // 2))
    return value[: len(value) // 2] if isinstance(value, list | tuple | str) else None


def hear(end: socket.socket, octets: int = DATAGRAM_OCTETS) -> list[dict[str, Any]]:
    """What waits, up to `AT_ONCE`, each of so many octets; what is not a JSON object is passed over."""
    heard: list[dict[str, Any]] = []
    for _ in range(AT_ONCE):
        try:
            data = end.recv(octets)
        except OSError:
            break
        if not data:
            break
        with contextlib.suppress(ValueError, RecursionError):
            message = json.loads(data)
            if isinstance(message, dict):
                heard.append(message)
    return heard
