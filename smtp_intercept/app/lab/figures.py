"""What was measured, and what it means: medians, spread, ratios, warnings, the table and its bars. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

NOISY_SPREAD = 0.15  # of the median, between the quartiles: above it two systems cannot be told apart
NOISY_CPU = 0.10  # of all processors, taken by others while the bench stood still
BAR = 32


@dataclass(frozen=True, slots=True)
class Measurement:
    """One load through one system. ``value`` in the load's own unit (seconds, or µs); ``cpu_s`` by process group,
    utime + stime: what the kernel does in softirq is charged to whomever it interrupts."""

    system: str
    load: str
    round: int
    value: float
    cpu_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """``system`` must reach ``at_least`` of the speed of ``reference`` under ``load``."""

    load: str
    system: str
    reference: str
    at_least: float


@dataclass(frozen=True, slots=True)
class Row:
    """One system under one load. ``spread`` is between the quartiles, as a share of the median."""

    system: str
    load: str
    median: float
    least: float
    most: float
    spread: float
    cpu_s: Mapping[str, float]


class Figures:
    """All measurements of a run, warm-up left out."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self.measurements = tuple(measurements)

    def values(self, system: str, load: str) -> dict[int, float]:
        """Round → value."""
        return {m.round: m.value for m in self.measurements if (m.system, m.load) == (system, load)}

    def rows(self) -> list[Row]:
        """In the order measured, loads first."""
        keys = dict.fromkeys((m.load, m.system) for m in self.measurements)
        loads = list(dict.fromkeys(load for load, _ in keys))
        return [self._row(system, load) for wanted in loads for load, system in keys if load == wanted]

    def _row(self, system: str, load: str) -> Row:
        own = [m for m in self.measurements if (m.system, m.load) == (system, load)]
        values = sorted(m.value for m in own)
        middle = median(values)
        groups = dict.fromkeys(group for m in own for group in m.cpu_s)
        cpu_s = {group: median(m.cpu_s.get(group, 0.0) for m in own) for group in groups}
        return Row(system, load, middle, values[0], values[-1], spread(values), cpu_s)

    def ratio(self, load: str, system: str, reference: str) -> float | None:
        """Speed of ``system`` as a share of ``reference``'s: the median over the rounds of their ratio in one round,
        so that what slows the machine for a minute slows both. None if they share no round."""
        own, other = self.values(system, load), self.values(reference, load)
        shared = own.keys() & other.keys()
        return median(other[number] / own[number] for number in shared) if shared else None


def spread(values: Sequence[float]) -> float:
    """Distance of the quartiles as a share of the median."""
    ordered, last = sorted(values), len(values) - 1
    low, high = ordered[round(last * 0.25)], ordered[round(last * 0.75)]
    return (high - low) / median(ordered)


def warnings(figures: Figures, *, load_average: float, cpus: int, foreign_cpu: float) -> list[str]:
    """Why the figures of this run should not be quoted; none if the machine was quiet."""
    found = []
    if load_average > cpus / 4:
        found.append(f"the machine was not quiet: load average {load_average:.2f} on {cpus} processors at the start")
    if foreign_cpu > NOISY_CPU:
        found.append(f"others took {foreign_cpu:.0%} of the processors while the bench stood still")
    found += [
        f"{row.load} on {row.system}: the rounds differ by {row.spread:.0%} between the quartiles"
        for row in figures.rows()
        if row.spread > NOISY_SPREAD
    ]
    return found


def verdicts(figures: Figures, targets: Iterable[Target]) -> list[tuple[Target, float, bool]]:
    """Each target that was measured, with the ratio seen and whether it holds."""
    seen = [(target, figures.ratio(target.load, target.system, target.reference)) for target in targets]
    return [(target, ratio, ratio >= target.at_least) for target, ratio in seen if ratio is not None]


def table(figures: Figures, units: Mapping[str, str], reference: str) -> str:
    """One line a system and load, a bar for each: the longer, the slower; the whisker ends at the slowest round."""
    wide = max(22, *(len(row.system) + 1 for row in figures.rows()))
    head = f"{'load':<10}{'system':<{wide}}{'median':>9}{'min':>8}{'max':>8}{'spread':>8}{'of ' + reference:>12}  cpu s"
    lines, longest = [head], {row.load: 0.0 for row in figures.rows()}
    for row in figures.rows():
        longest[row.load] = max(longest[row.load], row.most)
    for row in figures.rows():
        ratio = figures.ratio(row.load, row.system, reference)
        share = "" if ratio is None else f"{ratio:.2f}"
        cpu = ", ".join(f"{group} {seconds:.2f}" for group, seconds in row.cpu_s.items())
        numbers = f"{row.median:>9.3f}{row.least:>8.3f}{row.most:>8.3f}{row.spread:>8.0%}{share:>12}"
        lines.append(f"{row.load:<10}{row.system:<{wide}}{numbers}  {cpu}")
        lines.append(f"{units[row.load]:>31} |{_bar(row, longest[row.load])}")
    return "\n".join(lines)


def _bar(row: Row, longest: float) -> str:
    solid, end = round(BAR * row.median / longest), round(BAR * row.most / longest)
    return "█" * solid + "─" * (end - solid)


def as_json(figures: Figures, **beside: Any) -> dict[str, Any]:
    """Everything, raw values too."""
    fields = ("system", "load", "median", "least", "most", "spread")
    rows = [{**{name: getattr(row, name) for name in fields}, "cpu_s": dict(row.cpu_s)} for row in figures.rows()]
    raw = [
        {"system": m.system, "load": m.load, "round": m.round, "value": m.value, "cpu_s": dict(m.cpu_s)}
        for m in figures.measurements
    ]
    return {**beside, "rows": rows, "measurements": raw}
