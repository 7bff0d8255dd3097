"""The end of a message, in every cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.data import DotEnd, OctetEnd

# What servers have taken for the end of data, and what RFC 5321 §4.1.1.4 does not.
NOT_THE_END = [
    b"\n.\n", b"\n.\r", b"\r.\n",
    b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n\0.\r\n", b"\r\n.\r\r\n", b"\r\n..\r\n",
]  # fmt: skip
# The end after all, behind an octet that some take for a part of it.
THE_END = [b"\r\n.\r\n", b"\r\r\n.\r\n"]


def end_in(pieces: list[bytes]) -> tuple[int, int]:
    """The index past the end of data in the joined pieces (0: none), and the message's size."""
    scanner, before = DotEnd(), 0
    for piece in pieces:
        if end := scanner.find(piece):
            return before + end, scanner.size_bytes
        before += len(piece)
    return 0, scanner.size_bytes


def octets(message: bytes) -> list[bytes]:
    return [bytes([octet]) for octet in message]


@pytest.mark.parametrize("sequence", NOT_THE_END)
def test_what_is_not_the_end(sequence: bytes) -> None:
    message = b"one" + sequence + b"two"
    for pieces in ([message], octets(message), *([message[:cut], message[cut:]] for cut in range(len(message)))):
        assert end_in(pieces) == (0, len(message))


@pytest.mark.parametrize("sequence", THE_END)
def test_the_end_in_every_cut(sequence: bytes) -> None:
    message = b"one" + sequence + b"MAIL FROM:<a@b>\r\n"
    end = len(b"one" + sequence)
    for pieces in ([message], octets(message), *([message[:cut], message[cut:]] for cut in range(len(message)))):
        assert end_in(pieces) == (end, end - 3)


def test_a_lone_dot_is_an_empty_message() -> None:
    assert end_in([b".\r\nQUIT\r\n"]) == (3, 0)
    assert end_in(octets(b".\r\nQUIT\r\n")) == (3, 0)
    assert end_in([b"..\r\n"]) == (0, 4)
    assert end_in([b".\n"]) == (0, 2)


def test_the_end_of_the_first_message_is_found_before_the_second() -> None:
    assert end_in([b"one\r\n.\r\ntwo\r\n.\r\n"]) == (8, 5)


def test_the_search_may_begin_inside_a_buffer() -> None:
    scanner = DotEnd()
    assert scanner.find(b"DATA\r\nx\r\n.\r", 6) == 0
    assert scanner.find(b"\n") == 1
    assert scanner.size_bytes == 3


def oracle(message: bytes) -> int:
    """What RFC 5321 says, by the line."""
    position = 0
    for line in message.split(b"\r\n")[:-1]:
        position += len(line) + 2
        if line == b".":
            return position
    return 0


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"a", b"\0"]), max_size=30), st.data())
def test_any_cut_finds_the_end_that_the_lines_have(parts: list[bytes], data: st.DataObject) -> None:
    message = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=8)))
    pieces = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
    end = oracle(message)
    assert end_in(pieces) == (end, end - 3 if end else len(message))


def test_a_chunk_ends_after_its_octets() -> None:
    chunk = OctetEnd(10)
    assert chunk.find(b"BDAT 10\r\n12345", 9) == 14
    assert chunk.left_bytes == 5
    assert chunk.find(b"67890QUIT\r\n") == 5
    assert chunk.left_bytes == 0
    assert chunk.find(b"QUIT\r\n") == 0
