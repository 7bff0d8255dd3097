"""What an attempt leaves behind: each recipient's new state, and what the sender is told.

Pure. The courier says what happened, the `schedule` how long it may go on; here the two meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from smtp_intercept.mta.dsn import wanted
from smtp_intercept.mta.envelope import Entry, Outcome, Queued, State
from smtp_intercept.mta.fate import Action, Fate
from smtp_intercept.mta.schedule import Schedule

RETURNED = "The administrator of this mail server returned it"


@dataclass(frozen=True, slots=True)
class Ending:
    """Of one recipient at one attempt. ``fate`` is what its sender wants to hear of it, or None."""

    outcome: Outcome
    fate: Fate | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """When an attempt ended, the chance for the waits after it, in [0, 1), and whether the next hop was the last one
    (LMTP): what it took is delivered, not relayed."""

    at: float
    fraction: float
    final: bool = False


def endings(entry: Entry, outcomes: Iterable[Outcome], schedule: Schedule, moment: Moment) -> list[Ending]:
    """One for each outcome."""
    queued = {each.number: each for each in entry.queued}
    return [_ending(entry, queued[outcome.number], outcome, schedule, moment) for outcome in outcomes]


def returned(entry: Entry, schedule: Schedule, moment: Moment) -> list[Ending]:
    """An administrator wants the message gone, and its sender told; who cannot be told is not kept either."""
    failed = [
        Outcome(each.number, State.FAILED, 0, "5.0.0", RETURNED, attempted=False)
        for each in entry.queued
        if each.state is State.QUEUED
    ]
    ends = endings(entry, failed, schedule, moment)
    return [replace(end, outcome=replace(end.outcome, state=State.FAILED)) for end in ends]


def untold(entry: Entry, ends: Sequence[Ending], schedule: Schedule, moment: Moment) -> list[Ending]:
    """The same when there is no room for a notice: who has to be told of a failure stays queued, and the delay is told
    another time. A delivery is settled untold: doing it again would be worse."""
    told = {each.number: each.delay_told for each in entry.queued}
    again_at = moment.at + schedule.wait_s(1, moment.fraction)
    return [
        Ending(_still_queued(end.outcome, end.fate, told[end.outcome.number], again_at)) if end.fate else end
        for end in ends
    ]


def _still_queued(outcome: Outcome, fate: Fate, told: bool, again_at: float) -> Outcome:
    match fate.action:
        case Action.FAILED:
            return replace(outcome, state=State.QUEUED, next_at=again_at, delay_told=told)
        case Action.DELAYED:
            return replace(outcome, delay_told=told)
        case Action.DELIVERED | Action.RELAYED:
            return outcome
    assert_never(fate.action)


def _ending(entry: Entry, queued: Queued, outcome: Outcome, schedule: Schedule, moment: Moment) -> Ending:
    match outcome.state:
        case State.DELIVERED:
            if outcome.dsn_taken:
                return Ending(outcome)
            action = Action.DELIVERED if moment.final else Action.RELAYED
            return Ending(outcome, _fate(entry, queued, outcome, action, moment))
        case State.FAILED | State.DEAD:
            return _failed(entry, queued, outcome, moment)
        case State.QUEUED:
            return _put_off(entry, queued, outcome, schedule, moment)
    assert_never(outcome.state)


def _failed(entry: Entry, queued: Queued, outcome: Outcome, moment: Moment, gave_up: bool = False) -> Ending:
    state = State.FAILED if entry.envelope.reverse_path else State.DEAD
    outcome = replace(outcome, state=state, delay_told=queued.delay_told)
    fate = _fate(entry, queued, outcome, Action.FAILED, moment)
    return Ending(outcome, fate and replace(fate, gave_up=gave_up))


def _put_off(entry: Entry, queued: Queued, outcome: Outcome, schedule: Schedule, moment: Moment) -> Ending:
    if outcome.attempted:
        next_at = schedule.next_at(entry, queued.attempts + 1, moment.at, moment.fraction)
    else:
        next_at = schedule.put_off(entry, outcome.next_at, moment.at)
    if next_at is None:
        return _failed(entry, queued, outcome, moment, gave_up=True)
    if not schedule.is_late(entry, queued, moment.at):
        return Ending(replace(outcome, next_at=next_at, delay_told=queued.delay_told))
    fate = _fate(entry, queued, outcome, Action.DELAYED, moment)
    until_at = schedule.expires_at(entry)
    outcome = replace(outcome, next_at=next_at, delay_told=True)
    return Ending(outcome, fate and replace(fate, retry_until_at=until_at))


def _fate(entry: Entry, queued: Queued, outcome: Outcome, action: Action, moment: Moment) -> Fate | None:
    if not wanted(entry.envelope, queued.recipient, action):
        return None
    return Fate(
        recipient=queued.recipient,
        action=action,
        status=outcome.status,
        code=outcome.code,
        reply=outcome.reply,
        host=outcome.host,
        attempts=queued.attempts + outcome.attempted,
        tried_at=moment.at,
    )
