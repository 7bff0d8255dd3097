"""What one session holds of peers' octets, on its client's account; with too much it is not read for a while.

One kind of I/O: the loop's clock. What is read, and how a session is turned away, is the pair's to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from smtp_intercept.accounts import CROWDED_EVERY_S, CROWDED_S, LEAST_OF_SESSION, Account, Accounts


class Burden:
    """``measure`` tells what is held; ``regulate`` is called when ``crowded`` changes, ``turn_away`` when nobody has
    made room in time."""

    __slots__ = ("_accounts", "_held_bytes", "_loop", "_measure", "_regulate", "_turn_away", "_until", "account")

    def __init__(
        self,
        accounts: Accounts,
        account: Account,
        measure: Callable[[], int],
        regulate: Callable[[], None],
        turn_away: Callable[[], None],
    ) -> None:
        self._accounts, self.account, self._held_bytes = accounts, account, 0
        self._measure, self._regulate, self._turn_away = measure, regulate, turn_away
        self._until = 0.0  # > 0: not read, for what it holds, and left then
        self._loop = asyncio.get_running_loop()

    @property
    def crowded(self) -> bool:
        """It is not to be read."""
        return self._until > 0

    def pays(self, account: Account) -> None:
        """Another's from now on: the client that a balancer has named."""
        self._accounts.hold(self.account, -self._held_bytes)
        self.account = account
        self._accounts.hold(account, self._held_bytes)

    def weigh(self) -> None:
        """After anything that may have changed it."""
        held_bytes = self._measure()
        if held_bytes != self._held_bytes:
            self._accounts.hold(self.account, held_bytes - self._held_bytes)
            self._held_bytes = held_bytes
        if held_bytes > LEAST_OF_SESSION and not self._until and self._accounts.over(self.account):
            self._until = self._loop.time() + CROWDED_S
            self._loop.call_later(CROWDED_EVERY_S, self._make_room)
            self._regulate()

    def end(self) -> None:
        """The session is over."""
        self._accounts.hold(self.account, -self._held_bytes)
        self._held_bytes, self._measure, self._turn_away = 0, lambda: 0, lambda: None
        self._regulate = lambda: None

    def _make_room(self) -> None:
        now, until = self._loop.time(), self._until
        self._until = 0.0
        self.weigh()
        if self._until:
            self._until = until
            if now >= until:
                self._until = 0.0
                self._turn_away()
        self._regulate()
