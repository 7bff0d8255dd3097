"""The processes that only look at what the others do, and what the daemon hands them: logs to read, figures to show.

Nobody waits for them: `run` is ready without them, and no watchdog asks for them.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from bridge import firewall
from bridge.firewall import FirewallError
from bridge.ruleset import DROPPED, FULL, NOT_INSPECTED, PUT_OFF
from smtp_intercept.app import channel
from smtp_intercept.app.children import Child, handed, make_child
from smtp_intercept.app.config import Config
from smtp_intercept.app.lentlogs import Lender
from smtp_intercept.app.lentlogs import pair as pair_of_logs
from smtp_intercept.watch import figures

COUNTED_EVERY_S = 5.0  # a reader comes every 15 s or so
_WORDS = {"not_inspected": NOT_INSPECTED, "put_off": PUT_OFF, "dropped": DROPPED, "full": FULL}


class Beside:
    """``log`` is the mail log's descriptor, ``home`` that of the network namespace of the host, if the daemon's is
    another one; ``words`` are those that every process is given. `NoAccountError`."""

    def __init__(self, config: Config, words: list[str], log: int, home: int | None) -> None:
        self.children: list[Child] = []
        self._logs, self._figures = list[Lender](), list[socket.socket]()
        self._counted_at = float("-inf")
        self._kernel: Mapping[str, int] = {}
        self._ends = list[socket.socket]()  # a process that is started again finds the same channels
        if config.tracking.index is not None:
            lends, asks = pair_of_logs()
            self._logs.append(Lender(lends, log, Path(config.log.mail)))
            self._add("tracker", words, "logs", asks)
        if config.metrics.listen is not None:
            tells, hears = channel.pair()
            self._figures.append(tells)
            self._add("exporter", words, "figures", hears, home)

    def _add(self, kind: str, words: list[str], option: str, end: socket.socket, home: int | None = None) -> None:
        fds = (end.fileno(),) if home is None else (end.fileno(), home)
        there = [] if home is None else ["--home", str(home)]
        self._ends.append(end)
        self.children.append(make_child(kind, kind, [*words, *handed([(option, end)]), *there], fds))

    def lend(self, now: float) -> None:
        """Logs, to whoever asks."""
        for lender in self._logs:
            lender.turn(now)

    def tell(self, now: float, status: Mapping[str, Any]) -> None:
        """Figures, out of the daemon's page, to whoever shows them."""
        if not self._figures:
            return
        live = False
        try:
            live = bool(firewall.live())
            if now - self._counted_at >= COUNTED_EVERY_S:
                self._counted_at, self._kernel = now, firewall.counters()
        except (FirewallError, NetlinkError, OSError):
            self._kernel = {}  # what is not known is not shown
        page = figures.page(status, self._kernel, live, _WORDS)
        for end in self._figures:
            channel.report(end, page)
