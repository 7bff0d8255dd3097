"""The rules in force in one process: read from the configuration with their lists, and again when a list changes.

Makes a judge for each connection. A list that is broken leaves the rules as they were.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address

from smtp_intercept.app.config import Config, protection
from smtp_intercept.app.rule_schema import Mode, written
from smtp_intercept.inspect.criteria import CRITERIA, INSIDE
from smtp_intercept.inspect.dns import read_answer
from smtp_intercept.inspect.facts import DAYS, MINUTES_A_DAY, Connection, DnsList, Outside
from smtp_intercept.inspect.judge import Judge
from smtp_intercept.inspect.lists import Lists
from smtp_intercept.inspect.ruleset import Ruleset
from smtp_intercept.inspect.waiting import LookIn, LookUp, Waiting
from smtp_intercept.inspect.written import Written, files, read_rules
from smtp_intercept.passage import Passage
from smtp_intercept.policy import Decider

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
        self.outside = outside(config)
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

    def decider(self, passage: Passage, look_up: LookUp | None, look_in: LookIn | None) -> Decider:
        """Of one connection. ``look_up``, ``look_in``: whom rules ask that the session does not tell all."""
        judge = self.judge(passage)
        if look_up is None and look_in is None:
            return Decider(judge.ask)
        waiting = Waiting(judge, look_up, look_in)
        return Decider(waiting.ask, waiting.later)

    def judge(self, passage: Passage) -> Judge:
        """Of one connection."""
        client, server = (ip_address(address).packed for address in (passage.client[0], passage.server[0]))
        arrival = passage.arrival
        connection = Connection(arrival.direction, client, server, arrival.port, arrival.vlan)
        return self.judge_of(connection, passage.server[0])

    def judge_of(self, connection: Connection, server: str) -> Judge:
        """The same, of one that need not be there."""
        on = self._protection.on(server, connection.direction)
        return Judge(lambda: self.ruleset, connection, on, self._minute, self.outside)

    def _made(self) -> Ruleset:
        return Ruleset(read_rules(self._written, self._lists.entries), observed=self._observed)


def outside(config: Config) -> Outside:
    """Whom rules may ask."""
    lists = {
        name: DnsList(each.zone.lower().rstrip("."), tuple(map(read_answer, each.answers)), float(each.wait_s))
        for name, each in config.dns.list.items()
    }
    return Outside(lists, float(config.inspect.dns_wait_s), float(config.inspect.look_wait_s))


def asks_dns(config: Config) -> bool:
    """Some rule asks the DNS."""
    return any(CRITERIA[key].asks is not None and key not in INSIDE for key in _asked(config))


def looks_inside(config: Config) -> bool:
    """Some rule asks what is in a message."""
    return not _asked(config).isdisjoint(INSIDE)


def _asked(config: Config) -> set[str]:
    return {key.removesuffix("_not") for rule in config.rule for key, value in rule.when if value is not None}


def minute_of(moment: time.struct_time) -> int:
    """Of the week, from Monday 0:00."""
    return (moment.tm_wday % len(DAYS)) * MINUTES_A_DAY + moment.tm_hour * 60 + moment.tm_min


def _linked(rule: Written, links: Mapping[str, str]) -> Written:
    ports = {
        key: tuple(links.get(port, port) for port in rule.when[key]) for key in ("port", "port_not") if key in rule.when
    }
    return replace(rule, when={**rule.when, **ports}) if ports else rule
