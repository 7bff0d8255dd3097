"""The two legs of one proxied session, client's and server's, and what passes between them.

One kind of I/O: reads and writes both connections as the session says. A leg that is not read makes the other wait;
a reset is mirrored as a reset, an end of stream as a half-close.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from smtp_intercept import events
from smtp_intercept.accounts import Account, Accounts
from smtp_intercept.answers import HOLDS_TOO_MUCH
from smtp_intercept.burden import Burden
from smtp_intercept.encryption import Encryption
from smtp_intercept.events import Out, ToClient, ToServer
from smtp_intercept.inspect.held import nowhere
from smtp_intercept.leg import Leg
from smtp_intercept.limits import Phase
from smtp_intercept.outbox import Outbox
from smtp_intercept.policy import Question, Ruling, Stage
from smtp_intercept.readiness import Readiness
from smtp_intercept.session import Session
from smtp_intercept.tls.handshakes import TakePart
from smtp_intercept.transaction import Message

# A client that has had our last word is read for so long, and what it says thrown away: closing on what it has sent
# would reset the connection, and the word might be lost with it (RFC 1122 §4.2.2.13).
LINGER_S = 30.0
# How often a session is asked whether its time has run out; it is late by no more than this.
CHECK_EVERY_S = 30.0

_LOG = logging.getLogger("tollbridge")


class Pair:
    """Both legs and the session between them. ``outcome`` and ``reason`` tell how it ended."""

    __slots__ = (
        "_active_at",
        "_announce",
        "_burden",
        "_dropped",
        "_encryption",
        "_hearing",
        "_idle_s",
        "_left",
        "_loop",
        "_outbox",
        "_over",
        "_paused_until",
        "_spill",
        "_tell",
        "_timer",
        "client",
        "name",
        "outcome",
        "reason",
        "server",
        "session",
    )

    def __init__(
        self,
        name: str,
        session: Session,
        idle_s: float,
        tell: Callable[[Message], None],
        announce: Callable[[tuple[str, int]], None],
        over: Callable[[Pair], None],
        accounts: Accounts,
        account: Account,
        spill: Callable[[], int] = nowhere,
        take_part: TakePart | None = None,
    ) -> None:
        self.name, self.session = name, session
        self._encryption = Encryption(session, self.received, take_part)
        self._idle_s, self._tell, self._announce, self._over = idle_s, tell, announce, over
        self._burden = Burden(accounts, account, self._holding_bytes, self.regulate, self._turn_away)
        self._spill = spill  # where held content goes
        self._loop = asyncio.get_running_loop()
        self._active_at = self._loop.time()
        self._dropped = self._left = False  # the server's leg is gone by our will; the client has had our last word
        self._hearing = False  # the client is gone, and the server has a message of its that it has not answered
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.client: Leg | None = None
        self.server: Leg | None = None
        self._outbox: Outbox | None = None  # of the server; only where content is held
        self.outcome = self.reason = ""

    @property
    def unsent_bytes(self) -> int:
        """What waits in this process for either side to read."""
        return sum(leg.unsent_bytes for leg in (self.client, self.server) if leg is not None)

    @property
    def _encrypted_bytes(self) -> int:
        """What has come and cannot be read yet."""
        layers = [leg.layer for leg in (self.client, self.server) if leg is not None and leg.layer is not None]
        return self._encryption.held_bytes + sum(layer.pending_bytes for layer in layers)

    def join(self, client: socket.socket, server: socket.socket, readiness: Readiness) -> None:
        """Take over two connected sockets. OSError: they cannot be watched."""
        self.server = Leg("server", self, server, self.session.server_sent, readiness)
        self.client = Leg("client", self, client, self.session.client_sent, readiness)
        self.received(lambda _, now: self.session.opened(now), b"")
        self._check_time()

    def received(self, sent: Callable[[bytes, float], list[Out]], data: bytes) -> None:
        """Octets from one side. A mistake of ours ends this session and no other."""
        self._active_at = now = self._loop.time()
        try:
            self._perform(sent(data, now))
        except Exception as mistake:
            self._fail(mistake)
        if self._hearing and not self.session.owes_word:
            self._hearing = False
            self._each(Leg.reset)
        self._burden.weigh()

    def taken(self, taker: Callable[[bytes], None], octets: bytes) -> None:
        """Octets from one side that are not the session's, or not yet."""
        self._active_at = self._loop.time()
        try:
            taker(octets)
        except Exception as mistake:
            self._fail(mistake)
        self._burden.weigh()

    @property
    def account(self) -> Account:
        """Who pays for it."""
        return self._burden.account

    def pays(self, account: Account) -> None:
        """Another from now on: the client that a balancer has named."""
        self._burden.pays(account)

    def in_bulk(self, leg: Leg) -> bool:
        """What this leg brings is read octet by octet, at little cost."""
        return self.session.client_in_bulk if leg is self.client else self.session.server_in_bulk

    def _holding_bytes(self) -> int:
        """What this process holds for the session in memory."""
        held_bytes = self.session.held_bytes + self.unsent_bytes + self._encrypted_bytes
        return held_bytes + (self._outbox.memory_bytes if self._outbox else 0)

    def _turn_away(self) -> None:
        """Its last word would not reach one that does not read, nor one whose octets are encrypted."""
        if self.client is not None and not self.client.unsent_bytes and not self.session.server_in_bulk:
            self.received(lambda _, now: self.session.turn_away(HOLDS_TOO_MUCH, now), b"")
        else:
            self._leave_deaf(HOLDS_TOO_MUCH.outcome, str(HOLDS_TOO_MUCH.reply))

    def ended(self, leg: Leg) -> None:
        """The end of one side's stream."""
        other = self.server if leg is self.client else self.client
        if other is not None:  # an end that is told and one that is cut off are not the same
            other.parting = leg.layer is None or leg.layer.ended
        self._encryption.gone(client=leg is self.client)
        closed = self.session.client_closed if leg is self.client else self.session.server_closed
        self.received(lambda _, now: closed(now), b"")
        if self._dropped and leg is self.server:
            return
        self._decide("closed", f"by the {leg.name}")
        if self._dropped or self._hearing or self._both(lambda each: each.ended):
            self._each(Leg.close)

    def lost(self, leg: Leg, failure: Exception | None) -> None:
        """One connection is gone."""
        self._encryption.gone(client=leg is self.client)
        if self._dropped and leg is self.server:
            self._finish_if_over()
            return
        if failure is not None:
            self._decide("reset", f"by the {leg.name}" if isinstance(failure, ConnectionError) else _errno(failure))
        other = self.server if leg is self.client else self.client
        if other is not None and not other.lost and not self._hearing:
            if leg is self.client and failure is not None and self._owes_word:
                self._hear_out(leg, other)
            elif failure is None:
                other.close()
            else:
                other.reset()
        self._finish_if_over()

    @property
    def _owes_word(self) -> bool:
        """The server may have accepted a message: it has all of it."""
        return self.session.owes_word and not (self._outbox and self._outbox.busy)

    def _hear_out(self, client: Leg, server: Leg) -> None:
        """Reset now, the server might have accepted a message, and nobody would know."""
        self._hearing, client.full = True, False
        server.end()
        self.regulate()

    def _leave_deaf(self, outcome: str, reason: str) -> None:
        """A client that does not read: no word on its message has been looked for as long as it was full."""
        if self.client is None or self.server is None or self.server.lost or not self._owes_word:
            self.abort(outcome, reason)
            return
        self._decide(outcome, reason)
        self._hear_out(self.client, self.server)
        self.client.reset()

    def abort(self, outcome: str, reason: str) -> None:
        """Reset both sides."""
        self._decide(outcome, reason)
        self._each(Leg.reset)

    def regulate(self) -> None:
        """Read each leg only while the other takes what comes."""
        if self.client is not None and self.server is not None:
            self.client.read(self._client_wanted)
            self.server.read(not self.client.full and not (self._burden.crowded and self.client.unsent_bytes))

    @property
    def _client_wanted(self) -> bool:
        assert self.server is not None
        return (
            (self._left or not (self._paused_until or self._burden.crowded))
            and (self._dropped or not (self.server.full or (self._outbox and self._outbox.busy)))
            and self.session.wants_client
        )

    def _perform(self, outs: list[Out]) -> None:
        client, server = self.client, self.server
        assert client is not None
        assert server is not None
        for out in outs:
            # Nearly all are one of these two; matching the class and its fields costs four times as much.
            if type(out) is ToServer and self._outbox is None:
                server.write(out.data)
            elif type(out) is ToClient:
                client.write(out.data)
            else:
                self._obey(out)
        if self._paused_until or self._burden.crowded or not (client.reading and self.session.wants_client):
            self.regulate()  # a leg that fills up says so itself

    def _obey(self, out: Out) -> None:
        assert self.client is not None
        assert self.server is not None
        match out:
            case ToServer(data):
                self._to_server.write(data)
            case ToClient(data):
                self.client.write(data)
            case events.MessageDone(message):
                self._tell(message)
            case events.EndServer():
                self._to_server.end()
            case events.EndClient():
                self.client.end()
            case events.Abort(reason):
                self.abort("aborted", reason)
            case events.DropServer():
                self._drop_server()
            case events.Leave(outcome, reason):
                self._leave(outcome, reason)
            case events.Pause(until_at):
                self._pause(until_at)
            case events.Announced(client):
                self._announce(client)
            case events.Hold(data):
                self._hold(data)
            case events.Release(edit, chunked, body):
                self._to_server.release(edit, chunked=chunked, body=body)
            case events.Forget():
                self._to_server.forget()
            case events.Encrypt(hello):
                self._encryption.begin(self.client, self.server, hello, self._loop.time())
            case events.Asking(question):
                if question.stage is Stage.MESSAGE:
                    question.content = self._to_server.content(dotted=not self.session.chunked)
                    question.lend = self._to_server.lend
                self.session.ask_later(question, partial(self.told, question))
            case _:
                assert_never(out)

    @property
    def _to_server(self) -> Outbox:
        assert self.server is not None
        self._outbox = self._outbox or Outbox(self.server, self._spill)
        return self._outbox

    def _hold(self, data: bytes) -> None:
        try:
            self._to_server.hold(data)
        except OSError as failure:
            _LOG.warning("session %s: content cannot be kept: %s", self.name, _errno(failure))
            self.session.lacks_room()

    def told(self, question: Question, ruling: Ruling) -> None:
        """The answer to what the session has asked; one that comes too late is none to its next question."""
        if self.client is not None and not self.client.lost and self.session.waits_for(question):
            self.received(lambda _, now: self.session.told(ruling, now), b"")
            self.regulate()

    def _drop_server(self) -> None:
        assert self.server is not None
        self._dropped = True
        self.server.reset()

    def _leave(self, outcome: str, reason: str) -> None:
        assert self.client is not None
        self._decide(outcome, reason)
        self._left = True
        self._drop_server()
        self.client.end()
        self._loop.call_later(LINGER_S, self.client.close)
        if self.client.ended:
            self.client.close()

    def _pause(self, until_at: float) -> None:
        self._paused_until = max(self._paused_until, until_at)
        self._loop.call_at(until_at, self._resume, until_at)

    def _resume(self, until_at: float) -> None:
        if until_at >= self._paused_until:
            self._paused_until = 0.0
            self.regulate()

    def _check_time(self) -> None:
        """Nobody has said anything for too long, or not what the other waits for."""
        now = self._loop.time()
        left_s = self._active_at + self._idle_s - now
        self._burden.weigh()
        if left_s > 0:
            self._pass_time(now)
            self._timer = self._loop.call_later(
                min(left_s, CHECK_EVERY_S, self.session.shortest_wait_s), self._check_time
            )
        else:
            self.abort("idle", f"nothing was sent for {self._idle_s:g} s")

    def _pass_time(self, now: float) -> None:
        try:
            self._perform(self.session.check_time(now))
        except Exception as mistake:
            self._fail(mistake)
        if self._encryption.late(now):
            self.abort("timeout", "no handshake in its time")
        for leg in (self.client, self.server):
            if leg is not None and leg.unsent_bytes and now - leg.behind_at >= self._patience_s:
                leave = self._leave_deaf if leg is self.client else self.abort
                leave("timeout", f"the {leg.name} does not read")

    @property
    def _patience_s(self) -> float:
        return self.session.limits.patience_s[Phase.BLOCK]

    def _decide(self, outcome: str, reason: str) -> None:
        if not self.outcome:
            self.outcome, self.reason = outcome, reason

    def _fail(self, mistake: Exception) -> None:
        """Tell where, never what was being read."""
        frames = traceback.extract_tb(mistake.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
        _LOG.error("session %s: %s at %s", self.name, type(mistake).__name__, where)
        self.abort("error", f"{type(mistake).__name__} at {where}")

    def _finish_if_over(self) -> None:
        if self._both(lambda each: each.lost):
            self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._perform(self.session.finish(self._loop.time()))
        except Exception as mistake:
            self._fail(mistake)
        self._encryption.end()
        if self.session.quitted and self.outcome in {"closed", "reset"}:
            self.outcome, self.reason = "completed", ""
        self._burden.end()
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None
        self._over(self)
        self.client = self.server = None  # they know us: nothing is left for the collector of cycles

    def _both(self, holds: Callable[[Leg], bool]) -> bool:
        return all(leg is not None and holds(leg) for leg in (self.client, self.server))

    def _each(self, act: Callable[[Leg], Any]) -> None:
        for leg in (self.client, self.server):
            if leg is not None:
                act(leg)


def _errno(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or type(failure).__name__
