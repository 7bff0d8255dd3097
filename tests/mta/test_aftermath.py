"""What an attempt leaves behind, as a table: outcome of the courier, age of the message -> new state, what is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smtp_intercept.mta.aftermath import Ending, Moment, endings, returned, untold
from smtp_intercept.mta.envelope import Entry, Envelope, Notify, Outcome, Queued, Recipient, State
from smtp_intercept.mta.fate import Action
from smtp_intercept.mta.schedule import Schedule
from tests.mta.scripted import ORIGIN, START

HOUR, DAY = 3600.0, 86400.0
SCHEDULE = Schedule(jitter=0.0)
TAKEN = Outcome(0, State.DELIVERED, 250, "2.0.0", "250 Ok", "mx")
REFUSED = Outcome(0, State.FAILED, 550, "5.1.1", "550 No", "mx")
LATER = Outcome(0, State.QUEUED, 450, "4.2.1", "450 Later", "mx")
PUT_OFF = replace(LATER, next_at=START + 9 * DAY, attempted=False)
ALL = Notify.SUCCESS | Notify.FAILURE | Notify.DELAY


def message(sender: str = "alice@example.com", notify: Notify = ALL, told: bool = False) -> Entry:
    recipient = Recipient("bob@example.org", notify)
    queued = Queued(0, recipient, State.QUEUED, 2, START, delay_told=told)
    return Entry("0", START, 100, ORIGIN, Envelope(sender, (recipient,)), (queued,))


def after(entry: Entry, outcome: Outcome, age_s: float, final: bool = False) -> Ending:
    (end,) = endings(entry, [outcome], SCHEDULE, Moment(START + age_s, 0.0, final))
    return end


@pytest.mark.parametrize(
    ("entry", "outcome", "age_s", "state", "action"),
    [
        (message(), TAKEN, 0, State.DELIVERED, Action.RELAYED),
        (message(), replace(TAKEN, dsn_taken=True), 0, State.DELIVERED, None),
        (message(notify=Notify.FAILURE), TAKEN, 0, State.DELIVERED, None),
        (message(sender=""), TAKEN, 0, State.DELIVERED, None),
        (message(), REFUSED, 0, State.FAILED, Action.FAILED),
        (message(notify=Notify.NEVER), REFUSED, 0, State.FAILED, None),
        (message(sender=""), REFUSED, 0, State.DEAD, None),
        (message(), LATER, 0, State.QUEUED, None),
        (message(), LATER, 4 * HOUR - 1, State.QUEUED, None),
        (message(), LATER, 4 * HOUR, State.QUEUED, Action.DELAYED),
        (message(told=True), LATER, 5 * HOUR, State.QUEUED, None),
        (message(notify=Notify.FAILURE), LATER, 5 * HOUR, State.QUEUED, None),
        (message(), LATER, 5 * DAY - 1, State.QUEUED, Action.DELAYED),
        (message(), LATER, 5 * DAY, State.FAILED, Action.FAILED),
        (message(sender=""), LATER, 5 * DAY, State.DEAD, None),
        (message(), PUT_OFF, 0, State.QUEUED, None),
        (message(), PUT_OFF, 4 * HOUR, State.QUEUED, Action.DELAYED),
        (message(), PUT_OFF, 5 * DAY, State.FAILED, Action.FAILED),
    ],
)
def test_what_follows(entry: Entry, outcome: Outcome, age_s: float, state: State, action: Action | None) -> None:
    end = after(entry, outcome, age_s)
    assert end.outcome.state is state
    assert (end.fate and end.fate.action) == action
    assert end.outcome.delay_told == (entry.queued[0].delay_told or action is Action.DELAYED)


def test_lmtp_delivers_where_smtp_relays() -> None:
    end = after(message(), TAKEN, 0, final=True)
    assert end.fate is not None
    assert end.fate.action is Action.DELIVERED


@pytest.mark.parametrize(
    ("outcome", "age_s", "next_s"),
    [
        (LATER, 0, 3645),  # the wait after a third attempt
        (LATER, 3 * HOUR, 4 * HOUR),  # nobody waits past the time of the delay notice,
        (LATER, 5 * DAY - 60, 5 * DAY),  # or of the end
        (PUT_OFF, 0, 4 * HOUR),
        (PUT_OFF, 5 * HOUR, 5 * DAY),
    ],
)
def test_the_next_attempt(outcome: Outcome, age_s: float, next_s: float) -> None:
    assert after(message(), outcome, age_s).outcome.next_at == START + next_s


@pytest.mark.parametrize(("outcome", "attempts"), [(LATER, 3), (PUT_OFF, 2)])
def test_a_fate_counts_attempts(outcome: Outcome, attempts: int) -> None:
    fate = after(message(), outcome, 5 * DAY).fate
    assert fate is not None
    assert (fate.attempts, fate.gave_up) == (attempts, True)


def test_a_delay_notice_says_until_when() -> None:
    fate = after(message(), LATER, 4 * HOUR).fate
    assert fate is not None
    assert fate.retry_until_at == START + 5 * DAY


@pytest.mark.parametrize("sender", ["alice@example.com", ""])
def test_returned_by_an_administrator(sender: str) -> None:
    """Whoever is not told: it goes. Dead mail would be kept."""
    (end,) = returned(message(sender), SCHEDULE, Moment(START, 0.0))
    assert end.outcome.state is State.FAILED
    assert (end.fate is not None) == bool(sender)


@pytest.mark.parametrize(
    ("outcome", "age_s", "state"),
    [
        (REFUSED, 0, State.QUEUED),
        (LATER, 5 * HOUR, State.QUEUED),
        (LATER, 6 * DAY, State.QUEUED),
        (TAKEN, 0, State.DELIVERED),
    ],
)
def test_without_room_for_a_notice(outcome: Outcome, age_s: float, state: State) -> None:
    entry, moment = message(), Moment(START + age_s, 0.0)
    (end,) = untold(entry, endings(entry, [outcome], SCHEDULE, moment), SCHEDULE, moment)
    assert end.outcome.state is state
    assert end.fate is None
    assert not end.outcome.delay_told
    assert state is State.DELIVERED or end.outcome.next_at > moment.at
