"""Whether a protected server would take a recipient, asked before the box takes the message: what it would refuse is
refused to the client, and no notice goes to a sender that may be forged.

Asks by the courier; `Verdicts` is pure. A server that cannot say is asked again later, and never makes mail stop.
"""

from __future__ import annotations

import asyncio
import io
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from smtp_intercept.answers import Answer
from smtp_intercept.mta.envelope import Envelope, Origin, Outcome, Recipient, State
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.parcel import Parcel
from smtp_intercept.mta.printable import one_ascii_line
from smtp_intercept.mta.runner import Carrier

PATIENCE_S = 10.0  # a client waits for its RCPT as long; RFC 5321 §4.5.3.2.3 gives it five minutes
TAKEN_S = 86_400.0  # Exim's: a mailbox that is removed bounces for a day
REFUSED_S = 600.0  # one that is made is reached within ten minutes
SILENT_S = 60.0  # a server that could not say is left alone so long
TAKEN, REFUSED, SILENT = 50_000, 50_000, 10_000  # remembered, some 300 octets each; the least lately used goes first
EACH = 2  # asked at a time of one next hop: the others of its connections are for mail
TEXT_CHARACTERS = 400  # of the server's reply in ours: a reply line has 512 (RFC 5321 §4.5.3.1.5)

# The rows of the next-hop table by which a protected server is reached.
ROWS = frozenset({"R1", "R6"})
# RFC 7504: the host takes no mail at all, which says nothing of a recipient.
_NO_MAIL_HERE = frozenset({521, 556})
NOT_NOW = Answer(451, "4.4.3 Recipient cannot be verified now")

Key = tuple[NextHop, str]


class Verdict(Enum):
    TAKEN = "taken"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Said:
    """``reply`` is the server's refusal, for the client."""

    verdict: Verdict
    reply: Answer | None = None


def said(outcome: Outcome) -> Said:
    """What a server's answer to RCPT means. Only its own word about the recipient counts: what the network, the DNS or
    our own rules say does not."""
    if outcome.state is State.DELIVERED:
        return Said(Verdict.TAKEN)
    if outcome.state is State.FAILED and 500 <= outcome.code <= 599 and outcome.code not in _NO_MAIL_HERE:
        text = one_ascii_line(outcome.reply, TEXT_CHARACTERS)
        for head in (str(outcome.code), outcome.status):
            text = text.removeprefix(head).lstrip(" -")
        return Said(Verdict.REFUSED, Answer(outcome.code, f"{outcome.status} {text or 'No such mailbox'}"))
    return Said(Verdict.UNKNOWN)


class Verdicts:
    """What is remembered, each kind for itself: who asks for names that do not exist must not drive out those that do.
    Pure; time is an argument."""

    def __init__(self) -> None:
        self._kept: dict[Verdict, OrderedDict[Key | NextHop, tuple[Said, float]]] = {
            verdict: OrderedDict() for verdict in Verdict
        }

    def find(self, key: Key, now: float) -> Said | None:
        """None if it has to be asked."""
        places: tuple[tuple[Verdict, Key | NextHop], ...] = (
            (Verdict.TAKEN, key),
            (Verdict.REFUSED, key),
            (Verdict.UNKNOWN, key[0]),
        )
        for verdict, place in places:
            kept = self._kept[verdict]
            if (found := kept.get(place)) is None:
                continue
            if now < found[1]:
                kept.move_to_end(place)
                return found[0]
            del kept[place]
        return None

    def keep(self, key: Key, said: Said, now: float) -> None:
        seconds, most = _KEPT[said.verdict]
        kept = self._kept[said.verdict]
        place = key[0] if said.verdict is Verdict.UNKNOWN else key
        kept[place] = said, now + seconds
        kept.move_to_end(place)
        if len(kept) > most:
            kept.popitem(last=False)


_KEPT = {
    Verdict.TAKEN: (TAKEN_S, TAKEN),
    Verdict.REFUSED: (REFUSED_S, REFUSED),
    Verdict.UNKNOWN: (SILENT_S, SILENT),
}


class Verify(Protocol):
    """What the receiving side asks."""

    async def __call__(self, origin: Origin, mailbox: str) -> Answer | None:
        """The refusal of a recipient that may be admitted, None if it is taken."""


@dataclass(slots=True, eq=False)
class CallAhead:
    """``route`` gives a recipient's next hop, ValueError if it has none. ``if_unknown`` is said where the server cannot
    be asked; None: the recipient is taken. ``clock`` is one that is never set."""

    courier: Carrier
    route: Callable[[Origin, str], NextHop]
    clock: Callable[[], float]
    if_unknown: Answer | None = None
    counts: Counter[str] = field(default_factory=lambda: Counter({verdict.value: 0 for verdict in Verdict}))
    _verdicts: Verdicts = field(default_factory=Verdicts)
    _asking: dict[Key, asyncio.Task[Said]] = field(default_factory=dict)
    _slots: dict[NextHop, asyncio.Semaphore] = field(default_factory=dict)
    _wanted: Counter[NextHop] = field(default_factory=Counter)

    async def __call__(self, origin: Origin, mailbox: str) -> Answer | None:
        """As `Verify`; takes `PATIENCE_S` at most."""
        try:
            hop = self.route(origin, mailbox)
        except ValueError:
            return None
        if hop.row not in ROWS:
            return None
        found = self._verdicts.find((hop, mailbox), self.clock()) or await self._answer(hop, origin, mailbox)
        self.counts[found.verdict.value] += 1
        return self.if_unknown if found.verdict is Verdict.UNKNOWN else found.reply

    async def _answer(self, hop: NextHop, origin: Origin, mailbox: str) -> Said:
        """Those who ask the same at the same time share one question; one of them who leaves does not end it."""
        key = hop, mailbox
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.get_running_loop().create_task(self._asked(key, origin))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _asked(self, key: Key, origin: Origin) -> Said:
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = said(await self._outcome(*key, origin))
        except TimeoutError:
            found = Said(Verdict.UNKNOWN)
        self._verdicts.keep(key, found, self.clock())
        return found

    async def _outcome(self, hop: NextHop, mailbox: str, origin: Origin) -> Outcome:
        # The null reverse-path: the server must take it (RFC 5321 §4.5.5), and no notice can come of it.
        envelope = Envelope("", (Recipient(mailbox),), smtputf8=not mailbox.isascii())
        parcel = Parcel("", hop, envelope, (0,), io.BytesIO, 0, origin, asking=True)
        slot = self._slots.setdefault(hop, asyncio.Semaphore(EACH))
        self._wanted[hop] += 1
        try:
            async with slot:
                (outcome,) = await self.courier.carry(parcel)
                return outcome
        finally:
            self._wanted[hop] -= 1
            if not self._wanted[hop]:
                del self._wanted[hop], self._slots[hop]
