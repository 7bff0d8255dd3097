"""MAIL and RCPT for each offer: asked is what was offered, and nothing gets into a command that is no path."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.mta.envelope import Body, Envelope, Notify, Recipient
from smtp_intercept.mta.failure import Failure
from smtp_intercept.mta.request import Mail, impossible, mail_line, rcpt_line, size_offered, unreachable

ALL = {"SIZE": "", "8BITMIME": "", "SMTPUTF8": "", "DSN": ""}
PLAIN = Recipient("b@y.example")
ENVELOPE = Envelope("a@x.example", (PLAIN,))
MAIL = Mail(ENVELOPE, (0,), 4711, eight_bit=False)
DSN = Mail(replace(ENVELOPE, ret="HDRS", envid="QQ+2B1"), (0,), 4711, eight_bit=True)
UTF8 = Mail(replace(ENVELOPE, smtputf8=True), (0,), 4711, eight_bit=True)
JOERG = Mail(replace(ENVELOPE, reverse_path="jörg@x.example"), (0,), 4711, eight_bit=False)


@pytest.mark.parametrize(
    ("mail", "offer", "line"),
    [
        (MAIL, {}, b"MAIL FROM:<a@x.example>"),
        (MAIL, ALL, b"MAIL FROM:<a@x.example> SIZE=4711"),
        (DSN, ALL, b"MAIL FROM:<a@x.example> SIZE=4711 BODY=8BITMIME RET=HDRS ENVID=QQ+2B1"),
        (DSN, {"8BITMIME": ""}, b"MAIL FROM:<a@x.example> BODY=8BITMIME"),
        (UTF8, ALL, b"MAIL FROM:<a@x.example> SIZE=4711 BODY=8BITMIME SMTPUTF8"),
        (JOERG, ALL, "MAIL FROM:<jörg@x.example> SIZE=4711 SMTPUTF8".encode()),
    ],
)
def test_mail(mail: Mail, offer: dict[str, str], line: bytes) -> None:
    assert mail_line(mail, offer) == line + b"\r\n"


@pytest.mark.parametrize(
    ("recipient", "offer", "line"),
    [
        (PLAIN, ALL, b"RCPT TO:<b@y.example>"),
        (Recipient("b@y", Notify.NEVER), ALL, b"RCPT TO:<b@y> NOTIFY=NEVER"),
        (Recipient("b@y", Notify.NEVER), {}, b"RCPT TO:<b@y>"),
        (Recipient("b@y", Notify.SUCCESS | Notify.DELAY), ALL, b"RCPT TO:<b@y> NOTIFY=SUCCESS,DELAY"),
        (Recipient("b@y", original="rfc822;c@z"), ALL, b"RCPT TO:<b@y> ORCPT=rfc822;c@z"),
        (Recipient("b@y", original="rfc822;c@z NOTIFY=NEVER"), ALL, b"RCPT TO:<b@y>"),
        (Recipient('"a b>"@y'), ALL, b'RCPT TO:<"a b>"@y>'),
        (Recipient("b@bücher.example"), {}, b"RCPT TO:<b@xn--bcher-kva.example>"),
    ],
)
def test_rcpt(recipient: Recipient, offer: dict[str, str], line: bytes) -> None:
    assert rcpt_line(recipient, MAIL, offer) == line + b"\r\n"


@pytest.mark.parametrize(
    ("mail", "offer", "status"),
    [
        (MAIL, {}, None),
        (MAIL, {"SIZE": "4711"}, None),
        (MAIL, {"SIZE": "4710"}, "5.3.4"),
        (MAIL, {"SIZE": "0"}, None),
        (DSN, {}, "5.6.3"),
        (UTF8, {"8BITMIME": ""}, "5.6.7"),
        (UTF8, ALL, None),
        (JOERG, {}, "5.6.7"),
        (Mail(replace(ENVELOPE, reverse_path="a@x> SIZE=1"), (0,), 1, False), ALL, "5.1.7"),
    ],
)
def test_impossible(mail: Mail, offer: dict[str, str], status: str | None) -> None:
    assert code(impossible(mail, offer)) == status


def code(failure: Failure | None) -> str | None:
    return failure.status if failure else None


@pytest.mark.parametrize(
    ("address", "offer", "status"),
    [
        ("b@y", {}, None),
        ("jörg@y", {}, "5.6.7"),
        ("jörg@y", ALL, None),
        ("b@y\r\nDATA", ALL, "5.1.3"),
        ("b@y\nDATA", ALL, "5.1.3"),
        ('"b\r\nDATA"@y', ALL, "5.1.3"),
        ("b@y> NOTIFY=NEVER", ALL, "5.1.3"),
        ("<b@y", ALL, "5.1.3"),
        ('"b@y', ALL, "5.1.3"),
    ],
)
def test_unreachable(address: str, offer: dict[str, str], status: str | None) -> None:
    assert code(unreachable(Recipient(address), offer)) == status


def _ends_early(address: str) -> bool:
    """Whether a server that reads octet by octet sees the bracket close, or the line end, before we meant it."""
    quoted = escaped = False
    for character in address:
        if character in "\r\n\0" or (character in "<> \t" and not quoted):
            return True
        quoted = quoted != (character == '"' and not escaped)
        escaped = character == "\\" and not escaped and quoted
    return quoted


@given(st.text(alphabet=st.sampled_from('ab@"\\<> \r\n\t\0é'), max_size=12))
def test_no_recipient_makes_a_second_command_or_a_parameter(address: str) -> None:
    recipient = Recipient(address)
    if unreachable(recipient, ALL) is None:
        line = rcpt_line(recipient, Mail(replace(ENVELOPE, body=Body.EIGHT_BIT), (0,), 1, False), ALL)
        assert line == f"RCPT TO:<{address}>\r\n".encode()
        assert not _ends_early(address)


@pytest.mark.parametrize(
    ("argument", "size"), [("", 0), ("0", 0), ("10", 10), ("x", 0), ("-1", 0), ("9" * 19, 0), ("²", 0)]
)
def test_size_offered(argument: str, size: int) -> None:
    assert size_offered({"SIZE": argument}) == size
