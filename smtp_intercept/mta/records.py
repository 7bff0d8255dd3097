"""The queue's rows: every statement that puts a message in, changes it or takes it out. Knows no files and no time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from smtp_intercept.direction import Direction
from smtp_intercept.mta import ids
from smtp_intercept.mta.clock import MADE_AT, STEP_S, Step
from smtp_intercept.mta.envelope import Body, Entry, Envelope, Notify, Origin, Outcome, Queued, Recipient, State
from smtp_intercept.mta.listing import Attempt, Summary

HISTORY = 20  # attempts kept of each recipient: five days at the usual pace, and enough to see a pattern
REPLY_CHARS = 1000  # kept of a reply: a server may send any number of lines
TRIM_PAGES = 1024  # given back in one transaction

_MESSAGE = """SELECT seq, received_at, content_bytes, origin, reverse_path, body, smtputf8, ret, envid, held, alternate,
    giving_back FROM message"""
_RECIPIENTS = """SELECT number, address, notify, original, state, attempts, next_at, reply, host, delay_told
    FROM recipient WHERE seq = ? ORDER BY number"""
# What `due_at` is of; said once.
_DUE = """UPDATE message SET due_at = iif(held, NULL, (SELECT min(iif(message.giving_back, 0, next_at)) FROM recipient
    WHERE recipient.seq = message.seq AND state = 'queued')) WHERE seq = ?"""
_GONE = ("message", "recipient", "attempt", "content")


class Records:
    """On one connection; errors are SQLite's. A message is called by its number here, see `ids`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        (self._last,) = connection.execute("SELECT ifnull(max(seq), 0) FROM message").fetchone()

    # --- in and out ---------------------------------------------------------------------------

    def insert(
        self, origin: Origin, envelope: Envelope, data: bytes | None, file: str, size_bytes: int, now: float
    ) -> int:
        """``data`` is the content, or None if it is in ``file``. The number of the new message, due now."""
        seq: int = max(int(now * 1e6), self._last + 1)
        self._last = seq
        self._sql.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', 0, ?)",
            (seq, now, size_bytes, file, _origin_text(origin), *_envelope_row(envelope), now),
        )
        self._sql.executemany(
            "INSERT INTO recipient (seq, number, address, notify, original, state, next_at) "
            "VALUES (?, ?, ?, ?, ?, 'queued', ?)",
            [(seq, n, to.address, to.notify.value, to.original, now) for n, to in enumerate(envelope.recipients)],
        )
        if data is not None:
            self._sql.execute("INSERT INTO content VALUES (?, ?)", (seq, data))
        return seq

    def settle(self, seq: int, outcomes: Sequence[Outcome], now: float) -> str | None:
        """The name of the file ("" if none) if the message is done with and its rows are gone, else None."""
        for outcome in outcomes:
            self._settle(seq, outcome, now)
        (open_,) = self._sql.execute(
            "SELECT count(*) FROM recipient WHERE seq = ? AND state IN ('queued', 'dead')", (seq,)
        ).fetchone()
        if not open_:
            return self.delete(seq)
        self._sql.execute(_DUE, (seq,))
        return None

    def _settle(self, seq: int, outcome: Outcome, now: float) -> None:
        reply, host = _printable(outcome.reply)[:REPLY_CHARS], _printable(outcome.host)
        changed = self._sql.execute(
            "UPDATE recipient SET state = ?, next_at = ?, delay_told = delay_told OR ?, attempts = attempts + ?, "
            "reply = iif(?, ?, reply), host = iif(?, ?, host) WHERE seq = ? AND number = ? AND state = 'queued'",
            (
                *(outcome.state.value, outcome.next_at, outcome.delay_told, outcome.attempted),
                *(bool(reply), reply, bool(reply), host, seq, outcome.number),
            ),
        ).rowcount
        if not changed:
            raise ValueError(f"{ids.of_number(seq)}: no recipient {outcome.number} is queued")
        if outcome.attempted:
            self._remember(seq, outcome, reply, host, now)

    def _remember(self, seq: int, outcome: Outcome, reply: str, host: str, now: float) -> None:
        (nth,) = self._sql.execute(
            "SELECT attempts FROM recipient WHERE seq = ? AND number = ?", (seq, outcome.number)
        ).fetchone()
        self._sql.execute(
            "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (seq, outcome.number, nth, now, outcome.state.value, outcome.code, outcome.status, reply, host),
        )
        self._sql.execute(
            "DELETE FROM attempt WHERE seq = ? AND number = ? AND nth <= ?", (seq, outcome.number, nth - HISTORY)
        )

    def delete(self, seq: int) -> str | None:
        """The name of the file to remove after the commit ("" if none); None if there is no such message."""
        file = self.file(seq)
        if file is not None:
            for table in _GONE:
                self._sql.execute(f"DELETE FROM {table} WHERE seq = ?", (seq,))
        return file

    # --- what an administrator changes --------------------------------------------------------

    def hold(self, seq: int) -> bool:
        """Whether there was something to change; likewise below."""
        return self._change(seq, "held = 1", "NOT held")

    def release(self, seq: int) -> bool:
        return self._change(seq, "held = 0", "held")

    def retry(self, seq: int, now: float) -> bool:
        """The dead come to life; what is held stays held. Due before it came: by an administrator's wish, and in front
        of the others."""
        (received_at,) = self._sql.execute(
            "SELECT ifnull(min(received_at), ?) FROM message WHERE seq = ?", (now, seq)
        ).fetchone()
        return self._revive(seq, min(now, received_at - 1)) and self._change(seq, "giving_back = 0", "true")

    def reroute(self, seq: int, host: str, now: float) -> bool:
        """``host`` as in `Entry.alternate`."""
        return self._revive(seq, now) and self._change(seq, "giving_back = 0, alternate = :value", "true", host)

    def give_back(self, seq: int, now: float) -> bool:
        """Whoever delivers will fail its recipients and tell the sender."""
        return self._revive(seq, now) and self._change(seq, "held = 0, giving_back = 1", "NOT giving_back")

    def _revive(self, seq: int, now: float) -> bool:
        cursor = self._sql.execute(
            "UPDATE recipient SET state = 'queued', next_at = ? WHERE seq = ? AND state IN ('queued', 'dead')",
            (now, seq),
        )
        return cursor.rowcount > 0

    def _change(self, seq: int, what: str, when: str, value: str = "") -> bool:
        cursor = self._sql.execute(
            f"UPDATE message SET {what} WHERE seq = :seq AND {when}", {"seq": seq, "value": value}
        )
        self._sql.execute(_DUE, (seq,))  # recipients may have come to life though the message was so already
        return cursor.rowcount > 0

    # --- when the clock was set ---------------------------------------------------------------

    def step(self, step: Step) -> None:
        """What came before it came ``by_s`` later, as the clock reads now. An attempt that is due by the new clock is
        not put off: one too many does no harm."""
        since_at = min(step.before_at + step.by_s, step.now)
        self._sql.execute(
            "UPDATE message SET received_at = received_at + ? "
            "WHERE received_at <= ? AND NOT received_at BETWEEN ? AND ?",
            (step.by_s, step.before_at, since_at, step.now),
        )

    def bring_forward(self, now: float, longest_s: float) -> None:
        """Nobody waits longer than anybody may: what a clock that was ahead has put off, or taken, is due now. An
        arrival that cannot be is now; a clock that was never set is no judge of that."""
        far = "(SELECT seq FROM message WHERE due_at > :latest)"
        at = {"now": now, "latest": now + longest_s, "made": MADE_AT, "ahead": now + STEP_S}
        self._sql.execute(
            f"UPDATE recipient SET next_at = :now WHERE state = 'queued' AND next_at > :latest AND seq IN {far}", at
        )
        self._sql.execute("UPDATE message SET due_at = :now WHERE due_at > :latest", at)
        if now >= MADE_AT:
            self._sql.execute(
                "UPDATE message SET received_at = :now WHERE received_at < :made OR received_at > :ahead", at
            )

    # --- what is asked ------------------------------------------------------------------------

    def due(self, now: float, limit: int, busy: Collection[int], after: tuple[float, int] = (-1.0, -1)) -> list[Entry]:
        """As `Spool.due`; ``after`` is a message's `due_at` and number."""
        rows = self._sql.execute(
            f"{_MESSAGE} WHERE due_at <= ? AND (due_at, seq) > (?, ?) ORDER BY due_at, seq LIMIT ?",
            (now, *after, limit + len(busy)),
        ).fetchall()
        entries = [self._entry(row, due_at=now) for row in [row for row in rows if row[0] not in busy][:limit]]
        return [entry for entry in entries if entry.queued]  # the command may have deleted one meanwhile

    def next_due_at(self) -> float | None:
        (due_at,) = self._sql.execute("SELECT min(due_at) FROM message WHERE due_at IS NOT NULL").fetchone()
        return None if due_at is None else float(due_at)

    def entry(self, seq: int) -> Entry | None:
        """With all its recipients; None if it is not there."""
        row = self._sql.execute(f"{_MESSAGE} WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else self._entry(row)

    def attempts(self, seq: int) -> list[Attempt]:
        """The oldest first; the last `HISTORY` of each recipient."""
        rows = self._sql.execute(
            "SELECT number, at, state, code, status, reply, host FROM attempt WHERE seq = ? ORDER BY at, number", (seq,)
        )
        return [Attempt(*row) for row in rows]

    def file(self, seq: int) -> str | None:
        """The name of the content's file, "" if it is in the database; None if there is no such message."""
        row = self._sql.execute("SELECT file FROM message WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else str(row[0])

    def data(self, seq: int) -> bytes | None:
        """The content that is in the database; None if it is not, or not any more."""
        row = self._sql.execute("SELECT data FROM content WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else bytes(row[0])

    def unknown(self, files: Iterable[str]) -> list[str]:
        """Those that belong to no message."""
        wanted = {name for (name,) in self._sql.execute("SELECT file FROM message WHERE file != ''")}
        return [name for name in files if name not in wanted]

    def summary(self) -> Summary:
        row = self._sql.execute(
            "SELECT count(*), ifnull(sum(content_bytes), 0), ifnull(sum(held), 0), "
            "ifnull(sum(due_at IS NULL AND NOT held), 0), min(received_at) FROM message"
        ).fetchone()
        return Summary(*row)

    def trim(self, keep_pages: int) -> bool:
        """Give a piece of what deleted mail left back to the disk; whether there is more."""
        (free,) = self._sql.execute("PRAGMA freelist_count").fetchone()
        if free <= keep_pages:
            return False
        # A script, for `execute` ends such a statement after its first step, which is one page.
        self._sql.executescript(f"PRAGMA incremental_vacuum({min(TRIM_PAGES, free - keep_pages)})")
        self._sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # the file shrinks with it
        return True

    def _entry(self, row: Sequence[Any], due_at: float | None = None) -> Entry:
        seq, received_at, size_bytes, origin, reverse_path, body, smtputf8, ret, envid, held, alternate, returning = row
        queued = [_queued(one) for one in self._sql.execute(_RECIPIENTS, (seq,))]
        recipients = tuple(one.recipient for one in queued)
        wanted = [one for one in queued if due_at is None or _is_due(one, due_at, bool(returning))]
        return Entry(
            *(ids.of_number(seq), received_at, size_bytes, _origin(origin)),
            Envelope(reverse_path, recipients, Body(body), bool(smtputf8), ret, envid),
            *(tuple(wanted), bool(held), alternate, bool(returning)),
        )


def _is_due(queued: Queued, now: float, returning: bool) -> bool:
    return queued.state is State.QUEUED and (returning or queued.next_at <= now)


def _queued(row: Sequence[Any]) -> Queued:
    number, address, notify, original, state, attempts, next_at, reply, host, delay_told = row
    recipient = Recipient(address, Notify(notify), original)
    return Queued(number, recipient, State(state), attempts, next_at, reply, host, bool(delay_told))


def _envelope_row(envelope: Envelope) -> tuple[str, str, bool, str, str]:
    return envelope.reverse_path, envelope.body.value, envelope.smtputf8, envelope.ret, envelope.envid


def _origin_text(origin: Origin) -> str:
    return json.dumps({**asdict(origin), "direction": origin.direction.value, "helo": _printable(origin.helo)})


def _origin(text: str) -> Origin:
    fields = json.loads(text)
    (client, client_port), (server, server_port) = fields.pop("client"), fields.pop("server")
    direction, served = Direction(fields.pop("direction")), tuple(fields.pop("served"))
    return Origin((client, client_port), (server, server_port), direction, served=served, **fields)


def _printable(text: str) -> str:
    """A stranger's octets that were no UTF-8 cannot be stored as text."""
    return text.encode("utf-8", "backslashreplace").decode()
