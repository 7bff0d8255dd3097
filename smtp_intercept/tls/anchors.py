"""What the DNS says of servers that their clients trust by it: TLSA records (RFC 7672), an MTA-STS policy (RFC 8461).

Pure: somebody else asks the DNS. Who needs an answer waits for it, and not for long; a name that does not stand for the
server that was dialled is nobody's reason, for clients choose it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeAlias

from smtp_intercept.tls.manners import Asked, Why

# An answer holds as long as its TTL says, within these; nothing that could be learned, for the shorter.
KNOWN_MIN_S, KNOWN_MAX_S = 30.0, 3_600.0
MAX_KNOWN = 10_000  # names with a port; the one that was used longest ago is asked for once more
# The client waits for the server's ServerHello, usually 5 min; a resolver that is asked answers in `DEADLINE_S`.
WAIT_S = 3.0

Key: TypeAlias = tuple[str, int]
Found: TypeAlias = Callable[[Why | None], None]


@dataclass(frozen=True, slots=True)
class Anchor:
    """Of one name and port. ``addresses`` are packed, those that the name stands for."""

    why: Why | None
    addresses: frozenset[bytes]
    until: float

    def of(self, server: bytes) -> Why | None:
        """Whether it is that server's."""
        return self.why if server in self.addresses else None


NOTHING = Anchor(None, frozenset(), 0.0)


class Anchors:
    """``ask`` has a name and a port looked up; the answer comes to `learn`. ``clock`` is any steady one."""

    __slots__ = ("_ask", "_clock", "_known", "_waiting")

    def __init__(self, ask: Callable[[str, int], None], clock: Callable[[], float]) -> None:
        self._ask, self._clock = ask, clock
        self._known: OrderedDict[Key, Anchor] = OrderedDict()
        self._waiting: dict[Key, list[tuple[float, bytes, Found]]] = {}

    def find(self, asked: Asked, found: Found) -> None:
        """Why its clients are left alone, by the DNS: told at once if that is known, else later, and always."""
        key, now = (asked.name, asked.port), self._clock()
        known = self._known.get(key, NOTHING)
        if known.until > now:
            self._known.move_to_end(key)
            found(known.of(asked.server))
            return
        waiting = self._waiting.setdefault(key, [])
        waiting.append((now + WAIT_S, asked.server, found))
        if len(waiting) == 1:
            self._ask(*key)

    def learn(self, told: object) -> None:
        """[name, port, why or "", addresses, TTL in seconds]; what is no answer to a question is passed over."""
        match told:
            case [str(name), int(port), str(why), list(addresses), int() | float() as ttl_s] if (
                name,
                port,
            ) in self._waiting:
                packed = set[bytes]()
                for address in addresses:
                    with suppress(ValueError):
                        packed.add(ip_address(address).packed)
                until = self._clock() + min(max(ttl_s, KNOWN_MIN_S), KNOWN_MAX_S)
                self._keep((name, port), Anchor(_REASONS.get(why), frozenset(packed), until))

    def expire(self) -> None:
        """To be called a few times a second: who has waited long enough goes on as if there were nothing."""
        now = self._clock()
        for key in [key for key, waiting in self._waiting.items() if waiting[0][0] <= now]:
            self._keep(key, Anchor(None, frozenset(), now + KNOWN_MIN_S))

    def _keep(self, key: Key, anchor: Anchor) -> None:
        self._known[key] = anchor
        self._known.move_to_end(key)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        for _, server, found in self._waiting.pop(key, ()):
            found(anchor.of(server))


_REASONS = {why.value: why for why in (Why.TLSA, Why.MTA_STS)}
