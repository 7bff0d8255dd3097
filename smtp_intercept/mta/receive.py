"""The MTA's receiving side: every connection that it was given, counted, told to the mail log and brought to its end.

One kind of I/O: connections that are there already. What is said on them is the `receiver`'s.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from bridge.flow import vlan_of
from smtp_intercept.accounts import NO_BUDGET, Budget
from smtp_intercept.answers import BUSY, BUSY_FOR_YOU, NO_BALANCER, Answer
from smtp_intercept.events import Doubt
from smtp_intercept.headcount import Alone
from smtp_intercept.mta.announcement import announcement
from smtp_intercept.mta.billing import Bill, Billing
from smtp_intercept.mta.envelope import Origin
from smtp_intercept.mta.judged import Judged
from smtp_intercept.mta.receiver import Receiver
from smtp_intercept.mta.replies import STOPPING
from smtp_intercept.mta.services import Draft, Intake, Services, Spool
from smtp_intercept.mta.smtpd import FLUSH_S
from smtp_intercept.passage import Arrival, Passage
from smtp_intercept.policy import Notes
from smtp_intercept.shares import ANY_NUMBER, Shares
from smtp_intercept.timestamp import timestamp
from smtp_intercept.transaction import Message, Outcome
from smtp_intercept.transparent import saved_macs

__all__ = ["Draft", "Intake", "Receiving", "Services", "Spool"]

# Writing to the page cache: a disk that is slow makes these wait, and nothing else.
DISK_THREADS = 4
COUNTERS = ("sessions", "messages", "accepted", "tls_started", "deferred", "refused", "foreign", "timeouts", "errors")
_COUNTED = {
    each: each + "s" * (each in ("timeout", "error")) for each in ("deferred", "refused", "foreign", "timeout", "error")
}

_LOG = logging.getLogger("tollbridge")


class Receiving:
    """All sessions of the MTA. ``sessions``: so many at once, ``shares`` of them each client's; whoever comes then is
    told to come again. ``budget``: what they may keep of clients' octets."""

    def __init__(
        self,
        services: Services,
        *,
        sessions: int = 10_000,
        shares: Shares = ANY_NUMBER,
        budget: Budget = NO_BUDGET,
    ) -> None:
        self._billing = Billing(budget)
        self._services, self._limit, self._shares = services, sessions, shares
        self._headcount = Alone()
        self._series, self._number = secrets.token_hex(4), 0
        self._open: dict[Passage, Receiver | None] = {}  # None: not connected yet
        self._counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._ruled: dict[str, Counter[str]] = {"rules": Counter(), "would": Counter()}
        self._stopping = False
        self._ended = asyncio.Event()  # set while there is no session
        self._disk = ThreadPoolExecutor(DISK_THREADS, "draft")
        self._begun: set[asyncio.Task[None]] = set()

    @property
    def sessions(self) -> int:
        """Open now."""
        return len(self._open)

    @property
    def held_bytes(self) -> int:
        """What is kept of all clients' octets, about."""
        return self._billing.held_bytes

    def counters(self) -> dict[str, int]:
        """Totals since the start."""
        return dict(self._counts)

    def serve(self, sock: socket.socket, origin: Origin) -> None:
        """Take over a connected socket, in the running loop; one too many is told to come again."""
        self._number += 1
        self._counts["sessions"] += 1
        now = asyncio.get_running_loop().time()
        arrival = Arrival(origin.port, origin.direction, vlan=0 if origin.away is None else vlan_of(origin.away))
        passage = Passage(f"{self._series}-{self._number}", now, origin.client, origin.server, arrival, handler="mta")
        passage.macs = saved_macs(sock)
        self._headcount.enter(origin.client[0])
        turned_away = self._turned_away(origin.client[0])
        self._open[passage] = None
        self._ended.clear()
        if turned_away is None:
            begin = self._announced if self._services.balancer(origin.client[0]) else self._begin
            task = asyncio.get_running_loop().create_task(begin(passage, sock, origin))
            self._begun.add(task)
            task.add_done_callback(self._begun.discard)
            return
        self._leave(passage, sock, turned_away, "deferred")

    def _leave(self, passage: Passage, sock: socket.socket, answer: Answer, outcome: str) -> None:
        with suppress(OSError):
            sock.setblocking(False)
            sock.send(answer.line)
        sock.close()
        self._end(passage, _UNHEARD, outcome, str(answer.reply))

    async def _announced(self, passage: Passage, sock: socket.socket, origin: Origin) -> None:
        """A balancer's connection: for the client that it names, if it does."""
        try:
            header = await announcement(sock)
        except OSError as failure:
            sock.close()
            self._end(passage, _UNHEARD, "reset", type(failure).__name__)
            return
        if isinstance(header, Doubt):
            self._leave(passage, sock, NO_BALANCER, NO_BALANCER.outcome)
            return
        if header is not None and header.client is not None:
            self._headcount.leave(origin.client[0])
            passage.announce(header.client)
            self._headcount.enter(header.client[0])
            origin = replace(origin, client=header.client)
        await self._begin(passage, sock, origin)

    def _turned_away(self, client: str) -> Answer | None:
        if self._stopping:
            return STOPPING
        if self.sessions >= self._limit:
            return BUSY
        if self._services.balancer(client):
            return None
        return BUSY_FOR_YOU if self._shares.holds_too_many(client, self._headcount, self._limit) else None

    async def _begin(self, passage: Passage, sock: socket.socket, origin: Origin) -> None:
        bill, services = self._billing.of(passage.client[0]), self._services
        kind: Callable[..., Receiver] = Receiver
        if services.judge is not None:
            kind = partial(Judged, spill=services.spill, **_judging(services, passage))
        receiver: Receiver = kind(
            passage.name,
            origin,
            services,
            bill=bill,
            disk=self._disk,
            tell=lambda message, queued: self._tell(passage, message, queued),
            ended=lambda: self._over(passage, receiver, bill),
        )
        self._open[passage] = receiver
        if self._stopping:
            receiver.stop(STOPPING)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: receiver, sock)
        except OSError as failure:
            sock.close()
            bill.close()
            self._end(passage, _UNHEARD, "reset", type(failure).__name__)

    async def drain(self, timeout_s: float) -> None:
        """Idle clients are told to come again, the others behind their message; reset who is left after that time."""
        self._stopping = True
        for receiver in filter(None, tuple(self._open.values())):
            receiver.stop(STOPPING)
        if self._open:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._ended.wait()
        for receiver in filter(None, tuple(self._open.values())):
            receiver.abort()
        if self._open:
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * FLUSH_S):
                    await self._ended.wait()
        self._disk.shutdown(wait=False)

    def _tell(self, passage: Passage, message: Message, queued: str) -> None:
        self._counts["messages"] += 1
        self._counts["accepted"] += message.outcome is Outcome.ACCEPTED
        self._count_rules(message.notes)
        record = passage.message(message, self._now())
        self._write({**record, "queue_id": queued} if queued else record)

    def _count_rules(self, notes: Notes) -> None:
        self._ruled["rules"].update(notes.by.keys())
        self._ruled["would"].update(notes.would.keys())

    def ruled(self) -> dict[str, dict[str, int]]:
        """As `Gateway.ruled`."""
        return {f"{what}_counts": dict(counts) for what, counts in self._ruled.items()}

    def _over(self, passage: Passage, receiver: Receiver, bill: Bill) -> None:
        receiver.forget()
        bill.close()
        if isinstance(receiver, Judged):
            receiver.over()
            self._count_rules(receiver.notes)
        self._end(passage, receiver, receiver.outcome, receiver.reason)

    def _end(self, passage: Passage, spoken: Any, outcome: str, reason: str) -> None:
        self._open.pop(passage, None)
        self._headcount.leave(passage.client[0])
        fields = spoken.fields()
        self._counts["tls_started"] += fields["tls"] == "started"
        if counter := _COUNTED.get(outcome):
            self._counts[counter] += 1
        seconds = asyncio.get_running_loop().time() - passage.began_at
        self._write(passage.session(spoken, seconds, outcome, reason, self._now()))
        if not self._open:
            self._ended.set()

    def _write(self, record: dict[str, Any]) -> None:
        try:
            self._services.log(record)
        except Exception as mistake:
            _LOG.error("session %s: the log failed: %s", record["session"], type(mistake).__name__)

    def _now(self) -> str:
        return timestamp(self._services.clock())


def _judging(services: Services, passage: Passage) -> dict[str, Any]:
    """Who decides about a connection."""
    assert services.judge is not None
    decider = services.judge(passage)
    if services.course is None:
        return {"ask": decider.ask, "later": decider.later}
    course = services.course(passage, decider)
    return {"ask": course.ask, "later": course.later, "alone": course.rules_alone, "over": course.over}


class _Unheard:
    """A client that was never listened to."""

    def fields(self) -> dict[str, object]:
        counts = dict.fromkeys(("messages", "bytes_from_client", "bytes_from_server"), 0)
        return {"helo": "", "tls": "none", **counts, "doubt": None}


_UNHEARD = _Unheard()
