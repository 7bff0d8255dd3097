"""What each client costs one interceptor: time of its CPU, and octets that it holds for it.

Pure; times are seconds of any steady clock. Who has cost least is served first, and whoever holds more than its share
is not read until it holds less: so a client's work is slow for itself, and its octets are bounded before memory is.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.client import client_of
from smtp_intercept.shares import over_share

# What was spent counts half after this: long enough to tell who presses, short enough to forgive a burst.
HALF_S = 1.0
# Whoever holds too much is asked again so often whether there is room by now, and for so long.
CROWDED_EVERY_S, CROWDED_S = 0.2, 30.0
# Anybody's, whatever others hold: the octets of one session of usual mail, and those of one client's.
LEAST_OF_SESSION, LEAST_OF_CLIENT, LEAST_OF_NETWORK = 16_384, 524_288, 1_048_576
LEAST_HELD_BYTES = 16_777_216  # of all together: less would slow usual mail


class Account:
    """Of one client, or of one network (``network`` None). ``sessions`` of it are open."""

    __slots__ = ("_spent_s", "_until", "held_bytes", "name", "network", "sessions")

    def __init__(self, name: str, network: Account | None = None) -> None:
        self.name, self.network = name, network
        self.sessions = self.held_bytes = 0
        self._spent_s = self._until = 0.0

    @property
    def account(self) -> Account:
        """It pays for itself, where no session is there yet to pay."""
        return self

    def charge(self, seconds: float, now: float) -> None:
        """To itself and to its network."""
        self._spent_s = self._lately(now) + seconds
        if now >= self._until:
            self._until = now + HALF_S
        if self.network is not None:
            self.network.charge(seconds, now)

    def rank(self, now: float) -> float:
        """Who is served first: the least. A client that presses its network comes behind the others there."""
        return self._lately(now) + (0.0 if self.network is None else self.network.rank(now))

    def _lately(self, now: float) -> float:
        if now < self._until:
            return self._spent_s
        return self._spent_s / 2 if now < self._until + HALF_S else 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """Octets that may be held in all (0: any number), and the percents of what is free that are one's own."""

    held_bytes: int = 0
    client_percent: int = 0
    network_percent: int = 0


NO_BUDGET = Budget()


class Accounts:
    """Those that have sessions. ``held_bytes`` is the sum."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._open: dict[str, Account] = {}
        self.held_bytes = 0

    def open(self, address: str) -> Account:
        """One session more."""
        who = client_of(address)
        network = self._open.setdefault(who.network, Account(who.network))
        account = self._open.setdefault(who.client, Account(who.client, network))
        account.sessions += 1
        network.sessions += 1
        return account

    def close(self, account: Account) -> None:
        """One less; it holds nothing any more."""
        for each in (account, account.network):
            if each is not None:
                each.sessions -= 1
                if not each.sessions:
                    del self._open[each.name]

    def hold(self, account: Account, more_bytes: int) -> None:
        """Or less."""
        self.held_bytes += more_bytes
        account.held_bytes += more_bytes
        if account.network is not None:
            account.network.held_bytes += more_bytes

    def over(self, account: Account) -> bool:
        """It holds more than it may, or everybody together do."""
        budget = self._budget
        if not budget.held_bytes:
            return False
        free = budget.held_bytes - self.held_bytes
        network = account.network
        return (
            free <= 0
            or over_share(account.held_bytes, budget.client_percent, free, LEAST_OF_CLIENT)
            or (network is not None and over_share(network.held_bytes, budget.network_percent, free, LEAST_OF_NETWORK))
        )
