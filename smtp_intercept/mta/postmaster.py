"""What an administrator does with the queue, beside the process that delivers it or without one.

Takes no lock but the database's own, and no longer than a page of messages needs; puts nothing in.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from smtp_intercept.mta import database, faults, ids, listing
from smtp_intercept.mta.drafts import Layout
from smtp_intercept.mta.envelope import Entry
from smtp_intercept.mta.faults import NoQueueError, NoSuchMessageError, SpoolError, SpoolFullError
from smtp_intercept.mta.listing import Attempt, Filter, Summary
from smtp_intercept.mta.records import Records
from smtp_intercept.mta.room import spend
from smtp_intercept.mta.spool import content_of

Change = Callable[[Records, int], bool]
T = TypeVar("T")


class Postmaster:
    """Use `queue_in`. Every method may raise `SpoolError`."""

    def __init__(self, directory: Path, connection: sqlite3.Connection) -> None:
        self._layout = Layout(directory)
        self._connection = connection
        self._records = Records(connection)

    def lines(self, wanted: Filter, *, brief: bool = False) -> Iterator[str]:
        """As `listing.lines`."""
        with database.translated(self._layout.database):
            yield from listing.lines(self._connection, wanted, brief=brief)

    def found(self, wanted: Filter) -> list[int]:
        """The numbers of the messages that fit."""
        with database.translated(self._layout.database):
            return [seq for page in listing.numbers(self._connection, wanted) for seq in page]

    def entry(self, queue_id: str) -> Entry:
        """With all its recipients; `NoSuchMessageError`."""
        seq = ids.number_of(queue_id)
        with database.translated(self._layout.database):
            entry = None if seq is None else self._records.entry(seq)
        if entry is None:
            raise NoSuchMessageError(queue_id)
        return entry

    def attempts(self, queue_id: str) -> list[Attempt]:
        """The oldest first."""
        with database.translated(self._layout.database):
            return self._records.attempts(ids.number_of(queue_id) or 0)

    def content(self, queue_id: str) -> BinaryIO:
        """Close it."""
        return content_of(self._layout.directory, self._records, queue_id)

    def summary(self) -> Summary:
        """The queue in numbers."""
        with database.translated(self._layout.database):
            return self._records.summary()

    def change(self, seqs: Sequence[int], change: Change) -> int:
        """The number of messages that it changed."""
        return sum(self._each(seqs, lambda seq: change(self._records, seq)))

    def delete(self, seqs: Sequence[int]) -> int:
        """Rows first, then files: a crash between them leaves an orphan, not mail without its content."""
        files = self._each(seqs, self._records.delete)
        for file in filter(None, files):
            with suppress(OSError):  # the next start of the MTA does it
                self._layout.content(file).unlink()
        return sum(file is not None for file in files)

    def _each(self, seqs: Sequence[int], change: Callable[[int], T]) -> list[T]:
        done: list[T] = []
        for at in range(0, len(seqs), listing.PAGE):
            page = seqs[at : at + listing.PAGE]
            try:
                done += self._page(page, change)
            except SpoolFullError:
                if not spend(self._layout.directory):  # which makes the MTA wait for room, too
                    raise
                done += self._page(page, change)
        return done

    def _page(self, seqs: Sequence[int], change: Callable[[int], T]) -> list[T]:
        with database.translated(self._layout.database), database.transaction(self._connection):
            return [change(seq) for seq in seqs]


@contextmanager
def queue_in(directory: Path) -> Iterator[Postmaster]:
    """As the directory's owner, so that root leaves no file there that the MTA could not open."""
    path = directory / database.NAME
    with _as_owner(directory):
        if not path.exists():
            raise NoQueueError(path)
        connection = _connected(path)
        try:
            yield Postmaster(directory, connection)
        finally:
            connection.close()


def _connected(path: Path) -> sqlite3.Connection:
    try:
        return database.connect(path)
    except SpoolFullError:  # SQLite wants some room even to read
        if not spend(path.parent):
            raise
        return database.connect(path)


@contextmanager
def _as_owner(directory: Path) -> Iterator[None]:
    uid, gid = os.geteuid(), os.getegid()
    try:
        owner = directory.stat()
        if uid == 0 and owner.st_uid != 0:
            os.setegid(owner.st_gid)
            os.seteuid(owner.st_uid)
        elif uid not in (0, owner.st_uid):
            raise SpoolError(f"{directory}: belongs to user {owner.st_uid}; ask as root: sudo tollbridge queue")
    except FileNotFoundError:
        raise NoQueueError(directory / database.NAME) from None
    except OSError as error:
        raise faults.of_system(error, directory) from error
    try:
        yield
    finally:
        if uid == 0:
            os.seteuid(uid)
            os.setegid(gid)
