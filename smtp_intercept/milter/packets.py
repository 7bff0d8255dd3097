"""The milter protocol's packets: a length, a letter, and what belongs to it; framed from octets in any cut.

Pure. Numbers and letters are libmilter's (mfdef.h, mfapi.h). A packet longer than `MOST_BYTES` is no packet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

# libmilter sends 64 KiB at most, and 1 MiB only where it was offered (SMFIP_MDS_1M), which it is not.
MOST_BYTES = 1 << 20
CHUNK_BYTES = 65_535  # of a body
_LENGTH = struct.Struct("!I")


class MilterError(Exception):
    """What a filter has said is not the protocol, or not what it may say here; in words for an administrator."""


class Packets:
    """Those of one stream."""

    __slots__ = ("_unread",)

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The (letter, payload) of each packet that is whole now. `MilterError`: one is empty, or too long."""
        self._unread += data
        while len(self._unread) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._unread)
            if not 0 < size <= MOST_BYTES:
                raise MilterError(f"a packet of {size} octets")
            end = _LENGTH.size + size
            if len(self._unread) < end:
                return
            packet = bytes(self._unread[_LENGTH.size : end])
            del self._unread[:end]
            yield packet[:1], packet[1:]


def packet(letter: bytes, payload: bytes = b"") -> bytes:
    """As it is sent."""
    return _LENGTH.pack(1 + len(payload)) + letter + payload


def strings(texts: Iterable[bytes]) -> bytes:
    """Each with the NUL that ends it. One inside would begin another: it and what follows are left out."""
    return b"".join(text.partition(b"\0")[0] + b"\0" for text in texts)


def read_strings(payload: bytes, least: int = 1) -> list[bytes]:
    """The reverse. `MilterError` if there are fewer, or the last has no end."""
    if not payload.endswith(b"\0"):
        raise MilterError("a text without an end")
    found = payload[:-1].split(b"\0")
    if len(found) < least:
        raise MilterError(f"{len(found)} of {least} texts")
    return found
