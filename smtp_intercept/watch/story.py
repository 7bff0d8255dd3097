"""One mail's records as people read them: what became of it, in a line, and all of it in order.

Pure. What strangers wrote is shown with its control characters spelled out: it commands no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from smtp_intercept.mta.printable import one_line
from smtp_intercept.watch.terms import NULL_SENDER, Record

MOST = 300  # characters of one value
RECIPIENTS = 50  # told of one message; --json has all
_COLUMN = 10
NOT_SEEN = "not seen"  # a session whose messages were encrypted


def name_of(records: Sequence[Record]) -> str:
    """By which it is asked for again: its id in the queue, or its session's and its number there."""
    first = _first(records, "message")
    if first is None:
        known = records[0] if records else {}
        return _text(known, "queue_id") or _text(known, "session")
    return _text(first, "queue_id") or f"{_text(first, 'session')}.{_text(first, 'number')}"


def state_of(records: Sequence[Record]) -> str:
    """What has become of it by now: as the last attempts for its recipients say, else as its client was told."""
    last = {_text(each, "recipient"): _text(each, "outcome") for each in _deliveries(records)}
    if last:
        return " and ".join(sorted(set(last.values())))
    if (message := _first(records, "message")) is not None:
        return _text(message, "outcome")
    session = _first(records, "session") or {}
    return NOT_SEEN if session.get("tls") == "started" or session.get("sasl_layer") else _text(session, "outcome")


def headline(records: Sequence[Record]) -> str:
    """In one line: when, what, from whom, to whom, from where, its name."""
    session, message = _first(records, "session") or {}, _first(records, "message")
    shown = message or next(_deliveries(records), None) or session
    client = _text(_table(session, "client"), "address") or "-"
    who = f"{_sender(shown)} → {_recipients(shown)}" if shown is not session else _text(session, "helo") or "-"
    return f"{_time(shown)}  {state_of(records):<9}  {who}  {client}  {name_of(records)}"


def told(records: Sequence[Record]) -> Iterator[str]:
    """All of it, in order; a session stands where it ``began``, if the record says so."""
    yield headline(records)
    for record in sorted(records, key=_began):
        tell = _TOLD.get(str(record.get("type")))
        for number, line in enumerate(tell(record) if tell else ()):
            kind = "" if number else _text(record, "type")
            at = " " * len(_began(record)) if number else _began(record)
            yield f"  {at}  {kind:<{_COLUMN}}{line}"


def _began(record: Record) -> str:
    return _text(record, "began") or _text(record, "time")


def _session(record: Record) -> Iterator[str]:
    client, server = _table(record, "client"), _table(record, "server")
    vlan = f", VLAN {_text(record, 'vlan')}" if record.get("vlan") else ""
    yield (
        f"{_text(record, 'session')}: {_end(client)} by {_text(record, 'port') or '?'}{vlan} to {_end(server)}, "
        f"{_text(record, 'direction')}, {_text(record, 'handler')}"
    )
    if record.get("helo"):
        yield f"EHLO {_text(record, 'helo')}"
    if record.get("tls") not in (None, "none"):
        yield f"STARTTLS {_text(record, 'tls')}"
    if record.get("sasl_layer"):
        yield "behind a security layer of SASL's"
    for key in ("doubt", "doubted"):
        if record.get(key):
            yield f"{key}: {_text(record, key)}"
    yield from _rules(record)
    reason = f" ({_text(record, 'reason')})" if record.get("reason") else ""
    yield f"{_text(record, 'outcome')}{reason} after {_text(record, 'seconds')} s"


def _message(record: Record) -> Iterator[str]:
    yield f"MAIL FROM {_sender(record)}"
    recipients = record.get("recipients")
    listed = [each for each in recipients if isinstance(each, Mapping)] if isinstance(recipients, list) else []
    for each in listed[:RECIPIENTS]:
        gone = ", thrown away by a rule" if each.get("discarded") else ""
        yield f"RCPT TO {_text(each, 'address')} ({_text(each, 'direction')}{gone}): {_text(each, 'reply')}"
    more = max(0, len(listed) - RECIPIENTS) + (_whole(record, "recipients_omitted"))
    if more:
        yield f"and {more} recipients more"
    yield from _rules(record)
    queued = f", queued as {_text(record, 'queue_id')}" if record.get("queue_id") else ""
    yield f"{_text(record, 'outcome')}{queued}, {_text(record, 'size_bytes')} octets: {_text(record, 'reply') or '-'}"


def _rules(record: Record) -> Iterator[str]:
    for key, says in (("rules", "by rules:"), ("would", "by rules that are only observed:")):
        if record.get(key):
            yield f"{says} {_text(record, key)}"


def _delivery(record: Record) -> Iterator[str]:
    host = _text(record, "host") or _text(record, "next_hop") or "-"
    yield (
        f"{_text(record, 'recipient')}, attempt {_text(record, 'attempt')} at {host}: {_text(record, 'outcome')}: "
        f"{_text(record, 'reply') or '-'}"
    )


def _notice(record: Record) -> Iterator[str]:
    yield f"{_text(record, 'queue_id')} to {_text(record, 'recipient') or NULL_SENDER}: {_text(record, 'actions')}"


_TOLD: dict[str, Callable[[Record], Iterator[str]]] = {
    "session": _session,
    "message": _message,
    "delivery": _delivery,
    "notice": _notice,
}


def _first(records: Sequence[Record], kind: str) -> Record | None:
    return next((each for each in records if each.get("type") == kind), None)


def _deliveries(records: Sequence[Record]) -> Iterator[Record]:
    """Of the mail itself, not of notices about it."""
    notices = {_text(each, "queue_id") for each in records if each.get("type") == "notice"}
    return (each for each in records if each.get("type") == "delivery" and _text(each, "queue_id") not in notices)


def _text(record: Record, key: str) -> str:
    """Fit for a terminal."""
    value = record.get(key)
    if isinstance(value, list):
        return ", ".join(one_line(str(each), MOST) for each in value[:RECIPIENTS])
    return "" if value is None else one_line(str(value), MOST)


def _table(record: Record, key: str) -> Record:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _whole(record: Record, key: str) -> int:
    value = record.get(key)
    return value if isinstance(value, int) else 0


def _end(of: Record) -> str:
    address = _text(of, "address")
    return f"[{address}]:{_text(of, 'port')}" if ":" in address else f"{address}:{_text(of, 'port')}"


def _time(record: Record) -> str:
    return f"{_text(record, 'time')[:19]}Z"


def _sender(record: Record) -> str:
    return _text(record, "sender") or NULL_SENDER


def _recipients(record: Record) -> str:
    if record.get("type") != "message":
        return _text(record, "recipient") or NULL_SENDER
    recipients = record.get("recipients")
    listed = [each for each in recipients if isinstance(each, Mapping)] if isinstance(recipients, list) else []
    number = len(listed) + _whole(record, "recipients_omitted")
    return (_text(listed[0], "address") if listed else "nobody") + (f" and {number - 1} more" if number > 1 else "")
