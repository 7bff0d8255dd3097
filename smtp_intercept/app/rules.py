"""`tollbridge rules`: what the rules of the configuration say to a message, without sending it.

Asks the DNS about protected servers that are given by name, as `explain` does; changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from email.parser import BytesHeaderParser
from email.policy import compat32
from email.utils import getaddresses
from ipaddress import ip_address
from pathlib import Path

from smtp_intercept.app import config as configuration
from smtp_intercept.app import given, naming
from smtp_intercept.app.config import Config
from smtp_intercept.app.exits import FailedError, UsageError
from smtp_intercept.app.explain import Explanation
from smtp_intercept.app.own import own_addresses
from smtp_intercept.app.rules_shown import at_connect, connection_lines, lines, outcomes
from smtp_intercept.app.rulings import Rulings, minute_of
from smtp_intercept.app.served import protected_table
from smtp_intercept.app.streams import warn
from smtp_intercept.direction import connection_direction
from smtp_intercept.inspect.criteria import CRITERIA
from smtp_intercept.inspect.facts import Connection, Content, Facts, Known, Lookup, Reply, Source
from smtp_intercept.inspect.lists import ListError
from smtp_intercept.inspect.message import values
from smtp_intercept.inspect.patterns import mailbox

MOST_BYTES = 1 << 30


def test(arguments: argparse.Namespace) -> int:
    """The verb: every rule's answer to a message in a file, and the result."""
    config = naming.load(arguments.config)
    try:
        rulings = Rulings(config)
    except ListError as error:
        raise FailedError(str(error)) from None
    content = octets_of(arguments.file)
    header = content.partition(b"\r\n\r\n")[0] + b"\r\n"
    sender, recipients = envelope_of(header)
    sender = sender if arguments.sender is None else arguments.sender
    recipients = arguments.rcpt or recipients
    if not recipients:
        raise UsageError("--rcpt: the message has no To: or Cc:, so name a recipient")
    connection = _connection(arguments, config)
    facts = Facts(
        connection,
        helo=arguments.helo,
        authenticated=arguments.authenticated or bool(arguments.user),
        user=arguments.user,
        sender=mailbox(sender),
        content=Content(values(header, rulings.ruleset.headers), len(content)),
    )
    facts = looked_up(config, rulings, facts, content)
    on = configuration.protection(config).on(arguments.server, connection.direction)
    found = list(outcomes(rulings.ruleset, facts, recipients, on, Known.MESSAGE))
    if arguments.json:
        page = {"sender": sender, "direction": connection.direction.value, "recipients": [f.as_json() for f in found]}
        print(json.dumps(page))
        return 0
    if not rulings.ruleset.rules:
        warn([f"{arguments.config}: has no rules"])
    print(f"{connection.direction.value} connection; sender <{sender}>; {len(content)} octets")
    for line in lines(found, held=True):
        print(line)
    return 0


def to_connection(config: Config, explanation: Explanation) -> tuple[list[dict[str, object]], list[str]]:
    """What each rule says to a connection, for machines and for people."""
    addresses = (ip_address(explanation.client).packed, ip_address(explanation.server).packed)
    minute = minute_of(time.localtime())
    connection = Connection(explanation.direction, *addresses, explanation.port, explanation.vlan, minute)
    try:
        rulings = Rulings(config)
        said = at_connect(rulings.ruleset, Facts(connection, outside=rulings.outside))
    except ListError as error:
        warn([str(error)])
        return [], []
    return [each.as_json() for each in said], list(connection_lines(said))


def looked_up(config: Config, rulings: Rulings, facts: Facts, content: bytes) -> Facts:
    """With what the DNS says to the rules' questions, and what is in the message."""
    facts = replace(facts, outside=rulings.outside)
    conditions = (condition for rule in rulings.ruleset.rules for condition in rule.conditions)
    asking = [(asks, each.entries) for each in conditions if (asks := CRITERIA[each.criterion].asks)]
    wanted = dict.fromkeys(lookup for asks, entries in asking for lookup in asks(facts, entries))
    replies = dict[Lookup, Reply]()
    if inside := [lookup for lookup in wanted if lookup.source is Source.PARTS]:
        from smtp_intercept.app.reader import answer
        from smtp_intercept.inspect.parts import look

        replies = dict.fromkeys(inside, tuple(answer(look(content))))
    if others := [lookup for lookup in wanted if lookup.source is not Source.PARTS]:
        replies |= asyncio.run(_replies(config, others))
    return replace(facts, replies=replies)


async def _replies(config: Config, wanted: Iterable[Lookup]) -> dict[Lookup, Reply]:
    from smtp_intercept.inspect.lookups import Lookups  # and a DNS library, which most need not wait for
    from smtp_intercept.questions import Questions

    lookups = Lookups(Questions(tuple(map(str, configuration.resolvers(config)))))
    return dict(zip(wanted, await asyncio.gather(*map(lookups.answer, wanted)), strict=True))


def octets_of(path: Path) -> bytes:
    """With the line ends that mail has."""
    try:
        content = given.octets(path, MOST_BYTES)
    except given.GivenError as error:
        raise FailedError(f"{path}: {error}") from None
    return content if b"\r\n" in content else content.replace(b"\n", b"\r\n")


def envelope_of(header: bytes) -> tuple[str, list[str]]:
    """What a message's own header says of it, for who has no envelope."""
    message = BytesHeaderParser(policy=compat32).parsebytes(header)

    def addresses(*names: str) -> list[str]:
        written = [str(value) for name in names for value in message.get_all(name, [])]
        return list(dict.fromkeys(address for _, address in getaddresses(written) if address))

    senders: Sequence[str] = addresses("Return-Path") or addresses("From")
    return (senders[0] if senders else ""), addresses("To", "Cc")


def _connection(arguments: argparse.Namespace, config: Config) -> Connection:
    addresses = {"--from": arguments.client, "--to": arguments.server}
    for name, text in addresses.items():
        try:
            ip_address(text)
        except ValueError:
            raise UsageError(f"{name}: {text} is not an IP address") from None
    client, server = (ip_address(text).packed for text in addresses.values())
    table, _ = protected_table(config)
    direction = connection_direction(server, own_addresses(config), table)
    port = naming.link_of(arguments.port, config) if arguments.port else config.bridge.ports[0]
    if port not in config.bridge.ports:
        raise UsageError(f"--port: {port} is not one of bridge.ports ({', '.join(config.bridge.ports)})")
    return Connection(direction, client, server, port, arguments.vlan, minute_of(time.localtime()))
