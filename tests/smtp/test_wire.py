"""Lines, commands, replies and paths as they come, not only as RFC 5321 has them."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_intercept import wire
from smtp_intercept.dialogue import owe
from smtp_intercept.direction import Protection
from smtp_intercept.wire import (
    MAX_LOGGED_CHARACTERS,
    Chunk,
    Command,
    clip,
    line_end,
    parse_chunk,
    parse_command,
    parse_path,
    parse_reply_line,
    safe_text,
)


@pytest.mark.parametrize(
    ("line", "verb", "argument"),
    [
        (b"EHLO client.example\r\n", b"EHLO", b"client.example"),
        (b"ehlo client.example\n", b"EHLO", b"client.example"),
        (b"  sTaRtTlS \r\n", b"STARTTLS", b""),
        (b"STARTTLS\0hidden\r\n", b"STARTTLS", b""),
        (b"MAIL\tFROM:<a@b>\r\n", b"MAIL", b"FROM:<a@b>"),
        (b"DATA\r\r\n", b"DATA", b""),
        (b"\r\n", b"", b""),
        (b"\xff\xfe\r\n", b"\xff\xfe", b""),
    ],
)
def test_a_command_is_a_verb_and_the_rest(line: bytes, verb: bytes, argument: bytes) -> None:
    assert parse_command(line) == Command(verb, argument)


@pytest.mark.parametrize(
    ("line", "code", "final", "text"),
    [
        (b"250 2.1.0 Ok\r\n", 250, True, b"2.1.0 Ok"),
        (b"250-STARTTLS\r\n", 250, False, b"STARTTLS"),
        (b"250\r\n", 250, True, b""),
        (b"250-\r\n", 250, False, b""),
        (b"354 go\n", 354, True, b"go"),
        (b"220 two\r\r\n", 220, True, b"two"),
    ],
)
def test_a_reply_line(line: bytes, code: int, final: bool, text: bytes) -> None:
    reply = parse_reply_line(line)
    assert reply is not None
    assert (reply.code, reply.final, reply.text) == (code, final, text)


@pytest.mark.parametrize(
    "line",
    [
        b"\r\n",
        b"25 x\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"2500 x\r\n",
        b"250_x\r\n",
        b" 250 x\r\n",
        b"\xb2\xb5\xb0 x\r\n",
    ],
)
def test_no_reply_line(line: bytes) -> None:
    assert parse_reply_line(line) is None


@pytest.mark.parametrize(
    ("argument", "path"),
    [
        (b"FROM:<a@b.example>", "a@b.example"),
        (b"from: <a@b.example> SIZE=1000 BODY=8BITMIME", "a@b.example"),
        (b"FROM : < a@b.example > SIZE=1", "a@b.example"),
        (b"FROM:a@b.example", "a@b.example"),
        (b"FROM:a@b.example ENVID=x<y>", "a@b.example"),
        (b"FROM:<a@b.example>SIZE=1", "a@b.example"),
        (b"TO <a@b.example>", "a@b.example"),
        (b"FROM:<>", ""),
        (b"FROM: <> RET=HDRS", ""),
        (b"FROM:", ""),
        (b"", ""),
        (b"TO:<postmaster>", "postmaster"),
        (b"TO:postmaster NOTIFY=NEVER", "postmaster"),
        (b"TO:tom@b.example", "tom@b.example"),
        (b"tom@b.example", "tom@b.example"),
        (b'TO:<"quoted > and \\" space"@b.example> NOTIFY=NEVER', '"quoted > and \\" space"@b.example'),
        (b'TO:"a b"@b.example NOTIFY=NEVER', '"a b"@b.example'),
        (b"TO:A Name <a@b.example>", "a@b.example"),
        (b'TO:"A <Name>" <a@b.example>', "a@b.example"),
        (b"TO:<@one.example,@two.example:a@b.example>", "a@b.example"),
        (b"TO:<@[IPv6:2001:db8::1]:a@b.example>", "a@b.example"),
        (b"TO:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
        (b"TO:<<a@b.example>>", "a@b.example"),
        (b'TO:<"a.b"@B.Example.>', "a.b@b.example"),
        (b'TO:<@relay.example:"\\a"@b.example>', "a@b.example"),
        (b'TO:"a"@b.example', "a@b.example"),
        (b'TO:<"a\\ b"@b.example>', '"a b"@b.example'),
        (b'TO:<"a."@b.example>', '"a."@b.example'),
        (b'TO:<""@b.example>', '""@b.example'),
        (b"TO:<A.b@B.EXAMPLE> NOTIFY=NEVER", "A.b@b.example"),
        (b"TO:<a@[IPv6:2001:DB8::1]>", "a@[IPv6:2001:DB8::1]"),
        (b"TO:<Postmaster>", "Postmaster"),
        ('TO:<"jürgen"@Bücher.example>'.encode(), "jürgen@bücher.example"),
        (b"TO:<a@b.example", "a@b.example"),
        (b'TO:<"open@b.example>', '"open@b.example'),
        ("TO:<jürgen@bücher.example>".encode(), "jürgen@bücher.example"),
        (b"TO:<j\xfcrgen@b.example>", "j\\xfcrgen@b.example"),
        (b"TO:<a\0\x1b[2J@b.example>", "a\\x00\\x1b[2J@b.example"),
        ("TO:<\u202eevil@b.example>".encode(), "\\u202eevil@b.example"),
    ],
)
def test_a_path_is_found_in_what_clients_send(argument: bytes, path: str) -> None:
    assert parse_path(argument) == path


@given(st.from_regex(rb"(FROM|to):<[A-Za-z0-9.!#$%&'*+/=?^_`{|}~@\\\":,\[\]<> -]*>?( SIZE=1)?", fullmatch=True))
def test_a_plain_path_is_read_as_any_other(argument: bytes) -> None:
    # The blank in front keeps the quick way out.
    assert parse_path(argument) == parse_path(b" " + argument)


@given(st.from_regex(rb"[1-6][0-9]{1,3}[ -]?[^\n]*\r*\n", fullmatch=True))
def test_a_reply_line_is_what_the_grammar_says(line: bytes) -> None:
    found = re.fullmatch(rb"([2-5][0-9]{2})(?:([ -])([^\n]*?))?\r*\n", line)
    reply = parse_reply_line(line)
    assert (reply is None) == (found is None)
    if reply and found:
        assert (b"%d" % reply.code, reply.final, reply.text) == (found[1], found[2] != b"-", found[3] or b"")


@given(st.binary())
def test_any_path_is_safe_to_log(argument: bytes) -> None:
    path = parse_path(b"TO:" + argument)
    assert path.isprintable()
    assert json.loads(json.dumps(path)) == path
    path.encode("utf-8")


@given(st.binary(max_size=200))
def test_a_mailbox_in_brackets_is_found_behind_anything_quoted(quoted: bytes) -> None:
    escaped = b"".join(b"\\" + bytes([octet]) for octet in quoted)
    assert parse_path(b'TO:"' + escaped + b'" <a@b.example>') == "a@b.example"


@pytest.mark.parametrize(
    ("argument", "chunk"),
    [
        (b"1000", Chunk(1000, False)),
        (b"0 last", Chunk(0, True)),
        (b"86 LAST", Chunk(86, True)),
        (b"", None),
        (b"-1", None),
        (b"10 FIRST", None),
        (b"9" * 19, None),
    ],
)
def test_a_chunk(argument: bytes, chunk: Chunk | None) -> None:
    assert parse_chunk(argument) == chunk


def test_a_line_ends_at_its_lf() -> None:
    assert line_end(b"NOOP\r\nQUIT\r\n", 0, 100) == 6
    assert line_end(b"NOOP\r\nQUIT\r\n", 6, 100) == 12
    assert line_end(b"NOOP\r\nQUI", 6, 100) == 0


def test_a_line_may_have_the_longest_length_and_no_more() -> None:
    longest = b"x" * 998 + b"\r\n"
    assert line_end(b"NOOP\r\n" + longest, 6, 1000) == 1006
    assert line_end(longest[:-1], 0, 1000) == 0
    assert line_end(b"x" + longest, 0, 1000) == -1
    assert line_end(b"x" * 1000, 0, 1000) == -1


def test_long_text_is_clipped_for_the_log() -> None:
    assert clip("x" * MAX_LOGGED_CHARACTERS) == "x" * MAX_LOGGED_CHARACTERS
    assert clip("x" * (MAX_LOGGED_CHARACTERS + 1)) == "x" * (MAX_LOGGED_CHARACTERS - 1) + "…"


def test_a_reply_keeps_no_more_text_than_the_log_takes() -> None:
    reply = parse_reply_line(b"550 " + b"x" * 9000 + b"\r\n")
    assert reply is not None
    assert len(reply.text) == MAX_LOGGED_CHARACTERS
    assert safe_text(reply.text) == "x" * MAX_LOGGED_CHARACTERS


@pytest.mark.parametrize(
    ("argument", "mailbox"),
    [
        (b'TO:"a <x@example.com>', "x@example.com"),
        (b'TO:]"<x@example.com>', "x@example.com"),
        (b"TO:<@a,@:x@example.com>", "@a,@:x@example.com"),
        (b"TO:" + b"<" * 7 + b"x@example.com>", "x@example.com"),
    ],
)
def test_quotes_and_brackets_that_never_close(argument: bytes, mailbox: str) -> None:
    """The same in every Python: those before 3.11.5 lose their place in possessive groups."""
    assert parse_path(argument).lstrip("<") == mailbox


def first_that_closes(rest: bytes) -> bytes | None:
    """The same tried from each bracket, as slowly as that is."""
    for at in (at for at, octet in enumerate(rest) if octet == ord("<")):
        if found := wire._ANGLED.match(rest, at):
            return found[1]
    return None


@given(st.text(alphabet='<>"\\\\a@', max_size=24).map(str.encode))
def test_two_looks_find_the_first_bracket_that_closes(rest: bytes) -> None:
    found = wire._angled(rest, rest.find(b"<"))
    assert (None if found is None else found[1]) == first_that_closes(rest)


@given(st.binary(max_size=60))
def test_what_is_no_text_is_escaped_as_python_does_it(octets: bytes) -> None:
    text = octets.decode("utf-8", "backslashreplace")
    assert safe_text(octets) == "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def seconds(line: bytes) -> float:
    """The least of some tries, so that a busy machine does not count."""
    took = []
    for _ in range(21):
        began_at = time.process_time()
        owe(parse_command(line), Protection(), 0.0)
        took.append(time.process_time() - began_at)
    return min(took)


PIECES = (
    *(b"<", b'<"', b'"<', b'"', b"<\\", b"[", b"@a", b"@a,", b"@a:", b"@[a]", b'"\\', b"a@", b'"a"', b'<""', b'"@"<'),
    *(b'@""', b'" ', b"\xff", b"\x01", b"\xc3\xa9", "\u202e".encode()),
)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("before", [b"RCPT TO:", b"RCPT TO:<", b"EHLO ", b"MAIL FROM:<a@b> "])
@pytest.mark.parametrize("behind", [b"\r\n", b">\r\n"])
def test_no_octet_of_a_line_costs_more_than_one_of_a_usual_line(before: bytes, piece: bytes, behind: bytes) -> None:
    """As long as a command line may be: whoever sends strange ones has no more of our time than who sends good ones."""
    usual = b"RCPT TO:<user@b.example> NOTIFY=NEVER\r\n"
    number = 12_288 // len(usual)
    strange = before + piece * ((number * len(usual) - len(before)) // len(piece)) + behind
    assert seconds(strange) < 2 * min(seconds_of_many(usual, number) for _ in range(15))


def seconds_of_many(line: bytes, number: int) -> float:
    began_at = time.process_time()
    for _ in range(number):
        owe(parse_command(line), Protection(), 0.0)
    return time.process_time() - began_at


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet='<>"\\\\a@,:[] ', min_size=1, max_size=6).map(str.encode))
def test_a_line_of_twice_the_length_costs_twice(piece: bytes) -> None:
    """Four times, where it were a matter of the square; eight lengths tell the two apart on a busy machine."""
    short, long = (seconds(b"RCPT TO:" + piece * (octets // len(piece))) for octets in (6_000, 48_000))
    assert long < 3 * 8 * max(short, 2e-5)
