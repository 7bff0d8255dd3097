"""`mta.queue = "relay"`: what the client hears, what the relay gets, what stays in the spool.

relay says of         client hears      relay gets as well      the spool keeps
all: 250              250               -                       -
all: 4xx              451               -                       -
some 4xx, some 5xx    451               -                       -
all: 5xx              the 5xx           -                       -
250 and 5xx           250               a notice for the 5xx    (the notice, if the relay does not take it)
250 and 4xx           250               -                       the 4xx
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smtp_intercept.mta.courier import Parcel
from smtp_intercept.mta.drafts import SMALL_BYTES
from smtp_intercept.mta.envelope import Envelope, Notify, Outcome, Recipient, State
from smtp_intercept.mta.faults import SpoolFullError
from smtp_intercept.mta.nexthop import NextHop, Place, Protocol
from smtp_intercept.mta.parts import RECIPIENTS
from smtp_intercept.mta.relay import NotTakenError, Relay
from tests.mta.scripted import CONTENT, ORIGIN, Office, down, greylisted, refused

HOP = NextHop("relay", (Place("192.0.2.25"),))
EXAMPLES = {"no.example": refused, "later.example": greylisted, "down.example": down}


@pytest.fixture
def spools(tmp_path: Path) -> Iterator[Callable[[], Office]]:
    made: list[Office] = []

    def make() -> Office:
        made.append(Office(tmp_path))
        made[0].courier.answers |= EXAMPLES
        return made[0]

    yield make
    made[0].spool.close()


async def hand_over(office: Office, *to: str | Recipient, sender: str = "alice@example.com", hop: NextHop = HOP) -> str:
    relay = Relay(office.spool, office.courier, hop, office.settling)
    draft = relay.draft()
    draft.write(CONTENT)
    recipients = tuple(each if isinstance(each, Recipient) else Recipient(each) for each in to)
    return await relay.enqueue(draft, ORIGIN, Envelope(sender, recipients), office.now)


@pytest.mark.parametrize(
    ("to", "heard", "notices", "kept"),
    [
        ("a@yes.example b@yes.example", 250, 0, ""),
        ("a@later.example b@later.example", 451, 0, ""),
        ("a@down.example", 451, 0, ""),
        ("a@no.example b@later.example", 451, 0, ""),
        ("a@no.example b@no.example", 550, 0, ""),
        ("a@yes.example b@no.example", 250, 1, ""),
        ("a@yes.example b@later.example", 250, 0, "b@later.example"),
        ("a@yes.example b@later.example c@no.example", 250, 1, "b@later.example"),
    ],
)
def test_what_the_relay_says(spools: Callable[[], Office], to: str, heard: int, notices: int, kept: str) -> None:
    async def scene() -> tuple[Office, int]:
        office = spools()
        try:
            await hand_over(office, *to.split())
        except NotTakenError as refusal:
            return office, refusal.answer.code if refusal.temporary == (refusal.answer.code < 500) else 0
        return office, 250

    office, said = asyncio.run(scene())
    assert said == heard
    assert len(office.courier.notices) == notices
    assert [each.recipient.address for entry in office.entries() for each in entry.queued] == kept.split()
    assert list((office.spool._layout.directory / "drafts").iterdir()) == []


@pytest.mark.parametrize(
    ("to", "line"),
    [
        ("a@no.example", "550 5.1.1 No such user\r\n"),
        ("a@down.example", "451 4.4.1 192.0.2.7:25: Connection refused\r\n"),
    ],
)
def test_the_clients_words_are_the_relays(spools: Callable[[], Office], to: str, line: str) -> None:
    async def scene() -> str:
        with pytest.raises(NotTakenError) as refusal:
            await hand_over(spools(), to)
        return refusal.value.answer.line.decode()

    assert asyncio.run(scene()) == line


def test_the_log(spools: Callable[[], Office]) -> None:
    async def scene() -> Office:
        office = spools()
        await hand_over(office, "a@yes.example", "b@no.example")
        return office

    log = asyncio.run(scene()).log
    assert [(each["type"], each.get("outcome")) for each in log] == [
        ("delivery", "delivered"),
        ("delivery", "failed"),
        ("notice", None),
    ]


def test_a_notice_that_the_relay_does_not_take_is_queued(spools: Callable[[], Office]) -> None:
    async def scene() -> Office:
        office = spools()
        await hand_over(office, "a@yes.example", "b@no.example", sender="alice@down.example")
        return office

    (entry,) = asyncio.run(scene()).entries()
    assert (entry.envelope.reverse_path, entry.envelope.recipients[0].address) == ("", "alice@down.example")


def test_of_the_null_sender_the_refused_part_is_kept(spools: Callable[[], Office]) -> None:
    """Nobody can be told, and it is not lost: the queue finds it dead and keeps it."""

    async def scene() -> Office:
        office = spools()
        await hand_over(office, "a@yes.example", "b@no.example", sender="")
        await office.look()
        return office

    office = asyncio.run(scene())
    assert not office.courier.notices
    assert [each.state for entry in office.entries() for each in entry.queued] == [State.DEAD]


def test_success_is_told_by_us_if_the_relay_will_not(spools: Callable[[], Office]) -> None:
    async def scene(hop: NextHop) -> Office:
        office = spools()
        await hand_over(office, Recipient("a@yes.example", Notify.SUCCESS), hop=hop)
        return office

    office = asyncio.run(scene(replace(HOP, protocol=Protocol.LMTP)))
    assert [notice["Subject"] for notice in office.courier.notices] == ["Your mail was delivered"]


def test_many_recipients_go_in_several_transactions(spools: Callable[[], Office]) -> None:
    async def scene() -> Office:
        office = spools()
        await hand_over(office, *(f"u{number}@yes.example" for number in range(RECIPIENTS + 1)))
        return office

    assert [len(to) for _, to in asyncio.run(scene()).courier.carried] == [RECIPIENTS, 1]


def test_large_content_is_read_whole_and_leaves_no_file(spools: Callable[[], Office]) -> None:
    content = CONTENT + b"x" * 70 + b"\r\n" * (SMALL_BYTES * 2)
    seen: list[bytes] = []

    def read(parcel: Parcel, number: int) -> Outcome:
        with parcel.content() as opened:
            seen.append(opened.read())
        return refused(parcel, number)

    async def scene() -> Office:
        office = spools()
        office.courier.answers["read.example"] = read
        relay = Relay(office.spool, office.courier, HOP, office.settling)
        draft = relay.draft()
        for start in range(0, len(content), 10_000):
            draft.write(content[start : start + 10_000])
        with pytest.raises(NotTakenError):
            await relay.enqueue(draft, ORIGIN, Envelope("a@b", (Recipient("a@read.example"),)), office.now)
        return office

    office = asyncio.run(scene())
    assert seen == [content]
    assert list((office.spool._layout.directory / "drafts").iterdir()) == []


def test_a_relay_that_says_nothing(spools: Callable[[], Office]) -> None:
    """The client hears so before it gives up by itself (RFC 5321 §4.5.3.2.6)."""

    async def hang(parcel: Parcel, number: int) -> Outcome:
        await asyncio.sleep(60)
        raise AssertionError

    async def scene() -> int:
        office = spools()
        office.courier.answers["silent.example"] = hang
        relay = Relay(office.spool, office.courier, HOP, office.settling, patience_s=0.1)
        draft = relay.draft()
        with pytest.raises(NotTakenError) as refusal:
            await relay.enqueue(draft, ORIGIN, Envelope("a@b", (Recipient("a@silent.example"),)), office.now)
        return refusal.value.answer.code

    assert asyncio.run(scene()) == 451


def test_without_room_for_the_exception_the_client_keeps_it_all(
    spools: Callable[[], Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken by the relay for one already, who gets it twice then: the other one would be lost."""

    async def full(*_: object) -> str:
        raise SpoolFullError("0 MiB free")

    async def scene() -> None:
        office = spools()
        monkeypatch.setattr(office.spool, "enqueue", full)
        with pytest.raises(SpoolFullError):
            await hand_over(office, "a@yes.example", "b@later.example")

    asyncio.run(scene())
