"""One volume of the tracking index: the records of some days of the mail log, and by which values each is found.

SQLite in WAL mode, written by one process and read by any number beside it. Never repaired: it is made from the log.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from smtp_intercept.watch.terms import Kind, Question, Value, number_of

VERSION = 1  # of the schema and of `_USUAL`, in user_version
BUSY_S = 5.0
WAL_BYTES = 4 << 20
PAGES_KIB = 16 << 10  # of SQLite's own cache
_NEVER = (1 << 63) - 1
NEAR = 1_000  # hits counted of each value, to begin with the rarest

_SCHEMA = """
CREATE TABLE record (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,     -- milliseconds of the epoch
    kind INTEGER NOT NULL,
    line BLOB NOT NULL       -- as it stands in the log, compressed
);
CREATE INDEX record_at ON record (at);
CREATE TABLE term (value INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (value, id)) WITHOUT ROWID;
CREATE TABLE source (
    name TEXT PRIMARY KEY,   -- of a log, by its first line
    octets INTEGER NOT NULL  -- of it that are in the index
) WITHOUT ROWID;
"""
# What most lines have in common: a line is a third as long for it.
_USUAL = (
    b'{"type":"notice","time":"2026-","queue_id":"","about":"","recipient":"","actions":["failed","delayed"]}'
    b'{"type":"delivery","time":"2026-","queue_id":"0","sender":"","recipient":"","next_hop":"","host":"","row":"",'
    b'"reply":"450 4.","outcome":"deferred","seconds":0.,"attempt":1}"failed"}"delivered","rules":["'
    b'{"type":"session","time":"2026-","session":"","port":"p0","vlan":null,"client":{"address":"192.0.2.","port":4,'
    b'"mac":"52:54:00:"},"balancer":null,"server":{"address":"2001:db8::","port":25,"mac":"52:54:00:"},'
    b'"direction":"outgoing","handler":"mta","hidden":true,"source_port_kept":true,"helo":"mail.example.com",'
    b'"tls":"started","messages":1,"bytes_from_client":,"bytes_from_server":,"doubt":null,"doubted":null,'
    b'"sasl_layer":false,"seconds":0.,"outcome":"closed","reason":"by the client"}"tls":"none","messages":0'
    b'{"type":"message","time":"2026-","session":"","number":1,"direction":"incoming","handler":"proxy","sender":"",'
    b'"recipients":[{"address":"@example.com","direction":"incoming","reply":"250 2.1.5 Ok"}],"size_bytes":,'
    b'"seconds":0.0,"reply":"250 2.0.0 Ok: queued as ","outcome":"accepted","queue_id":"0"}"reply":"550 5.7.1 '
    b'"outcome":"rejected"}'
)


@dataclass(frozen=True, slots=True)
class Stored:
    """One record as it lies in a volume."""

    id: int
    at_ms: int
    kind: Kind
    line: bytes


@dataclass(slots=True)
class Batch:
    """What is written at one go: all of it, or nothing. ``terms`` are by the records' ids, in any order."""

    records: list[Stored] = field(default_factory=list)
    terms: list[tuple[Value, int]] = field(default_factory=list)


