"""The filters of the configuration in one process, and the course that a connection's mail takes through them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from smtp_intercept.app.rule_schema import Filter as Table
from smtp_intercept.app.schema import Config
from smtp_intercept.milter.address import read_address
from smtp_intercept.milter.body import NewBody
from smtp_intercept.milter.client import Blank, Filter, OnFailure, Settings
from smtp_intercept.milter.course import Course
from smtp_intercept.milter.envelope import Visit
from smtp_intercept.passage import Passage
from smtp_intercept.policy import Decider


def settings_of(table: Table) -> Settings:
    """Of one filter."""
    return Settings(
        table.name,
        read_address(table.address),
        float(table.connect_s),
        float(table.command_s),
        float(table.end_s),
        OnFailure(table.on_failure.value),
        OnFailure(table.on_quarantine.value),
        table.failures,
        float(table.rest_s),
    )


def hostname_of(config: Config) -> str:
    """What filters are told that the box is called; no name is asked for."""
    return config.mta.hostname or socket.gethostname()


class Filtering:
    """``process`` names this one in reports; ``blank`` as `Filter` has it; ``spill`` opens a file for a body."""

    def __init__(
        self, config: Config, process: str, spill: Callable[[], int], most_bytes: int, blank: Blank | None = None
    ) -> None:
        self._process, self._hostname = process, hostname_of(config)
        self.filters: Mapping[str, Filter] = {table.name: Filter(settings_of(table), blank) for table in config.filter}
        self._fresh_body = lambda: NewBody(spill, most_bytes)

    def course(self, passage: Passage, decider: Decider) -> Course:
        """Of one connection's mail."""
        visit = Visit(passage.name, passage.client, passage.server, self._hostname, passage.arrival.port)
        return Course(decider, self.filters, visit, self._fresh_body)

    def page(self) -> list[dict[str, object]]:
        """For `status`: each filter as this process has it."""
        return [
            {"name": f"{name} ({self._process})", "filter": name, "process": self._process, **each.page()}
            for name, each in self.filters.items()
        ]
