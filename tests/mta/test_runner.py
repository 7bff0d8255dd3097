"""The queue's runner with the real spool, a courier that follows a script, and a clock that the test moves.

spool --due--> runner --one parcel for each next hop--> courier
  ^                                                        |
  `------ states and the notice, in one transaction <------' outcomes
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtp_intercept.mta import runner, settling
from smtp_intercept.mta.courier import Parcel
from smtp_intercept.mta.destinations import Bounds
from smtp_intercept.mta.envelope import Entry, Notify, Outcome, Recipient, State
from smtp_intercept.mta.faults import SpoolError, SpoolFullError
from smtp_intercept.mta.nexthop import NextHop
from smtp_intercept.mta.parts import RECIPIENTS, WAITING
from smtp_intercept.mta.schedule import Schedule
from tests.mta.scripted import START, Answer, Office, delivered, down, greylisted, refused

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made: list[Office] = []

    async def make() -> None:
        made.append(Office(tmp_path))

    asyncio.run(make())
    yield made[0]
    made[0].spool.close()


def test_recipients_are_split_by_next_hop(office: Office) -> None:
    async def scene() -> None:
        await office.post("a@one.example", "b@two.example", "c@one.example")
        await office.look()

    asyncio.run(scene())
    assert sorted(to for _, to in office.courier.carried) == [("a@one.example", "c@one.example"), ("b@two.example",)]
    assert office.entries() == []


def test_no_parcel_has_more_recipients_than_every_server_takes(office: Office) -> None:
    async def scene() -> None:
        await office.post(*(f"u{number}@one.example" for number in range(RECIPIENTS + 1)))
        await office.look()

    asyncio.run(scene())
    assert sorted(len(to) for _, to in office.courier.carried) == [1, RECIPIENTS]
    assert office.entries() == []


def test_what_the_log_tells_of_an_attempt(office: Office) -> None:
    office.courier.answers["one.example"] = greylisted

    async def scene() -> None:
        await office.post("a@one.example")
        await office.look()

    asyncio.run(scene())
    (record,) = office.log
    assert {**record, "queue_id": "", "seconds": 0} == {
        "type": "delivery",
        "time": "2026-11-18T11:06:40.000Z",
        "queue_id": "",
        "sender": "alice@example.com",
        "recipient": "a@one.example",
        "next_hop": "MX of one.example",
        "host": "mx.example.org",
        "row": "R8",
        "reply": "450 4.7.1 Come back later",
        "outcome": "deferred",
        "seconds": 0,
        "attempt": 1,
    }


def test_a_message_that_always_fails_for_now(office: Office) -> None:
    """Tried at the scheduled times, one delay notice, one bounce; then it is gone."""
    office.courier.answers["slow.example"] = greylisted

    async def scene() -> None:
        await office.post("bob@slow.example")
        await office.until(6 * DAY)

    asyncio.run(scene())
    at = office.courier.attempts("bob@slow.example")
    assert [each / MINUTE for each in at[:6]] == [0, 27, 67.5, 128.25, 219.375, 240]
    assert at[-1] == 5 * DAY
    assert [(notice["Subject"], notice["To"]) for notice in office.courier.notices] == [
        ("Your mail is late; you need not send it again", "<alice@example.com>"),
        ("Your mail could not be delivered", "<alice@example.com>"),
    ]
    assert office.courier.attempts("alice@example.com") == [4 * HOUR, 5 * DAY]
    assert office.entries() == []
    assert [each["actions"] for each in office.log if each["type"] == "notice"] == [["delayed"], ["failed"]]


def test_one_refused_one_put_off_one_taken(office: Office) -> None:
    office.courier.answers |= {"no.example": refused, "later.example": greylisted}

    async def scene() -> None:
        await office.post("a@no.example", "b@later.example", "c@yes.example")
        await office.look()

    asyncio.run(scene())
    (notice,) = office.courier.notices
    assert "a@no.example" in notice.as_string()
    assert "b@later.example" not in notice.as_string()
    (left,) = office.entries()
    assert [each.state for each in left.queued] == [State.FAILED, State.QUEUED, State.DELIVERED]
    assert left.queued[1].next_at == START + 27 * MINUTE


@pytest.mark.parametrize(
    ("sender", "notify", "left"),
    [
        ("", Notify.FAILURE, State.DEAD),  # nobody to tell: it is kept
        ("", Notify.NEVER, State.DEAD),  # as our own notices are
        ("alice@example.com", Notify.NEVER, None),  # nobody wants to know: it is gone
        ("alice@example.com", Notify.SUCCESS, None),
    ],
)
def test_no_notice(office: Office, sender: str, notify: Notify, left: State | None) -> None:
    office.courier.answers["no.example"] = refused

    async def scene() -> None:
        await office.post(Recipient("a@no.example", notify), sender=sender)
        await office.until(6 * DAY)

    asyncio.run(scene())
    assert office.courier.attempts("a@no.example") == [0]
    assert not office.courier.notices
    assert [entry.queued[0].state for entry in office.entries()] == ([left] if left else [])


def test_a_notice_that_bounces_makes_no_other(office: Office) -> None:
    """The sender's own server refuses the bounce: dead, kept for the administrator."""
    office.courier.answers |= {"no.example": refused, "example.com": refused}

    async def scene() -> None:
        await office.post("a@no.example")
        await office.until(6 * DAY)

    asyncio.run(scene())
    assert len(office.courier.notices) == 1
    assert office.courier.attempts("alice@example.com") == [0]
    (kept,) = office.entries()
    assert (kept.envelope.reverse_path, kept.queued[0].state) == ("", State.DEAD)


