"""`tollbridge rules test`: what each rule says to a message in a file, and what comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smtp_intercept.app import cli
from smtp_intercept.app.exits import Exit

CONFIG = """
[bridge]
ports = ["p0", "p1"]
[[protected]]
domain = "example.com"
servers = ["192.0.2.20"]
[[rule]]
name = "trusted"
when = { client = "10.0.0.0/8" }
then = { accept = true }
[[rule]]
name = "lottery"
when = { message = "incoming", header.Subject = "*lottery*" }
then = { refuse = "554 5.7.1 no games" }
[[rule]]
name = "tag"
when.size_over_bytes = 10
then = { tag_subject = "[EXT]" }
mode = "observe"
"""
MESSAGE = """From: A <a@x.example>
To: b@example.com, "C" <c@other.example>
Subject: =?utf-8?q?Lott?= =?utf-8?q?ery?=

hello
"""
WHERE = ("--from", "192.0.2.1", "--to", "192.0.2.20")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "tollbridge.toml").write_text(CONFIG)
    (tmp_path / "m.eml").write_text(MESSAGE)
    return ["--config", str(tmp_path / "tollbridge.toml"), "rules", "test", str(tmp_path / "m.eml")]


def test_every_rule_says_why(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*files, *WHERE]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "incoming connection; sender <a@x.example>; 117 octets",
        "<b@example.com>: incoming",
        "  trusted  no: client",
        "  lottery  yes: refuse 554 5.7.1 no games",
        "  tag      yes: tag_subject [EXT] (only observed)",
        "  result: refuse 554 5.7.1 no games (lottery), at the end of the message",
        "<c@other.example>: outgoing",
        "  trusted  no: client",
        "  lottery  no: message",
        "  tag      yes: tag_subject [EXT] (only observed)",
        "  result: accept; would: tag",
        "the message in a live session: refuse 554 5.7.1 no games (lottery); would: tag",
    ]


def test_for_machines(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--from", "10.0.0.1", "--to", "192.0.2.20", "--rcpt", "x@example.com", "--sender", "s@c.example")
    assert cli.main([*files, *where, "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert page["sender"] == "s@c.example"
    (recipient,) = page["recipients"]
    assert (recipient["result"], recipient["by"], recipient["decided"]) == ("accept", ["trusted"], "CONNECT")


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        (("--from", "x", "--to", "192.0.2.20"), "--from: x is not an IP address", Exit.MISUSE),
        ((*WHERE, "--port", "p9"), "--port: p9 is not one of bridge.ports (p0, p1)", Exit.MISUSE),
    ],
)
def test_misuse(
    files: list[str], words: tuple[str, ...], said: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*files, *words]) == status
    assert said in capsys.readouterr().err


def test_a_file_that_is_not_there(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*files[:-1], "/nowhere/m.eml", *WHERE]) == Exit.FAILED
    assert "/nowhere/m.eml: cannot be read" in capsys.readouterr().err


def test_a_list_that_is_not_there(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(files[1])
    config.write_text(CONFIG.replace('"10.0.0.0/8"', '"@/nowhere/list.txt"'))
    assert cli.main([*files, *WHERE]) == Exit.FAILED
    assert "/nowhere/list.txt: No such file or directory; make it" in capsys.readouterr().err


def test_explain_says_what_they_say_to_a_connection(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*files[:2], "explain", *WHERE]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "rule        trusted: no: client",
        "rule        lottery: not yet known: message, header.subject",
        "rule        tag: not yet known: size_over_bytes",
    ]


INSIDE = """
[[rule]]
name = "programs"
when.attachment = "*.exe"
then = { refuse = "550 5.7.1 no programs" }
"""


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("name=evil.exe", ["  programs  yes: refuse 550 5.7.1 no programs"]),
        ("name=nice.txt", ["  programs  no: attachment"]),
        # What cannot be seen to its end is the rule's twin's, which puts it off.
        ("boundary=''", ["  programs  no: attachment", "  programs  yes: defer 451 4.4.3 Cannot be decided now, come"]),
    ],
)
def test_what_is_inside(files: list[str], part: str, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config, message = Path(files[1]), Path(files[-1])
    config.write_text(f"{CONFIG.partition('[[rule]]')[0]}{INSIDE}")
    message.write_text(MESSAGE.replace("To:", f"Content-Type: multipart/mixed; boundary=B; {part}\nTo:"))
    if "boundary" in part:
        message.write_text(MESSAGE.replace("To:", "Content-Type: multipart/mixed\nTo:"))
    assert cli.main([*files, *WHERE, "--rcpt", "b@example.com"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  programs")]
    assert [line[: len(wanted)] for line, wanted in zip(lines, said, strict=False)] == said
