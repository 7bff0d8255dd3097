"""What clients were told, what arrived, what the gateway wrote down: whether the three agree. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from tests.soak.plan import Fault
from tests.soak.trips import TRIPS, Trip

Outcome = Literal["accepted", "refused", "unknown"]
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Sent:
    """One message as its client saw it. ``unknown``: all of it went out, and no reply came. Seconds since the epoch."""

    name: str
    route: str
    words: str
    digest: str
    began_at: float
    ended_at: float
    outcome: Outcome
    said: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """One copy as a receiver got it; of a notice the name is ""."""

    name: str
    digest: str
    at: float


@dataclass(frozen=True, slots=True)
class Spell:
    """From when a fault began until all was well again."""

    name: str
    fault: Fault
    from_at: float
    ended_at: float
    well_at: float

    def touches(self, began_at: float, ended_at: float) -> bool:
        return began_at <= self.well_at + self.fault.settles_s and ended_at >= self.from_at


@dataclass
class Verdict:
    """``broken`` is empty, or a promise was."""

    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def no(self, said: str, which: Iterable[str]) -> None:
        """So many of them, and which."""
        if found := sorted(which):
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            self.broken.append(f"{len(found)} {said}: {', '.join(found[:SHOWN])}{more}")


def judge_mail(
    sent: Sequence[Sent], taken: Iterable[Taken], queued: Collection[str], spells: Sequence[Spell]
) -> Verdict:
    """Nothing lost, nothing doubled, nothing changed, nobody refused without a reason. ``queued``: the names of what
    still waits in the box or in a mail server, "" for a notice."""
    verdict, copies, known = Verdict(), defaultdict[str, list[Taken]](list), {each.name: each for each in sent}
    for copy in taken:
        copies[copy.name].append(copy)
    notices = copies.pop("", [])
    verdict.counts.update(each.outcome for each in sent)
    verdict.counts["delivered"] = sum(map(len, copies.values()))
    verdict.counts["accepted by way of Postfix or Exim"] = sum(
        each.outcome == "accepted" and TRIPS[each.route].real for each in sent
    )
    accepted = {each.name for each in sent if each.outcome == "accepted"}
    verdict.no("accepted, and neither delivered nor in the queue", accepted - copies.keys() - set(queued))
    verdict.no("delivered that nobody sent", copies.keys() - known.keys())
    verdict.no("delivered though refused", (n for n in copies if n in known and known[n].outcome == "refused"))
    verdict.no("changed on the way", (n for n, those in copies.items() if n in known and _changed(known[n], those)))
    told = [*notices, *({""} & set(queued))]
    verdict.no("told that it was not delivered", (f"notice {n}" for n, _ in enumerate(told)))
    doubled = {name: those for name, those in copies.items() if len(those) > 1}
    verdict.counts["doubled, a 250 being lost"] = len(doubled)
    verdict.no("delivered twice", (n for n, those in doubled.items() if not _excused(known.get(n), those, spells)))
    failed = [each for each in sent if each.outcome != "accepted"]
    verdict.no("not accepted though nothing was wrong", (_told(each) for each in failed if not _stopped(each, spells)))
    return verdict


def _changed(sent: Sent, copies: Sequence[Taken]) -> bool:
    return any(copy.digest != sent.digest for copy in copies)


def _excused(sent: Sent | None, copies: Sequence[Taken], spells: Sequence[Spell]) -> bool:
    """Only a mail server tries again: of other mail the client tried once. With several of them on the way a copy may
    have waited since the fault that cut the 250."""
    if sent is None:
        return False
    trip, at = TRIPS[sent.route], [copy.at for copy in copies]
    since_at = min(at) if trip.servers == 1 else sent.began_at
    return any(_again(trip, spell.fault) and spell.touches(since_at, max(at)) for spell in spells)


def _again(trip: Trip, fault: Fault) -> bool:
    """Whether one of the mail servers on its way may lose a 250 by that fault."""
    by_wire = trip.by and fault.stops  # what cuts a connection may cut its 250
    by_box = trip.queued and fault.again
    on_loopback = trip.behind and fault.ends not in ("", trip.host)
    return bool(by_wire or by_box or on_loopback)


def _told(sent: Sent) -> str:
    return f"{sent.name} ({sent.said})"


def _stopped(sent: Sent, spells: Sequence[Spell]) -> bool:
    return "4.7.1 Later" in sent.said or any(
        spell.fault.stops and spell.touches(sent.began_at, sent.ended_at) for spell in spells
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """What the gateway said of itself: how often it did not inspect for which reason; lines that the log has lost."""

    at: float
    uninspected: Mapping[str, int]
    lines_lost: int = 0


def risen(samples: Sequence[Sample], since_at: float, until_at: float) -> Counter[str]:
    """By how much each has grown; one that is smaller than before has begun anew."""
    grown: Counter[str] = Counter()
    for before, after in pairwise(samples):
        if since_at <= after.at and before.at <= until_at:
            for name, value in {**after.uninspected, "lines_lost": after.lines_lost}.items():
                old = before.lines_lost if name == "lines_lost" else before.uninspected.get(name, 0)
                grown[name] += value - old if value >= old else value
    return grown


# What mail of this pace never is: beyond a rate. What is encrypted is in the log.
NOT_OURS = frozenset({"lines_lost", "encrypted", "rate", "rate_network"})
UNDER_WAY_S = 1.0  # a reporter that dies takes the counts of so long along, and a logger what it was about to write


def judge_inspection(
    sent: Sequence[Sent],
    taken: Iterable[Taken],
    logged: Collection[str],
    samples: Sequence[Sample],
    spells: Sequence[Spell],
    per_s: float,
) -> Verdict:
    """What was accepted and is not in the mail log crossed uninspected, or its lines were lost: only while a fault
    lasted, and counted but for the seconds in which nobody could."""
    verdict = Verdict()
    missed = [each for each in _crossed(sent, taken) if each.name not in logged]
    verdict.counts["uninspected"] = len(missed)
    left = {each.name: each for each in missed}
    groups = list(_together(spells))
    for number, group in enumerate(groups, 1):
        allowed = sum(_explained(spell, samples, per_s) for spell in group)
        inside, over = _inside(left.values(), group, [spell for other in groups[number:] for spell in other], allowed)
        if over:
            names, where = ", ".join(each.name for each in inside[:SHOWN]), ", ".join(each.name for each in group)
            verdict.broken.append(
                f"{len(inside)} crossed uninspected in {where}, where {allowed:.0f} are accounted for: {names}"
            )
        if not any(spell.fault.blind or spell.fault.silent_log for spell in group):
            verdict.counts["of them in faults that should blind nobody"] += len(inside)
        for each in inside:
            del left[each.name]
    verdict.no("crossed uninspected though nothing was wrong", left)
    return verdict


def _crossed(sent: Iterable[Sent], taken: Iterable[Taken]) -> Iterator[Sent]:
    """What was accepted, from when to when. What a mail server sends crosses when that pleases, before it arrives."""
    arrived = dict[str, float]()
    for copy in taken:
        arrived[copy.name] = max(copy.at, arrived.get(copy.name, copy.at))
    for each in sent:
        if each.outcome == "accepted" and not TRIPS[each.route].by:
            yield each
        elif each.outcome == "accepted" and each.name in arrived:
            yield replace(each, ended_at=max(each.ended_at, arrived[each.name]))


def _inside(
    missed: Iterable[Sent], group: Sequence[Spell], later: Sequence[Spell], allowed: float
) -> tuple[list[Sent], bool]:
    """Those that a group of faults must explain, and whether they are too many. What a later one touches too is left
    to that when there is no room."""
    touched = sorted((each for each in missed if _touched(each, group)), key=lambda each: each.ended_at)
    own = [each for each in touched if not _touched(each, later)]
    shared = [each for each in touched if _touched(each, later)]
    return own + shared[: max(0, int(allowed) - len(own))], len(own) > allowed


def _touched(sent: Sent, spells: Iterable[Spell]) -> bool:
    return any(spell.touches(sent.began_at, sent.ended_at) for spell in spells)


def _together(spells: Sequence[Spell]) -> Iterator[list[Spell]]:
    """Those that overlap: which of them explains a message is nobody's to say."""
    group: list[Spell] = []
    for spell in sorted(spells, key=lambda each: each.from_at):
        if group and not any(each.touches(spell.from_at, spell.from_at) for each in group):
            yield group
            group = []
        group.append(spell)
    if group:
        yield group


def _explained(spell: Spell, samples: Sequence[Sample], per_s: float) -> float:
    """How many may have crossed uninspected."""
    counted = risen(samples, spell.from_at, spell.well_at + UNDER_WAY_S)
    lines = counted["lines_lost"] if spell.fault.silent_log else 0
    told = sum(n for name, n in counted.items() if name not in NOT_OURS)
    return per_s * (spell.fault.uncounted_s + UNDER_WAY_S) + lines + told
