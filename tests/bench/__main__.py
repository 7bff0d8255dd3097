"""`make bench`: every load through every system in turn, again and again, and a table of what it took.

Refuses to judge in haste: the first round is thrown away, five are the least, and a noisy machine is told of.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from smtp_intercept.app.lab.figures import Figures, Measurement, Target, as_json, table, verdicts, warnings
from tests.bench.loads import LOADS, MAIL, measure
from tests.bench.systems import BARE, HERE, System, system
from tests.tools import MissingError

LEAST_ROUNDS = 5
DEFAULT_SYSTEMS = "bare,haproxy,gateway"
QUIET_S = 1.0
TARGETS = (
    Target("reused", HERE, "haproxy", 0.8),
    Target("big", HERE, "haproxy", 0.8),
    Target("new", HERE, "haproxy", 0.6),
    Target("stream", HERE, BARE, 0.95),
    Target("ping", HERE, BARE, 0.95),
)


def foreign_cpu(seconds: float) -> float:
    """The share of all processors that is in use while the bench stands still."""
    before = _ticks()
    time.sleep(seconds)
    total, idle = (after - earlier for after, earlier in zip(_ticks(), before, strict=True))
    return 1 - idle / total


def _ticks() -> tuple[int, int]:
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]


def one_round(number: int, systems: list[System], loads: list[str]) -> list[Measurement]:
    """Every load on every system; who goes first is drawn anew each time. Raises if a proxy did not take its mail."""
    measured = []
    for name in loads:
        for box in random.sample(systems, len(systems)):
            if name not in MAIL and box.name.partition("@")[0] not in (BARE, HERE):
                continue
            before = box.taken
            value, cpu_s = measure(box, LOADS[name])
            measured.append(Measurement(box.name, name, number, value, cpu_s))
            print(f"round {number} {name} {box.name}: {value:.3f}", file=sys.stderr, flush=True)
            _check_taken(box, before, LOADS[name].connections)
    order = [box.name for box in systems]
    return sorted(measured, key=lambda m: (loads.index(m.load), order.index(m.system)))


def _check_taken(box: System, before: int | None, connections: int) -> None:
    """Mail that was bridged past the proxy would make it look fast. The product's own count is a second old."""
    deadline_at = time.monotonic() + 3
    while before is not None and ((box.taken or 0) - before) < connections:
        if time.monotonic() > deadline_at:
            raise RuntimeError(f"{box.name} took {(box.taken or 0) - before} of {connections} connections")
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help=f"that count, at least {LEAST_ROUNDS}")
    parser.add_argument("--systems", default=DEFAULT_SYSTEMS, help="bare, gateway, gateway@TREE, haproxy and variants")
    parser.add_argument("--loads", default=",".join(LOADS))
    parser.add_argument("--reference", default="haproxy", help="whom the table compares with")
    parser.add_argument("--json", type=Path, help="write everything there as well")
    arguments = parser.parse_args()
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds: {LEAST_ROUNDS} at least")
    if os.geteuid() != 0:
        parser.error("network namespaces need root")
    loads = arguments.loads.split(",")
    load_average, measured = os.getloadavg()[0], list[Measurement]()
    with ExitStack() as stack:
        systems = [stack.enter_context(system(name)) for name in arguments.systems.split(",")]
        foreign = [foreign_cpu(QUIET_S)]
        for number in range(arguments.rounds + 1):
            taken = one_round(number, systems, loads)
            measured += taken if number else []
            foreign.append(foreign_cpu(QUIET_S / 2))
    return tell(Figures(measured), arguments, load_average, sum(foreign) / len(foreign))


def tell(figures: Figures, arguments: argparse.Namespace, load_average: float, foreign: float) -> int:
    """Print the table; 1 if a target was missed, 2 if it was and the machine was not quiet."""
    units = {name: load.unit for name, load in LOADS.items()}
    found = warnings(figures, load_average=load_average, cpus=os.cpu_count() or 1, foreign_cpu=foreign)
    judged = verdicts(figures, TARGETS)
    print(table(figures, units, arguments.reference))
    for target, ratio, holds in judged:
        word = "reached" if holds else "MISSED"
        print(f"{target.load}: {ratio:.2f} of {target.reference}, wanted {target.at_least:.2f}: {word}")
    for warning in found:
        print(f"warning: {warning}")
    if arguments.json:
        seen = {f"{t.load} of {t.reference}": ratio for t, ratio, _ in judged}
        beside = {"rounds": arguments.rounds, "load_average": load_average, "foreign_cpu": foreign}
        text = json.dumps(as_json(figures, **beside, targets=seen, warnings=found), indent=1, ensure_ascii=False)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    missed = any(not holds for _, _, holds in judged)
    return (2 if found else 1) if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MissingError as missing:  # a program that `make tools` would have brought
        sys.exit(str(missing))
