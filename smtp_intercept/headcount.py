"""How many sessions are open, in all, of each client and of its network: of one process, or of all that share a piece
of memory.

Pure. Each worker writes its own column and reads all of them, so nothing is locked and a worker that dies holds up
nobody. Two that begin in the same microsecond may each count the other.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import Protocol

from bridge.client import client_of

_KEY_BYTES = 16
_WORD_BYTES = 4
# Clients are counted twice, each time in one of so many places: a client is counted too high only while in both of its
# places there is another's count, one chance in four thousand million for any two.
_ROWS, PLACES = 2, 65_536
_COLUMN = 1 + _ROWS * PLACES  # words: sessions, then the rows


class Headcount(Protocol):
    """What a gateway asks before it takes one more. ``who`` is one of the names of `bridge.client.Client`."""

    def enter(self, address: str) -> None: ...
    def leave(self, address: str) -> None: ...
    def of(self, who: str) -> int: ...
    @property
    def total(self) -> int: ...


class Alone:
    """Of the only worker."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self.total = 0

    def enter(self, address: str) -> None:
        self._held.update(client_of(address))
        self.total += 1

    def leave(self, address: str) -> None:
        self.total -= 1
        for who in client_of(address):
            self._held[who] -= 1
            if not self._held[who]:
                del self._held[who]

    def of(self, who: str) -> int:
        return self._held.get(who, 0)


class Shared:
    """Column ``worker`` of the ``workers`` in ``memory``, which is `size_bytes` long: zeros, behind a key that
    nobody outside knows, so that no client can choose whom it is counted with."""

    def __init__(self, memory: memoryview, workers: int, worker: int) -> None:
        self._key = bytes(memory[:_KEY_BYTES])
        self._words = memory[_KEY_BYTES:].cast("I")
        self._columns = range(0, workers * _COLUMN, _COLUMN)
        self._own = self._columns[worker]
        clear(memory, worker)

    def enter(self, address: str) -> None:
        self._add(address, 1)

    def leave(self, address: str) -> None:
        self._add(address, -1)

    def of(self, who: str) -> int:
        words, columns = self._words, self._columns
        return min(sum(words[column + place] for column in columns) for place in self._places(who))

    @property
    def total(self) -> int:
        return sum(self._words[column] for column in self._columns)

    def _add(self, address: str, step: int) -> None:
        self._words[self._own] += step
        for who in client_of(address):
            for place in self._places(who):
                self._words[self._own + place] += step

    def _places(self, who: str) -> tuple[int, int]:
        """One in each row."""
        digest = int.from_bytes(blake2b(who.encode(), key=self._key, digest_size=_ROWS * 2).digest())
        return 1 + digest % PLACES, 1 + PLACES + (digest >> 16) % PLACES


def size_bytes(workers: int) -> int:
    return _KEY_BYTES + workers * _COLUMN * _WORD_BYTES


def set_key(memory: memoryview, key: bytes) -> None:
    """Before anybody counts: ``key`` is 16 secret bytes."""
    memory[:_KEY_BYTES] = key


def clear(memory: memoryview, worker: int) -> None:
    """The sessions of a worker that has ended are over."""
    start, length = _KEY_BYTES + worker * _COLUMN * _WORD_BYTES, _COLUMN * _WORD_BYTES
    memory[start : start + length] = bytes(length)
