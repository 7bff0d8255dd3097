"""`tollbridge filter test`: talks to one filter of the configuration as the gateway would, and shows all that is said.

The filter hears of a message that nobody has sent; what it changes is shown, and goes nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from smtp_intercept.app import naming
from smtp_intercept.app.exits import FailedError, UsageError
from smtp_intercept.app.filtering import hostname_of, settings_of
from smtp_intercept.app.rules import envelope_of, octets_of
from smtp_intercept.inspect.held import nowhere
from smtp_intercept.milter.agreement import Action, Agreement, Flag
from smtp_intercept.milter.body import NewBody
from smtp_intercept.milter.changes import edited, rewritten, split
from smtp_intercept.milter.client import FailureError, Filter, Told
from smtp_intercept.milter.envelope import Envelope, Path, Visit
from smtp_intercept.milter.replies import ReplaceBody, Word
from smtp_intercept.milter.visit import Content, Result, Visiting

SAMPLE = b"From: <test@example.com>\r\nTo: <test@example.com>\r\nSubject: tollbridge filter test\r\n\r\nA test.\r\n"
_SHOWN = 200  # octets of one thing that is said


def test(arguments: argparse.Namespace) -> int:
    """The verb. Exit status 1 if the filter fails."""
    config = naming.load(arguments.config)
    table = next((each for each in config.filter if each.name == arguments.name), None)
    if table is None:
        known = ", ".join(each.name for each in config.filter) or "none"
        raise UsageError(f"{arguments.name!r} is no [[filter]] of {arguments.config}; there are {known}")
    try:
        client = str(ip_address(arguments.client))
    except ValueError:
        raise UsageError(f"--from: {arguments.client} is not an IP address") from None
    content = SAMPLE if arguments.file is None else octets_of(arguments.file)
    header, blank, text = content.partition(b"\r\n\r\n")
    header += b"\r\n" if blank else b""
    sender, recipients = envelope_of(header)
    sender = sender if arguments.sender is None else arguments.sender
    recipients = arguments.rcpt or recipients
    if not recipients:
        raise UsageError("--rcpt: the message has no To: or Cc:, so name a recipient")
    visit = Visit("test", (client, 0), ("127.0.0.1", 25), hostname_of(config), helo=arguments.helo, ident="test.1")
    envelope = Envelope(visit, _path("FROM", sender), tuple(_path("TO", each) for each in recipients))
    fields, tail = split(header)
    said: list[dict[str, Any]] = []
    watch = partial(_json if arguments.json else _print, said)
    asked = Filter(settings_of(table), watch=watch)
    whole = Content(fields, tail, lambda: iter([text]), b"\r\n" if blank else b"")
    try:
        result, leading_space = asyncio.run(_told(asked, envelope, whole))
    except FailureError as failure:
        if arguments.json:
            print(json.dumps({"exchange": said, "failure": str(failure)}))
            return 1
        raise FailedError(f"filter {table.name}: {failure}") from None
    outcome = _outcome(result, envelope, fields, leading_space=leading_space)
    print(json.dumps({"exchange": said, **outcome}) if arguments.json else _text(outcome))
    return 0


async def _told(asked: Filter, envelope: Envelope, content: Content) -> tuple[Result, bool]:
    """And whether header fields had all that stands behind the colon."""
    visiting = Visiting(asked, lambda: NewBody(nowhere, 65_536))
    try:
        return await visiting.message(envelope, content), visiting.leading_space
    finally:
        visiting.close()
        asked.close()


def _path(keyword: str, address: str) -> Path:
    return Path(f"{keyword}:<{address}>".encode(errors="surrogateescape"))


def _entry(direction: str, what: object) -> dict[str, Any]:
    """One thing that was said."""
    match what:
        case Told(event, payload, macros):
            named = {name: _readable(value) for name, value in macros}
            return {"to": event.name, "text": _readable(payload), **({"macros": named} if named else {})}
        case str():
            return {"to": what.upper()}
        case Word():
            return {direction: what.name}
        case Agreement():
            return {
                direction: "AGREEMENT",
                "version": what.version,
                "actions": [each.name for each in Action if each in what.actions],
                "flags": [each.name for each in Flag if each in what.flags],
                "macros": {str(stage): list(names) for stage, names in what.symbols.items()},
            }
        case ReplaceBody(octets):
            return {direction: "ReplaceBody", "text": _readable(octets)}
    assert is_dataclass(what)
    assert not isinstance(what, type)
    found = {name: _readable(value) if isinstance(value, bytes) else value for name, value in asdict(what).items()}
    return {direction: type(what).__name__, **{name: _list(value) for name, value in found.items()}}


def _list(value: Any) -> Any:
    return (
        [_readable(each) if isinstance(each, bytes) else each for each in value] if isinstance(value, tuple) else value
    )


def _readable(octets: bytes) -> str:
    text = octets.rstrip(b"\0").replace(b"\0", b" | ").decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_SHOWN])
    return shown + f" … ({len(octets)} octets)" * (len(text) > _SHOWN)


def _json(said: list[dict[str, Any]], direction: str, what: object) -> None:
    said.append(_entry(direction, what))


def _print(said: list[dict[str, Any]], direction: str, what: object) -> None:
    entry = _entry(direction, what)
    said.append(dict(entry))
    arrow, head = ("->", entry.pop("to")) if "to" in entry else ("<-", entry.pop("from"))
    macros = entry.pop("macros", {})
    words = entry.pop("text", "") if set(entry) <= {"text"} else " ".join(f"{k}={v}" for k, v in entry.items())
    print(f"{arrow} {head} {words}".rstrip())
    for name, value in macros.items():
        print(f"     {name} = {value}")


def _outcome(result: Result, envelope: Envelope, fields: list[bytes], *, leading_space: bool) -> dict[str, Any]:
    said = result.said.name.lower() if isinstance(result.said, Word) else f"{result.said.code} {result.said.text}"
    after = edited(fields, result.changes, leading_space=leading_space)
    other = rewritten(envelope.sender, envelope.recipients, result.changes)
    return {
        "result": said,
        "header": [_readable(line.rstrip()) for line in after] if after != fields else None,
        "body_bytes": None if result.body is None else result.body.size_bytes,
        "envelope": None if other is None else [_readable(command.rstrip()) for command in other.commands],
        "quarantine": None if result.quarantine is None else result.quarantine.reason,
    }


def _text(outcome: dict[str, Any]) -> str:
    return "\n".join(_lines(outcome))


def _lines(outcome: dict[str, Any]) -> Iterator[str]:
    yield f"result: {outcome['result']}"
    if outcome["header"] is not None:
        yield "the header would be:"
        yield from (f"  {line}" for line in outcome["header"])
    if outcome["body_bytes"] is not None:
        yield f"the body would be another, of {outcome['body_bytes']} octets"
    if outcome["envelope"] is not None:
        yield "the server would hear:"
        yield from (f"  {command}" for command in outcome["envelope"])
    if outcome["quarantine"] is not None:
        yield f"it wants the message held ({outcome['quarantine']}); there is no quarantine: on_quarantine decides"
