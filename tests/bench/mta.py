"""`make bench-mta`: the built-in MTA beside Postfix on one disk, load by load in turn, and a queue of 100,000 messages.

Refuses a disk that is memory, where fsync costs nothing, and fewer than five rounds; tells of a noisy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from smtp_intercept.app.lab.figures import Figures, Measurement, as_json, table, warnings
from smtp_intercept.app.lab.host import Host
from smtp_intercept.app.lab.network import Lab
from tests.bench import mta_queue
from tests.bench.__main__ import LEAST_ROUNDS, QUIET_S, foreign_cpu
from tests.bench.mta_systems import PATIENCE_S, Ours, Postfix, Sink, System
from tests.bench.systems import timed
from tests.tools import MissingError, program

SENDERS = 20  # sessions at a time
REFERENCE = Postfix.name
MEMORY = ("tmpfs", "ramfs", "overlay")


@dataclass(frozen=True, slots=True)
class Load:
    """``reuse``: smtp-source -d, the next message on the same connection."""

    messages: int
    size_bytes: int
    reuse: bool


LOADS: Mapping[str, Load] = MappingProxyType(
    {
        "4k": Load(2_000, 4_096, reuse=True),
        "new": Load(1_000, 4_096, reuse=False),
        "1m": Load(60, 1_048_576, reuse=True),
    }
)


def send(host: Host, system: System, load: Load) -> float:
    """Seconds until all was answered 250, with whatever that takes."""
    path, env = program("smtp-source")
    words = [path, "-4", "-s", str(SENDERS), "-m", str(load.messages), "-l", str(load.size_bytes)]
    words += [*(["-d"] if load.reuse else []), "-f", "a@example.net", "-t", "u@example.com", system.place]
    took_s, _ = timed(system.name, [*host.enter, *words], env, host.directory / "load.err", PATIENCE_S)
    return took_s


def one_round(number: int, systems: list[System], host: Host, sink: Sink, loads: list[str]) -> list[Measurement]:
    """Who goes first is drawn anew each time."""
    measured = []
    for name in loads:
        load = LOADS[name]
        for system in random.sample(systems, len(systems)):
            system.take()
            before_s = system.cpu_s()
            values = {f"take {name}": send(host, system, load)}
            used = {"mta": system.cpu_s() - before_s} if system.cpu_s() else {}
            taken = sink.messages
            began_at = system.deliver()
            sink.wait_for(taken + load.messages)
            values[f"give {name}"] = time.monotonic() - began_at
            system.empty()
            for what, value in values.items():
                print(f"round {number} {what} {system.name}: {value:.3f}", file=sys.stderr, flush=True)
                measured.append(Measurement(system.name, what, number, value, used if what.startswith("take") else {}))
    order = [f"{what} {name}" for name in loads for what in ("take", "give")]
    return sorted(measured, key=lambda m: (order.index(m.load), m.system != REFERENCE))


def units() -> dict[str, str]:
    """What a value is."""
    words = {name: f"s, {load.messages:,} × {load.size_bytes >> 10} KB" for name, load in LOADS.items()}
    return {f"{what} {name}": text for name, text in words.items() for what in ("take", "give")}


def rates(figures: Figures) -> str:
    """Messages in a second."""
    lines = []
    for row in figures.rows():
        load, ratio = LOADS[row.load.split()[1]], figures.ratio(row.load, row.system, REFERENCE)
        fastest, slowest = (load.messages / value for value in (row.least, row.most))
        middle = load.messages / row.median
        lines.append(
            f"{row.load:<16}{row.system:<12}{middle:>8.0f}/s  ({slowest:.0f} to {fastest:.0f})  "
            f"{ratio or 0:.2f} of {REFERENCE}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-mta", description=__doc__)
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help=f"that count, at least {LEAST_ROUNDS}")
    parser.add_argument("--loads", default=",".join(LOADS))
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="where the queues are [%(default)s]")
    parser.add_argument("--queue", type=int, default=mta_queue.MESSAGES, help="0: none [%(default)s]")
    parser.add_argument("--json", type=Path, help="write everything there as well")
    arguments = parser.parse_args()
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds: {LEAST_ROUNDS} at least")
    if os.geteuid() != 0:
        parser.error("network namespaces need root")
    load_average = os.getloadavg()[0]
    with Lab() as lab, tempfile.TemporaryDirectory(dir=arguments.disk, prefix="bench-") as disk:
        Path(disk).chmod(0o755)
        host = lab.host("server")
        kind = host.run(["findmnt", "-n", "-o", "FSTYPE,SOURCE", "-T", disk]).stdout.strip()
        if kind.split()[0] in MEMORY:
            parser.error(f"--disk: {arguments.disk} is {kind}")
        print(f"queues on {kind}", file=sys.stderr)
        figures, foreign = race(host, Path(disk), arguments)
        queue = mta_queue.measure(host, Path(disk), arguments.queue) if arguments.queue else {}
    return tell(figures, queue, arguments, load_average, foreign)


def race(host: Host, disk: Path, arguments: argparse.Namespace) -> tuple[Figures, float]:
    """And the share of the processors that others took meanwhile."""
    sink, systems = Sink(host), list[System]([Ours(host, disk), Postfix(host, disk)])
    foreign, measured = [foreign_cpu(QUIET_S)], list[Measurement]()
    for number in range(arguments.rounds + 1):
        taken = one_round(number, systems, host, sink, arguments.loads.split(","))
        measured += taken if number else []
        foreign.append(foreign_cpu(QUIET_S / 2))
    return Figures(measured), sum(foreign) / len(foreign)


def tell(
    figures: Figures, queue: Mapping[str, Any], arguments: argparse.Namespace, load_average: float, foreign: float
) -> int:
    found = warnings(figures, load_average=load_average, cpus=os.cpu_count() or 1, foreign_cpu=foreign)
    print(table(figures, units(), REFERENCE))
    print(f"\n{SENDERS} sessions at a time\n{rates(figures)}")
    for name, value in queue.items():
        print(f"queue: {name}: {value}")
    for warning in found:
        print(f"warning: {warning}")
    if arguments.json:
        beside = {"rounds": arguments.rounds, "load_average": load_average, "foreign_cpu": foreign}
        text = json.dumps(as_json(figures, **beside, queue=queue, warnings=found), indent=1, ensure_ascii=False)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MissingError as missing:  # a program that `make tools` would have brought
        sys.exit(str(missing))
