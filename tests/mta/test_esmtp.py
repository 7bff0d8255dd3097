"""What MAIL and RCPT may say, in tables: the argument, and what is read or answered."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.answers import Answer
from smtp_intercept.mta.envelope import USUAL, Body, Notify, Recipient
from smtp_intercept.mta.esmtp import (
    BAD_PARAMETER,
    BAD_RECIPIENT,
    BAD_SENDER,
    NO_SMTPUTF8,
    UNKNOWN_PARAMETER,
    Mail,
    RefusedError,
    read_mail,
    read_recipient,
)


def mail(argument: str, *, extended: bool = True) -> Mail | Answer:
    try:
        return read_mail(argument, extended=extended)
    except RefusedError as refused:
        return refused.answer


def rcpt(argument: str, *, extended: bool = True, smtputf8: bool = False) -> Recipient | Answer:
    try:
        return read_recipient(argument, extended=extended, smtputf8=smtputf8)
    except RefusedError as refused:
        return refused.answer


@pytest.mark.parametrize(
    ("argument", "path"),
    [
        ("FROM:<>", ""), ("from:<a@c.example>", "a@c.example"), ("FROM: <a@c.example>", "a@c.example"),
        ("FROM:a@c.example", "a@c.example"), ("FROM:<a.b+c=d@c.example>", "a.b+c=d@c.example"),
        ('FROM:<"a b"@c.example>', '"a b"@c.example'), ('FROM:<"a\\"@b"@c.example>', '"a\\"@b"@c.example'),
        ('FROM:<""@c.example>', '""@c.example'), ("FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]"),
        ("FROM:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
        ("FROM:<@x.example,@y.example:a@c.example>", "a@c.example"),
        ("FROM:<.a..b.@c.example>", ".a..b.@c.example"), ("FROM:<a%b@c.example>", "a%b@c.example"),
        ("FROM:<a!b@c.example>", "a!b@c.example"), ("FROM:<a@localhost>", "a@localhost"),
        ("FROM:<a@x_y.example>", "a@x_y.example"),
        ("FROM:<" + "a" * 502 + "@c.example>", "a" * 502 + "@c.example"),
        ("FROM:<" + "a" * 503 + "@c.example>", BAD_SENDER),
    ],
)  # fmt: skip
def test_reverse_paths(argument: str, path: str | Answer) -> None:
    assert mail(argument) == (Mail(path) if isinstance(path, str) else path)


@pytest.mark.parametrize(
    "argument",
    [
        "", "FROM", "FROM:", "FROM: ", "FROM <a@c.example>", "TO:<a@c.example>", "FROM:<a@c.example",
        "FROM:a@c.example>",
        "FROM:<a>", "FROM:<a@>", "FROM:<@c.example>", "FROM:<a@b@c.example>", "FROM:<a b@c.example>",
        "FROM:<a@c..example>",
        "FROM:<a@-c.example>", "FROM:<a@c.example.>", 'FROM:<"a@c.example>', 'FROM:<a"b"@c.example>',
        "FROM:<a@[192.0.2.1>",
        "FROM:<a\0@c.example>", "FROM:<a\t@c.example>", "FROM:<a@c.example>SIZE=1", "FROM:<a@c\r.example>",
        'FROM:<"a\rb"@c.example>',
        "FROM:<a@c.example\n>", "FROM:<\udcff@c.example>",
        "FROM:<a\u202eb@c.example> SMTPUTF8", "FROM:Name <a@c.example>", 'FROM:<"a@b">',
    ],
)  # fmt: skip
def test_no_reverse_paths(argument: str) -> None:
    assert mail(argument) == BAD_SENDER


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("TO:<postmaster>", Recipient("postmaster")), ("to: <PostMaster>", Recipient("PostMaster")),
        ("TO:<b@example.com>", Recipient("b@example.com")),
        ("TO:<@relay.example:b@example.com>", Recipient("b@example.com")),
        ("TO:<>", BAD_RECIPIENT), ("TO:<root>", BAD_RECIPIENT), ("TO:<b@example.com", BAD_RECIPIENT),
        ("TO:<b@example.com> NOTIFY=NEVER", Recipient("b@example.com", Notify.NEVER)),
        ("TO:<b@example.com> notify=success,FAILURE", Recipient("b@example.com", Notify.SUCCESS | Notify.FAILURE)),
        ("TO:<b@example.com> ORCPT=rfc822;B+2Bx@X.com", Recipient("b@example.com", USUAL, "rfc822;B+2Bx@X.com")),
        ("TO:<b@example.com> NOTIFY=NEVER,DELAY", BAD_PARAMETER), ("TO:<b@example.com> NOTIFY=", BAD_PARAMETER),
        ("TO:<b@example.com> NOTIFY", BAD_PARAMETER), ("TO:<b@example.com> NOTIFY=x", BAD_PARAMETER),
        ("TO:<b@example.com> ORCPT=nothing", BAD_PARAMETER), ("TO:<b@example.com> ORCPT=rfc822;a=b", BAD_PARAMETER),
        ("TO:<b@example.com> ORCPT=rfc822;" + "x" * 493, Recipient("b@example.com", USUAL, "rfc822;" + "x" * 493)),
        ("TO:<b@example.com> ORCPT=rfc822;" + "x" * 494, BAD_PARAMETER),
        ("TO:<b@example.com> FOO=1", UNKNOWN_PARAMETER),
        ("TO:<b@example.com> NOTIFY=NEVER NOTIFY=NEVER", BAD_PARAMETER), ("TO:<b@example.com> =x", BAD_PARAMETER),
    ],
)  # fmt: skip
def test_recipients(argument: str, answer: Recipient | Answer) -> None:
    assert rcpt(argument) == answer


A = "a@c.example"


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        ("SIZE=1000", Mail(A, 1000)), ("size=0", Mail(A)), ("SIZE=" + "9" * 20, Mail(A, int("9" * 20))),
        ("SIZE=" + "9" * 21, BAD_PARAMETER), ("SIZE", BAD_PARAMETER), ("SIZE=", BAD_PARAMETER),
        ("SIZE=-1", BAD_PARAMETER),
        ("SIZE=1x", BAD_PARAMETER), ("SIZE=\u0661", BAD_PARAMETER), ("SIZE=1 SIZE=1", BAD_PARAMETER),
        ("BODY=8BITMIME", Mail(A, body=Body.EIGHT_BIT)), ("body=7bit", Mail(A)), ("BODY=BINARYMIME", BAD_PARAMETER),
        ("SMTPUTF8", Mail(A, smtputf8=True)), ("SMTPUTF8=1", BAD_PARAMETER),
        ("RET=FULL ENVID=QQ+3D314", Mail(A, ret="FULL", envid="QQ+3D314")), ("RET=hdrs", Mail(A, ret="HDRS")),
        ("RET=x", BAD_PARAMETER),
        ("ENVID=" + "x" * 100, Mail(A, envid="x" * 100)), ("ENVID=" + "x" * 101, BAD_PARAMETER),
        ("ENVID=a+2", BAD_PARAMETER),
        ("AUTH=<>", UNKNOWN_PARAMETER), ("FOO", UNKNOWN_PARAMETER), ("MT-PRIORITY=3", UNKNOWN_PARAMETER),
        ("REQUIRETLS", UNKNOWN_PARAMETER),
    ],
)  # fmt: skip
def test_parameters_of_mail(parameters: str, answer: Mail | Answer) -> None:
    assert mail(f"FROM:<{A}> {parameters}") == answer


def test_no_parameters_without_ehlo() -> None:
    assert mail(f"FROM:<{A}> SIZE=1", extended=False) == UNKNOWN_PARAMETER
    assert rcpt("TO:<b@example.com> NOTIFY=NEVER", extended=False) == UNKNOWN_PARAMETER


@pytest.mark.parametrize("address", ["ü@c.example", "a@ü.example", '"ü"@c.example'])
def test_more_than_ascii_needs_smtputf8(address: str) -> None:
    assert mail(f"FROM:<{address}>") == NO_SMTPUTF8
    assert mail(f"FROM:<{address}> SMTPUTF8") == Mail(address, smtputf8=True)
    assert rcpt(f"TO:<{address}>") == NO_SMTPUTF8
    assert rcpt(f"TO:<{address}>", smtputf8=True) == Recipient(address)


@given(st.text(st.sampled_from('ab@.,:<>"\\[]- \tü\r\n\0=%')))
def test_an_address_that_is_taken_has_one_meaning(text: str) -> None:
    read = mail(f"FROM:<{text}> SMTPUTF8")
    if isinstance(read, Mail) and read.reverse_path:
        local, _, domain = read.reverse_path.rpartition("@")
        assert domain
        assert local.startswith('"') or "@" not in local
        assert read.reverse_path.isprintable()
        assert read.reverse_path in text


@pytest.mark.parametrize(
    "argument",
    [
        "FROM:<" + '"' * 12_000,
        "FROM:<" + "@a" * 6_000,
        "FROM:<a@" + "a-" * 6_000,
        "FROM:<" + '"\\' * 6_000,
        "FROM:<>" + " A" * 6_000,
    ],
)
def test_one_pass_whatever_comes(argument: str) -> None:
    began_at = time.perf_counter()
    assert isinstance(mail(argument), Answer)
    assert time.perf_counter() - began_at < 0.1
