"""The live proxy: accepts what the lane turns inwards, dials the server in the client's name, joins the two.

One kind of I/O: connections. Reads no mail itself (`session` does) and keeps none.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeAlias

from smtp_intercept.accepting import ACCEPT_BATCH, Accepting
from smtp_intercept.accounts import NO_BUDGET, Account, Accounts, Budget
from smtp_intercept.answers import BUSY, BUSY_FOR_YOU, UNAVAILABLE, Answer
from smtp_intercept.connecting import Connecting
from smtp_intercept.direction import Protection
from smtp_intercept.headcount import Alone, Headcount
from smtp_intercept.inspect.held import nowhere
from smtp_intercept.leg import FLUSH_S
from smtp_intercept.legs import Pair
from smtp_intercept.passage import Arrival, Passage
from smtp_intercept.policy import Notes
from smtp_intercept.readiness import Readiness
from smtp_intercept.rules import TRANSPARENT, Rules
from smtp_intercept.session import Session
from smtp_intercept.shares import ANY_NUMBER, Shares
from smtp_intercept.tally import count_keywords, count_session, tally
from smtp_intercept.timestamp import timestamp
from smtp_intercept.tls.handshakes import taking_part
from smtp_intercept.transaction import Message
from smtp_intercept.transparent import Address, Dialled, reset_on_close, saved_macs

if TYPE_CHECKING:
    from smtp_intercept.tls.part import Part

# A server that does not answer is given up before the client is: Postfix waits 30 s for a connection, others longer,
# and the client has one already and waits for a banner (5 min, RFC 5321 §4.5.3.2.1).
DIAL_TIMEOUT_S = 30.0
# Sessions beyond the limit: those whose SYN was admitted before word of `Gateway.full` had got round.
OVERSHOOT = 1_024

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_LOG = logging.getLogger("tollbridge")

__all__ = ["Arrival", "Gateway", "Taker"]

Dial: TypeAlias = Callable[[Address, Address, int | None], Dialled]


class Taker(Enum):
    """Who serves an accepted connection: a live session here, the MTA, which has the descriptor by then, or nobody for
    now."""

    SESSION = auto()
    MTA = auto()
    NOBODY = auto()


Choose: TypeAlias = Callable[[socket.socket, Address, Address, Arrival], Taker]
Macs: TypeAlias = Callable[[socket.socket], tuple[str, str | None] | None]


class Gateway:
    """All sessions of one interceptor. ``clock`` gives UTC seconds for the log; everything else runs on the loop's.
    ``headcount`` is of all interceptors that have the same limits, ``series`` begins the names of this one's sessions;
    whose listeners are shared has an ``accept_batch`` of 1, so that one of them does not take a burst alone. ``spill``
    opens a file for content that is held. ``part`` is for sessions whose rules have ``takes_part``."""

    def __init__(
        self,
        *,
        dial: Dial,
        protection: Protection,
        log: Callable[[dict[str, Any]], None],
        describe: Callable[[socket.socket], Arrival],
        choose: Choose = lambda sock, client, server, arrival: Taker.SESSION,
        macs: Macs = saved_macs,
        sessions: int = 10_000,
        shares: Shares = ANY_NUMBER,
        budget: Budget = NO_BUDGET,
        defer_overload: bool = False,
        session_idle_s: float = 1_800.0,
        rules: Callable[[Passage], Rules] = lambda passage: TRANSPARENT,
        dial_timeout_s: float = DIAL_TIMEOUT_S,
        clock: Callable[[], float] = time.time,
        headcount: Headcount | None = None,
        series: str = "",
        accept_batch: int = ACCEPT_BATCH,
        spill: Callable[[], int] = nowhere,
        part: Part | None = None,
    ) -> None:
        self._dial, self._protection, self._log = dial, protection, log
        self._describe, self._choose, self._macs, self._clock = describe, choose, macs, clock
        self._limit, self._idle_s = sessions, session_idle_s
        self._rules, self._shares, self._defers = rules, shares, defer_overload
        self._headcount = headcount or Alone()
        self._accounts, self._spill, self._part = Accounts(budget), spill, part
        self._ruled: dict[str, Counter[str]] = {"rules": Counter(), "would": Counter()}
        self._series, self._number = series or secrets.token_hex(4), 0
        self._counts: Counter[str] = tally()
        self._unknown: Counter[str] = Counter()
        self._accepting = Accepting(self._begin, lambda: self._headcount.total < self._limit + OVERSHOOT, accept_batch)
        self._readiness = Readiness()
        self._connecting = Connecting(self._readiness, dial_timeout_s)
        self._open: dict[Passage, Pair | None] = {}  # None: the server is being dialled
        self._stopped = False
        self._ended = asyncio.Event()  # set while there is no session

    @property
    def sessions(self) -> int:
        """Sessions open now, those that are still dialling included."""
        return len(self._open)

    @property
    def full(self) -> bool:
        """No new connection should be picked up; never, if those beyond the limit are told to come again."""
        return self._headcount.total >= self._limit and not self._defers

    @property
    def healthy(self) -> bool:
        """Connections are being accepted."""
        return self._accepting.healthy

    @property
    def unsent_bytes(self) -> int:
        """What waits in this process for slow readers, of all sessions."""
        return sum(pair.unsent_bytes for pair in self._open.values() if pair)

    @property
    def held_bytes(self) -> int:
        """What is kept of all peers' octets, about."""
        return self._accounts.held_bytes

    def counters(self) -> dict[str, int]:
        """Totals since the start; octets and doubts are counted when a session ends."""
        return {**self._counts, "accept_failures": self._accepting.failures}

    def unknown_keywords(self) -> dict[str, int]:
        """Extensions that servers offered and nobody here knows, by name: in how many sessions."""
        return dict(self._unknown)

    def ruled(self) -> dict[str, dict[str, int]]:
        """By rule: of how many messages, and sessions before any, it has decided something, or would have."""
        return {f"{what}_counts": dict(counts) for what, counts in self._ruled.items()}

    def accept(self, listeners: Iterable[socket.socket]) -> None:
        """Serve these listeners, non-blocking ones; they are the gateway's from now on."""
        self._readiness.start()
        self._accepting.start(listeners)

    def stop_accepting(self) -> None:
        """Take what has already been accepted by the kernel, close the listeners, keep the sessions."""
        self._accepting.stop()

    async def drain(self, timeout_s: float) -> None:
        """Wait for the sessions to end by themselves; after ``timeout_s`` reset those that are left."""
        if self._open:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._ended.wait()
            except TimeoutError:
                await self._reset_all()
        self._readiness.stop()

    async def _reset_all(self) -> None:
        self._stopped = True
        self._connecting.give_up()
        for pair in tuple(self._open.values()):
            if pair:
                pair.abort("stopped", "the gateway was stopped")
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * FLUSH_S):
                await self._ended.wait()

    # One connection.

    def _begin(self, sock: socket.socket, client: Address) -> None:
        try:
            sock.setblocking(False)
            server, arrival = sock.getsockname(), self._describe(sock)
        except OSError:  # gone before it was looked at
            sock.close()
            return
        taker = self._choose(sock, client, server, arrival)
        if taker is Taker.MTA:
            self._counts["handed_over"] += 1
            sock.close()
            return
        self._number += 1
        self._counts["sessions"] += 1
        loop = asyncio.get_running_loop()
        passage = Passage(f"{self._series}-{self._number}", loop.time(), client[:2], server[:2], arrival)
        passage.macs = self._macs(sock)
        self._headcount.enter(client[0])
        self._ended.clear()
        rules = self._rules(passage)
        if answer := UNAVAILABLE if taker is Taker.NOBODY else self._overloaded(passage, rules):
            self._turn_away(passage, sock, answer)
        else:
            self._open[passage] = None
            self._serve(passage, rules, sock, client, server)

    def _overloaded(self, passage: Passage, rules: Rules) -> Answer | None:
        """This one is counted already. A balancer has many clients."""
        if not rules.balancer and (who := self._shares.holds_too_many(passage.client[0], self._headcount, self._limit)):
            self._counts[f"{who}_shares_used_up"] += 1
            return BUSY_FOR_YOU
        return BUSY if self._defers and self._headcount.total > self._limit else None

    def _turn_away(self, passage: Passage, sock: socket.socket, answer: Answer) -> None:
        """Without troubling the server. Its place is free before it hears so: the next may come to another worker."""
        self._end(passage, Session(self._protection), "deferred", str(answer.reply))
        with suppress(OSError):
            sock.send(answer.line)
        sock.close()

    def _serve(self, passage: Passage, rules: Rules, sock: socket.socket, client: Address, server: Address) -> None:
        """Dial; what the client sends meanwhile waits in the kernel."""
        session = Session(self._protection.on(server[0], passage.arrival.direction), rules)
        account, began_at = self._accounts.open(passage.client[0]), time.perf_counter()
        try:
            dialled = self._dial(client, server, passage.arrival.away)
            passage.hidden, passage.source_port_kept = dialled.hidden, dialled.source_port_kept
            self._connecting.wait(
                dialled.sock,
                lambda failure: self._join(passage, session, account, sock, dialled.sock, failure),
                account,
            )
        except Exception as mistake:
            self._give_up(passage, session, account, sock, mistake)
        now = time.perf_counter()
        account.charge(now - began_at, now)

    def _join(
        self,
        passage: Passage,
        session: Session,
        account: Account,
        sock: socket.socket,
        server: socket.socket,
        failure: OSError | None,
    ) -> None:
        """The server has answered, or will not."""
        if failure is not None:
            self._give_up(passage, session, account, sock, failure)
            return
        self._counts["source_ports_lost"] += bool(passage.hidden and not passage.source_port_kept)
        try:
            pair = self._open[passage] = self._pair(passage, session, account)
            pair.join(sock, server, self._readiness)
        except Exception as mistake:
            for each in (server, sock):
                self._readiness.forget(each)
            server.close()
            self._give_up(passage, session, account, sock, mistake)

    def _give_up(
        self, passage: Passage, session: Session, account: Account, sock: socket.socket, mistake: Exception
    ) -> None:
        """A refused client is reset, as the server would have."""
        self._accounts.close(account)
        if self._stopped:
            self._refuse(passage, session, sock, "stopped", "the gateway was stopped")
        elif isinstance(mistake, OSError):
            self._counts["dial_failures"] += 1
            if mistake.errno in _EXHAUSTED:
                self._accepting.rest()
            self._refuse(passage, session, sock, "unreachable", _name(mistake))
        else:
            _LOG.error("session %s: %s while dialling", passage.name, type(mistake).__name__)
            self._refuse(passage, session, sock, "error", type(mistake).__name__)

    def _pair(self, passage: Passage, session: Session, account: Account) -> Pair:
        return Pair(
            passage.name,
            session,
            self._idle_s,
            lambda message: self._tell(passage, message),
            lambda client: self._announce(passage, client),
            lambda pair: self._over(passage, session, pair),
            self._accounts,
            account,
            self._spill,
            taking_part(self._part, passage) if self._part else None,
        )

    def _over(self, passage: Passage, session: Session, pair: Pair) -> None:
        self._accounts.close(pair.account)
        self._end(passage, session, pair.outcome, pair.reason)

    def _refuse(self, passage: Passage, session: Session, sock: socket.socket, outcome: str, reason: str) -> None:
        reset_on_close(sock)
        sock.close()
        self._end(passage, session, outcome, reason)

    def _announce(self, passage: Passage, client: tuple[str, int]) -> None:
        self._headcount.leave(passage.client[0])
        passage.announce(client)
        self._headcount.enter(client[0])
        if pair := self._open.get(passage):
            balancer = pair.account
            pair.pays(self._accounts.open(client[0]))
            self._accounts.close(balancer)

    def _tell(self, passage: Passage, message: Message) -> None:
        self._counts["messages"] += 1
        self._count_rules(message.notes)
        self._write(passage.message(message, self._now()))

    def _count_rules(self, notes: Notes) -> None:
        self._ruled["rules"].update(notes.by.keys())
        self._ruled["would"].update(notes.would.keys())

    def _end(self, passage: Passage, session: Session, outcome: str, reason: str) -> None:
        self._open.pop(passage, None)
        self._headcount.leave(passage.client[0])
        count_session(self._counts, session, outcome)
        count_keywords(self._unknown, session)
        self._count_rules(session.notes)
        seconds = asyncio.get_running_loop().time() - passage.began_at
        self._write(passage.session(session, seconds, outcome, reason, self._now()))
        if not self._open:
            self._ended.set()

    def _write(self, record: dict[str, Any]) -> None:
        try:
            self._log(record)
        except Exception as mistake:
            _LOG.error("session %s: the log failed: %s", record["session"], type(mistake).__name__)

    def _now(self) -> str:
        return timestamp(self._clock())


def _name(failure: OSError) -> str:
    """ECONNREFUSED rather than its prose, which the locale may change."""
    return errno.errorcode.get(failure.errno or errno.ETIMEDOUT, type(failure).__name__)
