"""What a sender is told, read back as a mail program reads it.

multipart/report; report-type=delivery-status
 |- text/plain                   for people
 |- message/delivery-status      for programs: one block for the message, one for each recipient
 `- text/rfc822-headers          the original's headers, or message/rfc822: the whole, if asked with RET=FULL
"""

from __future__ import annotations

import email
import email.policy
import re
from email.message import Message
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_intercept.mta.dsn import compose, wanted
from smtp_intercept.mta.envelope import Body, Envelope, Notify, Recipient
from smtp_intercept.mta.fate import Action, Fate, Notice, Original, Reporter
from smtp_intercept.mta.quoted import HEADERS_BYTES, WHOLE_BYTES, bytes_needed

ARRIVAL, NOW = 1_795_000_000.0, 1_795_000_061.0
GATE = Reporter("gate.example.net")
TOKEN = "0123456789abcdef"
BOB = Recipient("bob@example.org")
CONTENT = b"Received: from client.example.com\r\nFrom: alice@example.com\r\nSubject: Hello\r\n\r\nGood morning\r\n"
GOLDEN = Path(__file__).with_name("failed.eml")


def failed(recipient: Recipient = BOB, reply: str = "550 5.1.1 <bob@example.org>: no such user") -> Fate:
    return Fate(recipient, Action.FAILED, "5.1.1", 550, reply, "mx.example.org", 1, NOW)


def late(recipient: Recipient = BOB) -> Fate:
    return Fate(
        *(recipient, Action.DELAYED, "4.4.1", 0, "192.0.2.7:25: Connection refused", "mx.example.org", 6, NOW),
        retry_until_at=ARRIVAL + 432_000,
    )


def notice(
    *fates: Fate,
    content: bytes = CONTENT,
    sender: str = "alice@example.com",
    helo: str = "client.example.com",
    **envelope: object,
) -> Notice:
    whole = Envelope(sender, tuple(fate.recipient for fate in fates), **envelope)  # type: ignore[arg-type]
    head = content[: bytes_needed(whole, len(content), any(fate.action is Action.FAILED for fate in fates))]
    return compose(Original("0B1C2D3F4G5", ARRIVAL, helo, whole, head, len(content)), fates, GATE, TOKEN, NOW)


def parsed(made: Notice) -> Message:
    message = email.message_from_bytes(made.content)
    assert not message.defects
    return message


def parts(made: Notice) -> tuple[Message, list[Message], Message]:
    """The letter, the report's blocks, the original."""
    letter, report, original = children(parsed(made))
    return letter, children(report), original


def children(part: Message) -> list[Message]:
    payload = part.get_payload()
    assert isinstance(payload, list)
    assert all(isinstance(each, Message) for each in payload)
    return payload  # type: ignore[return-value]


def plain(part: Message) -> bytes:
    octets = part.get_payload(decode=True)
    assert isinstance(octets, bytes)
    return octets


def test_as_it_goes_out() -> None:
    made = notice(
        failed(Recipient("bob@example.org", original="rfc822;Bob+2BSales@example.org")),
        late(Recipient("carol@example.org")),
        envid="QQ314159",
    )
    assert made.content.decode("ascii").replace("\r\n", "\n") == GOLDEN.read_text(encoding="ascii")
    assert made.content.count(b"\n") == made.content.count(b"\r\n")


def test_the_envelope_asks_for_nothing_back() -> None:
    made = notice(failed())
    assert made.envelope == Envelope("", (Recipient("alice@example.com", Notify.NEVER),))


def test_the_header() -> None:
    message = parsed(notice(failed()))
    assert message["To"] == "<alice@example.com>"
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@gate.example.net>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Date"] == "Wed, 18 Nov 2026 11:07:41 +0000"
    assert message["Message-ID"] == f"<{TOKEN}@gate.example.net>"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert not [name for name in message if name.lower().startswith("x-")]


def test_the_sender_of_notices_is_configurable() -> None:
    reporter = Reporter("gate.example.net", "post@example.net", "Post Office")
    original = Original("0", ARRIVAL, "", Envelope("a@b", (BOB,)), CONTENT, len(CONTENT))
    assert parsed(compose(original, [failed()], reporter, TOKEN, NOW))["From"] == "Post Office <post@example.net>"


