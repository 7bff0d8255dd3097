"""How much of what all have together one client may have: the fuller the house, the less.

Pure. A client may take one more only while it has no more than a part of what is still free, and so may its network:
one alone comes to a third of all, any number of them leave something, and who has nothing yet is let in before them.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.client import client_of
from smtp_intercept.headcount import Headcount

# Everybody's, however full it is: a mail server that comes with as many at once is a usual one (Postfix dials 20).
LEAST_OF_CLIENT, LEAST_OF_NETWORK = 20, 40


@dataclass(frozen=True, slots=True)
class Shares:
    """Percents of what is free; 0: any number. ``per_client`` is a number, 0: any."""

    client_percent: int = 0
    network_percent: int = 0
    per_client: int = 0

    def holds_too_many(self, address: str, headcount: Headcount, places: int) -> str:
        """Who does, with the session that has just been counted: "client", "network" or "" for nobody."""
        who, free = client_of(address), places - headcount.total
        mine, ours = headcount.of(who.client), headcount.of(who.network)
        if 0 < self.per_client < mine or over_share(mine, self.client_percent, free, LEAST_OF_CLIENT):
            return "client"
        return "network" if over_share(ours, self.network_percent, free, LEAST_OF_NETWORK) else ""


def over_share(held: int, percent: int, free: int, least: int) -> bool:
    """Whether one holds more than so many percents of what is free; 0: any number, and ``least`` is everybody's."""
    return percent > 0 and held > max(least, free * percent // 100)


ANY_NUMBER = Shares()
