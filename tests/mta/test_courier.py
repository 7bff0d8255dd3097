"""The courier against servers on the loopback, on both event loops.

carry(parcel) ── places or MX ── address ── connection ── transaction ──► outcome
                   next one ◄── refused, 421, lost ──┘
"""

from __future__ import annotations

import asyncio

import pytest

from smtp_intercept.limits import Phase
from smtp_intercept.mta import line
from smtp_intercept.mta.courier import Bounds
from smtp_intercept.mta.envelope import Outcome, State
from smtp_intercept.mta.nexthop import Place, Protocol, Security
from smtp_intercept.mta.parcel import RECIPIENTS
from tests.mta.couriers import TAKEN, courier, parcel, states, to
from tests.mta.remote import serving
from tests.smtp.box import Run

QUICK = dict.fromkeys(Phase, 0.3)
REFUSING = Place("127.0.0.1", 1)


def test_a_message_arrives(run: Run) -> None:
    async def work() -> None:
        async with serving() as remote:
            (outcome,) = await courier().carry(parcel(to(remote)))
            assert outcome == Outcome(0, State.DELIVERED, 250, "2.0.0", "250 ok", f"127.0.0.1:{remote.port}")
            assert remote.messages == [b"Subject: x\r\n\r\n..dot\r\n"]

    run(work())


@pytest.mark.parametrize(
    "first",
    [
        {"BANNER": "421 4.3.2 busy"},
        {"BANNER": "554 5.7.1 no"},
        {"BANNER": "521 5.3.2 never"},
        {"BANNER": None},
        {"BANNER": b"\xff\xfb\x1f garbage\r\n"},
        {"EHLO": "421 4.3.2 busy"},
        {"EHLO": None},
        {"MAIL": None},
        {"RCPT": "421 4.3.2 going"},
        {"DATA": None},
    ],
    ids=str,
)
def test_the_next_host_is_tried(run: Run, first: dict[str, str | bytes | None]) -> None:
    async def work() -> None:
        async with serving(first) as useless, serving() as good:
            assert states(await courier().carry(parcel(to(useless, good)))) == TAKEN
            assert len(useless.commands) == len(good.messages) == 1

    run(work())


@pytest.mark.parametrize(
    ("only", "state", "status"),
    [
        ({"BANNER": "554 5.7.1 no"}, State.QUEUED, "4.7.1"),
        ({"BANNER": "521 5.3.2 never"}, State.FAILED, "5.3.2"),
        ({"BANNER": ""}, State.QUEUED, "4.4.2"),
        ({"EHLO": b"250-" + b"x" * 20_000}, State.QUEUED, "4.5.0"),
        ({"END": None}, State.QUEUED, "4.4.2"),
        ({"END": ""}, State.QUEUED, "4.4.2"),
        ({"END": "554 5.7.1 spam"}, State.FAILED, "5.7.1"),
        ({"RCPT": "450 later"}, State.QUEUED, "4.0.0"),
    ],
    ids=str,
)
def test_what_one_server_does(run: Run, only: dict[str, str | bytes | None], state: State, status: str) -> None:
    async def work() -> None:
        async with serving(only) as remote:
            carrier = courier(patience_s=QUICK)
            assert states(await carrier.carry(parcel(to(remote)))) == [(state, status)]
            assert carrier.counters.possible_duplicates == (only.get("END", "x") in (None, ""))

    run(work())


def test_a_message_that_may_have_arrived_is_not_given_to_another_host(run: Run) -> None:
    async def work() -> None:
        async with serving({"END": None}) as lost, serving() as other:
            (outcome,) = await courier().carry(parcel(to(lost, other)))
            assert outcome.state is State.QUEUED
            assert "duplicate" in outcome.reply
            assert not other.commands

    run(work())


def test_connections_refused_and_names_unknown_wait(run: Run) -> None:
    async def work() -> None:
        (outcome,) = await courier().carry(parcel(to(REFUSING)))
        assert (outcome.state, outcome.code, outcome.status) == (State.QUEUED, 0, "4.4.1")
        assert outcome.reply == "cannot connect to 127.0.0.1:1: Connection refused"

    run(work())


def test_both_families(run: Run) -> None:
    async def work() -> None:
        async with serving(host="::1") as remote:
            (outcome,) = await courier().carry(parcel(to(REFUSING, remote)))
            assert outcome.state is State.DELIVERED
            assert outcome.host == f"[::1]:{remote.port}"

    run(work())


