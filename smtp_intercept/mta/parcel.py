"""What a courier carries, and how far it has come with it. Opens no connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import BinaryIO

from smtp_intercept.mta.envelope import Body, Envelope, Origin, Outcome, State
from smtp_intercept.mta.failure import Failure, for_now
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.request import Mail

# Recipients of one transaction: what every server must take (RFC 5321 §4.5.3.1.8).
RECIPIENTS = 100
_READ_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message's way to one next hop: ``envelope`` holds the recipients of this way only, ``numbers`` their places
    in the whole envelope. ``content`` opens the stored content, once for each attempt; ``size_bytes`` is its size.
    ``asking`` as of `Mail`: the content is never opened."""

    id: str
    next_hop: NextHop
    envelope: Envelope
    numbers: tuple[int, ...]
    content: Callable[[], BinaryIO]
    size_bytes: int
    origin: Origin
    asking: bool = False


class Errand:
    """One attempt with one parcel. ``waiting``: the recipients without an outcome, by number."""

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel
        self.waiting = dict(zip(parcel.numbers, parcel.envelope.recipients, strict=True))
        self._outcomes: dict[int, Outcome] = {}
        self._failure = for_now("4.4.0", "nothing was tried")
        self._tried = False
        self._eight_bit: bool | None = None if parcel.envelope.body is Body.EIGHT_BIT else False

    def fail(self, failure: Failure) -> None:
        """One host was no use. While any may be another time, the mail waits (RFC 5321 §5.1)."""
        if not self._tried or failure.state is State.QUEUED or self._failure.state is State.FAILED:
            self._failure, self._tried = failure, True

    def settle(self, outcomes: Iterable[Outcome]) -> None:
        """These recipients have their answers."""
        for outcome in outcomes:
            self._outcomes[outcome.number] = outcome
            del self.waiting[outcome.number]

    def outcomes(self) -> list[Outcome]:
        """Of all recipients, in the parcel's order."""
        return [self._outcomes.get(number) or self._failure.of(number) for number in self.parcel.numbers]

    async def mail(self, eight_bit_offered: bool) -> Mail:
        """The next transaction. Content that was announced as 8-bit is looked at before a server without 8BITMIME
        makes it bounce: many clients announce always."""
        if self._eight_bit is None and not eight_bit_offered:
            self._eight_bit = await asyncio.to_thread(self._read_eight_bit)
        numbers = tuple(self.waiting)[:RECIPIENTS]
        recipients = tuple(self.waiting[number] for number in numbers)
        envelope = replace(self.parcel.envelope, recipients=recipients)
        return Mail(envelope, numbers, self.parcel.size_bytes, self._eight_bit is not False, self.parcel.asking)

    def _read_eight_bit(self) -> bool:
        try:
            with self.parcel.content() as stream:
                return not all(map(bytes.isascii, iter(lambda: stream.read(_READ_BYTES), b"")))
        except OSError:
            return False  # who sends it will say so
