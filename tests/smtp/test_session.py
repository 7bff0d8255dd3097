"""A session at its limits, in time, and in what it copies and keeps."""

from __future__ import annotations

import pytest

from smtp_intercept.answers import HOLDS_TOO_MUCH, INJECTED
from smtp_intercept.dialogue import _EFFECTS, MAX_OUTSTANDING, Effect, Verb, effect
from smtp_intercept.direction import Domains, Protection
from smtp_intercept.events import Asking, Doubt, EndClient, EndServer, Leave, MessageDone, Out, ToClient, ToServer
from smtp_intercept.limits import DEFAULT_LIMITS, LOOK_AHEAD_BYTES, Limits
from smtp_intercept.policy import Discard, Ruling, Stage
from smtp_intercept.rules import TRANSPARENT, Rules
from smtp_intercept.session import Session
from smtp_intercept.transaction import MAX_LOGGED_RECIPIENTS, Message
from smtp_intercept.wire import MAX_LOGGED_CHARACTERS

GREETED = b"220 mx\r\n"
ENDLESS = Rules(limits=Limits(commands_without_mail=0))
MAX_LINE_BYTES = DEFAULT_LIMITS.command_line_bytes


def session(*extensions: bytes, rules: Rules = TRANSPARENT) -> Session:
    """One that has been greeted."""
    it = Session(Protection(Domains.of([("example.com", False)])), rules)
    it.server_sent(GREETED, 0)
    it.client_sent(b"EHLO c.example\r\n", 0)
    it.server_sent(b"".join(b"250-%b\r\n" % each for each in (b"mx", *extensions)) + b"250 HELP\r\n", 0)
    return it


def to_server(outs: list[Out]) -> bytes:
    return b"".join(out.data for out in outs if isinstance(out, ToServer))


def to_client(outs: list[Out]) -> bytes:
    return b"".join(out.data for out in outs if isinstance(out, ToClient))


def messages(outs: list[Out]) -> list[Message]:
    return [out.record for out in outs if isinstance(out, MessageDone)]