def test_a_connection_is_used_again_and_then_left(run: Run) -> None:
    async def work() -> None:
        async with serving() as remote:
            carrier = courier(bounds=Bounds(messages_per_connection=3, idle_s=1.0))
            for _ in range(4):
                assert states(await carrier.carry(parcel(to(remote)))) == TAKEN
            assert [sum(line.startswith("MAIL") for line in each) for each in remote.commands] == [3, 1]
            assert remote.commands[0][-1] == "QUIT"
            assert carrier.connections == (0, 1)
            while remote.open:
                await asyncio.sleep(0.05)
            assert remote.commands[1][-1] == "QUIT"
            assert carrier.connections == (0, 0)

    run(work())


def test_a_kept_connection_that_has_died_is_no_failure(run: Run) -> None:
    async def work() -> None:
        async with serving({"MAIL": ["250 ok", None]}, {}) as remote:
            carrier = courier()
            assert states(await carrier.carry(parcel(to(remote)))) == TAKEN
            assert states(await carrier.carry(parcel(to(remote)))) == TAKEN
            assert len(remote.commands) == 2

    run(work())


def test_different_terms_do_not_share_a_connection(run: Run) -> None:
    async def work() -> None:
        async with serving() as remote:
            carrier = courier()
            for security in (Security.NONE, Security.OPPORTUNISTIC, Security.NONE):
                await carrier.carry(parcel(to(remote, security=security)))
            assert len(remote.commands) == 2
            carrier.close()

    run(work())


def test_never_more_connections_than_the_bounds(run: Run) -> None:
    async def work() -> None:
        async with serving() as one, serving() as other:
            carrier = courier(bounds=Bounds(connections=5, connections_per_host=3))
            jobs = [carrier.carry(parcel(to(remote), b"x" * 100_000)) for _ in range(20) for remote in (one, other)]
            assert [states(each) for each in await asyncio.gather(*jobs)] == [TAKEN] * 40
            assert max(one.most_open, other.most_open) == 3
            assert sum(carrier.connections) <= 5
            assert one.open + other.open <= 5

    run(work())


def test_an_abandoned_delivery_leaves_no_connection_and_no_slot(run: Run) -> None:
    async def work() -> None:
        async with serving({"END": ""}, {}) as remote:
            carrier = courier(bounds=Bounds(connections=1))
            job = asyncio.create_task(carrier.carry(parcel(to(remote))))
            while not remote.messages:
                await asyncio.sleep(0.01)
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            assert states(await carrier.carry(parcel(to(remote)))) == TAKEN
            assert remote.open == 1

    run(work())


def test_many_recipients_and_too_many(run: Run) -> None:
    takes_two = {"RCPT": ["250 ok", "250 ok", *["452 4.5.3 too many"] * 3, "250 ok"]}

    async def work() -> None:
        async with serving(takes_two) as remote:
            outcomes = await courier().carry(parcel(to(remote), recipients=5))
            assert states(outcomes) == TAKEN * 5
            assert len(remote.messages) == 2
        async with serving() as remote:
            assert states(await courier().carry(parcel(to(remote), recipients=RECIPIENTS + 1))) == TAKEN * (
                RECIPIENTS + 1
            )
            assert len(remote.messages) == 2

    run(work())


def test_lmtp_says_what_became_of_each(run: Run) -> None:
    async def work() -> None:
        async with serving({"END": ["250 2.0.0 stored", "552 5.2.2 full", "450 4.2.1 later"]}) as remote:
            outcomes = await courier().carry(parcel(to(remote, protocol=Protocol.LMTP), recipients=3))
            assert states(outcomes) == [(State.DELIVERED, "2.0.0"), (State.FAILED, "5.2.2"), (State.QUEUED, "4.2.1")]

    run(work())


def test_a_server_that_answers_at_the_last_moment_each_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "TRANSACTION_S", 1.0)

    async def crawl(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        while command := await reader.readline():
            if command.startswith(b"EHLO"):
                writer.write(b"250-x\r\n250 PIPELINING\r\n")
                continue
            await asyncio.sleep(0.3)
            writer.write(b"250 x\r\n")
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(crawl, "127.0.0.1", 0)
        place = Place("127.0.0.1", server.sockets[0].getsockname()[1])
        outcomes = await courier().carry(parcel(to(place), recipients=50))
        assert {each.status for each in outcomes} == {"4.4.2"}
        assert "timed out while the reply to RCPT was awaited" in outcomes[0].reply
        server.close()

    run(work())
