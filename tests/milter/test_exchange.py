"""The protocol on one connection: any cut of what a filter sends gives the same, and what has no place is told."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.milter.agreement import Action, Agreement, Flag
from smtp_intercept.milter.exchange import KINDS, Event, Exchange
from smtp_intercept.milter.packets import MOST_BYTES, MilterError, Packets, packet
from smtp_intercept.milter.replies import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    Quarantine,
    ReplaceBody,
    Reply,
    ReplyCode,
    Word,
)

CHANGES: list[tuple[bytes, bytes, Reply]] = [
    (b"h", b"X-A\0one\r\n two\0", AddHeader(b"X-A", b"one\n two")),
    (b"h", b"X-A\0one\nBcc: x\0", AddHeader(b"X-A", b"one\n\tBcc: x")),
    (b"i", struct.pack("!I", 3) + b"X-A\0\xff\0", InsertHeader(3, b"X-A", b"\xff")),
    (b"m", struct.pack("!I", 0) + b"X-A\0\0", ChangeHeader(1, b"X-A", b"")),
    (b"b", b"text\0\r\n", ReplaceBody(b"text\0\r\n")),
    (b"e", b"<a@b.example>\0SIZE=1 BODY=8BITMIME\0", ChangeSender(b"a@b.example", (b"SIZE=1", b"BODY=8BITMIME"))),
    (b"e", b"<>\0", ChangeSender(b"")),
    (b"+", b"<c@d.example>\0", AddRecipient(b"c@d.example")),
    (b"2", b"<c@d.example>\0NOTIFY=NEVER\0", AddRecipient(b"c@d.example", (b"NOTIFY=NEVER",))),
    (b"-", b"c@d.example\0", DeleteRecipient(b"c@d.example")),
    (b"q", b"looks odd\0", Quarantine("looks odd")),
]
LAST: list[tuple[bytes, bytes, Reply]] = [
    (b"c", b"", Word.CONTINUE),
    (b"a", b"", Word.ACCEPT),
    (b"y", b"550 5.7.1 no 100%%\0", ReplyCode(550, "5.7.1 no 100%")),
    (b"y", b"451-4.7.1 not\r\n451 4.7.1 now\0", ReplyCode(451, "4.7.1 not 4.7.1 now")),
    (b"y", b"550\0", ReplyCode(550, "5.7.1 Command rejected")),
    (b"4", b"", Word.SHUTDOWN),
]


def agreed(version: int = 6, actions: int = 0x1FF, flags: int = 0) -> Exchange:
    it = Exchange()
    it.begin()
    (found,) = it.heard(packet(b"O", struct.pack("!III", version, actions, flags)))
    assert isinstance(found, Agreement)
    return it


def at_the_end(actions: int = 0x1FF) -> Exchange:
    it = agreed(actions=actions)
    it.tell(Event.END, b"")
    return it


@given(st.lists(st.sampled_from(CHANGES), max_size=6), st.sampled_from(LAST), st.data())
def test_any_cut_is_the_same(
    changes: list[tuple[bytes, bytes, Reply]], last: tuple[bytes, bytes, Reply], data: st.DataObject
) -> None:
    sent = [*changes, (b"p", b"", Word.PROGRESS), last]
    octets = b"".join(packet(letter, payload) for letter, payload, _ in sent)
    it, heard = at_the_end(), list[object]()
    while octets:
        size = data.draw(st.integers(1, len(octets)))
        assert it.waiting
        heard += it.heard(octets[:size])
        octets = octets[size:]
    assert heard == [reply for _, _, reply in sent]
    assert not it.waiting


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_octets_do_anything_else_than_that(octets: bytes, at: int) -> None:
    def outcome(*pieces: bytes) -> tuple[list[object], str]:
        it, heard = at_the_end(), list[object]()
        try:
            for piece in pieces:
                heard += it.heard(piece)
        except MilterError as error:
            return heard, str(error)
        return heard, ""

    assert outcome(octets) == outcome(octets[:at], octets[at:])


@pytest.mark.parametrize("size", [0, MOST_BYTES + 1])
def test_a_packet_that_is_none(size: int) -> None:
    with pytest.raises(MilterError, match=f"a packet of {size} octets"):
        list(Packets().feed(struct.pack("!I", size)))
    assert not list(Packets().feed(struct.pack("!I", MOST_BYTES)))


@pytest.mark.parametrize(
    ("letter", "payload"),
    [
        (b"z", b""),
        (b"y", b"250 ok\0"),
        (b"y", b"550 no"),
        (b"y", b"550-a\r\n451 b\0"),
        (b"h", b"X-A\0"),
        (b"h", b"X A\0y\0"),
        (b"m", b"\0\0"),
        (b"e", b"<a@b> SIZE=1\r\nRSET\0"),
        (b"+", b"<a@b>\r\nDATA\0"),
        (b"+", b"<>\0"),
        (b"2", b"<a@b>\0X\x01\0"),
        (b"f", b""),
        (b"s", b""),
    ],
)
def test_nonsense(letter: bytes, payload: bytes) -> None:
    with pytest.raises(MilterError):
        list(at_the_end().heard(packet(letter, payload)))


@pytest.mark.parametrize("letter", [letter for letter, _, _ in CHANGES])
def test_what_it_has_not_asked_for_it_may_not_do(letter: bytes) -> None:
    payload = next(payload for each, payload, _ in CHANGES if each == letter)
    with pytest.raises(MilterError, match="not asked for"):
        list(at_the_end(actions=0).heard(packet(letter, payload)))
    it = agreed()
    it.tell(Event.MAIL, b"<a@b>\0")
    with pytest.raises(MilterError, match="before the end"):
        list(it.heard(packet(letter, payload)))


def test_nothing_is_heard_unasked() -> None:
    it = agreed()
    with pytest.raises(MilterError, match="nobody waits for"):
        list(it.heard(packet(b"c")))


@pytest.mark.parametrize("event", list(Event))
def test_what_is_not_wanted_is_not_told_and_what_is_not_answered_not_waited_for(event: Event) -> None:
    kind = KINDS[event]
    assert agreed().wants(event)
    if kind.unwanted:
        assert not agreed(flags=int(kind.unwanted)).wants(event)
        it = agreed(flags=int(kind.unanswered))
        it.tell(event, b"")
        assert not it.waiting
    assert agreed(version=kind.since, actions=0).wants(event)
    if kind.since > 2:
        assert not agreed(version=kind.since - 1, actions=0).wants(event)


@pytest.mark.parametrize(("version", "good"), [(1, False), (2, True), (6, True), (7, False)])
def test_versions(version: int, good: bool) -> None:
    it = Exchange()
    assert it.begin() == packet(b"O", struct.pack("!III", 6, 0x1FF, 0x1FFFFF))
    found = it.heard(packet(b"O", struct.pack("!III", version, 0, 0)))
    if good:
        assert next(iter(found)) == Agreement(version, Action(0), Flag(0), {})
    else:
        with pytest.raises(MilterError, match="version"):
            list(found)


def test_a_filter_chooses_its_macros() -> None:
    it = Exchange()
    it.begin()
    wanted = struct.pack("!I", 2) + b"i {mail_addr}\0"
    list(it.heard(packet(b"O", struct.pack("!III", 6, 0x100, 0) + wanted)))
    macros = [("i", b"1"), ("{mail_addr}", b"a@b"), ("{mail_host}", b"b")]
    assert it.tell(Event.MAIL, b"<a@b>\0", macros).startswith(packet(b"D", b"Mi\x001\0{mail_addr}\0a@b\0"))


def test_a_value_has_no_second_one_in_it() -> None:
    sent = agreed().tell(Event.MAIL, b"<a@b>\0", [("i", b"1\0{auth_authen}\0boss")])
    assert sent.startswith(packet(b"D", b"Mi\x001\0"))
