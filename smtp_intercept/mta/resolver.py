"""The DNS as delivery needs it: the hosts that take a domain's mail, and a host's addresses.

Does one kind of I/O, DNS queries; what the answers mean is decided in `mx`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from smtp_intercept.direction import Servers
from smtp_intercept.mta.failure import Failure
from smtp_intercept.mta.mx import Target


class Resolver:
    """Answers are kept as long as their TTLs say."""

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        own: Servers = Servers(),
        timeout_s: float = 5.0,
        chance: random.Random | None = None,
    ) -> None:
        """``nameservers`` are addresses, optionally with a port ("192.0.2.53", "192.0.2.53:5353", "[2001:db8::53]:53");
        none: those of /etc/resolv.conf, read again when it changes. ``own``: the box's addresses; ValueError for a bad
        one."""

    async def targets(self, domain: str) -> tuple[Target, ...] | Failure:
        """The hosts that take mail for ``domain`` (a name or an address literal "[192.0.2.1]"), best first."""
        raise NotImplementedError

    async def addresses(self, host: str) -> Target | Failure:
        """One host, a name or an address."""
        raise NotImplementedError
