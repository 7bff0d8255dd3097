"""One message behind DATA in any cut: what is kept of it, and why not.

DATA CRLF │ Subject: x CRLF CRLF ..dot CRLF │ . CRLF │ the next command
            └──────── kept, the dot once ───┘   end
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.answers import Answer
from smtp_intercept.mta.content import Content
from smtp_intercept.mta.replies import DOUBTFUL, TOO_LARGE, TOO_MANY_HOPS

PARTS = [b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"a", b"\0", b"\r\n..", b"\r\n.\r\n"]


def taken(
    pieces: list[bytes], *, most_bytes: int = 0, hops: int = 100, doubt: bool = False
) -> tuple[bytes, bytes | None, Answer | None]:
    """What is kept; what is left behind the end of data, None if it did not come; the refusal."""
    content, kept, before = Content(most_bytes=most_bytes, most_hops=hops, reject_doubt=doubt), b"", 0
    for number, piece in enumerate(pieces):
        end = content.feed(piece)
        kept += content.take()
        if end:
            assert content.sent_bytes == before + end - 3
            return kept, b"".join([piece[end:], *pieces[number + 1 :]]), content.refusal
        before += len(piece)
    return kept, None, content.refusal


def reference(message: bytes) -> tuple[bytes | None, bytes | None]:
    """RFC 5321 §4.5.2 by the line."""
    kept: list[bytes] = []
    position = 0
    for line in message.split(b"\r\n")[:-1]:
        position += len(line) + 2
        if line == b".":
            return b"".join(kept), message[position:]
        kept.append(line.removeprefix(b".") + b"\r\n")
    return None, None


def cut(message: bytes, draw: st.DataObject) -> list[bytes]:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(message)), max_size=8)))
    return [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True) if a < b]


@given(st.lists(st.sampled_from(PARTS), max_size=30), st.data())
def test_any_cut_keeps_what_the_lines_say(parts: list[bytes], data: st.DataObject) -> None:
    message = b"".join(parts)
    kept, rest = reference(message)
    got = taken(cut(message, data))
    assert got[1:] == (rest, None)
    if kept is not None:
        assert got[0] == kept
    assert taken([message[at : at + 1] for at in range(len(message))]) == got or kept is None


@given(st.lists(st.sampled_from(PARTS), max_size=30), st.integers(1, 20), st.data())
def test_the_size_limit_in_any_cut(parts: list[bytes], limit: int, data: st.DataObject) -> None:
    message = b"".join(parts)
    kept, rest = reference(message)
    got = taken(cut(message, data), most_bytes=limit)
    if kept is not None:
        assert got[1:] == (rest, TOO_LARGE if len(kept) > limit else None)


@pytest.mark.parametrize(("limit", "refusal"), [(8, None), (7, TOO_LARGE)])
def test_dots_are_counted_once(limit: int, refusal: Answer | None) -> None:
    assert taken([b"..a\r\n..b\r\n.\r\n"], most_bytes=limit)[2] == refusal


@pytest.mark.parametrize(("hops", "refusal"), [(100, None), (101, TOO_MANY_HOPS)])
def test_hops(hops: int, refusal: Answer | None) -> None:
    assert taken([b"Received: x\r\n" * hops + b"\r\n.\r\nQUIT\r\n"])[1:] == (b"QUIT\r\n", refusal)


SMUGGLED = [
    b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n\0.\r\n", b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
]  # fmt: skip


@pytest.mark.parametrize("sequence", SMUGGLED)
@pytest.mark.parametrize("reject", [True, False])
def test_a_doubtful_end_ends_nothing(sequence: bytes, reject: bool) -> None:
    message = b"one" + sequence + b"MAIL FROM:<x@c.example>\r\n.\r\nQUIT\r\n"
    for at in range(len(message)):
        kept, rest, refusal = taken([message[:at], message[at:]], doubt=reject)
        assert rest == b"QUIT\r\n"
        assert refusal == (DOUBTFUL if reject else None)
        assert reject or b"MAIL FROM:<x@c.example>\r\n" in kept


def test_nothing_waits_that_is_refused() -> None:
    content = Content(most_bytes=10, most_hops=1, reject_doubt=True)
    for _ in range(100):
        content.feed(b"x" * 1_000)
    assert content.waiting_bytes == 0
    assert content.take() == b""
