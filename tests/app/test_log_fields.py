"""Every field of the mail log stands in docs/log.md, and nothing else does: asked of the code that writes records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smtp_intercept.direction import Direction, Protection
from smtp_intercept.mta.receive import _UNHEARD
from smtp_intercept.passage import Arrival, Passage
from smtp_intercept.policy import Notes, Ruling
from smtp_intercept.session import Session
from smtp_intercept.transaction import Message, Outcome, Recipient
from smtp_intercept.wire import ReplyLine
from tests.app.test_maillog import Log, session
from tests.watch import logs

PAGE = Path(__file__).parents[2] / "docs" / "log.md"
LISTED = ("recipients", "client", "server")  # tables whose fields have rows of their own
# Of the MTA's settling, as `tests/mta/test_runner.py` and others see them.
SETTLED = [logs.delivery("Q", 0.0), logs.notice("Q", "P", 0.0), {"queue_id": "Q"}]


def written(tmp_path: Path) -> Iterator[Mapping[str, Any]]:
    """A record of each type, with all that it may have."""
    arrival = Arrival("p0", Direction.INCOMING, vlan=7)
    passage = Passage("s", 0.0, ("192.0.2.1", 1), ("192.0.2.2", 25), arrival, macs=("a", "b"))
    to = Recipient("bob@example.com", Direction.INCOMING, ReplyLine(250, True, b"Ok"), ours=True)
    notes = Notes()
    notes.take(Ruling(by=("a rule",), would=("one on trial",)))
    yield passage.message(Message(1, "a@example.org", (to,), 3, 5, 1.0, None, Outcome.UNKNOWN, notes), "t")
    passage.announce(("192.0.2.9", 9))
    for spoken in (Session(Protection()), _UNHEARD):
        yield passage.session(spoken, 1.0, "closed", "by the client", "t")
    log = Log(tmp_path / "log", each=1)
    for handler in ("proxy", "mta"):
        for number in range(20):
            log.log({**session(number), "handler": handler, "tls": "started"})
    log.clock.now += 60
    log.log.turn()
    yield from log.records()[-2:]
    yield from SETTLED


def fields(record: Mapping[str, Any]) -> Iterator[str]:
    for key, value in record.items():
        inner = value[0] if isinstance(value, list) and value else value
        if key in LISTED and isinstance(inner, Mapping):
            yield from (f"{key}.{below}" for below in inner)
        else:
            yield key


def told() -> set[str]:
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([a-z_.]+)`", row)}


def test_the_page_has_every_field_and_no_other(tmp_path: Path) -> None:
    found = {name for record in written(tmp_path) for name in fields(record)}
    assert found - {"client"} == told()  # of suppressed ones: a network, in the same row


def test_this_can_fail() -> None:
    assert {*fields({"new": 1, "client": {"odd": 1}})} == {"new", "client.odd"}
