"""The rules in force in one process: read from the configuration with their lists, and again when a list changes.

Makes a judge for each connection. A list that is broken leaves the rules as they were.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from smtp_intercept.app.config import Config, protection
from smtp_intercept.app.rule_schema import Mode, written
from smtp_intercept.inspect.facts import DAYS, MINUTES_A_DAY, Connection
from smtp_intercept.inspect.judge import Judge
from smtp_intercept.inspect.lists import Lists
from smtp_intercept.inspect.ruleset import Ruleset
from smtp_intercept.inspect.written import Written, files, read_rules
from smtp_intercept.passage import Passage

LOOK_EVERY_S = 5.0  # how old a list may be

_LOG = logging.getLogger("tollbridge")


class Rulings:
    """``links`` gives the name of the link for each port that the configuration names by its MAC address. `ListError`:
    a list cannot be used."""

    def __init__(
        self,
        config: Config,
        links: Mapping[str, str] | None = None,
        minute: Callable[[], int] = lambda: minute_of(time.localtime()),
    ) -> None:
        self._written = [_linked(written(rule), links or {}) for rule in config.rule]
        self._observed, self._minute = config.inspect.mode is Mode.OBSERVE, minute
        self._protection = protection(config)
        self._lists = Lists(list(files(self._written)), _LOG.warning)
        self._lists.load()
        self.ruleset = self._made()

    def refresh(self) -> None:
        """Look after the lists."""
        if self._lists.refresh():
            self.ruleset = self._made()

    def errors(self) -> list[str]:
        """Of lists that are not as they are used."""
        return self._lists.errors()

    def judge(self, passage: Passage) -> Judge:
        """Of one connection."""
        client, server = (ip_address(address).packed for address in (passage.client[0], passage.server[0]))
        arrival = passage.arrival
        connection = Connection(arrival.direction, client, server, arrival.port, arrival.vlan)
        return self.judge_of(connection, passage.server[0])

    def judge_of(self, connection: Connection, server: str) -> Judge:
        """The same, of one that need not be there."""
        on = self._protection.on(server, connection.direction)
        return Judge(lambda: self.ruleset, connection, on, self._minute)

    def _made(self) -> Ruleset:
        return Ruleset(read_rules(self._written, self._lists.entries), observed=self._observed)


def minute_of(moment: time.struct_time) -> int:
    """Of the week, from Monday 0:00."""
    return (moment.tm_wday % len(DAYS)) * MINUTES_A_DAY + moment.tm_hour * 60 + moment.tm_min


def _linked(rule: Written, links: Mapping[str, str]) -> Written:
    ports = {
        key: tuple(links.get(port, port) for port in rule.when[key]) for key in ("port", "port_not") if key in rule.when
    }
    return rule if not ports else Written(rule.name, {**rule.when, **ports}, rule.ending, rule.edits, rule.observed)
