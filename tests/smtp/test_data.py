"""The end of a message, in every cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.data import CR_BEHIND_DOT, DotEnd, DoubtfulEnd, OctetEnd

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


def in_chunks(draw: st.DataObject, message: bytes) -> list[bytes]:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(message)), max_size=8)))
    return [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True) if a < b]


def doubt_in(pieces: list[bytes]) -> int | None:
    """The index of the first octet in doubt; None if the message ends without one, or does not end."""
    dot, doubtful, before = DotEnd(), DoubtfulEnd(), 0
    for piece in pieces:
        end = dot.find(piece)
        if (at := doubtful.find(piece, 0, end)) >= 0:
            return before + at
        if end:
            return None
        before += len(piece)
    return None


# (sequence, index of the octet that decides)
DOUBTFUL = [
    (b"\n.\n", 2), (b"\n.\r", 2), (b"\r.\n", 2), (b"\r.\r", 2), (b"\n.\r\n", 2), (b"\r.\r\n", 2), (b"\r\n.\n", 3),
    (b"\r\n\0.\r\n", 4), (b"\r\n.\r\r\n", 3), (b"\r\r\n.\r\r\n", 4), (b"\r\n.\0\r\n", 3), (b"\r\n.\r\0\n", 3),
    (b"\n\0\0.\n", 4), (b"\0.\0", 2),
]  # fmt: skip


@pytest.mark.parametrize(("sequence", "at"), DOUBTFUL)
def test_a_doubtful_end_in_every_cut(sequence: bytes, at: int) -> None:
    message = b"one" + sequence + b"two\r\n.\r\n"
    late = sequence[:4] == b"\r\n.\r" or sequence[1:5] == b"\r\n.\r"  # decided by the octet behind it
    for pieces in ([message], octets(message), *([message[:cut], message[cut:]] for cut in range(len(message)))):
        found = doubt_in(pieces)
        assert found == 3 + at or (late and found == 4 + at and 4 + at in starts(pieces))


def starts(pieces: list[bytes]) -> list[int]:
    return list(itertools.accumulate(map(len, pieces)))


def test_a_cr_behind_a_lone_dot_is_held_back() -> None:
    """Some servers stop there, and whether it is a whole end the next octet tells."""
    for pieces in ([b"one\r\n.\r"], [b"one\r\n", b".\r"], [b"one\r\n.", b"\r"]):
        dot = DotEnd()
        for piece in pieces:
            assert dot.find(piece, holding=CR_BEHIND_DOT) == 0
        assert dot.read_to < len(pieces[-1])
        assert dot.find(pieces[-1][dot.read_to :] + b"\n", holding=CR_BEHIND_DOT)
    dot = DotEnd()
    assert dot.find(b"one\r\n.", holding=CR_BEHIND_DOT) == 0
    assert dot.read_to == 6


@pytest.mark.parametrize("harmless", [b"\r\n..\r\n", b"\n..\n", b"a.\nb.\r", b"\r\r", b"\r\n.x\n", b"\0.x", b"x"])
def test_what_is_in_no_doubt_in_every_cut(harmless: bytes) -> None:
    message = b"one" + harmless + b"\r\n.\r\n\n.\nnext"
    for pieces in ([message], octets(message), *([message[:cut], message[cut:]] for cut in range(len(message)))):
        assert doubt_in(pieces) is None


def doubt_oracle(message: bytes) -> int | None:
    """By the octet: a dot between line ends of any kind, unless both are CRLF."""
    text, end = b"\r\n" + message, oracle(message)
    for at in range(2, (end or len(message)) + 2):
        if text[at : at + 1] == b"." and (found := decided(text, at)) is not None and (not end or found < end):
            return found
    return None


def decided(text: bytes, dot: int) -> int | None:
    before, after = text[dot - 1 : dot], text[dot + 1 : dot + 2]
    if before not in (b"\r", b"\n", b"\0") or after not in (b"\r", b"\n", b"\0"):
        return None
    whole = text[dot - 2 : dot] == b"\r\n" and after == b"\r" and text[dot + 2 : dot + 3] in (b"", b"\n")
    return None if whole else dot + 1 - 2


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"a", b"\0"]), max_size=30), st.data())
def test_any_cut_finds_the_doubt_that_the_octets_have(parts: list[bytes], data: st.DataObject) -> None:
    message = b"".join(parts)
    pieces, expected = in_chunks(data, message), doubt_oracle(message)
    found = doubt_in(pieces)
    late = expected is not None and (b"\r\n" + message)[: expected + 3].endswith(b"\r\n.\r")
    assert found == expected or (late and expected is not None and found == expected + 1 and found in starts(pieces))
