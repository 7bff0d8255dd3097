"""What a soak has found: the invariants, one after another, and the page that says so. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.soak import bounds
from tests.soak.bounds import Held
from tests.soak.ledger import Sample, Sent, Spell, Taken, judge_inspection, judge_mail

TABLE_ENTRIES = 150_000  # a network's rate for as long as a flood lasts, in every table's lifetime
MIB = 1 << 20


@dataclass
class Evidence:
    """All that was seen. ``samples`` are lines of `sampler`; ``onlookers`` by host the last line of each."""

    seed: int
    place: str
    seconds: float
    per_s: float
    sent: Sequence[Sent]
    taken: Sequence[Taken]
    queued: Collection[str]
    logged: Collection[str]
    spells: Sequence[Spell]
    samples: Sequence[Mapping[str, Any]]
    onlookers: Mapping[str, Mapping[str, int]]
    own_frames: Sequence[str]
    tables_left: Mapping[str, int] | None
    accidents: Sequence[str] = field(default=())  # what ended that nobody ended, and the like


def invariants(seen: Evidence) -> dict[str, tuple[str, list[str]]]:
    """Each: what was seen, and how it was broken, if it was."""
    mail = judge_mail(seen.sent, seen.taken, seen.queued, seen.spells)
    told = judge_inspection(seen.sent, seen.taken, seen.logged, _samples(seen.samples), seen.spells, seen.per_s)
    slow = [(each.name, each.well_at - each.ended_at) for each in seen.spells]
    counts = ", ".join(f"{n} {name}" for name, n in mail.counts.items())
    frames = sum(end["frames"] for end in seen.onlookers.values())
    unseen = sum(end["lost"] for end in seen.onlookers.values())
    return {
        "nothing accepted is lost or doubled": (f"{len(seen.sent)} sent: {counts}", mail.broken),
        "nothing uninspected but counted": (", ".join(f"{n} {name}" for name, n in told.counts.items()), told.broken),
        "memory and files bounded": (_memory(seen.samples), list(_grown(seen.samples))),
        "kernel's tables bounded": (_tables(seen), list(_full(seen))),
        "no own frame on the wire": (f"0 of {frames}, {unseen} not seen", list(_own(seen))),
        "well again": (_recovery(slow), [*bounds.late(slow), *seen.accidents]),
    }


def _samples(lines: Sequence[Mapping[str, Any]]) -> list[Sample]:
    return [Sample(line["at"], line["not_inspected"], line["lines_lost"]) for line in lines if "not_inspected" in line]


def held(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Held]]:
    """By kind of process."""
    found = defaultdict[str, list[Held]](list)
    for line in lines:
        for name, each in line.get("processes", {}).items():
            found[name].append(Held(line["at"], each["rss_bytes"], each["files"]))
    return found


def _grown(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for kind, each in held(lines).items():
        yield from bounds.grown(kind, each)


def _memory(lines: Sequence[Mapping[str, Any]]) -> str:
    most = {kind: max(one.rss_bytes for one in each) / MIB for kind, each in held(lines).items()}
    return "at most " + ", ".join(f"{kind} {mib:.0f} MiB" for kind, mib in most.items())


def tables(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Entries of each, from time to time."""
    found = defaultdict[str, list[int]](list)
    for line in lines:
        for name, size in line.get("tables", {}).items():
            found[name].append(size)
    return found


def _full(seen: Evidence) -> Iterator[str]:
    yield from bounds.full(tables(seen.samples), TABLE_ENTRIES)
    full = {name for line in seen.samples for name, n in line.get("full", {}).items() if n}
    yield from (f"{name} was full" for name in sorted(full))
    if seen.tables_left is not None:
        yield from bounds.left(seen.tables_left)


def _tables(seen: Evidence) -> str:
    most = max((max(sizes) for sizes in tables(seen.samples).values()), default=0)
    end = "" if seen.tables_left is None else f", {sum(seen.tables_left.values())} after a rest"
    return f"at most {most} entries in one{end}"


def _own(seen: Evidence) -> Iterator[str]:
    own = sum(end["own"] for end in seen.onlookers.values())
    if own:
        yield f"{own} frames of the box, e.g. {', '.join(seen.own_frames[:3])}"
    if not all(end["frames"] for end in seen.onlookers.values()):
        yield "an onlooker has seen nothing"


def _recovery(slow: Sequence[tuple[str, float]]) -> str:
    if not slow:
        return "no fault"
    seconds = [each for _, each in slow]
    name, longest = max(slow, key=lambda each: each[1])
    return f"{len(slow)} faults; after {statistics.median(seconds):.1f} s (median), {longest:.1f} s at most ({name})"


def page(seen: Evidence, found: Mapping[str, tuple[str, list[str]]]) -> str:
    """For people."""
    pace = f"{seen.seconds / 60:.1f} minutes, {seen.per_s:g} messages/s"
    lines = [f"seed {seen.seed}, the wire's namespace {seen.place}, {pace}", ""]
    for name, (what, broken) in found.items():
        lines.append(f"{'BROKEN' if broken else 'holds ':6}  {name:36}  {what}")
        lines += [f"        - {each}" for each in broken]
    return "\n".join([*lines, "", *_by_fault(seen.spells)])


def _by_fault(spells: Sequence[Spell]) -> Iterator[str]:
    times = defaultdict[str, list[float]](list)
    for each in spells:
        times[each.name].append(each.well_at - each.ended_at)
    for name in sorted(times):
        yield f"        {name:18} {len(times[name]):3} ×, well again after at most {max(times[name]):5.1f} s"


def as_json(seen: Evidence, found: Mapping[str, tuple[str, list[str]]]) -> dict[str, Any]:
    """The same for programs, with every spell."""
    return {
        "seed": seen.seed,
        "namespace": seen.place,
        "seconds": seen.seconds,
        "per_s": seen.per_s,
        "holds": not any(broken for _, broken in found.values()),
        "invariants": {name: {"seen": what, "broken": broken} for name, (what, broken) in found.items()},
        "faults": [
            {**{key: value for key, value in asdict(each).items() if key != "fault"}, "words": each.fault.words}
            for each in seen.spells
        ],
    }
