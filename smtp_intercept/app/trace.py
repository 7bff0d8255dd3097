"""`tollbridge trace`: what became of a mail, out of the tracking index; `tollbridge reindex` has that made anew.

Reads the index as the user who writes it, whatever lies in it: that one hears strangers, and root does not follow it.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from smtp_intercept.app import config as configuration
from smtp_intercept.app import lentlogs, streams, tracking_status
from smtp_intercept.app.accounts import account
from smtp_intercept.app.exits import Exit, FailedError
from smtp_intercept.app.rundir import RunDir, read_json
from smtp_intercept.app.tracker import REBUILD, TakenError, Tracker, make_directory, tracker_of
from smtp_intercept.app.writable import as_user
from smtp_intercept.timestamp import timestamp
from smtp_intercept.watch import story, terms
from smtp_intercept.watch.index import LOCK, Found, Index, volumes_in
from smtp_intercept.watch.terms import Field, Kind, Question, Value

POLL_S = 0.5
# option → what of a record it asks for, and how that is spelled there
_ASKED = {
    "sender": (Field.SENDER, terms.address),
    "recipient": (Field.RECIPIENT, terms.address),
    "client": (Field.CLIENT, str.casefold),
    "message_id": (Field.MESSAGE_ID, terms.message_id),
    "outcome": (Field.OUTCOME, str.casefold),
    "rule": (Field.RULE, str.casefold),
}


def trace(arguments: argparse.Namespace) -> int:
    """The verb. One mail is told whole, of several each in a line; with --json each is told whole."""
    directory = _directory(arguments)
    streams.warn(_why_behind(RunDir(arguments.run_dir)))
    with _as_owner(directory):
        index = Index(directory)
        try:
            if arguments.follow:
                return _follow(index, question(arguments), as_json=arguments.json)
            return _shown(index, arguments)
        except sqlite3.Error as error:
            raise FailedError(f"{directory}: {error}; if it stays so: tollbridge reindex") from None
        finally:
            index.close()
            streams.warn(f"{path} cannot be read: {why}; tollbridge reindex" for path, why in index.unread.items())


def question(arguments: argparse.Namespace) -> Question:
    """What the words ask for."""
    given = {name: getattr(arguments, name) for name in _ASKED}
    values = {(field, spelled(given[name])) for name, (field, spelled) in _ASKED.items() if given[name] is not None}
    values |= {(Field.SUBJECT, word) for text in arguments.subject or () for word in terms.words(text)}
    if arguments.id is not None:
        values.add((Field.ID, _session_of(arguments.id)[0]))
    return Question(frozenset(values), arguments.since, arguments.until)


def _session_of(text: str) -> tuple[str, str]:
    """``SESSION.NUMBER`` as the list names a message that has no id in the queue."""
    plain = text.strip().casefold()
    session, dot, number = plain.rpartition(".")
    return (session, number) if dot and "-" in session and number.isascii() and number.isdigit() else (plain, "")


def _directory(arguments: argparse.Namespace) -> Path:
    if arguments.index is not None:
        directory = Path(arguments.index)
    elif (given := configuration.load(arguments.config).tracking.index) is not None:
        directory = Path(given)
    else:
        raise FailedError("there is no tracking index: set tracking.index, then restart `tollbridge run`")
    try:
        there = (directory / LOCK).exists() or bool(volumes_in(directory))
    except FileNotFoundError:
        there = False
    if not there:
        raise FailedError(f"{directory} has no tracking index: the gateway has not yet run with tracking.index set so")
    return directory


def _why_behind(run_dir: RunDir) -> list[str]:
    page = read_json(run_dir.status) if run_dir.holder("run") else None
    tracker = page.get("tracker") if isinstance(page, dict) else None
    return tracking_status.index_warnings((tracker or {}).get("index") or {})


def _as_owner(directory: Path) -> Any:
    owner = directory.stat()
    return nullcontext() if os.geteuid() else as_user(owner.st_uid, owner.st_gid)


# --- what is found -------------------------------------------------------------------------------------------------


def _shown(index: Index, arguments: argparse.Namespace) -> int:
    number = _session_of(arguments.id)[1] if arguments.id else ""
    hits = (hit for hit in index.find(question(arguments)) if not number or str(hit.record.get("number")) == number)
    mails = list(islice(_mails(index, hits), arguments.number + 1))
    shown = mails[: arguments.number]
    if arguments.json:
        for mail in shown:
            print(json.dumps(page(mail)))
    elif len(shown) == 1:
        print("\n".join(story.told(records(shown[0]))))
    else:
        print("\n".join(story.headline(records(mail)) for mail in reversed(shown)) or "no mail fits")
    if len(mails) > len(shown) and not arguments.json:
        streams.tell(f"there are more than {arguments.number}, and these are the newest; --number shows more of them")
    return Exit.DONE


def _mails(index: Index, hits: Iterable[Found]) -> Iterator[list[Found]]:
    """Each once, whichever of its records fit."""
    seen = set[tuple[int, int]]()
    for hit in hits:
        if hit.place in seen or hit.stored.kind is Kind.SESSION:  # its messages fit too
            continue
        mail = index.mail(hit)
        if not seen & (places := {found.place for found in mail if found.stored.kind is not Kind.SESSION}):
            yield mail
        seen |= places


def records(mail: Sequence[Found]) -> list[dict[str, Any]]:
    """Of one mail, for `story`: a session's with when it ``began``, which its own time is the end of."""
    return [_with_beginning(found.record, found.stored.at_ms / 1000) for found in mail]


