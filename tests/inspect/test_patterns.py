"""What entries fit: spellings that reach the same mailbox are the same, and no text makes a pattern slow."""

from __future__ import annotations

import fnmatch
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.inspect.criteria import HOURS, MAILBOXES, NETWORKS, TEXTS, Kind
from smtp_intercept.inspect.patterns import Mailbox, glob, mailbox
from smtp_intercept.inspect.rule import holds
from smtp_intercept.wire import parse_path


@pytest.mark.parametrize(
    ("kind", "entry", "fitting", "other"),
    [
        (MAILBOXES, "a@example.com", ["a@example.com", "A@EXAMPLE.COM.", '"a"@example.com', '"\\a"@example.com'], [""]),
        (MAILBOXES, "a@example.com", ["@relay.example:a@example.com"], ["aa@example.com", "a@sub.example.com", "a"]),
        (MAILBOXES, "example.com", ["x@example.com", '"@"@Example.com'], ["x@a.example.com", "x@notexample.com"]),
        (MAILBOXES, "@example.com", ["x@example.com"], ["x@example.com.evil.example"]),
        (MAILBOXES, ".example.com", ["x@a.example.com", "x@b.a.example.com"], ["x@example.com", "x@aexample.com"]),
        (MAILBOXES, "*@*.example.com", ["x@a.example.com"], ["x@example.com", ""]),
        (MAILBOXES, "boss*@example.com", ["Boss@example.com", '"boss.x"@example.com'], ["aboss@example.com"]),
        (MAILBOXES, "<>", [""], ["a@example.com", "postmaster"]),
        (MAILBOXES, "[192.0.2.1]", ["x@[192.0.2.1]"], ["x@[192.0.2.10]"]),
        (MAILBOXES, "bücher.example", ["x@bücher.example", "x@xn--bcher-kva.example", "x@BÜCHER.example"], []),
        (MAILBOXES, "grün@example.com", ["GRÜN@example.com", "gru\u0308n@example.com"], ["grun@example.com"]),
        (TEXTS, "*lottery*", ["You won the LOTTERY!", "lottery", "a\nlottery"], ["lotery"]),
        (TEXTS, "mx?.example", ["MX1.example"], ["mx.example", "mx12.example", "mx1.example.net"]),
        (TEXTS, "[ext]*", ["[EXT] hello"], ["e"]),
    ],
)
def test_what_fits(kind: Kind, entry: str, fitting: list[str], other: list[str]) -> None:
    """Paths as they stand in the command."""
    read = (kind.read(entry),)
    value = (lambda text: mailbox(parse_path(b"FROM:<%b>" % text.encode()))) if kind is MAILBOXES else str
    assert [text for text in fitting if not holds(kind, read, value(text))] == []
    assert [text for text in other if holds(kind, read, value(text))] == []


@pytest.mark.parametrize(
    ("kind", "entry", "why"),
    [
        (MAILBOXES, "*.example.com", "without @"),
        (MAILBOXES, "", "is not an address"),
        (MAILBOXES, "a b@example.com", "is not an address"),
        (MAILBOXES, "a@exa_mple..com", "is not a name"),
        (MAILBOXES, "Joe <a@example.com>", "is not an address"),
        (TEXTS, "", "is empty"),
        (TEXTS, "a\nb", "cannot be seen"),
        (NETWORKS, "10.0.0.1/8", "host bits"),
        (NETWORKS, "example.com", "does not appear"),
        (HOURS, "8-18", "no time of day"),
        (HOURS, "08:00-08:00", "no time of day"),
        (HOURS, "24:01-08:00", "no time of day"),
        (HOURS, "08:60-09:00", "no time of day"),
    ],
)
def test_what_is_no_entry(kind: Kind, entry: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        kind.read(entry)


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [("08:00-18:00", [480, 1079], [479, 1080]), ("22:00-06:00", [1320, 1439, 0, 359], [360, 1319])],
)
def test_hours(entry: str, inside: list[int], outside: list[int]) -> None:
    assert all(holds(HOURS, (HOURS.read(entry),), minute) for minute in inside)
    assert not any(holds(HOURS, (HOURS.read(entry),), minute) for minute in outside)


@given(st.text("ab*?.", max_size=12), st.text("ab.", max_size=20))
def test_patterns_are_those_of_the_shell(pattern: str, text: str) -> None:
    assert (glob(pattern).fullmatch(text) is not None) == fnmatch.fnmatchcase(text, pattern)


@pytest.mark.parametrize("pattern", ["*a*a*a*a*a*a*a*b", "*?a*?a*?a*?a*b", "a*" * 200 + "b", "?" * 200])
@pytest.mark.parametrize("letter", ["a", "ab", "b"])
def test_no_text_makes_a_pattern_slow(pattern: str, letter: str) -> None:
    """A megabyte of header, which a regular expression would look through for years."""
    text = letter * 500_000
    began = time.process_time()
    glob(pattern).fullmatch(text + "c")
    assert time.process_time() - began < 2.0


@given(st.text(max_size=30))
def test_any_path_is_a_mailbox(path: str) -> None:
    assert isinstance(mailbox(path), Mailbox)
