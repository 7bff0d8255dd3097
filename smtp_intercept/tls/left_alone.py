"""Who is left alone for a day: servers that ask for a client certificate, clients that broke a handshake off.

Pure. Bounded: where it is full the one that has the least time left goes, and is asked once more.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

# A client that was refused tries again within hours, and for days; a day later both sides may have changed.
LEFT_ALONE_S = 86_400.0
MAX_REMEMBERED = 10_000


class LeftAlone:
    """``now`` is of any clock, the same for all of them."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[float, str]] = {}  # in the order of their ends

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, who: Hashable, why: str, now: float) -> None:
        """From now on, for a day."""
        self._known.pop(who, None)
        self._known[who] = (now + LEFT_ALONE_S, why)
        while len(self._known) > MAX_REMEMBERED or next(iter(self._known.values()))[0] <= now:
            del self._known[next(iter(self._known))]

    def why(self, who: Hashable, now: float) -> str:
        """ "" if it is not."""
        until, why = self._known.get(who, (now, ""))
        return why if until > now else ""

    def all(self, now: float) -> Iterator[tuple[Hashable, str, float]]:
        """Each with the reason and the seconds that are left."""
        yield from ((who, why, until - now) for who, (until, why) in self._known.items() if until > now)
