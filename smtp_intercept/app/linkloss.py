"""Makes a cable of two ports (`bridge.linkloss`): reads carriers in sysfs, takes ports down and brings them up.

A port that it holds down stands in the ledger, so that `down` brings it up also where this process was killed.
"""

from __future__ import annotations

import logging
from pathlib import Path

from bridge.host import Host, StepError
from bridge.ledger import Ledger
from bridge.linkloss import Order, Pair, follow, start
from bridge.links import Links
from bridge.room import inside
from bridge.steps import SetLink

_LOG = logging.getLogger("tollbridge")


class LinkLoss:
    """Of two ports by name. ``ledger`` is the file, ``room`` the network namespace that they are in, if not the
    host's."""

    def __init__(self, ports: tuple[str, str], ledger: Path, room: str = "") -> None:
        self._ports, self._ledger, self._room = ports, ledger, room
        self._pair: Pair | None = None

    @property
    def held(self) -> tuple[str, ...]:
        """The port that is held down, if there is one."""
        return () if self._pair is None or self._pair.held is None else (self._ports[self._pair.held],)

    def follow(self, now: float) -> None:
        """Looks once; to be called every tick. What cannot be done is said and tried again."""
        if self._pair is None:  # one that was killed may have left a port down
            for port in (0, 1):
                self._obey(Order(port, up=True))
            self._pair = start(now)
        after, order = follow(self._pair, (_carrier(self._ports[0]), _carrier(self._ports[1])), now)
        if order is None or self._obey(order):
            self._pair = after

    def release(self) -> None:
        """At the end: a bridge that nobody watches has both its ports."""
        if self._pair is not None and self._pair.held is not None:
            self._obey(Order(self._pair.held, up=True))

    def _obey(self, order: Order) -> bool:
        port, other = self._ports[order.port], self._ports[1 - order.port]
        try:
            with Links() as links, Host(links, Ledger(self._ledger)) as host:
                for step in inside(self._room, (SetLink(port, "up", order.up),)):
                    host.up_one(step)
        except StepError as error:
            _LOG.error("link loss: %s", error)
            return False
        if self._pair is not None:
            _LOG.warning("%s %s its carrier: %s %s", other, _HAS[order.up], port, _IS[order.up])
        return True


_HAS = {True: "has", False: "has lost"}
_IS = {True: "is brought up", False: "is taken down"}


def _carrier(port: str) -> bool:
    try:
        return Path(f"/sys/class/net/{port}/carrier").read_text(encoding="ascii").strip() == "1"
    except OSError:  # EINVAL: the port is down
        return False
