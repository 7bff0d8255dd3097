"""The tracking index: its volumes in one directory, the newest of them written to, the oldest given up.

A volume is given up by taking its file away, so age and size cost nothing to keep. Raises OSError and sqlite3.Error.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from smtp_intercept.watch.terms import (
    Field,
    Kind,
    Question,
    Record,
    Value,
    kind_of,
    of_session,
    queue_ids,
    session_of,
    values_of,
)
from smtp_intercept.watch.volume import Batch, Stored, Volume

DAY_MS = 86_400_000
LOCK = "lock"  # a file in the directory: a writer has been there, though there may have been no mail yet
MOST_RECORDS = 1_000_000  # in one volume: its tree stays in a small box's memory while it is written
PARTS = 30  # in which the age that is kept is given up, and the size
LEAST_BYTES = 1 << 20  # of a volume
OPEN_SESSIONS = 65_536  # whose messages are remembered until their client is known
MOST_TOLD = 1_000  # records of one mail
_NAME = re.compile(r"volume-(\d{6,})\.db")
_LOG = logging.getLogger("tollbridge")


@dataclass(frozen=True, slots=True)
class Keep:
    """How much is kept: days, and octets in all. The oldest of what is beyond goes."""

    days: int
    size_bytes: int

    @property
    def volume_ms(self) -> int:
        return max(DAY_MS, self.days * DAY_MS // PARTS)

    @property
    def volume_bytes(self) -> int:
        return max(LEAST_BYTES, self.size_bytes // PARTS)


@dataclass(frozen=True, slots=True)
class Found:
    """A record, and where it is."""

    volume: int
    stored: Stored
    record: Record

    @property
    def place(self) -> tuple[int, int]:
        return self.volume, self.stored.id


def volumes_in(directory: Path) -> dict[int, Path]:
    """By their numbers, the oldest first."""
    found = ((match, path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name)))
    return dict(sorted((int(match[1]), path) for match, path in found))


class Index:
    """All volumes, for who asks. One that cannot be read is passed over, and named in ``unread``."""

    def __init__(self, directory: Path, *, read_only: bool = True) -> None:
        self.directory, self._read_only = directory, read_only
        self.unread: dict[Path, sqlite3.Error] = {}
        self._volumes: dict[int, Volume] = {}
        self.look()

    def look(self) -> None:
        """At which volumes there are by now."""
        there = volumes_in(self.directory)
        for number in self._volumes.keys() - there.keys():
            self._volumes.pop(number).close()
        for number in there.keys() - self._volumes.keys():
            try:
                self._volumes[number] = Volume(there[number], read_only=self._read_only)
            except sqlite3.Error as error:
                self.unread[there[number]] = error
        self._volumes = dict(sorted(self._volumes.items()))

    def close(self) -> None:
        while self._volumes:
            self._volumes.popitem()[1].close()

    def find(self, question: Question) -> Iterator[Found]:
        """The newest first."""
        for number, volume in reversed(self._volumes.items()):
            yield from self._in(number, volume, question)

    def _in(self, number: int, volume: Volume, question: Question) -> Iterator[Found]:
        try:
            for stored in volume.find(question):
                record = record_in(stored.line)
                if record is not None:
                    yield Found(number, stored, record)
        except sqlite3.Error as error:  # given up meanwhile, or damaged
            self.unread[volume.path] = error

    def end(self) -> tuple[int, int]:
        """Where the newest record is; (0, 0) if there is none."""
        return next(((number, self._volumes[number].last_id) for number in reversed(self._volumes)), (0, 0))

    def since(self, place: tuple[int, int]) -> Iterator[Found]:
        """All records behind that one, the oldest first."""
        self.look()
        for number, volume in self._volumes.items():
            if number >= place[0]:
                yield from self._after(number, volume, place[1] if number == place[0] else 0)

    def _after(self, number: int, volume: Volume, above: int) -> Iterator[Found]:
        for stored in volume.after(above):
            if (record := record_in(stored.line)) is not None:
                yield Found(number, stored, record)

    def mail(self, one: Found) -> list[Found]:
        """All that is known of the mail that this record is about, the oldest first: its message, the session that it
        came in, each attempt to deliver it, the notices about it and their own deliveries."""
        known, waiting, asked = {one.place: one}, [one], set[Value]()
        while waiting and len(known) < MOST_TOLD:
            for value in _ties(waiting.pop()) - asked:
                asked.add(value)
                for found in self.find(Question(frozenset({value}))):
                    if found.place not in known and _belongs(found, value):
                        known[found.place] = found
                        waiting.append(found)
        return sorted(known.values(), key=lambda found: (found.stored.at_ms, found.place))


def _ties(found: Found) -> set[Value]:
    """By what other records of the same mail are found."""
    ties = {(Field.ID, text.casefold()) for text in queue_ids(found.record)}
    if found.stored.kind is Kind.MESSAGE:
        ties.add((Field.SESSION, session_of(found.record)))
    return ties


def _belongs(found: Found, by: Value) -> bool:
    """A server may have given another mail the same name in its own queue."""
    return by[0] is Field.SESSION or by[1] in (text.casefold() for text in queue_ids(found.record))


class Writer(Index):
    """The only one that adds, and gives up what is beyond ``keep``."""

    def __init__(self, directory: Path, keep: Keep) -> None:
        super().__init__(directory, read_only=False)
        self._keep = keep
        self._drop_unread()
        self._sessions: OrderedDict[str, list[tuple[int, int]]] = OrderedDict()
        # The newest may have been begun, and nothing written to it.
        self.sources = {name: at for volume in self._volumes.values() for name, at in volume.sources.items()}
        self._last_id = self._volumes[max(self._volumes)].last_id if self._volumes else 0

    def _drop_unread(self) -> None:
        """What is damaged goes, and can be made again from the log; what cannot be opened now is waited for."""
        for path, error in self.unread.items():
            if isinstance(error, sqlite3.OperationalError):
                raise error
            _LOG.error("the tracking index has lost %s: %s; build it anew: tollbridge reindex", path, error)
            remove(path)

    def add(self, lines: Iterable[bytes], sources: Mapping[str, int], now_ms: int) -> int:
        """Lines of the log, and how much of which log is in the index with them. Returns how many of them are a mail's.
        All or nothing."""
        read = [found for line in lines if (found := _read(line, now_ms)) is not None]
        number, volume = self._current(read[0].at_ms if read else None)
        batch, last_id, ends = Batch(), self._last_id, list[Record]()
        for at, kind, line, record in read:
            last_id += 1
            batch.records.append(Stored(last_id, at, kind, line))
            batch.terms += [(value, last_id) for value in values_of(record, kind)]
            if kind is Kind.MESSAGE:
                self._sessions.setdefault(session_of(record), []).append((number, last_id))
            elif kind is Kind.SESSION:
                ends.append(record)
        batch.terms += self._ties(ends, number)
        known = {**self.sources, **sources}
        volume.add(batch, (sources if self._last_id else known).items())
        self.sources, self._last_id = known, last_id
        while len(self._sessions) > OPEN_SESSIONS:
            self._sessions.popitem(last=False)
        return len(read)

    def _ties(self, sessions: list[Record], number: int) -> list[tuple[Value, int]]:
        """A session's record, which has its client, comes behind those of its messages; they may be in the volume
        before this one."""
        found, before = list[tuple[Value, int]](), list[tuple[Value, int]]()
        for record in sessions:
            values, session = of_session(record), session_of(record)
            for where, each in self._sessions.pop(session, None) or self._messages_of(session, number):
                (found if where == number else before).extend((value, each) for value in values)
        if before and number - 1 in self._volumes:
            self._volumes[number - 1].connect(before)
        return found

    def _messages_of(self, session: str, number: int) -> list[tuple[int, int]]:
        """Of a session that began before this process."""
        volumes = ((each, self._volumes[each]) for each in (number, number - 1) if each in self._volumes)
        value = (Field.ID, session.casefold())
        return next(([(each, one) for one in ids] for each, volume in volumes if (ids := volume.ids_of(value))), [])

    def _current(self, begins_ms: int | None) -> tuple[int, Volume]:
        """The one to write to: a new one, where the newest is full."""
        number = max(self._volumes, default=0)
        if not number or self._is_full(self._volumes[number], begins_ms):
            if number:
                self._volumes[number].finish()
            number += 1
            self._volumes[number] = Volume(self.directory / f"volume-{number:06}.db", make=True)
            self._last_id = 0
        return number, self._volumes[number]

    def _is_full(self, volume: Volume, begins_ms: int | None) -> bool:
        if self._last_id >= MOST_RECORDS or _size(volume.path) >= self._keep.volume_bytes:
            return True
        span = volume.span_ms
        return span is not None and begins_ms is not None and begins_ms - span[0] >= self._keep.volume_ms

    def give_up(self, now_ms: int) -> int:
        """What is too old, and the oldest of what is too much; never the newest. Returns how many volumes went."""
        before = len(self._volumes)
        while len(self._volumes) > 1 and self._too_much(now_ms):
            number = min(self._volumes)
            volume = self._volumes.pop(number)
            volume.close()
            remove(volume.path)
        return before - len(self._volumes)

    def _too_much(self, now_ms: int) -> bool:
        span = self._volumes[min(self._volumes)].span_ms
        old = span is None or span[1] < now_ms - self._keep.days * DAY_MS
        return old or sum(_size(volume.path) for volume in self._volumes.values()) > self._keep.size_bytes

    def clear(self) -> None:
        """As if nothing had ever been read."""
        self.close()
        for path in volumes_in(self.directory).values():
            remove(path)
        self.sources, self._last_id = {}, 0
        self._sessions.clear()

    @property
    def size_bytes(self) -> int:
        return sum(_size(volume.path) for volume in self._volumes.values())


class _Read(NamedTuple):
    at_ms: int
    kind: Kind
    line: bytes
    record: Record


def _read(line: bytes, now_ms: int) -> _Read | None:
    """None for what is no mail's."""
    record = record_in(line)
    kind = None if record is None else kind_of(record)
    return None if record is None or kind is None else _Read(at_ms(record, now_ms), kind, line, record)


def record_in(line: bytes) -> dict[str, Any] | None:
    """None for what is no JSON object."""
    try:
        found = from_json(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def at_ms(record: Record, otherwise: int) -> int:
    """When it was written; a time that cannot be, or that is to come, is ``otherwise``."""
    text = record.get("time")
    try:
        found = round(datetime.fromisoformat(text).timestamp() * 1000) if isinstance(text, str) else otherwise
    except (ValueError, OverflowError, OSError):
        return otherwise
    return found if 0 <= found <= otherwise + DAY_MS else otherwise


def _size(path: Path) -> int:
    octets = 0
    for each in _files(path):
        with suppress(FileNotFoundError):
            octets += each.stat().st_size
    return octets


def remove(path: Path) -> None:
    """A volume that is closed."""
    for each in _files(path):
        each.unlink(missing_ok=True)


def _files(path: Path) -> tuple[Path, ...]:
    """The volume's, and what SQLite lays beside it."""
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")