def test_a_notice_that_always_fails_for_now_is_dead_after_its_own_time(tmp_path: Path) -> None:
    async def scene() -> Office:
        office = Office(tmp_path, Schedule(jitter=0.0, dsn_give_up_s=DAY))
        office.courier.answers |= {"no.example": refused, "example.com": greylisted}
        await office.post("a@no.example")
        await office.until(3 * DAY)
        return office

    office = asyncio.run(scene())
    assert office.courier.attempts("alice@example.com")[-1] == DAY
    assert [entry.queued[0].state for entry in office.entries()] == [State.DEAD]
    office.spool.close()


@pytest.mark.parametrize("passed_on", [False, True])
def test_who_asked_hears_of_success_from_whoever_last_can_tell(office: Office, passed_on: bool) -> None:
    def answer(parcel: Parcel, number: int) -> Outcome:
        return Outcome(number, State.DELIVERED, 250, "2.0.0", "250 Ok", "mx.example.org", dsn_taken=passed_on)

    office.courier.answers["one.example"] = answer

    async def scene() -> None:
        await office.post(Recipient("a@one.example", Notify.SUCCESS), Recipient("b@one.example"))
        await office.look()

    asyncio.run(scene())
    assert [notice["Subject"] for notice in office.courier.notices] == (
        [] if passed_on else ["Your mail was passed on"]
    )
    assert office.entries() == []


def test_an_administrator_returns_a_message(office: Office) -> None:
    office.courier.answers["one.example"] = greylisted

    async def scene() -> None:
        queue_id = await office.post("a@one.example")
        await office.look()
        await office.spool.give_back([queue_id], office.now)
        await office.look()

    asyncio.run(scene())
    assert office.courier.attempts("a@one.example") == [0]
    assert "administrator" in office.courier.notices[0].as_string()
    assert office.entries() == []


def test_an_administrator_retries_before_it_is_due(office: Office) -> None:
    """Even if its destination is known to be down: that may be what changed."""
    office.courier.answers["one.example"] = down

    async def scene() -> None:
        queue_id = await office.post("a@one.example")
        await office.look()
        office.now += 10
        await office.spool.retry([queue_id], office.now)
        await office.look()

    asyncio.run(scene())
    assert office.courier.attempts("a@one.example") == [0, 10]


def test_others_wait_for_a_destination_that_is_down_without_an_attempt_each(office: Office) -> None:
    office.courier.answers["down.example"] = down
    calm: list[int] = []
    left: list[Entry] = []

    async def scene() -> None:
        for number in range(100):
            await office.post(f"u{number}@down.example")
        await office.until(30 * MINUTE)
        calm.append(len(office.courier.carried))
        assert {each.reply for entry in office.entries() for each in entry.queued} == {
            "192.0.2.7:25: Connection refused"
        }
        office.courier.answers.clear()
        await office.until(HOUR)
        left.extend(office.entries())
        await office.until(3 * HOUR)

    asyncio.run(scene())
    assert calm[0] < 15, "one goes to see now and then"
    assert len(left) < calm[0], "all others are through within half an hour of its return"
    assert office.entries() == []
    assert sum(outcome == "delivered" for _, outcome in office.outcomes()) == 100