@pytest.mark.parametrize(
    ("fate", "fields"),
    [
        (
            failed(Recipient("bob@example.org", original="rfc822;Bob+2BSales@example.org")),
            {
                "Original-Recipient": "rfc822; Bob+Sales@example.org",
                "Final-Recipient": "rfc822; bob@example.org",
                "Action": "failed",
                "Status": "5.1.1",
                "Remote-MTA": "dns; mx.example.org",
                "Diagnostic-Code": "smtp; 550 5.1.1 <bob@example.org>: no such user",
                "Last-Attempt-Date": "Wed, 18 Nov 2026 11:07:41 +0000",
            },
        ),
        (
            late(),
            {
                "Final-Recipient": "rfc822; bob@example.org",
                "Action": "delayed",
                "Status": "4.4.1",
                "Remote-MTA": "dns; mx.example.org",
                "Last-Attempt-Date": "Wed, 18 Nov 2026 11:07:41 +0000",
                "Will-Retry-Until": "Mon, 23 Nov 2026 11:06:40 +0000",
            },
        ),
        (
            Fate(BOB, Action.RELAYED, "", 250, "Ok", "mx.example.org", 1, NOW),
            {
                "Final-Recipient": "rfc822; bob@example.org",
                "Action": "relayed",
                "Status": "2.0.0",
                "Remote-MTA": "dns; mx.example.org",
                "Diagnostic-Code": "smtp; 250 Ok",
                "Last-Attempt-Date": "Wed, 18 Nov 2026 11:07:41 +0000",
            },
        ),
        (
            Fate(
                Recipient("jürgen@exämple.org", original="utf-8;j\\x{FC}rgen@x"),
                Action.FAILED,
                "5.6.7",
                0,
                "No",
                "",
                1,
                NOW,
            ),
            {
                "Original-Recipient": "utf-8; j\\x{FC}rgen@x",
                "Final-Recipient": "utf-8; j\\x{FC}rgen@ex\\x{E4}mple.org",
                "Action": "failed",
                "Status": "5.6.7",
                "Last-Attempt-Date": "Wed, 18 Nov 2026 11:07:41 +0000",
            },
        ),
    ],
)
def test_a_recipients_block(fate: Fate, fields: dict[str, str]) -> None:
    _, (_, block), _ = parts(notice(fate))
    assert dict(block.items()) == fields


@pytest.mark.parametrize(
    ("action", "status", "said"),
    [
        (Action.FAILED, "5.7.1", "5.7.1"),
        (Action.FAILED, "4.4.1", "4.4.1"),  # gave up: RFC 3463 §3.5 wants the actual problem
        (Action.FAILED, "", "5.0.0"),
        (Action.FAILED, "2.0.0", "5.0.0"),
        (Action.DELAYED, "5.1.1", "4.0.0"),
        (Action.DELIVERED, "2.1.5", "2.1.5"),
        (Action.RELAYED, "9.9.9", "2.0.0"),
        (Action.FAILED, "5.1.1\r\nX-Evil: 1", "5.0.0"),
    ],
)
def test_the_status_fits_the_action(action: Action, status: str, said: str) -> None:
    _, (_, block), _ = parts(notice(Fate(BOB, action, status, 0, "", "", 1, NOW)))
    assert block["Status"] == said


def test_the_messages_block() -> None:
    _, (block, _), _ = parts(notice(failed(), envid="QQ+2B1"))
    assert dict(block.items()) == {
        "Original-Envelope-Id": "QQ+1",
        "Reporting-MTA": "dns; gate.example.net",
        "Received-From-MTA": "dns; client.example.com",
        "Arrival-Date": "Wed, 18 Nov 2026 11:06:40 +0000",
    }


