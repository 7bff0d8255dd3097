"""Headers looked at as people see them, and changed to the octet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.inspect.actions import AddHeader, Edit, RemoveHeader, ReplaceHeader, TagSubject
from smtp_intercept.inspect.message import edited, fields, values


@pytest.mark.parametrize(
    ("header", "seen"),
    [
        (b"Subject: hello\r\n", ("hello",)),
        (b"SUBJECT : hello \r\n", ("hello",)),  # RFC 5322 §4.5.8: blanks before the colon
        (b"Subject: a\r\n b\r\n\tc\r\n", ("a b c",)),
        (b"Subject:\r\n folded\r\n", ("folded",)),
        (b"Subject: a\nSubject: b\n", ("a", "b")),  # to many servers a bare LF is a line end
        (b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n", ("Grüße",)),
        (b"Subject: =?utf-8?b?TG90?= =?utf-8?b?dGVyeQ==?=\r\n", ("Lottery",)),
        (b"Subject: =?nonsense?q?a?=\r\n", ("a",)),
        (b"Subject: =?utf-8?b?!!!!?=\r\n", ("",)),
        (b"Subject: Gr\xc3\xbc\xc3\x9fe =?utf-8?q?x?= \xe2\x82\xac\r\n", ("Grüße x €",)),
        (b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n", ("Grüße",)),
        (b"Subject: Gr\xfc\xdfe\r\n", ("Grüße",)),
        (b"Subject: lot\0tery\r\n", ("lottery",)),
        (b"Subject:\r\n", ("",)),
        (b"X-Subject: a\r\n", None),
        (b"Subject\r\n: a\r\n", None),
        (b"no field\r\nSubject: a", ("a",)),
        (b"", None),
    ],
)
def test_what_is_seen(header: bytes, seen: tuple[str, ...] | None) -> None:
    assert values(header, {"subject"}).get("subject") == seen


HEADER = b"Received: x\r\n by y\r\nSubject: =?utf-8?q?a?=\r\nX-Odd:  \xff \r\nTo: a@b\r\nX-Odd: 2\r\n"


@pytest.mark.parametrize(
    ("edit", "after"),
    [
        (AddHeader("X-New", "1"), b"X-New: 1\r\n" + HEADER),
        (RemoveHeader("x-odd"), HEADER.replace(b"X-Odd:  \xff \r\n", b"").replace(b"X-Odd: 2\r\n", b"")),
        (RemoveHeader("received"), HEADER.replace(b"Received: x\r\n by y\r\n", b"")),
        (RemoveHeader("Absent"), HEADER),
        (
            ReplaceHeader("X-Odd", "3"),
            HEADER.replace(b"X-Odd:  \xff \r\n", b"X-Odd: 3\r\n").replace(b"X-Odd: 2\r\n", b""),
        ),
        (ReplaceHeader("Absent", "3"), b"Absent: 3\r\n" + HEADER),
        (TagSubject("[EXT]"), HEADER.replace(b"Subject: =?", b"Subject: [EXT] =?")),
        (TagSubject("a"), HEADER),  # stands there already, encoded
    ],
)
def test_what_is_changed(edit: Edit, after: bytes) -> None:
    assert edited(HEADER, [edit]) == after


@pytest.mark.parametrize(("header", "after"), [(b"", b"Subject: T\r\n"), (b"To: a", b"Subject: T\r\nTo: a\r\n")])
def test_a_subject_where_none_was(header: bytes, after: bytes) -> None:
    assert edited(header, [TagSubject("T")]) == after


LINES = st.lists(
    st.sampled_from([b"Subject: x", b" folded", b"\tmore", b"A: b", b"X:\xff", b"junk", b": y", b"..", b""]), max_size=8
)


@given(LINES, st.sampled_from([b"\r\n", b"\n"]))
def test_no_edit_is_no_change(lines: list[bytes], end: bytes) -> None:
    header = b"".join(line + end for line in lines)
    assert b"".join(fields(header)) == header == edited(header, [])
    assert edited(header, [RemoveHeader("Absent")]) == header


@given(LINES, st.binary(max_size=200))
def test_any_octets_have_fields(lines: list[bytes], octets: bytes) -> None:
    header = b"\r\n".join([*lines, octets])
    assert b"".join(fields(header)) == header
    values(header, {"subject", "a", "x"})
