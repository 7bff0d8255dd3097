"""The queue on disk: a message is in it whole or not at all, and survives a power cut once `enqueue` has returned.

It leaves with the transaction that holds its recipients' final states and the notice to its sender.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from smtp_intercept.mta import database, faults, ids, listing
from smtp_intercept.mta.clock import Step
from smtp_intercept.mta.commits import Commits, Done
from smtp_intercept.mta.contents import Contents, content_of
from smtp_intercept.mta.drafts import Draft, Layout, check_owner, make
from smtp_intercept.mta.envelope import OURSELVES, Entry, Envelope, Origin, Outcome
from smtp_intercept.mta.faults import NoSuchMessageError, SpoolError, SpoolFullError, SpoolLockedError
from smtp_intercept.mta.listing import Attempt, Filter, Summary
from smtp_intercept.mta.lock import locked
from smtp_intercept.mta.records import Records
from smtp_intercept.mta.room import RESERVE_BYTES, Room, spend

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
    "content_of",
    "make",
]

DIRECTORY = Path("/var/spool/tollbridge")
FSYNC_THREADS = 4  # large messages put on the disk at a time

_ALL = Filter()


class Spool:
    """The one process that receives and delivers holds it open; the command `queue` changes the same database beside
    it. All methods but `content` are for the thread of the event loop."""

    changed: asyncio.Event  # set by every enqueue here; for a runner that would not wait for its next look

    def __init__(self, layout: Layout, room: Room, lock_fd: int) -> None:
        """Use `open`."""
        self.changed = asyncio.Event()
        self._layout, self._room = layout, room
        self._lock_fd = lock_fd
        self._reading = database.connect(layout.database, read_only=True)
        self._records = Records(self._reading)
        self._contents = Contents(layout)
        self._commits = Commits(layout, room, database.connect(layout.database))
        self._pool = ThreadPoolExecutor(FSYNC_THREADS, thread_name_prefix="spool-fsync")

    @classmethod
    def open(cls, directory: Path, *, reserve_bytes: int = RESERVE_BYTES) -> Spool:
        """Takes the lock and removes what a crash left half-made. `SpoolLockedError` names the other process;
        `SpoolError` the file and the remedy."""
        layout = Layout(directory)
        check_owner(directory)
        lock_fd = locked(directory / "lock")
        room = Room(directory, reserve_bytes)
        try:
            try:
                return cls._opened(layout, room, lock_fd)
            except SpoolError as error:
                if not (error.temporary and spend(directory)):  # SQLite wants some room even to read
                    raise
                return cls._opened(layout, room, lock_fd)
        except BaseException:
            os.close(lock_fd)
            raise

    @classmethod
    def _opened(cls, layout: Layout, room: Room, lock_fd: int) -> Spool:
        try:
            layout.make()
            _forbid_a_new_queue_over_old_content(layout)
            database.create(layout.database)
            _remove_orphans(layout)
            return cls(layout, room, lock_fd)
        except OSError as error:
            raise faults.of_system(error, layout.directory) from error

    # --- in and out ---------------------------------------------------------------------------

    def draft(self) -> Draft:
        """Room for a new message's content. `SpoolFullError` if less than the reserve is free."""
        self._room.need()
        return Draft(self._layout, self._room)

    def room_bytes(self) -> float:
        """How large a message would still fit; what cannot be known is told when it is written."""
        try:
            return self._room.left_bytes
        except SpoolError:
            return float("inf")

    async def enqueue(self, draft: Draft, origin: Origin, envelope: Envelope, now: float) -> str:
        """The message's id, once it would survive a power cut. On `SpoolError` nothing of it is in the queue. The draft
        is used up either way."""
        await self._synced(draft)
        seq = await self._commits.do(
            lambda records: Done(_insert(records, draft, origin, envelope, now)), (draft,), urgent=False
        )
        self.changed.set()
        return ids.of_number(seq)

    def due(self, now: float, limit: int, busy: Collection[str], after: tuple[float, str] | None = None) -> list[Entry]:
        """At most ``limit`` messages to try, the longest due first, each with its due recipients only; none of
        ``busy``, none held. ``after``: those behind this place, a message's `due_at` and id ("" is before all ids)."""
        due_at, queue_id = after or (-1.0, "")
        with database.translated(self._layout.database):
            place = due_at, _number(queue_id) if queue_id else -1
            return self._records.due(now, limit, {_number(one) for one in busy}, place)

    def next_due_at(self) -> float | None:
        """When `due` will have something, or has had; None if never by itself. What is busy counts."""
        with database.translated(self._layout.database):
            return self._records.next_due_at()

    async def settle(
        self, queue_id: str, outcomes: Sequence[Outcome], notice: tuple[Draft, Envelope] | None, now: float
    ) -> str | None:
        """In one transaction: the recipients' new states and the notice to the sender, whose id is returned. The
        message goes when all its recipients are DELIVERED or FAILED. Of a message that an administrator has deleted
        meanwhile nothing is kept, and no notice sent."""
        seq, drafts = _number(queue_id), (notice[0],) if notice else ()
        for draft in drafts:
            await self._synced(draft)

        def run(records: Records) -> Done[int | None]:
            if records.file(seq) is None:
                return Done(None, [draft.name for draft in drafts])
            gone = records.settle(seq, outcomes, now)
            told = _insert(records, notice[0], OURSELVES, notice[1], now) if notice else None
            return Done(told, [gone or ""])

        told = await self._commits.do(run, drafts)
        if told is None:
            return None
        self.changed.set()
        return ids.of_number(told)

    def content(self, queue_id: str) -> BinaryIO:
        """The content from its first octet; close it. It stays readable if the message goes meanwhile. For any
        thread."""
        return self._contents.open(queue_id)

    async def _synced(self, draft: Draft) -> None:
        """A large draft is on the disk, or gone; in either case it is its writer's no longer."""
        draft.hand_over()
        if draft.small() is not None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, draft.sync)
        except BaseException:
            draft.discard()
            raise

    async def mend_times(self, step: Step | None, now: float, longest_s: float) -> None:
        """At the start, and after the clock was set (``step``): see `Records.step` and `bring_forward`."""

        def run(records: Records) -> Done[None]:
            if step is not None:
                records.step(step)
            records.bring_forward(now, longest_s)
            return Done(None)

        await self._commits.do(run)

    # --- what is asked, and what an administrator changes -------------------------------------

    def entries(self, wanted: Filter = _ALL) -> Iterator[Entry]:
        """The messages in the order of their arrival, all recipients of each; a page in memory at a time."""
        with database.translated(self._layout.database):
            for page in listing.numbers(self._reading, wanted):
                yield from filter(None, map(self._records.entry, page))

    def attempts(self, queue_id: str) -> list[Attempt]:
        """The last ones of each recipient, the oldest first."""
        with database.translated(self._layout.database):
            return self._records.attempts(_number(queue_id))

    def summary(self) -> Summary:
        """For the status page; 100,000 messages take some 10 ms."""
        with database.translated(self._layout.database):
            return self._records.summary()

    async def hold(self, queue_ids: Collection[str]) -> int:
        """Not tried until released. Like the next ones: the number of messages changed."""
        return await self._change(queue_ids, Records.hold)

    async def release(self, queue_ids: Collection[str]) -> int:
        return await self._change(queue_ids, Records.release)

    async def retry(self, queue_ids: Collection[str], now: float) -> int:
        """Due at once; the dead come to life again, what is held stays held."""
        return await self._change(queue_ids, lambda records, seq: records.retry(seq, now))

    async def reroute(self, queue_ids: Collection[str], host: str, now: float) -> int:
        """To ``host`` instead of the table's next hop, at once; "" for the table's again."""
        return await self._change(queue_ids, lambda records, seq: records.reroute(seq, host, now))

    async def give_back(self, queue_ids: Collection[str], now: float) -> int:
        """Due at once as `Entry.returning`."""
        return await self._change(queue_ids, lambda records, seq: records.give_back(seq, now))

    async def delete(self, queue_ids: Collection[str]) -> int:
        """Nobody is told."""
        seqs = [_number(one) for one in queue_ids]

        def run(records: Records) -> Done[int]:
            files = [file for seq in seqs if (file := records.delete(seq)) is not None]
            return Done(len(files), files)

        return await self._commits.do(run)

    async def _change(self, queue_ids: Collection[str], change: Callable[[Records, int], bool]) -> int:
        seqs = [_number(one) for one in queue_ids]
        return await self._commits.do(lambda records: Done(sum([change(records, seq) for seq in seqs])))

    def close(self) -> None:
        """Waits for what was begun."""
        self._pool.shutdown()
        self._commits.close()
        self._reading.close()
        self._contents.close()
        os.close(self._lock_fd)


