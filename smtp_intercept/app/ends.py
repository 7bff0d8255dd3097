"""The channels between the daemon's processes, and which ends of them each process is handed.

All stay open in the daemon too: a process that is started again finds the same channels.
"""

from __future__ import annotations

import socket
from typing import TypeAlias

from smtp_intercept.app import channel, consulting, handover, lending
from smtp_intercept.app.config import Config
from smtp_intercept.app.fields import Source
from smtp_intercept.app.filter_places import over_tcp
from smtp_intercept.app.rulings import asks_dns, looks_inside
from smtp_intercept.app.tls_checks import takes_part

Named: TypeAlias = list[tuple[str, socket.socket]]
"""Ends, each with the option of the process's command line that it is for."""


class Ends:
    """``outside``: the box's own addresses are in another network namespace than the lanes. ``mta``: there is one."""

    def __init__(self, config: Config, *, outside: bool, mta: bool) -> None:
        self.workers, self.queues = config.interceptor.workers or 1, config.diverter.queues or 1
        each, asking = range(self.workers), range(self.workers + mta)
        taking_part = takes_part(config)
        borrowing = outside and (not config.intercept.hidden or over_tcp(config))
        self._proving = [channel.pair() for _ in range(self.queues)]
        self._serving = [channel.pair() for _ in range(self.queues)]
        self._naming = [channel.pair() for _ in each]
        self._anchoring = [channel.pair() for _ in each if taking_part]
        self._renewing = [channel.pair() for _ in each if taking_part]
        self._handing = [handover.pair() for _ in each if mta]
        self._inwards = [lending.pair()] if mta and outside and config.mta.source is Source.CLIENT else []
        self._outwards = [lending.pair() for _ in each if borrowing]
        self._consulted = [consulting.pair() for _ in asking] if asks_dns(config) else []
        self._looked = [consulting.pair() for _ in asking] if looks_inside(config) else []

    @property
    def renewing(self) -> list[socket.socket]:
        """The daemon's own."""
        return [end for end, _ in self._renewing]

    def of_diverter(self, queue: int) -> Named:
        return [("proofs", self._proving[queue][1]), ("servers", self._serving[queue][1])]

    def of_interceptor(self, worker: int) -> Named:
        own = slice(worker, worker + 1)
        return [
            *(("prove", end) for end, _ in self._proving),
            ("names", self._naming[worker][1]),
            *(("give", end) for end, _ in self._handing[own]),
            *(("lend", end) for end, _ in self._inwards),
            *(("borrow", end) for _, end in self._outwards[own]),
            *(("ask", end) for _, end in self._consulted[own]),
            *(("look", end) for _, end in self._looked[own]),
            *(("anchors", end) for end, _ in self._anchoring[own]),
            *(("renewals", end) for _, end in self._renewing[own]),
        ]

    def of_resolver(self) -> Named:
        return [
            *(("servers", end) for end, _ in self._serving),
            *(("names", end) for end, _ in self._naming),
            *(("lend", end) for end, _ in self._outwards),
            *(("answer", end) for end, _ in self._consulted),
            *(("anchors", end) for _, end in self._anchoring),
        ]

    def of_mta(self) -> Named:
        return [
            *(("take", end) for _, end in self._handing),
            *(("borrow", end) for _, end in self._inwards),
            *(("ask", end) for _, end in self._consulted[self.workers :]),
            *(("look", end) for _, end in self._looked[self.workers :]),
        ]

    def of_reader(self) -> Named:
        """Empty where there is nothing to be read."""
        return [("look", end) for end, _ in self._looked]
