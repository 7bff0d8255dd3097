"""All that the protocol knows, by the genuine libmilter: what it hears, says and changes, live and in the MTA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.milter.client import OnFailure, Settings
from tests.milter.conftest import PyMilter
from tests.milter.town import rule, town
from tests.smtp.box import Run

TEXT = b"Subject:  two spaces\r\nX-One: 1\r\nX-One:\t2\r\n folded\r\n\r\n.dot\r\n\xff\r\n..two\r\n"
BOTH = pytest.mark.parametrize("mta", [False, True], ids=["proxy", "mta"])


def settings(it: PyMilter, name: str = "f", **more: Any) -> Settings:
    return Settings(name, it.address, **more)


def without_trace(content: bytes) -> bytes:
    """Behind the MTA's own Received:."""
    return content.partition(b"+0000\r\n")[2] if content.startswith(b"Received: ") else content


@BOTH
def test_what_it_hears(run: Run, tmp_path: Path, pymilter: PyMilter, mta: bool) -> None:
    pymilter.order()

    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings(pymilter), mta=mta) as it:
            recipients = ["b@example.com", '"odd one"@example.com']
            assert (await it.mail(TEXT, recipients))[:2] == ["250 2.1.5 Ok" if mta else "250 ok"] * 2
        (stored,) = it.stored
        assert without_trace(stored.content) == TEXT
        client = "192.0.2.9" if mta else "127.0.0.1"
        assert pymilter.heard() == [
            ["connect", "unknown", client, "box.example", client],
            ["hello", "c.example"],
            ["envfrom", "<a@c.example>", "BODY=8BITMIME", "a@c.example"],
            ["envrcpt", "<b@example.com>", "b@example.com"],
            ["envrcpt", '<"odd one"@example.com>', '"odd one"@example.com'],
            ["data"],
            ["header", "Subject", " two spaces"],
            ["header", "X-One", "1"],
            ["header", "X-One", "\t2\n folded"],
            ["eoh"],
            ["eom", TEXT.partition(b"\r\n\r\n")[2].decode("latin-1")],
        ]

    run(work())


@pytest.mark.parametrize(("mta", "bdat"), [(False, False), (False, True), (True, False)], ids=["DATA", "BDAT", "mta"])
def test_every_edit(run: Run, tmp_path: Path, pymilter: PyMilter, mta: bool, bdat: bool) -> None:
    pymilter.order(
        edit=[
            ["addheader", "X-Added", "last\n\tand folded"],
            ["addheader", "X-First", "first", 0],
            ["chgheader", "X-One", 2, "changed"],
            ["chgheader", "X-One", 1, ""],
            ["chgheader", "X-New", 1, "new"],
            ["chgfrom", "<other@c.example>"],
            ["addrcpt", "<more@example.com>"],
            ["delrcpt", "<b@example.com>"],
            ["replacebody", ".another\n"],
            ["replacebody", "body \xff\r\n."],
        ]
    )

    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings(pymilter), mta=mta) as it:
            heard = await it.mail(TEXT, ["b@example.com", "c@example.com"], bdat=bdat)
            assert heard[-1].startswith("250")
        (stored,) = it.stored
        assert without_trace(stored.content) == (
            b"X-First: first\r\nSubject:  two spaces\r\nX-One: changed\r\nX-Added: last\r\n\tand folded\r\n"
            b"X-New: new\r\n\r\n.another\r\nbody \xff\r\n.\r\n"
        )
        assert (stored.sender, stored.recipients) == ("other@c.example", ["c@example.com", "more@example.com"])
        (told,) = [record for record in it.log if record["type"] == "message"]
        assert told["filters"] == {"f": "changed"}
        assert told["rules"] == ["through filters"]

    run(work())


VERDICTS = [
    ("reject", "550 5.7.1 Command rejected"),
    ("tempfail", "451 4.7.1 Service unavailable - try again later"),
    (["554", "5.7.1", "not this"], "554 5.7.1 not this"),
    (["451", "4.7.1", "not 100%%"], "451 4.7.1 not 100%"),
]
EVENTS = ("connect", "hello", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom")
# libmilter takes no reply of a filter's own at the connection (smfi_setreply).
AT_EACH = [(event, *each) for event in EVENTS for each in VERDICTS if event != "connect" or isinstance(each[0], str)]
ENDS = ("accept", "discard")


@BOTH
@pytest.mark.parametrize(("event", "said", "heard"), AT_EACH)
def test_a_verdict_at_each_event(
    run: Run, tmp_path: Path, pymilter: PyMilter, mta: bool, event: str, said: Any, heard: str
) -> None:
    pymilter.order(say={event: said})
    early = event in ("connect", "hello", "envfrom", "envrcpt")

    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings(pymilter), mta=mta) as it:
            answered = await it.mail(TEXT + b"stop here\r\n")
            assert answered[0 if early else -1] == heard
            assert len(answered) == (1 if early else 2)
            pymilter.order()
            assert (await it.mail(TEXT))[-1].startswith("250")
        assert len(it.stored) == 1

    run(work())


