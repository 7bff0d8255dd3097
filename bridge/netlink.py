"""A question to the kernel by netlink and its answers, as octets: what `nfdump` and `glance` are made of."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

REQUEST, ACK, DUMP = 1, 4, 0x300  # NLM_F_* (linux/netlink.h)
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_RECEIVED_OCTETS, _PATIENCE_S = 1 << 16, 5.0


def answers(protocol: int, message: int, body: bytes, flags: int) -> Iterator[bytes]:
    """What follows the header of each message of the answer. What the kernel refuses has none."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock, contextlib.suppress(OSError):
        sock.settimeout(_PATIENCE_S)
        sock.send(_HEADER.pack(_HEADER.size + len(body), message, flags, 1, 0) + body)
        while True:
            for kind, payload in _messages(sock.recv(_RECEIVED_OCTETS)):
                if kind in (_ERROR, _DONE):
                    return
                yield payload


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[max(length + 3 & ~3, _HEADER.size) :]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]  # without the flags for nested and for byte order
        data = data[max(length + 3 & ~3, 4) :]
