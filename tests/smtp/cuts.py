"""How a stream comes in pieces: whole, octet by octet, or by chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

Cut = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    return [data]


def bytewise(data: bytes) -> Iterable[bytes]:
    return (bytes([octet]) for octet in data)


def in_pieces(chance: random.Random) -> Cut:
    def cut(data: bytes) -> Iterable[bytes]:
        while data:
            size = chance.choice([1, 2, 3, 5, 20, 100])
            yield data[:size]
            data = data[size:]

    return cut
