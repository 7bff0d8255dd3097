"""Dot-stuffing, to the octet.

content      a CRLF .b CRLF  c          in any pieces
sent         a CRLF ..b CRLF c CRLF . CRLF
"""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtp_intercept.data import DotEnd
from smtp_intercept.mta.stuffing import DotStuffing, DoubtfulContentError

# What could go wrong, in few octets.
CONTENT = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\0", b"\r\n.", b"\r\n..\r\n"]), max_size=12)


def sent(pieces: list[bytes]) -> bytes:
    stuffing = DotStuffing()
    return b"".join(map(stuffing.stuff, pieces)) + stuffing.end()


def reference(content: bytes) -> bytes:
    """RFC 5321 §4.5.2, line by line."""
    lines = content.split(b"\r\n")
    if lines[-1] == b"":
        lines.pop()
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


def unstuffed(data: bytes) -> bytes:
    """What a server stores of it."""
    return re.sub(rb"(\A|\r\n)\.", rb"\1", data)


def cut(content: bytes, at: list[int]) -> list[bytes]:
    borders = [0, *sorted({each % (len(content) + 1) for each in at}), len(content)]
    return [content[start:end] for start, end in pairwise(borders)]


@given(parts=CONTENT, at=st.lists(st.integers(0, 50), max_size=6))
@example(parts=[], at=[])
@example(parts=[b"."], at=[0])
@example(parts=[b"a", b"\r\n", b".", b"\r\n", b"."], at=[1, 2, 3, 4, 5])
@example(parts=[b"\r", b"\r\n", b"."], at=[1, 2, 3])
def test_every_cut_gives_the_reference_and_comes_back(parts: list[bytes], at: list[int]) -> None:
    content = b"".join(parts)
    try:
        data = sent(cut(content, at))
    except DoubtfulContentError:
        with pytest.raises(DoubtfulContentError):
            sent([content])
        return
    assert data == reference(content)
    end = DotEnd()
    assert end.find(data) == len(data), "the end stands at the end and nowhere else"
    assert unstuffed(data.removesuffix(b".\r\n")) == content + (
        b"" if content.endswith(b"\r\n") or not content else b"\r\n"
    )


# mail-flow.md's list: what some server has taken for the end. Whoever sends it sends two messages.
DOUBTFUL = [b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\n\0.\r\n", b"\r\n\0.\r\n"]


@pytest.mark.parametrize("end", DOUBTFUL)
def test_what_some_server_takes_for_the_end_is_not_sent(end: bytes) -> None:
    content = b"x" + end + b"MAIL FROM:<evil@example>\r\n"
    for at in range(len(content)):
        with pytest.raises(DoubtfulContentError):
            sent([content[:at], content[at:]])


@pytest.mark.parametrize("tail", [b"\n.", b"\r.", b"x\n."])
def test_our_own_line_end_does_not_complete_it(tail: bytes) -> None:
    stuffing = DotStuffing()
    stuffing.stuff(b"x" + tail)
    with pytest.raises(DoubtfulContentError):
        stuffing.end()


@pytest.mark.parametrize(
    "content", [b"bare\nlines\n", b"lone\rreturn", b"a\r\r\n", b"\r", b"\n", b"x\n.y\n", b"\r\n.\n\r\n"]
)
def test_bare_line_ends_cross_as_they_are(content: bytes) -> None:
    data = sent([content])
    assert unstuffed(data.removesuffix(b".\r\n")).removesuffix(b"\r\n") == content.removesuffix(b"\r\n")


def test_an_empty_message_is_a_lone_dot() -> None:
    assert sent([]) == sent([b""]) == b".\r\n"