@BOTH
@pytest.mark.parametrize("event", ["envfrom", "envrcpt", "data", "eom"])
def test_the_next_message_of_the_same_client(
    run: Run, tmp_path: Path, pymilter: PyMilter, mta: bool, event: str
) -> None:
    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings(pymilter), mta=mta) as it:
            client = await it.enter()
            for said in ({event: "reject"}, {}, {event: "reject"}, {}):
                pymilter.order(say=said)
                heard = (await client.mail(TEXT, ["b@example.com"]))[-1]
                assert heard.startswith("550 5.7.1" if said else "250")
            await client.leave()
        assert len(it.stored) == 2

    run(work())


@BOTH
@pytest.mark.parametrize(
    ("event", "said"),
    [("connect", "accept"), *((event, said) for event in ("envfrom", "envrcpt", "header", "eom") for said in ENDS)],
)
def test_the_end_of_the_matter(run: Run, tmp_path: Path, pymilter: PyMilter, mta: bool, event: str, said: str) -> None:
    pymilter.order(say={event: said})

    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings(pymilter), mta=mta) as it:
            assert (await it.mail(TEXT))[-1].startswith("250")
        assert len(it.stored) == (said == "accept")

    run(work())


def test_one_recipient_alone_is_refused(run: Run, tmp_path: Path, pymilter: PyMilter) -> None:
    """And the server's own refusals are no recipients to the filter."""
    pymilter.order()

    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings(pymilter)) as it:
            it.refuses |= {"nobody@example.com"}
            heard = await it.mail(TEXT, ["nobody@example.com", "b@example.com"])
            assert heard[0] == "550 5.1.1 no"
            assert [each[1] for each in pymilter.heard() if each[0] == "envrcpt"] == ["<b@example.com>"]

    run(work())


@pytest.mark.parametrize("refused", ["more@example.com", "other@c.example"])
def test_a_server_that_does_not_want_the_new_envelope(
    run: Run, tmp_path: Path, pymilter: PyMilter, refused: str
) -> None:
    """Its word is the client's, and nobody has half a message."""
    pymilter.order(edit=[["chgfrom", "<other@c.example>"], ["addrcpt", "<more@example.com>"]])

    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings(pymilter)) as it:
            it.refuses |= {refused}
            client = await it.enter()
            assert (await client.mail(TEXT, ["b@example.com"]))[-1] == "550 5.1.1 no"
            pymilter.order()
            assert (await client.mail(TEXT, ["b@example.com"]))[-1] == "250 taken"
            await client.leave()
        assert [(each.sender, each.recipients) for each in it.stored] == [("a@c.example", ["b@example.com"])]

    run(work())


@BOTH
def test_several_in_order_each_sees_what_the_others_left(
    run: Run, tmp_path: Path, pymilter: PyMilter, mta: bool
) -> None:
    pymilter.order(edit=[["addheader", "X-Seen", "once"], ["replacebody", "new\r\n"]])

    async def work() -> None:
        both = [settings(pymilter, name) for name in ("one", "two")]
        async with town(tmp_path, [rule("one"), rule("two")], *both, mta=mta) as it:
            assert (await it.mail(TEXT))[-1].startswith("250")
        assert it.stored[0].content.endswith(b" folded\r\nX-Seen: once\r\nX-Seen: once\r\n\r\nnew\r\n")
        heard = pymilter.heard()
        assert ["header", "X-Seen", "once"] in heard
        assert heard[-1] == ["eom", "new\r\n"]

    run(work())


@pytest.mark.parametrize("on_quarantine", list(OnFailure))
def test_there_is_no_quarantine(run: Run, tmp_path: Path, pymilter: PyMilter, on_quarantine: OnFailure) -> None:
    pymilter.order(edit=[["quarantine", "odd"]])

    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings(pymilter, on_quarantine=on_quarantine)) as it:
            heard = (await it.mail(TEXT))[-1]
        wanted = "451 4.7.1 Held by a filter, and there is no quarantine" if not it.stored else "250 taken"
        assert heard == wanted
        assert len(it.stored) == (on_quarantine is OnFailure.ACCEPT)

    run(work())


def test_one_connection_serves_many_clients(run: Run, tmp_path: Path, pymilter: PyMilter) -> None:
    pymilter.order()

    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings(pymilter)) as it:
            for _ in range(3):
                client = await it.enter()
                for _ in range(3):
                    assert (await client.mail(TEXT, ["b@example.com"]))[-1] == "250 taken"
                await client.leave()
            assert it.filters["f"].counts == {"connections": 1, "messages": 9}

    run(work())


def test_text_that_looks_like_a_header_is_scanned(run: Run, tmp_path: Path, pymilter: PyMilter) -> None:
    """A receiver takes what stands behind the first line that is no field for the body."""
    content = b"Subject: x\r\nthis is no field\r\nX-Virus: yes\r\n\r\nmore\r\n"
    pymilter.order(edit=[["addheader", "X-Added", "1"]])

    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings(pymilter)) as it:
            await it.mail(content)
        assert it.stored[0].content == content.replace(b"this is", b"X-Added: 1\r\nthis is")
        heard = pymilter.heard()
        assert [each[1] for each in heard if each[0] == "header"] == ["Subject"]
        assert heard[-1] == ["eom", content.partition(b"\r\n")[2].decode()]

    run(work())
