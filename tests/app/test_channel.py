"""The datagrams between the processes: whole or not at all, never blocking, and nonsense is passed over."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any

import pytest

from smtp_intercept.app import channel

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    write, read = channel.pair()
    yield write, read
    write.close()
    read.close()


def test_what_is_told_is_heard_in_order(ends: Pair) -> None:
    write, read = ends
    for number in range(3):
        channel.tell(write, {"number": number})
    assert channel.hear(read) == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert channel.hear(read) == []


@pytest.mark.parametrize(
    "nonsense", [b"{", b"[]", b"1", b"null", b'"text"', b"\xff\xfe", b"{}{}", b'{"number": 1', b"[" * 30_000]
)
def test_nonsense_is_passed_over_and_what_follows_is_heard(ends: Pair, nonsense: bytes) -> None:
    """The reading end is the more privileged one."""
    write, read = ends
    write.send(nonsense)
    channel.tell(write, {"number": 1})
    assert channel.hear(read) == [{"number": 1}]


def test_a_reader_that_stands_still_blocks_nobody(ends: Pair) -> None:
    write, read = ends
    for number in range(100_000):
        channel.tell(write, {"number": number})
    heard = 0
    while messages := channel.hear(read):
        heard += len(messages)
    assert 0 < heard < 100_000
    channel.tell(write, {"number": -1})
    assert channel.hear(read) == [{"number": -1}]


def test_a_writer_without_end_does_not_hold_its_reader(ends: Pair) -> None:
    write, read = ends

    class Endless:
        def recv(self, octets: int) -> bytes:
            channel.tell(write, {"number": 1})
            return read.recv(octets)

    assert len(channel.hear(Endless())) == channel.AT_ONCE  # type: ignore[arg-type]


def test_the_longest_message_fits(ends: Pair) -> None:
    """As many resolved addresses as may be told, each as long as an address can be."""
    write, read = ends
    servers = [str(IPv6Address("2001:db8:ffff:ffff:ffff:ffff:ffff:0") + n) for n in range(channel.SERVERS)]
    channel.tell(write, {"servers": servers})
    assert channel.hear(read) == [{"servers": servers}]


@pytest.mark.parametrize(
    "much",
    [
        {f"{'名' * 58} {number:05}": number for number in range(10_000)},  # rules, as many and as long as may be
        [f"/etc/lists/{number}: it cannot be read" for number in range(10_000)],
        "x" * (2 * channel.DATAGRAM_OCTETS),
        {"one": "x" * (2 * channel.DATAGRAM_OCTETS)},
    ],
)
def test_a_report_that_is_too_long_comes_all_the_same(ends: Pair, much: Any) -> None:
    """Else whoever counts much would be taken for hung, and ended."""
    write, read = ends
    channel.report(write, {"pid": 1, "counts": {"sessions": 7}, "much": much})
    (heard,) = channel.hear(read)
    assert (heard["pid"], heard["counts"], heard["cut"]) == (1, {"sessions": 7}, True)
    kept = heard["much"]
    assert len(kept) < len(much)
    assert list(kept) == list(much)[: len(kept)], "what came first"


def test_a_report_that_just_fits_is_not_cut(ends: Pair) -> None:
    write, read = ends
    full = {"x": "y" * (channel.DATAGRAM_OCTETS - len('{"x":""}'))}
    channel.report(write, full)
    channel.report(write, {"x": full["x"] + "y"})
    assert [heard.get("cut") for heard in channel.hear(read)] == [None, True]


def test_a_longer_datagram_is_cut_and_so_not_heard(ends: Pair) -> None:
    write, read = ends
    write.send(b'{"a": "' + b"x" * channel.DATAGRAM_OCTETS + b'"}')
    assert channel.hear(read) == []


def test_an_end_that_is_gone_is_no_error(ends: Pair) -> None:
    write, read = ends
    read.close()
    channel.tell(write, {"number": 1})


def test_an_adopted_end_is_not_handed_on(ends: Pair) -> None:
    write, read = ends
    adopted = channel.adopt(os.dup(read.fileno()))
    channel.tell(write, {"number": 1})
    assert (adopted.get_inheritable(), adopted.getblocking()) == (False, False)
    assert channel.hear(adopted) == [{"number": 1}]
    adopted.close()