def in_data() -> Session:
    it = session()
    it.client_sent(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n", 1)
    it.server_sent(b"250 ok\r\n250 ok\r\n354 go\r\n", 2)
    return it


def test_every_reply_to_every_command_has_an_effect() -> None:
    assert set(_EFFECTS) == set(Verb)
    for verb in Verb:
        for code in range(200, 600):
            assert effect(verb, code) in Effect


def test_who_is_turned_away_hears_first_what_became_of_its_message() -> None:
    """Else a sender presses until it is turned away, and the server takes its message unseen."""
    it = in_data()
    it.client_sent(b"x\r\n.\r\nMAIL FROM:<d@b>\r\nDATA\r\n" + b"y" * 40_000, 3)
    assert it.turn_away(HOLDS_TOO_MUCH, 4) == []
    assert it.ahead_bytes == 0
    assert to_server(it.client_sent(b"y" * 100, 5)) == b""
    assert it.turn_away(HOLDS_TOO_MUCH, 6) == []
    outs = it.server_sent(b"250 taken\r\n250 ok\r\n354 go\r\n", 7)
    assert to_client(outs) == b"250 taken\r\n" + HOLDS_TOO_MUCH.line
    assert [message.outcome.value for message in messages(outs)] == ["accepted"]
    assert any(isinstance(out, Leave) for out in outs)
    assert to_server(outs) == b""


def test_a_chunk_of_data_crosses_as_the_object_that_came() -> None:
    it = in_data()
    chunk = b"line\r\n" * 10_000
    for _ in range(3):
        (out,) = it.client_sent(chunk, 3)
        assert isinstance(out, ToServer)
        assert out.data is chunk


def test_an_opaque_chunk_crosses_as_the_object_that_came() -> None:
    it = session(b"STARTTLS")
    it.client_sent(b"STARTTLS\r\n", 0)
    it.server_sent(b"220 go\r\n", 0)
    chunk = b"\x17\x03\x03" * 1000
    assert it.client_sent(chunk, 0) == [ToServer(chunk)]
    (out,) = it.server_sent(chunk, 0)
    assert isinstance(out, ToClient)
    assert out.data is chunk


def test_a_pipeline_crosses_in_one_piece() -> None:
    pipeline = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
    assert session().client_sent(pipeline, 0) == [ToServer(pipeline)]


def test_a_command_crosses_when_it_is_whole() -> None:
    it = session()
    assert it.client_sent(b"NO", 0) == []
    assert it.client_sent(b"OP\r", 0) == []
    assert it.client_sent(b"\nQU", 0) == [ToServer(b"NOOP\r\n")]
    assert it.client_closed(0) == [ToServer(b"QU"), EndServer()]


def test_a_reply_crosses_line_by_line() -> None:
    it = session()
    it.client_sent(b"NOOP\r\n", 0)
    assert it.server_sent(b"250-o", 0) == []
    assert it.server_sent(b"k\r\n250", 0) == [ToClient(b"250-ok\r\n")]
    assert it.server_closed(0) == [ToClient(b"250"), EndClient()]


def test_seconds_run_from_mail_to_the_last_reply() -> None:
    it = in_data()
    it.client_sent(b"x\r\n.\r\n", 5)
    (message,) = messages(it.server_sent(b"250 ok\r\n", 7.25))
    assert message.seconds == 6.25


def test_a_command_line_may_have_the_longest_length() -> None:
    it = session()
    longest = b"NOOP " + b"x" * (MAX_LINE_BYTES - 7) + b"\r\n"
    assert len(longest) == MAX_LINE_BYTES
    assert it.client_sent(longest, 0) == [ToServer(longest)]
    assert it.doubt is None


@pytest.mark.parametrize("tail", [b"", b"x" * 100_000])
def test_a_longer_one_is_answered_and_does_not_cross(tail: bytes) -> None:
    it = session()
    assert it.client_sent(b"x" * (MAX_LINE_BYTES - 1), 0) == []
    assert it.client_sent(b"x" + tail, 0) == []
    assert it.ahead_bytes == 0
    assert it.client_sent(b"\r\nNOOP\r\n", 0) == [ToServer(b"NOOP\r\n"), ToClient(b"500 5.5.2 Line too long\r\n")]
    assert it.doubt is None


def test_credentials_may_be_as_long_as_what_is_kept_at_all() -> None:
    it = session(b"AUTH GSSAPI")
    longest = b"AUTH GSSAPI " + b"x" * (LOOK_AHEAD_BYTES - 14) + b"\r\n"
    assert it.client_sent(longest[:-1], 0) == []
    assert it.wants_client
    assert it.client_sent(longest[-1:], 0) == [ToServer(longest)]
    it.server_sent(b"535 no\r\n", 0)
    assert it.client_sent(longest[:-2] + b"x", 0) == []
    assert it.client_sent(b"\r\n", 0) == [ToClient(b"500 5.5.2 Line too long\r\n")]


def test_a_reply_line_has_a_limit_that_a_command_repeated_by_its_server_does_not_reach() -> None:
    it = session()
    it.client_sent(b"NOOP\r\nNOOP\r\n", 0)
    longest = b"250 " + b"x" * (DEFAULT_LIMITS.reply_line_bytes - 6) + b"\r\n"
    assert len(longest) > MAX_LINE_BYTES + 512
    assert it.server_sent(longest, 0) == [ToClient(longest)]
    assert it.doubt is None
    assert to_client(it.server_sent(b"250 " + longest, 0)) == b"250 " + longest
    assert it.doubt is Doubt.LONG_REPLY


def test_a_client_is_kept_waiting_at_the_end_of_the_look_ahead_and_read_again_after_the_reply() -> None:
    it = session()
    it.client_sent(b"DATA\r\n", 0)
    ahead = b"y" * (LOOK_AHEAD_BYTES - 1)
    assert it.client_sent(ahead, 0) == []
    assert it.wants_client
    assert it.client_sent(b"y", 0) == []
    assert not it.wants_client
    assert it.server_sent(b"354 go\r\n", 0) == [ToClient(b"354 go\r\n"), ToServer(ahead + b"y")]
    assert it.wants_client


def test_octets_held_behind_starttls_are_bounded_too() -> None:
    it = session(b"STARTTLS")
    it.client_sent(b"STARTTLS\r\n", 0)
    assert it.client_sent(b"z" * LOOK_AHEAD_BYTES, 0) == []
    assert not it.wants_client
    leave = Leave("aborted", str(INJECTED.reply))
    assert it.server_sent(b"220 go\r\n", 0) == [ToClient(INJECTED.line), leave]
    assert it.client_sent(b"z", 0) == it.server_sent(b"z", 0) == []


def test_a_chunk_that_was_not_offered_is_read_and_thrown_away() -> None:
    it = session()
    it.client_sent(b"MAIL FROM:<a@b>\r\n", 0)
    it.server_sent(b"250 ok\r\n", 0)
    assert it.client_sent(b"BDAT 1000000 LAST\r\n", 0) == []
    assert it.client_sent(b"b" * 999_999, 0) == []
    assert it.wants_client
    assert it.client_sent(b"b", 0) == [ToClient(b"503 5.5.1 CHUNKING was not offered\r\n")]


@pytest.mark.parametrize("size", [2**31 - 1, 2**31])
def test_a_chunk_is_no_larger_than_the_narrowest_number(size: int) -> None:
    it = session(b"CHUNKING")
    it.client_sent(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", 0)
    it.server_sent(b"250 ok\r\n250 ok\r\n", 0)
    crossed = to_server(it.client_sent(b"BDAT %d\r\nx" % size, 0))
    assert crossed == (b"BDAT %d\r\nx" % size if size < 2**31 else b"")


def test_a_chunk_answered_before_its_end_is_not_followed() -> None:
    it = session(b"CHUNKING")
    it.client_sent(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 4 LAST\r\nabc", 0)
    outs = it.server_sent(b"250 ok\r\n250 ok\r\n", 0)
    outs = it.server_sent(b"250 taken\r\n", 0)
    assert it.doubt is Doubt.EARLY
    assert [message.outcome.value for message in messages(outs)] == ["accepted"]


def test_a_pipeline_stops_at_as_many_replies_as_may_be_owed() -> None:
    it = session(rules=ENDLESS)
    noops = b"NOOP\r\n" * MAX_OUTSTANDING
    assert to_server(it.client_sent(noops + b"QUIT\r\n", 0)) == noops
    assert to_server(it.client_sent(b"NOOP\r\n" * 20_000, 0)) == b""
    assert not it.wants_client
    half = MAX_OUTSTANDING // 2
    assert to_server(it.server_sent(b"250 ok\r\n" * (half - 1), 0)) == b""
    assert to_server(it.server_sent(b"250 ok\r\n", 0)) == b"QUIT\r\n" + b"NOOP\r\n" * (half - 1)
    crossed = MAX_OUTSTANDING + half
    while to_server(it.server_sent(b"250 ok\r\n" * half, 0)):
        crossed += half
        assert crossed <= MAX_OUTSTANDING + 1 + 20_000 + half
    assert it.doubt is None
    assert it.wants_client


def test_a_held_pipeline_crosses_before_the_end_of_the_clients_stream() -> None:
    it = session(rules=ENDLESS)
    it.client_sent(b"NOOP\r\n" * MAX_OUTSTANDING + b"QUIT\r\n", 0)
    assert it.client_closed(0) == []
    outs = it.server_sent(b"250 ok\r\n" * MAX_OUTSTANDING, 0)
    assert to_server(outs) == b"QUIT\r\n"
    assert EndServer() in outs


def test_as_many_recipients_are_logged_as_may_be() -> None:
    it = session()
    it.client_sent(b"MAIL FROM:<a@b>\r\n", 0)
    it.server_sent(b"250 ok\r\n", 0)
    for _ in range(MAX_LOGGED_RECIPIENTS + 3):
        it.client_sent(b"RCPT TO:<c@example.com>\r\n", 0)
        it.server_sent(b"250 ok\r\n", 0)
    it.client_sent(b"RSET\r\n", 0)
    (message,) = messages(it.server_sent(b"250 ok\r\n", 0))
    assert len(message.recipients) == MAX_LOGGED_RECIPIENTS
    assert message.fields()["recipients_omitted"] == 3


def test_long_names_and_replies_take_no_more_of_the_log_than_they_may() -> None:
    it = Session(Protection())
    it.client_sent(
        b"EHLO " + b"h" * 9000 + b"\r\nMAIL FROM:<" + b"s" * 9000 + b">\r\nRCPT TO:<" + b"r" * 9000 + b">\r\n", 0
    )
    it.server_sent(GREETED + b"250 mx\r\n250 ok\r\n550 " + b"n" * 9000 + b"\r\n", 0)
    (message,) = messages(it.finish(0))
    fields = message.fields()
    for text in (it.fields()["helo"], fields["sender"], *fields["recipients"][0].values(), fields["reply"]):  # type: ignore[index]
        assert len(text) <= MAX_LOGGED_CHARACTERS


def test_the_direction_of_a_recipient_is_the_whole_addresss() -> None:
    it = session()
    it.client_sent(b"MAIL FROM:<a@b>\r\nRCPT TO:<" + b"r" * 9000 + b"@example.com>\r\n", 0)
    it.server_sent(b"250 ok\r\n250 ok\r\n", 0)
    (message,) = messages(it.finish(0))
    assert message.recipients[0].direction.value == "incoming"


def test_every_field_is_there_before_anything_was_said() -> None:
    assert Session(Protection()).fields() == {
        "helo": "",
        "tls": "none",
        "messages": 0,
        "bytes_from_client": 0,
        "bytes_from_server": 0,
        "doubt": None,
        "doubted": None,
        "sasl_layer": False,
    }


def test_endless_keywords_are_not_kept() -> None:
    it = Session(Protection())
    it.client_sent(b"EHLO c\r\n", 0)
    it.server_sent(GREETED + b"".join(b"250-X%d\r\n" % number for number in range(50_000)) + b"250 STARTTLS\r\n", 0)
    assert it.fields()["tls"] == "none"


def test_a_server_that_is_gone_while_starttls_waits_gets_nothing_more() -> None:
    it = session(b"STARTTLS")
    it.client_sent(b"STARTTLS\r\nNOOP\r\n", 0)
    assert it.server_closed(0) == [EndClient()]
    assert it.client_sent(b"NOOP\r\n", 0) == it.client_closed(0) == it.finish(0) == []
    assert it.wants_client


def test_a_ruling_on_what_is_not_asked_any_more_is_nobody_elses() -> None:
    """The server refuses MAIL while somebody thinks about its recipient: nothing is left to be thought about."""
    session, asked = Session(Protection(), Rules(ask=lambda question: None)), list[Stage]()

    def take(outs: list[Out]) -> bytes:
        asked.extend(out.question.stage for out in outs if isinstance(out, Asking))
        return b"".join(out.data for out in outs if isinstance(out, ToClient))

    take(session.opened(0.0))
    take(session.server_sent(b"220 x\r\n", 0.0))
    take(session.told(Ruling(), 0.0))
    take(session.client_sent(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", 0.0))
    take(session.told(Ruling(), 0.0))
    take(session.server_sent(b"503 5.5.1 no\r\n", 0.0))
    assert take(session.told(Ruling(Discard()), 0.0)) == b"503 5.5.1 Need MAIL first\r\n"
    take(session.client_sent(b"MAIL FROM:<a@b>\r\n", 0.0))
    assert asked == [Stage.CONNECT, Stage.MAIL, Stage.RCPT, Stage.MAIL]
