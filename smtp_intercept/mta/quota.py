"""How many notices one address gets: whoever forges a sender must not have us fill a stranger's mailbox.

Pure; time is an argument, of a clock that is never set.
"""

from __future__ import annotations

from collections import OrderedDict

HOUR_S = 3600.0
REMEMBERED = 10_000  # addresses, some 200 octets each; the one that began longest ago is forgotten first


class Quota:
    """``each``: notices in an hour to one address; 0: any number. One that is put off is not counted."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._begun: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, address: str, now: float) -> bool:
        """Whether it may have one more now."""
        key = address.lower()
        began_at, count = self._begun.get(key, (now, 0))
        if now - began_at >= HOUR_S:
            self._begun.pop(key, None)
            began_at, count = now, 0
        if 0 < self._each <= count:
            return False
        self._begun[key] = began_at, count + 1
        if len(self._begun) > REMEMBERED:
            self._begun.popitem(last=False)
        return True
