"""The queue's database: opened, made, checked; never repaired and never replaced.

WAL with synchronous=FULL: a commit is on the disk when it returns, and the command reads and writes beside the daemon.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smtp_intercept.mta import faults
from smtp_intercept.mta.faults import SpoolError

NAME = "queue.db"
VERSION = 1  # of the schema, in user_version
BUSY_S = 10  # the command changes a page of messages at a time, which takes milliseconds
WAL_BYTES = 16 << 20  # after a burst the log shrinks to this

_SCHEMA = """
CREATE TABLE message (
    seq INTEGER PRIMARY KEY,      -- the id, see ids.py
    received_at REAL NOT NULL,
    content_bytes INTEGER NOT NULL,
    file TEXT NOT NULL,           -- in content/; '': the content is in the table
    origin TEXT NOT NULL,         -- JSON
    reverse_path TEXT NOT NULL,
    body TEXT NOT NULL,
    smtputf8 INTEGER NOT NULL,
    ret TEXT NOT NULL,
    envid TEXT NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    alternate TEXT NOT NULL DEFAULT '',
    giving_back INTEGER NOT NULL DEFAULT 0,
    due_at REAL                   -- of its first queued recipient; NULL: held, or all are dead
);
CREATE INDEX message_due ON message (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE recipient (
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    address TEXT NOT NULL,
    notify INTEGER NOT NULL,
    original TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL,
    reply TEXT NOT NULL DEFAULT '',
    host TEXT NOT NULL DEFAULT '',
    delay_told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (seq, number)
) WITHOUT ROWID;
CREATE TABLE attempt (
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    nth INTEGER NOT NULL,
    at REAL NOT NULL,
    state TEXT NOT NULL,
    code INTEGER NOT NULL,
    status TEXT NOT NULL,
    reply TEXT NOT NULL,
    host TEXT NOT NULL,
    PRIMARY KEY (seq, number, nth)
) WITHOUT ROWID;
CREATE TABLE content (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""


def create(path: Path) -> None:
    """Make the tables in a new or empty file; does nothing to one that has them. All in one transaction, so that a
    crash leaves an empty file or a whole one. For its owner alone, as then is all that SQLite lays beside it."""
    path.touch(mode=0o600)
    with translated(path):
        connection = _connected(path)
        try:
            if _version(connection, path) == 0:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table, or never
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        finally:
            connection.close()


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to an existing queue; its user translates its errors. May be used by any one thread at a time."""
    with translated(path):
        connection = _connected(path)
        if _version(connection, path) == 0:
            connection.close()
            raise SpoolError(f"{path}: holds no queue; give the directory that mta.spool names")
        connection.execute(f"PRAGMA query_only = {int(read_only)}")
        return connection


def _connected(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"  # never makes a new one by mistake
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = OFF")  # Debian's default writes every deleted message once more
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise SpoolError(
            f"{path}: made by a newer Tollbridge (schema {version}, this one knows {VERSION}); install that one again"
        )
    return int(version)


def checked(connection: sqlite3.Connection, path: Path) -> None:
    """`SpoolError` if the table that says which files are wanted cannot be trusted."""
    with translated(path):
        (verdict,) = connection.execute("PRAGMA quick_check(message)").fetchone()
    if verdict != "ok":
        raise faults.damaged(path, str(verdict))


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as `SpoolError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise faults.of_database(error, path) from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; on the disk at the end."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # it may have rolled back by itself
            connection.execute("ROLLBACK")
        raise
