"""What `tollbridge hw tune` tries, and what of it the figures speak for.

Pure. One thing is changed at a time; what is measured twice unchanged says how much a difference must be to be one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from hwprofiles.box import Nic
from smtp_intercept.app.lab.figures import Figures

Value: TypeAlias = int | bool

# What a round measures besides the changes; the two are the same.
BASE, AGAIN = "as it is", "as it is, again"
TOGETHER = "all of them"
LEAST_GAIN = 0.03  # less is not worth a file that somebody has to keep
LEAST_ROUNDS = 5  # of fewer no difference can be told from chance
MOST_WORKERS, MOST_QUEUES = 16, 4
RINGS = (256, 1024, 4096)
USECS = (0, 30, 100)
# What may be wrong for a bridge on some hardware and right on other; LRO is never asked for.
FEATURES = ("rx-gro", "tx-tcp-segmentation", "tx-generic-segmentation")


@dataclass(frozen=True, slots=True)
class Change:
    """``key`` as a profile has it: "interceptor.workers", "rings.rx"."""

    key: str
    value: Value

    def __str__(self) -> str:
        return f"{self.key} = {str(self.value).lower()}"


def changes(base: Mapping[str, Value], cores: int, nics: Sequence[Nic], only: Collection[str] = ()) -> list[Change]:
    """``base`` has the workers and queues in force; ``nics`` are the ports whose settings may be tried, alike on all.
    ``only``: tables, or whole keys, and nothing else."""
    found = [
        *(Change("interceptor.workers", n) for n in _doubled(min(cores, MOST_WORKERS))),
        *(Change("diverter.queues", n) for n in _doubled(min(cores, MOST_QUEUES))),
        *(change for change in _of_ports(nics, cores) if change.value != _now(nics, change.key)),
    ]
    wanted = [c for c in found if not only or c.key in only or c.key.partition(".")[0] in only]
    return [change for change in wanted if base.get(change.key) != change.value]


def _doubled(most: int) -> list[int]:
    """1, 2, 4 and so on, and ``most`` itself."""
    return sorted({most, *(1 << n for n in range(most.bit_length()) if 1 << n <= most)})


def _of_ports(nics: Sequence[Nic], cores: int) -> Iterator[Change]:
    if not nics:
        return
    for kind in ("combined", "rx", "tx"):
        most = min(nic.channels.get(f"{kind}-max", 0) for nic in nics)
        yield from (Change(f"channels.{kind}", n) for n in _doubled(min(most, cores)) if most)
    for kind in ("rx", "tx"):
        most = min(nic.rings.get(f"{kind}-max", 0) for nic in nics)
        yield from (Change(f"rings.{kind}", n) for n in RINGS if n <= most)
    for kind in ("rx-usecs", "tx-usecs"):
        if all(kind in nic.coalesce for nic in nics):
            yield from (Change(f"coalesce.{kind}", n) for n in USECS)
    for kind in ("adaptive-rx", "adaptive-tx"):
        if all(kind in nic.coalesce for nic in nics):
            yield from (Change(f"coalesce.{kind}", n) for n in (0, 1))
    for name in FEATURES:
        if all(name in nic.features and name not in nic.fixed for nic in nics):
            yield from (Change(f"features.{name}", on) for on in (False, True))


def _now(nics: Sequence[Nic], key: str) -> Value | None:
    """What all ports have; None if they differ."""
    table, _, name = key.partition(".")
    values = {getattr(nic, table).get(name) for nic in nics}
    return values.pop() if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of one change, by load: its speed as a share of what there is, the median of the rounds; the least that counts
    as a difference; in how many rounds it was not faster."""

    ratios: Mapping[str, float]
    noise: Mapping[str, float]
    not_faster: Mapping[str, int]

    @property
    def gains(self) -> bool:
        """One load gains more than noise, in all rounds but one, and none loses more than it."""
        gained = [r - 1 > self.noise[load] and self.not_faster[load] <= 1 for load, r in self.ratios.items()]
        lost = [1 - r > self.noise[load] for load, r in self.ratios.items()]
        return any(gained) and not any(lost)


def judged(figures: Figures, label: str) -> Judgement:
    """``figures`` has `BASE` and `AGAIN` in the same rounds."""
    loads = list(dict.fromkeys(m.load for m in figures.measurements if m.system == label))
    return Judgement(
        {load: figures.ratio(load, label, BASE) or 1.0 for load in loads},
        {load: noise(figures, load) for load in loads},
        {load: sum(ratio <= 1 for ratio in ratios(figures, load, label)) for load in loads},
    )


def noise(figures: Figures, load: str) -> float:
    """How far the same twice was apart in the worst round, and never less than `LEAST_GAIN`."""
    return max(LEAST_GAIN, *(abs(ratio - 1) for ratio in ratios(figures, load, AGAIN)))


def ratios(figures: Figures, load: str, label: str) -> list[float]:
    """Round by round, the speed as a share of `BASE`'s."""
    own, base = figures.values(label, load), figures.values(BASE, load)
    return [base[number] / own[number] for number in sorted(own.keys() & base.keys())]


def best(figures: Figures, tried: Iterable[Change]) -> list[Change]:
    """Of each key the change that gains most, if one gains. They must be shown to hold together (`TOGETHER`), and in
    rounds of their own: the best of many is partly luck."""
    found: dict[str, tuple[float, Change]] = {}
    for change in tried:
        judgement = judged(figures, str(change))
        gain = prod(judgement.ratios.values())
        if judgement.gains and gain > found.get(change.key, (0.0, change))[0]:
            found[change.key] = gain, change
    return [change for _, change in found.values()]


def changed(profile: Mapping[str, object], proposed: Iterable[Change]) -> dict[str, object]:
    """A profile's file, parsed, with these changes."""
    whole: dict[str, object] = {**profile}
    for change in proposed:
        table, _, key = change.key.partition(".")
        before = whole.get(table, {})
        assert isinstance(before, Mapping)
        whole[table] = {**before, key: change.value}
    return whole
