"""`tollbridge rules replay`: the mail log's messages against the rules of the configuration on disk, before `up`.

Reads the log only. A header is not in it, nor whether a password was given: a rule that asks for one may hold or not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from smtp_intercept.app import config as configuration
from smtp_intercept.app import naming
from smtp_intercept.app.exits import FailedError
from smtp_intercept.app.rules_shown import verdict_text
from smtp_intercept.app.rulings import Rulings, minute_of
from smtp_intercept.direction import Direction, Protection, message_direction
from smtp_intercept.inspect.facts import NOBODY, Connection, Content, Facts, Known, Outside
from smtp_intercept.inspect.lists import ListError
from smtp_intercept.inspect.patterns import mailbox
from smtp_intercept.inspect.rule import Answer, Rule, all_of, answer
from smtp_intercept.inspect.ruleset import Finding, strictest
from smtp_intercept.policy import Pass

_UNLOGGED = frozenset({"header", "authenticated", "user"})


@dataclass(frozen=True, slots=True)
class Replayed:
    """One message: how it ended then, and what the rules come to now; None: that depends on what is not in the log."""

    time: str
    sender: str
    recipients: tuple[str, ...]
    outcome: str
    finding: Finding | None

    @property
    def now(self) -> str:
        """``refuse 550 no (rule)``."""
        if self.finding is None or self.finding.verdict is None:
            return "depends on its header, or on a password"
        by = f" ({', '.join(self.finding.by)})" if self.finding.by else ""
        return verdict_text(self.finding.verdict) + by

    @property
    def changes(self) -> bool:
        """It was accepted then, and would not be now."""
        verdict = None if self.finding is None else self.finding.verdict
        return self.outcome == "accepted" and verdict is not None and verdict != Pass()

    def as_json(self) -> dict[str, object]:
        """For machines."""
        names = {"time": self.time, "sender": self.sender, "recipients": list(self.recipients)}
        return {**names, "outcome": self.outcome, "now": self.now, "changes": self.changes}


def replay(arguments: argparse.Namespace) -> int:
    """The verb: what would change, and how often each rule holds."""
    config = naming.load(arguments.config)
    try:
        rulings = Rulings(config)
    except ListError as error:
        raise FailedError(str(error)) from None
    path = arguments.log or Path(config.log.mail)
    since = datetime.fromtimestamp(time.time() - arguments.since, UTC).isoformat()[:19]
    found = list(
        replayed(rulings.ruleset.rules, _records(path), configuration.protection(config), since, rulings.outside)
    )
    if arguments.json:
        for each in found:
            print(json.dumps(each.as_json()))
        return 0
    for line in summary(found):
        print(line)
    return 0


def _records(path: Path) -> list[dict[str, Any]]:
    records = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    records.append(json.loads(line))
                except ValueError:  # the last one, which is being written
                    continue
    except OSError as error:
        raise FailedError(f"{path}: cannot be read: {error.strerror}") from None
    return [record for record in records if isinstance(record, dict)]


def replayed(
    rules: tuple[Rule, ...],
    records: Iterable[Mapping[str, Any]],
    protection: Protection,
    since: str = "",
    outside: Outside = NOBODY,
) -> Iterator[Replayed]:
    """Each message since a time (as the log has it) whose session is in the records too."""
    told = list(records)
    sessions = {record["session"]: record for record in told if record.get("type") == "session"}
    for record in told:
        if record.get("type") != "message" or record["time"] < since or record["session"] not in sessions:
            continue
        recipients = tuple(each["address"] for each in record["recipients"])
        facts = replace(_facts(sessions[record["session"]], record), outside=outside)
        on = protection.on(sessions[record["session"]]["server"]["address"], facts.connection.direction)
        found = [_find(rules, facts, path, on) for path in recipients]
        decided = [each for each in found if each.verdict is not None]
        finding = strictest(decided) if found and len(decided) == len(found) else None
        yield Replayed(record["time"], record["sender"], recipients, record["outcome"], finding)


def _facts(session: Mapping[str, Any], record: Mapping[str, Any]) -> Facts:
    client, server = (ip_address(session[side]["address"]).packed for side in ("client", "server"))
    moment = datetime.fromisoformat(record["time"]).astimezone().timetuple()
    direction = Direction(session["direction"])
    connection = Connection(direction, client, server, session["port"], session["vlan"] or 0, minute_of(moment))
    return Facts(
        connection,
        helo=session["helo"],
        sender=mailbox(record["sender"]),
        recipients=len(record["recipients"]),
        content=Content({}, record["size_bytes"]),
    )


def _find(rules: tuple[Rule, ...], facts: Facts, path: str, protection: Protection) -> Finding:
    facts.recipient, facts.message = mailbox(path), message_direction(path, protection)
    for rule in rules:
        if rule.observed or rule.ending is None:
            continue
        given = {
            condition: Answer.UNKNOWN if condition.criterion in _UNLOGGED else answer(condition, facts, Known.MESSAGE)
            for condition in rule.conditions
        }
        match all_of(given):
            case Answer.YES:
                return Finding(rule.ending, by=(rule.name,))
            case Answer.UNKNOWN:
                return Finding(None)
    return Finding(Pass())


def summary(found: list[Replayed]) -> Iterator[str]:
    """For people: the messages that would fare otherwise, then how often each rule decides."""
    for each in found:
        if each.changes:
            to = ", ".join(f"<{path}>" for path in each.recipients)
            yield f"{each.time}  <{each.sender}> to {to}: was {each.outcome}, now {each.now}"
    decided = Counter(name for each in found if each.finding is not None for name in each.finding.by)
    for name, number in decided.most_common():
        yield f"{name}: decides for {number}"
    changed, unknown = sum(each.changes for each in found), sum(each.finding is None for each in found)
    yield f"{len(found)} messages, {changed} would fare otherwise, {unknown} depend on what is not in the log"
