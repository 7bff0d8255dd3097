"""Public reports of servers, clients and middle boxes that lost step, each played with a server that has the fault:
what it stores is logged, envelope by envelope, and nothing crosses unread.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from smtp_intercept.rules import Rules
from smtp_intercept.session import Session
from tests.fuzz.differential import PROTECTION, Envelope, Meeting, accepted, kept
from tests.fuzz.loose import LOOSE_ENDS, LooseServer, Quirks

SENDER, RECIPIENT, HIDDEN = "a@c.example", "b@example.com", "v@example.com"
MAIL, RCPT, DATA = f"MAIL FROM:<{SENDER}>\r\n".encode(), f"RCPT TO:<{RECIPIENT}>\r\n".encode(), b"DATA\r\n"
EHLO, TEXT = b"EHLO c.example\r\n", b"Subject: x\r\n\r\nx\r\n.\r\n"
ALL = b"MAIL FROM:<h@evil.test>\r\nRCPT TO:<v@example.com>\r\nDATA\r\nSubject: h\r\n\r\nh\r\n.\r\n"
ONE: list[Envelope] = [(SENDER, (RECIPIENT,))]
BOTH: list[Envelope] = [(SENDER, (RECIPIENT, HIDDEN))]
EVIL: Envelope = ("h@evil.test", (HIDDEN,))
ENVELOPE = [EHLO, MAIL, RCPT]


@dataclass(frozen=True)
class Report:
    """What the client says, read by read, each answered before the next; and the envelopes that may come of it."""

    name: str
    says: list[bytes]
    comes_of_it: list[Envelope]
    quirks: Quirks = field(default_factory=Quirks)


REPORTS = [
    *(
        Report(
            f"CVE-2023-51764, -51765, -51766, CVE-2024-27305: {end!r} ends data",
            [*ENVELOPE, DATA, b"x" + end + ALL],
            [],
            Quirks(ends=LOOSE_ENDS),
        )
        for end in LOOSE_ENDS
    ),
    Report("Postfix's BDAT with bare LF", [*ENVELOPE, b"BDAT 5 LAST\nabcde", ALL], BOTH),
    Report(
        "CVE-2017-16943: a broken BDAT between chunks",
        [*ENVELOPE, b"BDAT 1\r\nx", b"BDAT \x7f\r\n", b"RSET\r\n", ALL],
        [EVIL],
        Quirks(lenient=True),
    ),
    Report("CVE-2017-16944: a chunk of lone dots", [*ENVELOPE, b"BDAT 10\r\n.\r\n.\r\n....", b"BDAT 0 LAST\r\n"], ONE),
    Report(
        "CVE-2023-42115: AUTH EXTERNAL with much",
        [EHLO, b"AUTH EXTERNAL " + b"A" * 5_000 + b"\r\n", MAIL, RCPT, DATA, TEXT],
        ONE,
        Quirks(offers=(b"AUTH GSSAPI",)),
    ),
    Report(
        "CVE-2026-30227 (MimeKit): CRLF in a quoted name",
        [EHLO, MAIL, b'RCPT TO:<"b\r\nRCPT TO:<v@example.com>\r\n"@example.com>\r\n', RCPT, DATA, TEXT],
        [(SENDER, (HIDDEN, RECIPIENT))],
    ),
    Report(
        "CVE-2026-23829 (Mailpit): CR in an address",
        [EHLO, MAIL, b"RCPT TO:<b@example.com>\rRCPT TO:<v@example.com>\r\n", RCPT, DATA, TEXT],
        ONE,
        Quirks(cr=True),
    ),
    Report(
        "nodemailer: CRLF in SIZE",
        [EHLO, MAIL[:-2] + b" SIZE=1\r\nRCPT TO:<v@example.com>\r\n", RCPT, DATA, TEXT],
        [(SENDER, (HIDDEN, RECIPIENT))],
    ),
    Report("nodemailer: CRLF in the name of EHLO", [EHLO + ALL, MAIL, RCPT, DATA, TEXT], [EVIL, *ONE]),
    Report(
        "CVE-2025-7962 (Jakarta Mail): LF and NUL from wide characters",
        [EHLO, MAIL[:-2] + b"\n\0RCPT TO:<v@example.com>\r\n", RCPT, DATA, TEXT],
        ONE,
        Quirks(nul="drop"),
    ),
    Report(
        "a NUL that ends a command",
        [EHLO, b"MAIL FROM:<a@c.example>\0> X\r\n", RCPT, DATA, TEXT],
        [],
        Quirks(nul="end"),
    ),
    Report("Cisco PIX: the end of data in five segments", [*ENVELOPE, DATA, b"x\r", b"\n", b".", b"\r", b"\n"], ONE),
    Report("Cisco ASA: BDAT in pieces", [*ENVELOPE, b"BDAT 1", b"0 LA", b"ST\r", b"\n1.\r\n5", b"67890"], ONE),
    Report("Exim: a 32 bit size", [*ENVELOPE, b"BDAT 4294967297 LAST\r\nx" + ALL], [], Quirks(bits=32)),
    Report(
        "PROXY from anybody, behind the banner",
        [b"PROXY TCP4 127.0.0.1 127.0.0.1 1 25\r\n", *ENVELOPE, DATA, TEXT],
        ONE,
    ),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.name)
def test_report(report: Report) -> None:
    it = Meeting(Session(PROTECTION, Rules(reject_bare_newline=True)), LooseServer(report.quirks), random.Random(1))
    it.take(it.session.opened(0.0))
    it.to_box += it.server.greet()
    it.settle()
    for octets in report.says:
        if not it.over:
            it.take(it.session.client_sent(octets, 0.0))
        it.settle()
    it.take(it.session.finish(0.0))
    assert accepted(it) == kept(it.server.taken) == kept(report.comes_of_it)
    assert not it.session.unread


@pytest.mark.parametrize("kept_from", [Rules(), Rules(pass_client_doubt=True)], ids=["as it comes", "trusting"])
def test_the_loose_ends_are_ends_to_this_server(kept_from: Rules) -> None:
    """Or the reports would prove nothing."""
    for end in LOOSE_ENDS:
        server = LooseServer(Quirks(ends=LOOSE_ENDS))
        it = Meeting(Session(PROTECTION, kept_from), server, random.Random(1))
        it.to_box += server.greet()
        it.settle()
        for octets in (*ENVELOPE, DATA, b"x" + end + ALL):
            it.take(it.session.client_sent(octets, 0.0))
            it.settle()
        assert len(server.taken) == 2, end
