"""Rules on the wire: what a configuration says is what clients hear and servers get, and what `status` and log tell."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab
from tests.kernel.talking import said

pytestmark = pytest.mark.kernel

LARGE = b"Subject: large\r\n\r\n" + b".dotted line of text \xff\r\n" * 20_000


def rules(directory: Path) -> list[dict[str, Any]]:
    return [
        {"name": "trusted", "when": {"sender": "boss@c.example"}, "then": {"accept": True}},
        {"name": "nobody", "when": {"recipient": "no@example.com"}, "then": {"refuse": "550 5.7.1 not to them"}},
        {"name": "listed", "when": {"sender": f"@{directory}/bad.txt"}, "then": {"defer": "451 4.7.1 later"}},
        {"name": "lottery", "when": {"header": {"Subject": "*lottery*"}}, "then": {"refuse": "554 5.7.1 no games"}},
        {"name": "seen", "when": {"size_over_bytes": 1000}, "then": {"discard": True}, "mode": "observe"},
        {"name": "foreign", "when": {"sender_not": "c.example"}, "then": {"tag_subject": "[EXT]"}},
    ]


def configured(lab: Lab) -> dict[str, Any]:
    return {
        "protected": [{"domain": "example.com", "servers": ["192.0.2.20"]}],
        "inspect": {"directory": str(lab.gateway.directory / "held")},
        "rule": rules(lab.gateway.directory / "lists"),
    }


@pytest.fixture(scope="module")
def ruled(lanes: None, lab: Lab) -> Iterator[tuple[Lab, MailServer]]:
    directory = lab.gateway.directory / "lists"
    directory.mkdir()
    (directory / "bad.txt").write_text("bad.example\n")
    lab.gateway.configure(configured(lab))
    server = MailServer.start(lab.host("server"))
    lab.gateway.start()
    yield lab, server
    lab.gateway.stop()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_clients_hear_and_servers_get(ruled: tuple[Lab, MailServer]) -> None:
    lab, server = ruled
    short, plain = b"Subject: x\r\n\r\nhello\r\n", ["user@example.com"]
    before = len(server.messages())
    heard = said(
        lab,
        ("a@c.example", ["no@example.com", *plain], short),  # one of two
        ("a@c.example", ["no@example.com"], short),
        ("a@bad.example", plain, short),
        ("a@c.example", plain, b"Subject: =?utf-8?q?Lott?=\r\n =?utf-8?q?ery!?=\r\n\r\n" + LARGE),
        ("boss@c.example", plain, b"Subject: lottery\r\n\r\n" + LARGE),  # the first rule that holds
        ("a@c.example", plain, LARGE),
        ("a@else.example", plain, short),
    )
    assert heard == [
        {"no@example.com": 550},
        {"no@example.com": 550},
        {"user@example.com": 451},
        "554 5.7.1 no games",
        "accepted",
        "accepted",
        "accepted",
    ]
    got = server.messages()[before:]
    tagged = short.replace(b"Subject: x", b"Subject: [EXT] x")
    wanted = [short, b"Subject: lottery\r\n\r\n" + LARGE, LARGE, tagged]
    assert [message["sha256"] for message in got] == list(map(sha256, wanted))
    assert {message["session"] for message in got} == {got[0]["session"]}, "one connection, whatever was refused"
    (session,) = lab.gateway.wait_log(type="session", outcome="completed")
    told = [(m.get("rules"), m.get("would"), m["outcome"]) for m in lab.gateway.mail_log("message")]
    assert told == [
        (["nobody"], None, "accepted"),
        (["nobody"], None, "rejected"),
        (["listed"], None, "deferred"),
        (["lottery"], None, "rejected"),
        (["trusted"], None, "accepted"),
        (None, ["seen"], "accepted"),
        (["foreign"], None, "accepted"),
    ]
    assert session["messages"] == 7


def test_a_list_is_read_again(ruled: tuple[Lab, MailServer]) -> None:
    lab, _ = ruled
    message = ("a@late.example", ["user@example.com"], b"Subject: x\r\n\r\n")
    assert said(lab, message) == ["accepted"]
    path = lab.gateway.directory / "lists" / "bad.txt"
    (path.parent / "new").write_text("bad.example\nlate.example\n")
    (path.parent / "new").rename(path)
    deadline_at = time.monotonic() + 20
    while said(lab, message) == ["accepted"]:
        assert time.monotonic() < deadline_at
        time.sleep(1)
    path.write_text("nonsense here\n")
    while not (errors := lab.gateway.status()["list_errors"]):
        assert time.monotonic() < deadline_at + 20
        time.sleep(1)
    assert errors[0].startswith(f"{path}:1: 'nonsense here' is not an address")
    assert said(lab, message) == [{"user@example.com": 451}]
    assert "a list of the rules is used as it was" in lab.gateway.tollbridge("status").stdout


def test_status_counts_by_rule(ruled: tuple[Lab, MailServer]) -> None:
    lab, _ = ruled
    counts = lab.gateway.status()["rules"]
    assert counts["lottery"] == {"done": 1, "would": 0}
    assert counts["seen"] == {"done": 0, "would": 1}


def test_held_content_is_nowhere_when_it_is_over(ruled: tuple[Lab, MailServer]) -> None:
    lab, _ = ruled
    assert list((lab.gateway.directory / "held").iterdir()) == []


def test_the_mta_goes_by_the_same(ruled: tuple[Lab, MailServer]) -> None:
    """The last: it takes the lab's gateway down, and up with the other handler."""
    lab, _ = ruled
    lab.gateway.stop()
    mta = {"hostname": "box.example", "spool": str(lab.gateway.directory / "spool"), "tls": "none"}
    (lab.gateway.directory / "lists" / "bad.txt").write_text("bad.example\n")
    lab.gateway.configure({**configured(lab), "intercept": {"incoming": "mta"}, "mta": mta})
    lab.gateway.start()
    plain = ["user@example.com"]
    heard = said(
        lab,
        ("a@bad.example", plain, b"Subject: x\r\n\r\n"),
        ("a@c.example", plain, b"Subject: lottery\r\n\r\n" + LARGE),
        ("a@else.example", ["no@example.com", *plain], b"Subject: y\r\n\r\n" + LARGE),
    )
    assert heard == [{"user@example.com": 451}, "554 5.7.1 no games", {"no@example.com": 550}]
    (kept,) = [record for record in lab.gateway.mail_log("message") if "queue_id" in record]
    shown = lab.gateway.run(lab.gateway.command("queue", "show", kept["queue_id"], "--content")).stdout
    assert "\nSubject: [EXT] y\n" in shown.replace("\r", "")
    assert shown.count("\n.dotted line of text") == LARGE.count(b"\n.dotted line of text")
    assert kept["rules"] == ["nobody", "foreign"]
    deadline_at = time.monotonic() + 20
    while (counts := lab.gateway.status()["rules"]).get("foreign") is None:
        assert time.monotonic() < deadline_at
        time.sleep(0.5)
    assert (counts["lottery"]["done"], counts["foreign"]["done"], counts["nobody"]["done"]) == (1, 1, 1)