@pytest.mark.parametrize(
    ("fates", "subject", "words"),
    [
        (
            [failed()],
            "Your mail could not be delivered",
            ["bob@example.org", "mx.example.org answered: 550 5.1.1", "no such user"],
        ),
        (
            [late()],
            "Your mail is late; you need not send it again",
            ["Connection refused", "Attempts until now: 6", "Mon, 23 Nov 2026"],
        ),
        ([late(), failed(Recipient("carol@example.org"))], "Your mail could not be delivered", ["bob@", "carol@"]),
        (
            [Fate(BOB, Action.FAILED, "4.4.1", 0, "Connection refused", "", 31, NOW, gave_up=True)],
            "Your mail could not be delivered",
            ["went on for too long", "Attempts: 31", "Connection refused"],
        ),
        (
            [Fate(BOB, Action.RELAYED, "", 250, "", "mx.example.org", 1, NOW)],
            "Your mail was passed on",
            ["mx.example.org took it"],
        ),
        ([Fate(BOB, Action.DELIVERED, "", 250, "", "", 1, NOW)], "Your mail was delivered", ["was delivered to"]),
    ],
)
def test_the_letter(fates: list[Fate], subject: str, words: list[str]) -> None:
    made = notice(*fates)
    letter = " ".join(plain(parts(made)[0]).decode().split())
    assert parsed(made)["Subject"] == subject
    assert all(word in letter for word in [*words, "gate.example.net", "0B1C2D3F4G5"])
    assert all(len(line) <= 78 for line in plain(parts(made)[0]).splitlines())


EIGHT_BIT = CONTENT + "Grüße\r\n".encode()
BARE_NEWLINES = CONTENT + b"\n.\nMAIL FROM:<evil@example.com>\r\n"


@pytest.mark.parametrize(
    ("ret", "content", "utf8", "action", "kind", "encoding", "body"),
    [
        ("", CONTENT, False, Action.FAILED, "text/rfc822-headers", None, Body.SEVEN_BIT),
        ("HDRS", CONTENT, False, Action.FAILED, "text/rfc822-headers", None, Body.SEVEN_BIT),
        ("FULL", CONTENT, False, Action.FAILED, "message/rfc822", None, Body.SEVEN_BIT),
        ("full", CONTENT, False, Action.FAILED, "message/rfc822", None, Body.SEVEN_BIT),
        ("FULL", CONTENT, False, Action.DELAYED, "text/rfc822-headers", None, Body.SEVEN_BIT),
        ("FULL", CONTENT, False, Action.RELAYED, "text/rfc822-headers", None, Body.SEVEN_BIT),
        ("FULL", EIGHT_BIT, False, Action.FAILED, "message/rfc822", "8bit", Body.EIGHT_BIT),
        ("FULL", EIGHT_BIT, True, Action.FAILED, "message/global", "quoted-printable", Body.SEVEN_BIT),
        ("FULL", BARE_NEWLINES, False, Action.FAILED, "text/rfc822-headers", None, Body.SEVEN_BIT),
        ("FULL", CONTENT + b"\0\r\n", False, Action.FAILED, "text/rfc822-headers", None, Body.SEVEN_BIT),
        ("FULL", CONTENT + b"x" * 999 + b"\r\n", False, Action.FAILED, "text/rfc822-headers", None, Body.SEVEN_BIT),
        ("FULL", CONTENT + b"x" * 998 + b"\r\n", False, Action.FAILED, "message/rfc822", None, Body.SEVEN_BIT),
        (
            "",
            "Subject: Grüße\r\n\r\n".encode(),
            False,
            Action.FAILED,
            "text/rfc822-headers",
            "quoted-printable",
            Body.SEVEN_BIT,
        ),
        (
            "",
            "Subject: Grüße\r\n\r\n".encode(),
            True,
            Action.FAILED,
            "message/global-headers",
            "quoted-printable",
            Body.SEVEN_BIT,
        ),
    ],
)
def test_the_original(
    ret: str, content: bytes, utf8: bool, action: Action, kind: str, encoding: str | None, body: Body
) -> None:
    made = notice(Fate(BOB, action, "", 0, "", "", 1, NOW), content=content, ret=ret, smtputf8=utf8)
    original = parts(made)[2]
    assert original.get_content_type() == kind
    assert original["Content-Transfer-Encoding"] == encoding
    assert made.envelope.body is body
    assert (body is Body.EIGHT_BIT) == (not made.content.isascii())
    if kind == "message/rfc822":
        assert content in made.content, "whole, octet by octet"