def test_a_destination_that_never_comes_back_costs_its_mail_nothing_but_time(office: Office) -> None:
    """Expiry and notices come in time for those that were put off as well."""
    office.courier.answers["down.example"] = down

    async def scene() -> None:
        for number in range(5):
            await office.post(f"u{number}@down.example")
        await office.until(6 * DAY)

    asyncio.run(scene())
    subjects = [notice["Subject"] for notice in office.courier.notices]
    assert subjects.count("Your mail is late; you need not send it again") == 5
    assert subjects.count("Your mail could not be delivered") == 5
    assert office.entries() == []


@pytest.mark.alone
def test_a_thousand_for_a_silent_destination_stop_nobody(office: Office) -> None:
    """Attempts there hang for ever; mail for another destination, queued behind them, is delivered within a second."""

    async def hang(parcel: Parcel, number: int) -> Outcome:
        await asyncio.sleep(3600)
        raise AssertionError

    office.courier.answers["silent.example"] = hang

    async def scene() -> float:
        await asyncio.gather(*(office.post(f"u{number}@silent.example") for number in range(1_000)))
        running = asyncio.create_task(office.runner.run())
        await asyncio.sleep(0.2)
        began_at = time.monotonic()
        await asyncio.gather(*(office.post(f"u{number}@lively.example") for number in range(20)))
        async with asyncio.timeout(10):
            while len(office.outcomes()) < 20:
                await asyncio.sleep(0.01)
        seconds = time.monotonic() - began_at
        office.runner.stop(within_s=0)
        await running
        return seconds

    seconds = asyncio.run(scene())
    print(f"20 messages behind 1,000 for a silent destination: {seconds:.3f} s")
    assert seconds < 3
    assert len(office.entries()) == 1_000, "none of them is lost, or tried for nothing"


def test_many_silent_destinations_leave_room(tmp_path: Path) -> None:
    async def hang(parcel: Parcel, number: int) -> Outcome:
        await asyncio.sleep(3600)
        raise AssertionError

    async def scene() -> None:
        office = Office(tmp_path, bounds=Bounds(total=20, each=10, unproven=10))
        await office.post("first@lively.example")
        await office.look()
        office.courier.answers |= {f"silent{number}.example": hang for number in range(50)}
        for number in range(50):
            await office.post(f"u@silent{number}.example")
        await office.post("second@lively.example")
        running = asyncio.create_task(office.runner.run())
        async with asyncio.timeout(10):
            while ("second@lively.example", "delivered") not in office.outcomes():
                await asyncio.sleep(0.01)
        assert office.courier.most_flying <= 11
        office.runner.stop(within_s=0)
        await running
        office.spool.close()

    asyncio.run(scene())


def test_a_mistake_of_ours_ends_one_attempt(office: Office) -> None:
    def broken(parcel: Parcel, number: int) -> Outcome:
        raise ZeroDivisionError

    office.courier.answers["one.example"] = broken

    async def scene() -> None:
        await office.post("a@one.example")
        await office.post("b@two.example")
        await office.look()

    asyncio.run(scene())
    assert sorted(office.outcomes()) == [("a@one.example", "deferred"), ("b@two.example", "delivered")]
    assert office.entries()[0].queued[0].next_at == START + 27 * MINUTE


def test_a_next_hop_that_cannot_be_read_puts_off(office: Office) -> None:
    def route(*_: object) -> NextHop:
        raise ValueError("no port in 'mail:x'")

    office.runner.route = route

    async def scene() -> None:
        await office.post("a@one.example")
        await office.look()

    asyncio.run(scene())
    (record,) = office.log
    assert (record["outcome"], record["reply"]) == ("deferred", "No next hop: no port in 'mail:x'")