class Volume:
    """An open one, read and written by whoever made it, or only read. Raises sqlite3.Error."""

    def __init__(self, path: Path, *, make: bool = False, read_only: bool = False) -> None:
        uri = f"{path.absolute().as_uri()}?mode={'rwc' if make else 'rw'}"  # a WAL has no reader that writes nothing
        self.path = path
        self._sql = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
        try:
            self._settle(make=make, read_only=read_only)
        except BaseException:
            self.close()
            raise

    def _settle(self, *, make: bool, read_only: bool) -> None:
        sql = self._sql
        # A power cut may cost the last batches, never the rest; they are in the log still.
        for pragma in ("synchronous = NORMAL", f"cache_size = -{PAGES_KIB}", f"journal_size_limit = {WAL_BYTES}"):
            sql.execute(f"PRAGMA {pragma}")
        (version,) = sql.execute("PRAGMA user_version").fetchone()
        if version == 0 and make:
            sql.execute("PRAGMA journal_mode = WAL")
            sql.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"its schema is {version}, and {VERSION} is known here")
        sql.execute(f"PRAGMA query_only = {int(read_only)}")

    def close(self) -> None:
        self._sql.close()

    # --- writing -----------------------------------------------------------------------------------------------------

    @property
    def last_id(self) -> int:
        """0 if it is empty."""
        return int(self._sql.execute("SELECT coalesce(max(id), 0) FROM record").fetchone()[0])

    def add(self, batch: Batch, sources: Iterable[tuple[str, int]]) -> None:
        """With how much of which log it has now."""
        with self._transaction():
            self._sql.executemany(
                "INSERT INTO record VALUES (?, ?, ?, ?)",
                ((each.id, each.at_ms, each.kind, _packed(each.line)) for each in batch.records),
            )
            self._connect(batch.terms)
            self._sql.executemany("INSERT OR REPLACE INTO source VALUES (?, ?)", sources)

    def connect(self, terms: Iterable[tuple[Value, int]]) -> None:
        """Records that it has can be found by these too."""
        with self._transaction():
            self._connect(terms)

    def finish(self) -> None:
        """Little will be added; what is in the WAL need not lie there twice."""
        self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _connect(self, terms: Iterable[tuple[Value, int]]) -> None:
        rows = sorted({(number_of(value), record) for value, record in terms})  # in the order of the tree
        self._sql.executemany("INSERT OR IGNORE INTO term VALUES (?, ?)", rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # it may have rolled back by itself
                self._sql.execute("ROLLBACK")
            raise

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def sources(self) -> dict[str, int]:
        return dict(self._sql.execute("SELECT name, octets FROM source"))

    @property
    def span_ms(self) -> tuple[int, int] | None:
        """The first and the last of its times; None if it is empty."""
        (first,) = self._sql.execute("SELECT min(at) FROM record").fetchone()
        (last,) = self._sql.execute("SELECT max(at) FROM record").fetchone()
        return None if first is None else (first, last)

    def find(self, question: Question) -> Iterator[Stored]:
        """Those that have all of it, the newest first. Without a value: the first record of each mail."""
        numbers, ids = self._rarest_first(question.values), self._ids_between(question.since_ms, question.until_ms)
        if numbers is None or ids is None:
            return
        if numbers:
            tables, by, where = "term CROSS JOIN record ON record.id = term.id", "term.id", ["term.value = ?"]
        else:
            tables, by, where = "record", "record.id", [f"kind < {Kind.SESSION.value}"]
        also = "EXISTS (SELECT 1 FROM term AS more WHERE more.value = ? AND more.id = term.id)"
        where += [also for _ in numbers[1:]]
        where += [f"{by} BETWEEN ? AND ?", "at >= ?", "at < ?"]
        since, until = question.since_ms or 0, question.until_ms or _NEVER
        yield from self._rows(f"{tables} WHERE {' AND '.join(where)} ORDER BY {by} DESC", *numbers, *ids, since, until)

    def after(self, record: int) -> Iterator[Stored]:
        """All behind that one, the oldest first."""
        yield from self._rows("record WHERE record.id > ? ORDER BY record.id", record)

    def _rows(self, of: str, *given: int) -> Iterator[Stored]:
        for record, at_ms, kind, line in self._sql.execute(f"SELECT record.id, at, kind, line FROM {of}", given):
            yield Stored(record, at_ms, Kind(kind), _unpacked(line))

    def _ids_between(self, since_ms: int | None, until_ms: int | None) -> tuple[int, int] | None:
        """The least and the greatest id of those times; None if there is none."""
        if since_ms is None and until_ms is None:
            return 0, _NEVER
        span = self.span_ms
        if span is None or (since_ms or 0) > span[1] or (until_ms or _NEVER) <= span[0]:
            return None
        if (since_ms or 0) <= span[0] and (until_ms or _NEVER) > span[1]:
            return 0, _NEVER
        bounds = "SELECT min(id), max(id) FROM record WHERE at >= ? AND at < ?"
        first, last = self._sql.execute(bounds, (since_ms or 0, until_ms or _NEVER)).fetchone()
        return None if first is None else (first, last)

    def _rarest_first(self, values: Iterable[Value]) -> list[int] | None:
        """Their numbers; None if one of several has no record at all."""
        numbers = [number_of(value) for value in values]
        if len(numbers) < 2:
            return numbers
        near = {number: self._near(number) for number in numbers}
        return None if 0 in near.values() else sorted(near, key=near.__getitem__)

    def _near(self, number: int) -> int:
        counted = "SELECT count(*) FROM (SELECT 1 FROM term WHERE value = ? LIMIT ?)"
        return int(self._sql.execute(counted, (number, NEAR)).fetchone()[0])

    def ids_of(self, value: Value) -> list[int]:
        """Of at most `NEAR` records."""
        asked = (number_of(value), NEAR)
        return [each for (each,) in self._sql.execute("SELECT id FROM term WHERE value = ? LIMIT ?", asked)]


def _packed(line: bytes) -> bytes:
    press = zlib.compressobj(level=1, wbits=-15, zdict=_USUAL)
    return press.compress(line) + press.flush()


def _unpacked(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15, zdict=_USUAL).decompress(data)