def test_no_more_than_the_limits_come_back() -> None:
    line = b"X-Filler: " + b"x" * 60 + b"\r\n"
    endless = line * (HEADERS_BYTES // len(line) + 10)
    returned = plain(parts(notice(failed(), content=endless))[2])
    assert HEADERS_BYTES - len(line) <= len(returned) <= HEADERS_BYTES
    assert returned == line * (len(returned) // len(line)), "cut at a line's end"
    room = WHOLE_BYTES - len(CONTENT)
    fits = CONTENT + b"y\r\n" * (room // 3) + b"z" * (room % 3)
    assert parts(notice(failed(), content=fits, ret="FULL"))[2].get_content_type() == "message/rfc822"
    assert parts(notice(failed(), content=fits + b"z", ret="FULL"))[2].get_content_type() == "text/rfc822-headers"


def test_a_sender_outside_ascii_gets_the_international_forms() -> None:
    made = notice(failed(Recipient("jürgen@exämple.org")), sender="аня@example.com", smtputf8=True)
    assert made.envelope.smtputf8
    assert made.envelope.body is Body.EIGHT_BIT
    assert "To: <аня@example.com>\r\n".encode() in made.content
    assert b"message/global-delivery-status" in made.content
    assert "Final-Recipient: utf-8; jürgen@exämple.org\r\n".encode() in made.content


@pytest.mark.parametrize(
    ("sender", "notify", "told"),
    [
        ("a@b", Notify.FAILURE | Notify.DELAY, {Action.FAILED, Action.DELAYED}),
        ("a@b", Notify.SUCCESS, {Action.DELIVERED, Action.RELAYED}),
        ("a@b", Notify.FAILURE, {Action.FAILED}),
        ("a@b", Notify.NEVER, set()),
        ("", Notify.FAILURE | Notify.DELAY | Notify.SUCCESS, set()),
    ],
)
def test_who_is_told_of_what(sender: str, notify: Notify, told: set[Action]) -> None:
    recipient = Recipient("bob@example.org", notify)
    assert {action for action in Action if wanted(Envelope(sender, (recipient,)), recipient, action)} == told


# What breaks mail: line ends, encoded words that hide them, boundaries, bidirectional overrides, lone surrogates.
nasty = st.text(st.sampled_from('\r\n\0\t \\"<>(),;:@.+=?-éж\u202e\u2028\x85\udc80x0A')) | st.sampled_from(
    [
        "\r\nX-Evil: 1",
        "=?utf-8?q?=0D=0AX-Evil:_1?=",
        "a+0D+0AX-Evil:+201",
        f"--={TOKEN}=--\r\n",
        "550-" + "x" * 5000,
        "550 \r\n.\r\nMAIL FROM:<evil@example.com>",
    ]
)
octets = st.binary(max_size=300) | st.lists(
    st.sampled_from([b"Subject: x", b"\r\n", b"\n", b"\r", b"\n.\n", b"\0", b"\x85\xc3", b"x" * 1200, b"From x", b"."]),
    max_size=12,
).map(b"".join)
recipients = st.builds(Recipient, address=nasty, original=nasty)
fates = st.builds(
    Fate,
    recipient=recipients,
    action=st.sampled_from(Action),
    status=nasty,
    code=st.sampled_from([0, 250, 421, 550]),
    reply=nasty,
    host=nasty,
    attempts=st.integers(0, 99),
    tried_at=st.just(NOW),
)
HEADER = ["Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
LINE = re.compile(rb"[^\r\n\0]{0,998}")


@settings(deadline=None)
@given(
    st.lists(fates, min_size=1, max_size=3), octets, nasty, nasty, nasty, st.sampled_from(["", "FULL"]), st.booleans()
)
def test_whatever_strangers_wrote(
    told: list[Fate], content: bytes, sender: str, helo: str, envid: str, ret: str, utf8: bool
) -> None:
    made = notice(*told, content=content, sender=sender, helo=helo, envid=envid, ret=ret, smtputf8=utf8)
    assert all(LINE.fullmatch(line) for line in made.content.split(b"\r\n")), "lines of mail, and nothing else"
    assert len(made.content) < len(content) * 3 + 12_000 * len(told) + 5_000, "bounded"
    message = parsed(made)
    assert list(message.keys()) == HEADER, "no field more"
    letter, report, original = children(message)
    assert "X-Evil" not in letter
    assert set(original.keys()) <= {"Content-Type", "Content-Transfer-Encoding"}
    if report.get_content_type() == "message/delivery-status":
        blocks = children(report)
        assert len(blocks) == 1 + len(told)
        allowed = {"Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"}
        allowed |= {"Last-Attempt-Date", "Will-Retry-Until"}
        assert all(set(block.keys()) <= allowed for block in blocks[1:])
        assert made.envelope.smtputf8 is False
    if made.envelope.body is Body.SEVEN_BIT:
        assert made.content.isascii()
