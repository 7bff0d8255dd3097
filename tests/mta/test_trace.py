"""Our Received: line, whatever a client calls itself; and the Received: fields of a header in any cut."""

from __future__ import annotations

import re
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.direction import Direction
from smtp_intercept.mta.envelope import Envelope, Origin, Recipient
from smtp_intercept.mta.trace import HopCount, received_line

DATE = "Tue, 14 Nov 2023 22:13:20 +0000"


def line(
    helo: str,
    *,
    client: str = "192.0.2.9",
    tls: str = "",
    extended: bool = True,
    utf8: bool = False,
    to: str = "b@example.com",
) -> str:
    origin = Origin((client, 40_000), ("192.0.2.1", 25), Direction.INCOMING, helo=helo, tls=tls)
    envelope = Envelope("a@c.example", tuple(map(Recipient, to.split())), smtputf8=utf8)
    return received_line(origin, envelope, hostname="mta.example", extended=extended, name="s-1.1", date=DATE).decode()


def test_all_clauses() -> None:
    assert line("c.example", tls="TLSv1.3") == (
        "Received: from c.example ([192.0.2.9])\r\n"
        "\tby mta.example with ESMTPS (TLSv1.3) id s-1.1\r\n"
        "\tfor <b@example.com>; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    )


def test_several_recipients_are_not_told() -> None:
    assert " for " not in line("c.example", to="b@example.com c@example.com").replace("\t", " ")


def test_a_recipient_too_long_for_a_line_is_not_told() -> None:
    assert "for <" in line("c.example", to="b" * 886 + "@c.example".replace("c.example", "c"))
    assert "for <" not in line("c.example", to="b" * 900 + "@c")


# RFC 3848, RFC 6531 §4.3: (extended, tls, SMTPUTF8)
@pytest.mark.parametrize(
    ("extended", "tls", "utf8", "word"),
    [
        (False, "", False, "SMTP"), (False, "TLSv1.2", False, "ESMTPS"),
        (True, "", False, "ESMTP"), (True, "TLSv1.2", False, "ESMTPS"),
        (True, "", True, "UTF8SMTP"), (True, "TLSv1.2", True, "UTF8SMTPS"),
    ],
)  # fmt: skip
def test_the_protocol_s_word(extended: bool, tls: str, utf8: bool, word: str) -> None:
    assert f" with {word} " in line("c.example", extended=extended, tls=tls, utf8=utf8)


@pytest.mark.parametrize(
    ("helo", "client", "clause"),
    [
        ("c.example", "192.0.2.9", "c.example ([192.0.2.9])"),
        ("localhost", "2001:db8::1", "localhost ([IPv6:2001:db8::1])"),
        ("c.example.", "::ffff:192.0.2.9", "c.example. ([192.0.2.9])"),
        ("my_host-1", "fe80::1%eth0", "my_host-1 ([IPv6:fe80::1])"),
        ("[192.0.2.7]", "192.0.2.9", "[192.0.2.7] ([192.0.2.9])"),
        ("[IPv6:2001:db8::7]", "192.0.2.9", "[IPv6:2001:db8::7] ([192.0.2.9])"),
        ("", "192.0.2.9", "[192.0.2.9] ([192.0.2.9])"),
        ("a b", "192.0.2.9", "[192.0.2.9] ([192.0.2.9]) (said a?b)"),
        ("x) by evil (", "192.0.2.9", "[192.0.2.9] ([192.0.2.9]) (said x??by?evil??)"),
        ("x\r\nSubject: y", "192.0.2.9", "[192.0.2.9] ([192.0.2.9]) (said x??Subject:?y)"),
        ("ü.example", "192.0.2.9", "[192.0.2.9] ([192.0.2.9]) (said ?.example)"),
        ("a..b", "192.0.2.9", "[192.0.2.9] ([192.0.2.9]) (said a..b)"),
        ("a." * 127 + "a", "192.0.2.9", "a." * 127 + "a ([192.0.2.9])"),
        ("a." * 127 + "aa", "192.0.2.9", "[192.0.2.9] ([192.0.2.9]) (said " + "a." * 32 + ")"),
    ],
)
def test_what_a_client_calls_itself(helo: str, client: str, clause: str) -> None:
    assert line(helo, client=client).split("\r\n")[0] == f"Received: from {clause}"


@given(st.text(), st.booleans())
def test_no_name_adds_a_line_or_a_clause(helo: str, utf8: bool) -> None:
    said = line(helo, utf8=utf8)
    assert said.isascii()
    first, second, third, rest = said.split("\r\n")
    assert re.fullmatch(r"[!-~ ]+", first)
    assert second.startswith("\tby mta.example ")
    assert third.startswith("\tfor <b@example.com>; ")
    assert not rest
    assert first.count("(") == first.count(")")


# What counts, and what does not.
HEADERS = [
    (b"Received: x\r\n\r\n", 1), (b"received:x\r\nRECEIVED : y\r\n z\r\n\r\n", 2), (b"\r\nReceived: x\r\n", 0),
    (b"A: b\r\n\r\nReceived: x\r\n\r\nReceived: x\r\n", 0), (b"A: Received: x\r\nX-Received: y\r\n\r\n", 0),
    (b"A: b\r\n Received: x\r\n\r\n", 0), (b"A: b\nReceived: x\n\nReceived: x\n", 1), (b"", 0), (b"Received: x", 1),
    (b"Received\r\nReceived: x\r\n" * 60, 60), (b"\nReceived: x\r\n", 0), (b"Received-SPF: x\r\n\r\n", 0),
]  # fmt: skip


@pytest.mark.parametrize(("message", "hops"), HEADERS)
def test_hops_in_every_cut(message: bytes, hops: int) -> None:
    for size in (len(message) or 1, 1, 2, 3, 7):
        count = HopCount()
        for at in range(0, len(message), size):
            count.feed(message[at : at + size])
        assert count.hops == hops


FIELDS = st.sampled_from(
    [b"Received: by x\r\n", b"Subject: y\r\n", b"\tReceived: z\r\n", b"X-Received: u\r\n", b"\r\n", b"body\r\n"]
)


@given(st.lists(FIELDS, max_size=12), st.integers(1, 40))
def test_hops_as_python_counts_them(fields: list[bytes], size: int) -> None:
    message = b"From: a\r\n" + b"".join(fields) + b"\r\n"
    count = HopCount()
    for at in range(0, len(message), size):
        count.feed(message[at : at + size])
    head = message.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    if b"\nbody\r\n" not in head:  # no field: parsers differ on where the header ends then
        assert count.hops == len(BytesParser().parsebytes(head).get_all("Received", []))


def test_hardly_anything_is_kept_of_an_endless_header() -> None:
    count = HopCount()
    for _ in range(1_000):
        count.feed(b"X: " + b"y" * 10_000)
    assert len(count._tail) < 100