def test_while_the_disk_takes_nothing_outcomes_wait(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivered, but it cannot be written down: kept in hand, not sent again."""
    settle, failures = office.spool.settle, [SpoolError("read-only", temporary=True)] * 3

    async def failing(*arguments: object) -> str | None:
        if failures:
            raise failures.pop()
        return await settle(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(office.spool, "settle", failing)
    monkeypatch.setattr("smtp_intercept.mta.settling.AGAIN_S", 0.01)

    async def scene() -> None:
        await office.post("a@one.example")
        await office.look()

    asyncio.run(scene())
    assert office.courier.attempts("a@one.example") == [0]
    assert office.entries() == []


def test_without_room_for_the_notice_the_failure_waits(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.courier.answers["no.example"] = refused
    draft = office.spool.draft

    def full() -> None:
        raise SpoolFullError("0 MiB free")

    async def scene() -> None:
        await office.post("a@no.example", "b@yes.example")
        monkeypatch.setattr(office.spool, "draft", full)
        await office.look()
        assert [each.state for each in office.entries()[0].queued] == [State.QUEUED, State.DELIVERED]
        monkeypatch.setattr(office.spool, "draft", draft)
        await office.until(HOUR)

    asyncio.run(scene())
    assert len(office.courier.notices) == 1
    assert office.entries() == []


@pytest.mark.parametrize(("takes_s", "within_s", "left"), [(0.2, 15.0, 0), (60.0, 1.0, 1)])
def test_a_clean_stop(office: Office, takes_s: float, within_s: float, left: int) -> None:
    """What is in flight has its time, and its outcome is kept; the rest stays as it was; nothing new begins."""

    async def slow(parcel: Parcel, number: int) -> Outcome:
        await asyncio.sleep(takes_s)
        return delivered(parcel, number)

    office.courier.answers["slow.example"] = slow

    async def scene() -> float:
        await office.post("a@slow.example")
        running = asyncio.create_task(office.runner.run())
        async with asyncio.timeout(5):
            while not office.courier.flying:
                await asyncio.sleep(0.01)
        office.runner.stop(within_s)
        await office.post("b@fast.example")
        began_at = time.monotonic()
        async with asyncio.timeout(30):
            await running
        return time.monotonic() - began_at

    seconds = asyncio.run(scene())
    assert seconds < 15.0, "neither was waited for to no purpose"
    assert office.courier.attempts("b@fast.example") == []
    assert len(office.entries()) == 1 + left
    assert all(each.attempts == 0 and each.next_at == START for entry in office.entries() for each in entry.queued)


def test_new_mail_does_not_wait_for_the_next_look(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOOK_S", 3600.0)

    async def scene() -> None:
        running = asyncio.create_task(office.runner.run())
        await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            await office.post("a@one.example")
            while not office.outcomes():
                await asyncio.sleep(0.005)
        office.runner.stop(within_s=1)
        await running

    asyncio.run(scene())


def test_little_of_a_long_queue_is_in_hand(office: Office) -> None:
    most = 0

    async def slow(parcel: Parcel, number: int) -> Outcome:
        nonlocal most
        await asyncio.sleep(0.001)
        most = max(most, office.runner.in_hand)
        return delivered(parcel, number)

    office.courier.answers["one.example"] = slow

    async def scene() -> None:
        await asyncio.gather(*(office.post(f"u{number}@one.example") for number in range(1_500)))
        running = asyncio.create_task(office.runner.run())
        async with asyncio.timeout(30):
            while office.spool.next_due_at() is not None:
                await asyncio.sleep(0.05)
        office.runner.stop(within_s=1)
        await running

    began_at = time.monotonic()
    asyncio.run(scene())
    print(f"1,500 messages in and out: {time.monotonic() - began_at:.2f} s, at most {most} in hand")
    assert most <= Bounds().each + WAITING
    assert office.courier.most_flying <= Bounds().each


# --- one notice for one message ----------------------------------------------------------------------------------


def test_refusals_of_all_next_hops_are_one_notice(office: Office) -> None:
    names = [f"{number}.example" for number in range(8)]
    for name in names:
        office.courier.answers[name] = refused

    async def scene() -> None:
        await office.post(*(f"{user}@{name}" for name in names for user in "ab"), "c@fine.example")
        await office.look()

    asyncio.run(scene())
    (notice,) = office.courier.notices
    assert str(notice).count("Final-Recipient:") == 16
    assert [each for each in office.outcomes() if each[1] == "failed"] == [
        (f"{user}@{name}", "failed") for name in names for user in "ab"
    ]
    assert {each["next_hop"] for each in office.log if each.get("outcome") == "failed"} == {
        f"MX of {name}" for name in names
    }
    assert office.entries() == []


def test_parts_of_one_next_hop_are_one_notice(office: Office) -> None:
    office.courier.answers["one.example"] = refused

    async def scene() -> None:
        await office.post(*(f"u{number}@one.example" for number in range(5 * RECIPIENTS)))
        await office.look()

    asyncio.run(scene())
    (notice,) = office.courier.notices
    assert str(notice).count("Final-Recipient:") == 5 * RECIPIENTS


def test_delays_and_ends_of_all_next_hops_are_one_notice_each(office: Office) -> None:
    for number in range(4):
        office.courier.answers[f"{number}.example"] = down

    async def scene() -> None:
        await office.post(*(f"u@{number}.example" for number in range(4)))
        await office.until(6 * DAY)

    asyncio.run(scene())
    delayed, failed = office.courier.notices
    assert str(delayed).count("Action: delayed") == str(failed).count("Action: failed") == 4


def test_what_was_delivered_is_settled_while_a_refusal_is_held(office: Office) -> None:
    slow = asyncio.Event()
    office.courier.answers["bad.example"] = refused

    async def late(parcel: Parcel, number: int) -> Outcome:
        await slow.wait()
        return refused(parcel, number)

    office.courier.answers["slow.example"] = late

    async def scene() -> None:
        await office.post("a@bad.example", "b@fine.example", "c@slow.example")
        office.runner.look()
        async with asyncio.timeout(5):
            while ("b@fine.example", "delivered") not in office.outcomes():
                await asyncio.sleep(0.01)
        (entry,) = office.entries()
        states = {each.recipient.address: each.state for each in entry.queued}
        assert states == {
            "a@bad.example": State.QUEUED,
            "b@fine.example": State.DELIVERED,
            "c@slow.example": State.QUEUED,
        }, "a crash now would ask the bad one again, and only it"
        slow.set()
        await office.runner.idle()
        await office.look()

    asyncio.run(scene())
    (notice,) = office.courier.notices
    assert str(notice).count("Final-Recipient:") == 2


def test_a_refusal_is_not_held_for_ever(office: Office) -> None:
    """A sender hears within `HOLD_S` and the end of the next part, however long the last one takes."""
    first, last = asyncio.Event(), asyncio.Event()

    def waiting(event: asyncio.Event) -> Answer:
        async def answer(parcel: Parcel, number: int) -> Outcome:
            await event.wait()
            return refused(parcel, number)

        return answer

    office.courier.answers |= {"bad.example": refused, "1.example": waiting(first), "2.example": waiting(last)}

    async def scene() -> None:
        await office.post("a@bad.example", "b@1.example", "c@2.example")
        office.runner.look()
        while not office.settling._held:
            await asyncio.sleep(0.01)
        office.now += settling.HOLD_S
        first.set()
        async with asyncio.timeout(5):
            while len([each for each in office.log if each["type"] == "notice"]) < 1:
                await asyncio.sleep(0.01)
        last.set()
        await office.runner.idle()

    asyncio.run(scene())
    assert len([each for each in office.log if each["type"] == "notice"]) == 2


def test_a_sender_gets_so_many_notices_in_an_hour_and_the_others_later(office: Office) -> None:
    office.courier.answers["bad.example"] = refused

    async def scene() -> None:
        for number in range(settling.NOTICES_PER_HOUR + 7):
            await office.post(
                f"u{number}@bad.example", sender="Victim@example.com" if number % 2 else "victim@example.com"
            )
        await office.post("u@bad.example", sender="other@example.com")
        await office.look()

    asyncio.run(scene())
    to = [each["To"] for each in office.courier.notices]
    assert len([each for each in to if "ictim" in each]) == settling.NOTICES_PER_HOUR
    assert "<other@example.com>" in to
    assert len(office.entries()) == 7, "nothing is lost"
    asyncio.run(office.until(3 * HOUR))
    assert len(office.courier.notices) == settling.NOTICES_PER_HOUR + 8
    assert office.entries() == []
