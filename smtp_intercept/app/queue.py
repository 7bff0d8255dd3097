"""`tollbridge queue`: what an administrator sees of the queue and changes in it, with the MTA running or not.

Works on the spool itself. What strangers wrote is shown without its control characters.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from smtp_intercept.app.exits import Exit, UsageError
from smtp_intercept.app.reading import spool_in
from smtp_intercept.mta import ids
from smtp_intercept.mta.envelope import Entry, Queued
from smtp_intercept.mta.faults import NoQueueError, NoSuchMessageError
from smtp_intercept.mta.listing import Filter
from smtp_intercept.mta.nexthop import place_of
from smtp_intercept.mta.postmaster import Postmaster, queue_in
from smtp_intercept.mta.records import Records
from smtp_intercept.timestamp import timestamp

HEADER_BYTES = 256 << 10  # shown of one message; more is no header
LINES_AT_ONCE = 500  # printed: a call for each costs a tenth of a long list's time
SHOWN = 10  # messages named before they are deleted

_WAITING = frozenset({"queued", "dead"})
_UNITS = ("B", "K", "M", "G", "T")


def list_(arguments: argparse.Namespace) -> int:
    """One line for each message, and one for each last reply. A box on which no MTA has run has an empty queue."""
    try:
        return _listed(arguments)
    except NoQueueError as none:
        if arguments.spool is not None:  # somebody means it to be there
            raise
        if not arguments.json:
            print(f"the queue is empty: no MTA has run here yet ({none.path} is not there)")
        return Exit.DONE


def _listed(arguments: argparse.Namespace) -> int:
    shown = 0
    gc.freeze()  # what stands now need not be walked for each thousand of rows
    with _queue(arguments) as queue:
        lines = queue.lines(_filter(arguments), brief=not arguments.json)
        rows = lines if arguments.json else map(_row, map(json.loads, lines))
        while page := list(islice(rows, LINES_AT_ONCE)):
            print("\n".join(page))
            shown += len(page)
    if not arguments.json:
        print(_messages(shown) if shown else "no message fits" if _is_narrowed(arguments) else "the queue is empty")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """All that is known of one message; of its content only the header, unless the content is asked for."""
    with _queue(arguments) as queue:
        entry = queue.entry(arguments.id)
        with queue.content(arguments.id) as content:
            if arguments.content:
                shutil.copyfileobj(content, sys.stdout.buffer)
                sys.stdout.buffer.flush()
                return 0
            page = _page(entry, queue, _header(content.read(HEADER_BYTES)))
    print(json.dumps(page) if arguments.json else _page_text(page))
    return 0


def hold(arguments: argparse.Namespace) -> int:
    return _change(arguments, Records.hold, "held")


def release(arguments: argparse.Namespace) -> int:
    return _change(arguments, Records.release, "released")


def retry(arguments: argparse.Namespace) -> int:
    now = time.time()
    return _change(arguments, lambda records, seq: records.retry(seq, now), "to be tried at once")


def reroute(arguments: argparse.Namespace) -> int:
    """The dead and the waiting are tried at once."""
    now, host = time.time(), arguments.via
    where = f"rerouted to {host}" if host else "routed as configured again"
    return _change(arguments, lambda records, seq: records.reroute(seq, host, now), where)


def delete(arguments: argparse.Namespace) -> int:
    """Asks first, names what it asks about, and deletes no more than that."""
    with _queue(arguments) as queue:
        seqs, status = _chosen(arguments, queue)
        if not seqs or not (arguments.yes or _agreed(queue, seqs, arguments.notify)):
            print("nothing was deleted")
            return status or int(bool(seqs))
        if arguments.notify:
            now = time.time()
            changed = queue.change(seqs, lambda records, seq: records.give_back(seq, now))
            print(f"{_messages(changed)} will be returned to the sender by the running MTA")
        else:
            print(f"{_messages(queue.delete(seqs))} deleted")
    return status


# --- which messages ---------------------------------------------------------------------------------


@contextmanager
def _queue(arguments: argparse.Namespace) -> Iterator[Postmaster]:
    with queue_in(arguments.spool or spool_in(arguments.config) or _configured(arguments.config)) as queue:
        yield queue


def _configured(path: Path) -> Path:
    """Raises `ConfigErrors`, which say what is wrong with the file."""
    from smtp_intercept.app import config  # slow to load, and its errors are all that it is needed for

    return Path(config.load(path).mta.spool)


def _filter(arguments: argparse.Namespace) -> Filter:
    return Filter(
        ids=tuple(arguments.ids),
        sender=arguments.sender,
        recipient=arguments.recipient,
        domain=arguments.domain,
        standing=arguments.state,
        before_at=None if arguments.older is None else time.time() - arguments.older,
    )


def _is_narrowed(arguments: argparse.Namespace) -> bool:
    return _filter(arguments) != Filter()


def _change(arguments: argparse.Namespace, change: Callable[[Records, int], bool], done: str) -> int:
    with _queue(arguments) as queue:
        seqs, status = _chosen(arguments, queue)
        changed = queue.change(seqs, change)
    print(f"{_messages(changed)} {done}" + (f"; {len(seqs) - changed} left as they are" if changed < len(seqs) else ""))
    return status


def _chosen(arguments: argparse.Namespace, queue: Postmaster) -> tuple[list[int], int]:
    """The messages, and the exit status: 1 if one that was named is not there, which stops none of the others."""
    if not (_is_narrowed(arguments) or arguments.all):
        raise UsageError("name the messages by id, by a filter such as --to, or all of them by --all")
    wanted = _filter(arguments)
    known = {ids.of_number(seq) for seq in queue.found(Filter(ids=wanted.ids))} if wanted.ids else set()
    missing = [one for one in wanted.ids if one.upper() not in known]
    for one in missing:
        print(f"tollbridge: {NoSuchMessageError(_plain(one))}", file=sys.stderr)
    return queue.found(replace(wanted, ids=tuple(known)) if known or not missing else wanted), int(bool(missing))


def _agreed(queue: Postmaster, seqs: Sequence[int], notify: bool) -> bool:
    for line in queue.lines(Filter(ids=tuple(ids.of_number(seq) for seq in seqs[:SHOWN])), brief=True):
        print(_row(json.loads(line)))
    more = f" ({len(seqs) - SHOWN} more than shown)" if len(seqs) > SHOWN else ""
    how = "and tell the sender" if notify else "for good, telling nobody"
    try:
        return input(f"Delete {_messages(len(seqs))}{more} {how}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def host(text: str) -> str:
    """An argument: "" or a place as in the configuration."""
    try:
        return str(place_of(text)) if text else ""
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# --- what is shown ----------------------------------------------------------------------------------


def _row(message: dict[str, Any]) -> str:
    waiting = [one for one in message["recipients"] if one["state"] in _WAITING]
    first = _plain(waiting[0]["address"]) if waiting else ""
    more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
    head = f"{message['id']}  {message['time']}Z  {_size(message['size_bytes'])}  {message['state']:<9}"
    via = f"  via {message['alternate']}" if message["alternate"] else ""
    replies = dict.fromkeys(f"{one['host']}: {one['reply']}" for one in waiting if one["reply"])
    lines = [f"{head}  {_sender(message['sender'])} → {first}{more}{via}", *(f"    {_plain(one)}" for one in replies)]
    return "\n".join(lines)


def _page(entry: Entry, queue: Postmaster, header: str) -> dict[str, Any]:
    """What `show --json` prints."""
    attempts = queue.attempts(entry.id)
    return {
        "id": entry.id,
        "time": timestamp(entry.received_at),
        "size_bytes": entry.content_bytes,
        "held": entry.held,
        "returning": entry.returning,
        "alternate": entry.alternate,
        "sender": entry.envelope.reverse_path,
        "body": entry.envelope.body.value,
        "smtputf8": entry.envelope.smtputf8,
        "ret": entry.envelope.ret,
        "envid": entry.envelope.envid,
        "origin": {**asdict(entry.origin), "direction": entry.origin.direction.value},
        "recipients": [
            _recipient(one) | {"attempts": [_attempt(asdict(each)) for each in attempts if each.number == one.number]}
            for one in entry.queued
        ],
        "header": header,
    }


def _recipient(one: Queued) -> dict[str, Any]:
    return {
        "address": one.recipient.address,
        "original": one.recipient.original,
        "notify": one.recipient.notify.name,
        "state": one.state.value,
        "next_at": timestamp(one.next_at),
        "delay_told": one.delay_told,
    }


def _attempt(attempt: dict[str, Any]) -> dict[str, Any]:
    del attempt["number"]
    return attempt | {"at": timestamp(attempt["at"])}


def _page_text(page: dict[str, Any]) -> str:
    lines = [f"{name + ':':<12}{_plain(value)}" for name, value in _facts(page) if value]
    for to in page["recipients"]:
        lines.append(f"{'to:':<12}{_plain(to['address'])} ({to['state']}{_then(to, page['time'])})")
        for each in to["attempts"]:
            host, reply = _plain(each["host"]), _plain(each["reply"])
            lines.append(f"    {each['at'][:19]}Z  {each['state']:<9}  {host or '-'}: {reply}")
    header = [_plain(line) for line in page["header"].splitlines()]
    return "\n".join([*lines, "", *header])


def _then(to: dict[str, Any], arrived: str) -> str:
    if to["state"] != "queued":
        return ""
    return f", next try {to['next_at'][:19]}Z" if to["next_at"] >= arrived else ", to be tried at once"


def _facts(page: dict[str, Any]) -> Iterator[tuple[str, str]]:
    origin = page["origin"]
    yield "id", page["id"]
    yield "arrived", f"{page['time'][:19]}Z"
    yield "size", f"{page['size_bytes']} bytes"
    yield "state", "held" if page["held"] else "returning to its sender" if page["returning"] else ""
    yield "via", page["alternate"]
    yield "client", f"{origin['client'][0]} ({origin['helo']})" if origin["client"][0] else "this box"
    yield "dialled", origin["server"][0]
    yield "direction", origin["direction"]
    yield "from", _sender(page["sender"])


def _header(content: bytes) -> str:
    """Up to the empty line; octets that are no UTF-8 are spelled out."""
    ends = [at for end in (b"\r\n\r\n", b"\n\n") if (at := content.find(end)) >= 0]
    return content[: min(ends, default=len(content))].decode(errors="backslashreplace").replace("\r\n", "\n")


def _sender(reverse_path: str) -> str:
    return _plain(reverse_path) or "<>"


def _plain(text: str) -> str:
    """A stranger's text could otherwise command the terminal."""
    if text.isprintable():  # nearly always; a long list is many letters
        return text
    return "".join(letter if letter.isprintable() or letter == "\t" else ascii(letter)[1:-1] for letter in text)


def _size(size_bytes: float) -> str:
    power = 0
    while size_bytes >= 1000 and power < len(_UNITS) - 1:
        size_bytes, power = size_bytes / 1024, power + 1
    return f"{size_bytes:>5.{min(power, 1)}f}{_UNITS[power]}"


def _messages(number: int) -> str:
    return f"{number} message{'' if number == 1 else 's'}"
