"""The one thread that writes the queue's database: what callers ask for at the same time shares one commit.

Files are in place, and their directory on the disk, before the commit that speaks of them.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from smtp_intercept.mta import database, faults
from smtp_intercept.mta.drafts import Draft, Layout, sync_directory
from smtp_intercept.mta.faults import SpoolError
from smtp_intercept.mta.records import Records
from smtp_intercept.mta.room import Room, spend

GROUP = 256  # works in one commit: some 10 ms and 16 MiB at most, and no caller waits for more than two commits
TRIM_EVERY_S = 0.2  # a step of giving room back to the disk, while there is nothing else to do
LOOK_EVERY_S = 10.0  # whether there is any to give back: other programs use the disk, too
FREE_PAGES = 16384  # 64 MiB of the database that deleted mail may leave for new mail, unless room is scarce

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What a work has answered, and the files of content/ that nobody needs after its commit."""

    answer: T
    unneeded: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Work:
    run: Callable[[Records], Done[Any]]  # may be run again after its transaction was rolled back
    drafts: tuple[Draft, ...]
    urgent: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Commits:
    """Owns the writing connection."""

    def __init__(self, layout: Layout, room: Room, connection: sqlite3.Connection) -> None:
        self._layout, self._room = layout, room
        self._connection = connection
        self._records = Records(connection)
        self._works: SimpleQueue[_Work | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    async def do(self, run: Callable[[Records], Done[T]], drafts: tuple[Draft, ...] = (), *, urgent: bool = True) -> T:
        """Run ``run`` in a transaction; its answer, once that is on the disk. `SpoolError` if it cannot be: then it has
        not happened, and the drafts are gone. A caller that is cancelled leaves it to happen. What is ``urgent`` may
        use the ballast of a full disk."""
        if self._closed:
            for draft in drafts:
                draft.discard()
            raise SpoolError(f"{self._layout.directory}: the spool is closed", temporary=True)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._works.put(_Work(run, drafts, urgent, loop, future))
        return await future

    def close(self) -> None:
        """After what was asked for."""
        if not self._closed:
            self._closed = True
            self._works.put(None)
            self._thread.join()
            self._connection.close()

    def _run(self) -> None:
        trimming = True
        while True:
            try:
                group = [self._works.get(timeout=TRIM_EVERY_S if trimming else LOOK_EVERY_S)]
            except Empty:
                trimming = self._trim()
                continue
            with suppress(Empty):
                while len(group) < GROUP and group[-1]:
                    group.append(self._works.get_nowait())
            if works := [work for work in group if work]:
                self._commit(works)
                trimming = True
            if group[-1] is None:
                return

    def _commit(self, works: Sequence[_Work]) -> None:
        try:
            answers = self._together(works)
        except Exception as error:
            if len(works) > 1:  # one of them, or the room for all of them: each for itself
                for work in works:
                    self._commit([work])
            elif works[0].urgent and _is_full(error) and spend(self._layout.directory):
                self._commit(works)
            else:
                self._fail(works[0], error)
        else:
            self._tell(works, answers)
            self._remove([file for answer in answers for file in answer.unneeded])

    def _together(self, works: Sequence[_Work]) -> list[Done[Any]]:
        if self._room.spent and not all(work.urgent for work in works):
            self._room.need()
        if files := [draft for work in works for draft in work.drafts if draft.name]:
            for draft in files:
                draft.place()
            sync_directory(self._layout.content(""))
        with database.transaction(self._connection):
            return [work.run(self._records) for work in works]

    def _fail(self, work: _Work, error: Exception) -> None:
        # After an fsync that failed, what was written may yet be found after a crash: its file must be there then, and
        # if not, the next start removes it.
        if not str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_IOERR"):
            for draft in work.drafts:
                draft.discard()
        if isinstance(error, sqlite3.Error):
            error = faults.of_database(error, self._layout.database)
        elif isinstance(error, OSError):
            error = faults.of_system(error, self._layout.content(""))
        _call(work.loop, lambda: _refuse(work.future, error))

    def _tell(self, works: Sequence[_Work], answers: Sequence[Done[Any]]) -> None:
        """One call for each event loop: a wake-up is a system call."""
        for loop in {work.loop for work in works}:
            told = [(work.future, done.answer) for work, done in zip(works, answers, strict=True) if work.loop is loop]
            _call(loop, lambda told=told: _answer(told))  # type: ignore[misc]

    def _remove(self, files: Sequence[str]) -> None:
        for file in filter(None, files):
            with suppress(OSError):  # the next start does it
                self._layout.content(file).unlink()

    def _trim(self) -> bool:
        try:
            return self._records.trim(0 if self._room.is_scarce() else FREE_PAGES)
        except (sqlite3.Error, SpoolError) as error:  # busy, or a disk that the next writer will complain about
            _log.debug("%s: not trimmed: %s", self._layout.database, error)
            return False


def _is_full(error: Exception) -> bool:
    return getattr(error, "sqlite_errorname", "") in faults.FULL_NAMES or getattr(error, "errno", 0) in faults.FULL


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(callback)


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _answer(told: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, answer in told:
        if not future.done():  # its caller was cancelled
            future.set_result(answer)
