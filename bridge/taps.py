"""The canary's two ends: a packet socket on the wire end of each leg. Sends frames into the lane, hears those for it.

A tap sees a frame before netdev's ingress hook, where the rules drop it. Opened while there is privilege (CAP_NET_RAW).
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Iterator, Mapping

ETH_P_ALL = 3
_SO_ATTACH_FILTER, _SOL_PACKET, _IGNORE_OUTGOING = 26, 263, 23
_BUFFER_OCTETS = 64 << 10
_FRAME_OCTETS = 256
AT_ONCE = 64  # frames; nobody who makes some may keep the reader from all else


class Taps:
    """``legs``: the link of each leg → (its port's index, whether it carries tagged mail). ``mac`` and the one that
    differs from it in the last bit are the canary's."""

    def __init__(self, legs: Mapping[str, tuple[int, bool]], mac: str) -> None:
        self._taps = {about: _open(link, mac) for link, about in legs.items()}

    def filenos(self) -> list[int]:
        return [tap.fileno() for tap in self._taps.values()]

    def send(self, frame: bytes, leg: int, mark: int, *, tagged: bool) -> None:
        """Lost where it cannot be sent: that is what it is for."""
        with contextlib.suppress(OSError):
            tap = self._taps[leg, tagged]
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            tap.send(frame)

    def heard(self) -> Iterator[tuple[int, bytes]]:
        """(leg, frame) of what waits."""
        for (leg, _), tap in self._taps.items():
            for _ in range(AT_ONCE):
                try:
                    yield leg, tap.recv(_FRAME_OCTETS)
                except OSError:  # nothing waits, or the link has gone
                    break


def _open(link: str, mac: str) -> socket.socket:
    # Without a protocol until there is a filter: not one frame of mail is to be copied.
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        _attach(tap, mac)
        with contextlib.suppress(OSError):  # before Linux 4.20 it hears itself, and knows it
            tap.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
        tap.bind((link, ETH_P_ALL))
    except OSError:
        tap.close()
        raise
    return tap


def _attach(tap: socket.socket, mac: str) -> None:
    """Classic BPF: the destination is the pair of MACs (linux/filter.h)."""
    head, tail = struct.unpack("!IH", bytes.fromhex(mac.replace(":", "")))
    program = [
        (0x20, 0, 0, 0),  # ld  [0]
        (0x15, 0, 4, head),  # jeq head, else drop
        (0x28, 0, 0, 4),  # ldh [4]
        (0x54, 0, 0, 0xFFFE),  # and
        (0x15, 0, 1, tail & 0xFFFE),  # jeq tail, else drop
        (0x06, 0, 0, _FRAME_OCTETS),  # ret
        (0x06, 0, 0, 0),  # drop
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