def _number(queue_id: str) -> int:
    if (seq := ids.number_of(queue_id)) is None:
        raise NoSuchMessageError(queue_id)
    return seq


def _insert(records: Records, draft: Draft, origin: Origin, envelope: Envelope, now: float) -> int:
    return records.insert(origin, envelope, draft.small(), draft.name, draft.size_bytes, now)


def _forbid_a_new_queue_over_old_content(layout: Layout) -> None:
    """Without this, whoever moves a damaged database away would have all its content removed as orphans."""
    empty = not layout.database.exists() or not layout.database.stat().st_size
    if empty and (left := next(layout.files("content"), None)):
        raise SpoolError(
            f"{layout.database}: missing, but there is content of its mail ({left.name} and perhaps more); put the "
            f"database back, or move {left.parent} away"
        )


def _remove_orphans(layout: Layout) -> None:
    """Files of messages that were never accepted, or were done with, when the last process ended."""
    for path in layout.files("drafts"):
        path.unlink()
    names = [path.name for path in layout.files("content")]
    if not names:
        return
    connection = database.connect(layout.database, read_only=True)
    try:
        database.checked(connection, layout.database)
        for name in Records(connection).unknown(names):
            layout.content(name).unlink()
    except sqlite3.Error as error:
        raise faults.of_database(error, layout.database) from error
    finally:
        connection.close()