def _with_beginning(record: terms.Record, at: float) -> dict[str, Any]:
    seconds = record.get("seconds")
    if record.get("type") != "session" or not isinstance(seconds, int | float) or not 0 <= seconds <= at:
        return dict(record)
    return {**record, "began": timestamp(at - seconds)}


def page(mail: Sequence[Found]) -> dict[str, Any]:
    """What --json prints of one mail: its records as the mail log has them."""
    known = [dict(found.record) for found in mail]
    return {"mail": story.name_of(known), "state": story.state_of(known), "records": known}


# --- what comes ----------------------------------------------------------------------------------------------------


def _follow(index: Index, asked: Question, *, as_json: bool) -> int:
    """Each record that fits, as it comes, until a signal."""
    place = index.end()
    while True:
        for found in index.since(place):
            place = found.place
            for fits in fitting(index, found, asked.values):
                record = records([fits])
                print(json.dumps(fits.record) if as_json else "\n".join([*story.told(record)][1:]), flush=True)
        time.sleep(POLL_S)


def fitting(index: Index, found: Found, values: frozenset[Value]) -> list[Found]:
    """The record, if it has them; with a session, whose record has the client, its messages too."""
    own = terms.values_of(found.record, found.stored.kind)
    if found.stored.kind is not Kind.SESSION:
        return [found] if values <= own else []
    client = set(terms.of_session(found.record))
    if not client & values:
        return [found] if values <= own else []
    session = (Field.ID, terms.session_of(found.record).casefold())
    messages = [each for each in index.find(Question(frozenset({session}))) if each.stored.kind is Kind.MESSAGE]
    fit = [one for one in messages if values <= client | terms.values_of(one.record, Kind.MESSAGE)]
    return [*reversed(fit), found] if fit or values <= client | own else []


# --- made anew -----------------------------------------------------------------------------------------------------


def reindex(arguments: argparse.Namespace) -> int:
    """The verb. Where a tracker runs, it is told to; else it is done here."""
    settings = configuration.load(arguments.config)
    if settings.tracking.index is None:
        raise FailedError("there is no tracking index: set tracking.index")
    directory, log = Path(settings.tracking.index), Path(settings.log.mail)
    uid, gid = account("tracker") if not os.geteuid() else (os.geteuid(), os.getegid())
    make_directory(directory, uid, gid)
    logs = lentlogs.logs(log)
    with _as_owner(directory):
        (directory / REBUILD).touch()
        try:
            tracker = tracker_of(settings, lambda: logs)
        except TakenError:
            print(f"the running tracker makes {directory} anew from {log} and its copies (tollbridge status)")
            return Exit.DONE
        try:
            _run_to_the_end(tracker)
        finally:
            tracker.close()
    return Exit.DONE


def _run_to_the_end(tracker: Tracker) -> None:
    began_at = time.monotonic()
    try:
        while not tracker.turn(time.monotonic()):
            pass
    except sqlite3.Error as error:
        raise FailedError(f"tracking.index: {error}") from None
    if tracker.why:
        raise FailedError(f"the tracking index stands still: {tracker.why}")
    print(f"{tracker.report()['records']} records indexed in {time.monotonic() - began_at:.0f} s")
