"""What a session of the MTA costs, charged to its client: time, which is given first to who has taken least lately, and
octets that are kept, of which each client has a share.

Tells nobody no by itself: whose turn it is not waits, and who holds too much is the session's to turn away.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from time import perf_counter
from typing import Any, TypeVar

from smtp_intercept.accounts import LEAST_OF_SESSION, NO_BUDGET, Account, Accounts, Budget

# One turn of the loop: then timers, deliveries and the sign of life to the interceptor have theirs.
TURN_S = 0.002
# Let go on together, those first whose clients have cost least; who then finds the turn used up waits again.
BATCH = 32

Done = TypeVar("Done")


class Turns:
    """The loop's time, shared out among sessions."""

    def __init__(self) -> None:
        self._spent_s = 0.0
        self._turning = False
        self._waiting: list[tuple[Account, asyncio.Future[None]]] = []

    @property
    def over(self) -> bool:
        """This turn is used up: who has a choice goes on in the next."""
        return self._spent_s > TURN_S

    @types.coroutine
    def metered(self, work: Coroutine[Any, Any, Done], account: Callable[[], Account]) -> Generator[Any, Any, Done]:
        """``work``, step by step: each is charged to the account, and taken when it is its turn."""
        go_on: Callable[[Any], Any] = work.send
        value: Any = None
        while True:
            try:
                queued = bool(self._waiting)
                while queued or self.over:
                    yield from self._next_of(account()).__await__()
                    queued = False
            except BaseException as thrown:
                go_on, value = work.throw, thrown
            began_at = perf_counter()
            try:
                waits_for = go_on(value)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                self._spend(account(), perf_counter() - began_at)
            try:
                go_on, value = work.send, (yield waits_for)
            except GeneratorExit:
                work.close()
                raise
            except BaseException as thrown:
                go_on, value = work.throw, thrown

    def _spend(self, account: Account, seconds: float) -> None:
        account.charge(seconds, perf_counter())
        self._spent_s += seconds
        self._begin()

    def _begin(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _next_of(self, account: Account) -> asyncio.Future[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((account, turn))
        self._begin()
        return turn

    def _turn(self) -> None:
        self._turning, self._spent_s = False, 0.0
        if not self._waiting:
            return
        now = perf_counter()
        waiting = [each for each in self._waiting if not each[1].done()]  # cancelled: its session was ended
        waiting.sort(key=lambda each: each[0].rank(now))
        self._waiting = waiting[BATCH:]
        for _, turn in waiting[:BATCH]:
            turn.set_result(None)
        if self._waiting:
            self._begin()


class Bill:
    """One session's. `hold` as often as what it keeps changes, `close` once."""

    __slots__ = ("_accounts", "_held_bytes", "account", "turns")

    def __init__(self, accounts: Accounts, turns: Turns, address: str) -> None:
        self._accounts, self.turns, self._held_bytes = accounts, turns, 0
        self.account = accounts.open(address)

    def hold(self, held_bytes: int) -> bool:
        """Of peers' octets, in all; whether that is more than it may while others want room."""
        if held_bytes != self._held_bytes:
            self._accounts.hold(self.account, held_bytes - self._held_bytes)
            self._held_bytes = held_bytes
        return held_bytes > LEAST_OF_SESSION and self._accounts.over(self.account)

    def close(self) -> None:
        self.hold(0)
        self._accounts.close(self.account)


class Billing:
    """All bills, and the turns of all."""

    def __init__(self, budget: Budget = NO_BUDGET) -> None:
        self._accounts, self._turns = Accounts(budget), Turns()

    @property
    def held_bytes(self) -> int:
        """Of all sessions."""
        return self._accounts.held_bytes

    def of(self, address: str) -> Bill:
        """A new session's."""
        return Bill(self._accounts, self._turns, address)
