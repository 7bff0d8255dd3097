"""The queue on disk: a message is either in it whole or not at all, and in it once `enqueue` has returned."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from smtp_intercept.mta.drafts import Draft
from smtp_intercept.mta.envelope import Entry, Envelope, Origin, Outcome
from smtp_intercept.mta.faults import NoSuchMessageError, SpoolError, SpoolFullError, SpoolLockedError
from smtp_intercept.mta.listing import Attempt, Filter, Summary

__all__ = [
    "Attempt",
    "Draft",
    "Filter",
    "NoSuchMessageError",
    "Spool",
    "SpoolError",
    "SpoolFullError",
    "SpoolLockedError",
    "Summary",
]

RESERVE_BYTES = 64 << 20  # below this new mail waits at its sender's: what is queued must still be settled


class Spool:
    """The one process that receives and delivers holds it open; `queue` changes the same database beside it."""

    changed: asyncio.Event  # set by every enqueue here; for a runner that would not wait for its next look

    @classmethod
    def open(cls, directory: Path, *, reserve_bytes: int = RESERVE_BYTES) -> Spool:
        """Takes the lock and removes what a crash left half-made. `SpoolLockedError` names the other process;
        `SpoolError` the file and the remedy."""
        raise NotImplementedError

    def draft(self) -> Draft:
        """Room for a new message's content. `SpoolFullError` if less than the reserve is free."""
        raise NotImplementedError

    async def enqueue(self, draft: Draft, origin: Origin, envelope: Envelope, now: float) -> str:
        """The message's id, once it would survive a power cut. On `SpoolError` nothing of it is in the queue. The draft
        is used up either way."""
        raise NotImplementedError

    def due(self, now: float, limit: int, busy: Collection[str]) -> list[Entry]:
        """Messages to try, the longest due first, each with its due recipients only; none of ``busy``, none held."""
        raise NotImplementedError

    def next_due_at(self) -> float | None:
        """When `due` will have something, or has had; None if never by itself."""
        raise NotImplementedError

    async def settle(
        self, id: str, outcomes: Sequence[Outcome], notice: tuple[Draft, Envelope] | None, now: float
    ) -> str | None:
        """In one transaction: the recipients' new states and the notice to the sender, whose id is returned. The
        message goes when all its recipients are DELIVERED or FAILED. Of a message that an administrator has deleted
        meanwhile nothing is kept, and no notice sent."""
        raise NotImplementedError

    def content(self, id: str) -> BinaryIO:
        """The content from its first octet; close it. It stays readable if the message goes meanwhile."""
        raise NotImplementedError

    def entries(self, wanted: Filter = Filter()) -> Iterator[Entry]:  # noqa: B008 frozen
        """The messages in the order of their arrival, all recipients of each; a page in memory at a time."""
        raise NotImplementedError

    def summary(self) -> Summary:
        """For the status page."""
        raise NotImplementedError

    async def hold(self, ids: Collection[str]) -> int:
        """Not tried until released. Like the next four: the number of messages changed."""
        raise NotImplementedError

    async def release(self, ids: Collection[str], now: float) -> int:
        raise NotImplementedError

    async def retry(self, ids: Collection[str], now: float) -> int:
        """Due at once; the dead come to life again."""
        raise NotImplementedError

    async def reroute(self, ids: Collection[str], host: str, now: float) -> int:
        """To ``host`` instead of the table's next hop, at once; "" for the table's again."""
        raise NotImplementedError

    async def delete(self, ids: Collection[str]) -> int:
        """Nobody is told."""
        raise NotImplementedError

    def close(self) -> None:
        """Waits for what was begun."""
        raise NotImplementedError
