"""The privileged process: holds the queue and the beat, applies the pick-up policy to each SYN.

Keeps CAP_NET_ADMIN and nothing else. What it hears from the interceptor is bounded and checked.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bridge.divert import Diverter, Place
from bridge.flow import Syn, Verdict
from bridge.lane import QUEUE_NUMBER, PortLegs
from hwprofiles.match import named
from hwprofiles.shelf import profiles
from smtp_intercept.app import channel, config, processlog
from smtp_intercept.app.child import read_arguments, settle_in
from smtp_intercept.app.fields import OnFailure
from smtp_intercept.app.flights import arrivals, flying, told
from smtp_intercept.app.own import own_addresses
from smtp_intercept.app.sandbox import myself
from smtp_intercept.direction import TAGS, Servers
from smtp_intercept.names import split
from smtp_intercept.pickup import Policy, decide

QUEUE_FILE = Path("/proc/net/netfilter/nfnetlink_queue")
PATHS_SHOWN = 8
SETTLE_S = 3.0  # a canary that is going to come back has done so
WORKERS = 64  # as many as may be configured


class PickUpDesk:
    """Answers the diverter's question about a SYN, with whatever table of protected servers came last."""

    def __init__(self, settings: config.Config, ports: Mapping[int, str], own: frozenset[bytes]) -> None:
        self._settings, self._ports, self._own = settings, ports, own
        self._literals, _ = split(config.protected_servers(settings))
        self._names = dict(zip(settings.bridge.ports, (ports[index] for index in sorted(ports)), strict=True))
        self.counts: Counter[str] = Counter()
        self._policy = self._with(())

    def _with(self, resolved: Iterable[str]) -> Policy:
        servers = Servers.of([*self._literals, *map(ip_address, resolved)])
        return config.policy(self._settings, servers, self._own, self._names)

    def learn(self, resolved: Any) -> None:
        """New addresses of protected servers. Anything that is not a short list of addresses is refused."""
        try:
            if isinstance(resolved, list) and len(resolved) <= channel.SERVERS:
                self._policy = self._with(sorted(set(map(str, resolved))))
                return
        except ValueError:
            pass
        self.counts["bad_messages"] += 1

    def decide(self, syn: Syn, place: Place) -> Verdict:
        port, vlan = place
        decision = decide(self._policy, syn.client, syn.server, self._ports.get(port, ""), vlan)
        self.counts[f"{decision.direction.value}.{decision.action.value}"] += 1
        return Verdict(decision.action, TAGS.get(decision.direction, 0))


class Reports:
    """Once a second to the daemon: what was decided, and whether the switch is closed."""

    def __init__(
        self, end: socket.socket, diverter: Diverter, desk: PickUpDesk, losses: QueueLosses, queue: int
    ) -> None:
        self._queue = queue
        self._end, self._diverter, self._desk = end, diverter, desk
        self._at, self._losses = 0.0, losses

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._at < channel.REPORT_EVERY_S:
            return
        self._at = now
        failing = self._diverter.prover.canaries.failing(now)
        channel.report(
            self._end,
            {
                **myself(),
                "beating": self._beats(now),
                "proven": self._diverter.prover.canaries.proven(now),
                "failing": [told(flight, self._queue) for flight in failing[:PATHS_SHOWN]],
                "counts": {**self._diverter.counts, **{f"picked_up.{k}": n for k, n in self._desk.counts.items()}},
                "queue": self._losses(),
            },
        )

    def _beats(self, now: float) -> bool:
        """Or would, if another program were not in the way: that is not for the processes to mend."""
        canaries = self._diverter.prover.canaries
        settled = canaries.proven(now) > 0 or now - canaries.began_at > SETTLE_S
        return self._diverter.switch.alive(now) and settled


class QueueLosses:
    """SYNs the kernel lost before us: the queue was full, or our socket's buffer was. Only root may open the file."""

    def __init__(self, number: int) -> None:
        self._number, self._file = number, QUEUE_FILE.open(encoding="ascii")

    def __call__(self) -> dict[str, int]:
        self._file.seek(0)
        rows = [line.split() for line in self._file]
        return {
            name: int(row[column])
            for row in rows
            if row and int(row[0]) == self._number
            for name, column in (("dropped_full", 5), ("dropped_buffer", 6))
        }


def main(argv: list[str] | None = None) -> int:
    """Started by the daemon, with the ends of its channels."""
    processlog.begin()
    arguments = read_arguments("diverter", argv, "proofs", "servers", optional=("queue",))
    settings = config.load(arguments.effective)
    legs = [PortLegs(port, index) for index, port in enumerate(arguments.port)]
    queue = arguments.queue or 0
    fly = flying(legs, arguments.vlan, settings.intercept.ports, queue)
    desk = PickUpDesk(settings, {leg.index: leg.port for leg in legs}, own_addresses(settings))
    diverter = Diverter(
        decide=desk.decide,
        arrivals=arrivals(legs, arguments.vlan),
        fly=fly,
        queue_length=named(settings.bridge.profile, profiles()).queue_length,
        block=settings.bridge.on_failure is OnFailure.BLOCK,
        queue=queue,
    )
    proofs, servers = channel.adopt(arguments.proofs), channel.adopt(arguments.servers)
    reports = channel.adopt(arguments.reports)
    report = Reports(reports, diverter, desk, QueueLosses(QUEUE_NUMBER + queue), queue)
    settle_in("diverter", arguments, settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Each says what is its own to say: an interceptor that is broken names no servers.
    hear = {proofs: lambda: _hear_proofs(proofs, diverter, desk), servers: lambda: _hear_servers(servers, desk)}
    diverter.run(hear, report)
    return 0


def _hear_proofs(proofs: socket.socket, diverter: Diverter, desk: PickUpDesk) -> None:
    for message in channel.hear(proofs):
        at, worker = message.get("at"), message.get("worker", 0)
        if not isinstance(worker, int) or not 0 <= worker < WORKERS:
            desk.counts["bad_messages"] += 1
            continue
        if isinstance(at, float) and at <= time.monotonic():
            diverter.switch.prove(at, accepting=message.get("accepting") is True, worker=worker)


def _hear_servers(servers: socket.socket, desk: PickUpDesk) -> None:
    for message in channel.hear(servers):
        desk.learn(message.get("servers"))


if __name__ == "__main__":
    sys.exit(main())
