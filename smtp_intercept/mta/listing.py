"""Which messages of the queue, and what is shown of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from smtp_intercept.direction import recipient_domain
from smtp_intercept.mta import ids

PAGE = 500  # messages in memory at a time; a reader that is slow keeps no transaction open between pages


class Standing(Enum):
    """Of a message as a whole."""

    QUEUED = "queued"
    HELD = "held"  # by an administrator
    RETURNING = "returning"  # its sender will be told that it failed
    DEAD = "dead"  # nothing more to try, and nobody could be told


@dataclass(frozen=True, slots=True)
class Filter:
    """All that is given must fit. In addresses `*` stands for anything; case does not matter. ``before_at`` is of the
    arrival."""

    ids: tuple[str, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    standing: Standing | None = None
    before_at: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt for one recipient, as its `Outcome` said."""

    number: int
    at: float
    state: str
    code: int
    status: str
    reply: str
    host: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The queue in numbers. ``oldest_at`` is None when it is empty."""

    messages: int
    content_bytes: int
    held: int
    dead: int
    oldest_at: float | None


_STANDING = """CASE WHEN held THEN 'held' WHEN giving_back THEN 'returning' WHEN due_at IS NULL THEN 'dead'
    ELSE 'queued' END"""
_TO = "EXISTS (SELECT 1 FROM recipient r WHERE r.seq = message.seq AND {})"
_CONDITIONS = {
    "ids": "seq IN (SELECT value FROM json_each(:ids))",
    "sender": "fits(reverse_path, :sender)",
    "recipient": _TO.format("fits(r.address, :recipient)"),
    "domain": _TO.format("domain_of(r.address) = :domain"),
    "standing": f"{_STANDING} = :standing",
    "before_at": "received_at < :before_at",
}
_TIME = "strftime('%Y-%m-%dT%H:%M:%fZ', {}, 'unixepoch')"
# In SQL, because 100,000 objects and their JSON would take Python three times the two seconds that a list may take.
_LINE = f"""json_object('time', {_TIME.format("received_at")}, 'state', {_STANDING}, 'size_bytes', content_bytes,
    'sender', reverse_path, 'recipients', (SELECT json_group_array(json_object('address', address, 'state', state,
    'attempts', attempts, 'next_at', iif(state = 'queued', {_TIME.format("next_at")}, NULL), 'host', host,
    'reply', reply)) FROM recipient r WHERE r.seq = message.seq), 'alternate', alternate, 'origin', json(origin))"""

# What a table shows of it, in two thirds of the time.
_BRIEF = f"""json_object('time', strftime('%Y-%m-%dT%H:%M:%S', received_at, 'unixepoch'), 'state', {_STANDING},
    'size_bytes', content_bytes, 'sender', reverse_path, 'alternate', alternate, 'recipients', (SELECT json_group_array(
    json_object('address', address, 'state', state, 'host', host, 'reply', reply)) FROM recipient r
    WHERE r.seq = message.seq))"""


def numbers(connection: sqlite3.Connection, wanted: Filter) -> Iterator[list[int]]:
    """The numbers of the messages that fit, in the order of their arrival, a page at a time."""
    for page in _pages(connection, wanted, "NULL"):
        yield [seq for seq, _ in page]


def lines(connection: sqlite3.Connection, wanted: Filter, *, brief: bool = False) -> Iterator[str]:
    """One JSON object for each message that fits, in the order of their arrival; ``brief``: what a table needs."""
    for page in _pages(connection, wanted, _BRIEF if brief else _LINE):
        for seq, text in page:
            yield f'{{"id":"{ids.of_number(seq)}",{text[1:]}'


def _pages(connection: sqlite3.Connection, wanted: Filter, what: str) -> Iterator[list[tuple[int, Any]]]:
    connection.create_function("fits", 2, _fits, deterministic=True)
    connection.create_function("domain_of", 1, _domain_of, deterministic=True)
    values = _values(wanted)
    where = " AND ".join(["seq > :after", *(_CONDITIONS[name] for name in values)])
    query = f"SELECT seq, {what} FROM message WHERE {where} ORDER BY seq LIMIT {PAGE}"
    after = -1
    while page := connection.execute(query, {**values, "after": after}).fetchall():
        yield page
        after = page[-1][0]


def _values(wanted: Filter) -> dict[str, Any]:
    """What is given, as SQL sees it."""
    given = {
        "ids": json.dumps([ids.number_of(one) for one in wanted.ids]) if wanted.ids else None,
        "sender": wanted.sender,
        "recipient": wanted.recipient,
        "domain": None if wanted.domain is None else _domain_of(f"x@{wanted.domain}"),
        "standing": wanted.standing and wanted.standing.value,
        "before_at": wanted.before_at,
    }
    return {name: value for name, value in given.items() if value is not None}


def _fits(address: str, pattern: str) -> bool:
    """`*` is the only wildcard: `[` and `?` are letters of addresses. Greedy search of the parts in order."""
    first, *parts = pattern.casefold().split("*")
    text = address.casefold()
    if not parts:
        return text == first
    if not text.startswith(first):
        return False
    at = len(first)
    for part in parts[:-1]:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return text.endswith(parts[-1]) and len(text) - len(parts[-1]) >= at


def _domain_of(address: str) -> str:
    return recipient_domain(address) or ""
