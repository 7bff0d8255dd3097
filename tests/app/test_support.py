"""The archive of `tollbridge support`: whole where much is broken, and without what is nobody else's business."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from smtp_intercept.app import cli, status, support
from smtp_intercept.app.config import parse
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.rundir import RunDir
from tests.unshown import NOT_ROOT
from tests.watch.logs import line, message

SECRETS = ("hunter2-of-the-relay", "PRIVATE-KEY-OF-THE-BOX", "account-name-7", "a-remark-in-the-file")
MAIL = ("ann.private@example.org", "bob.private@example.com")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A box with secrets and mail."""
    if os.geteuid():
        NOT_ROOT.skip()
    (tmp_path / "password").write_text(SECRETS[0])
    (tmp_path / "key.pem").write_text(SECRETS[1])
    to = [{"address": MAIL[1], "direction": "incoming", "reply": "250 Ok"}]
    (tmp_path / "mail.log").write_bytes(line(message(1, sender=MAIL[0], recipients=to)) + b"\n")
    (tmp_path / "t.toml").write_text(
        f'# {SECRETS[3]}\n[bridge]\nports = ["p0", "p1"]\n[log]\nmail = "{tmp_path}/mail.log"\n'
        f'[mta]\nspool = "{tmp_path}/spool"\ncertificate = "{tmp_path}/key.pem"\nkey = "{tmp_path}/key.pem"\n'
        f'[relay]\nhost = "relay.example.net"\ntls = "verified"\nusername = "{SECRETS[2]}"\n'
        f'password_file = "{tmp_path}/password"\n'
    )
    return tmp_path


def made(box: Path, name: str = "one.tar.gz") -> dict[str, str]:
    words = ["--config", str(box / "t.toml"), "--run-dir", str(box / "run")]
    assert cli.main(["support", *words, "--output", str(box / name)]) == Exit.DONE
    with tarfile.open(box / name) as archive:
        members = archive.getmembers()
        assert all(member.isreg() and member.name.startswith("one/") for member in members)
        return {member.name.removeprefix("one/"): _text(archive, member) for member in members}


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    assert file is not None
    return file.read().decode()


def test_it_tells_much_and_no_secret(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = made(box)
    whole = "\n".join(parts.values())
    for secret in (*SECRETS, *MAIL):
        assert secret not in whole
    assert "relay.example.net" in parts["configuration.toml"]
    assert support.HIDDEN in parts["configuration.toml"]
    assert "down" in parts["status.txt"]
    assert json.loads(parts["doctor.json"])["findings"]
    assert json.loads(parts["check.txt"])["verdict"].startswith("refused"), "of a check that has mistakes"
    assert "lo" in parts["links.txt"]
    assert "Python" in parts["version.txt"]
    out = capsys.readouterr().out
    assert set(parts) <= set(out.splitlines())
    assert "read them before you give it away" in out
    assert (box / "one.tar.gz").stat().st_mode & 0o777 == 0o600


def test_whom_rules_are_about_and_what_they_write_is_left_out(tmp_path: Path) -> None:
    text = """
[bridge]
ports = ["p0", "p1"]
[[rule]]
name = "one"
[rule.when]
sender = ["ann.private@example.org", "@/etc/lists/staff.txt"]
recipient_not = "bob.private@example.com"
client = ["192.0.2.0/24"]
header.Subject = "*merger*"
[rule.then]
add_header = { X-Pass = "token-7" }
tag_subject = "[EXT]"
"""
    told = support.without_secrets(parse(text, tmp_path))
    for secret in ("ann.private", "bob.private", "merger", "token-7"):
        assert secret not in told
    for word in ("one", "@/etc/lists/staff.txt", "192.0.2.0/24", "X-Pass", "[EXT]", "Subject"):
        assert word in told


def test_of_a_list_with_a_mistake_only_the_place_is_told(monkeypatch: pytest.MonkeyPatch, box: Path) -> None:
    page = status.read(RunDir(box / "run"), None, box / "t.toml")
    wrong = ["/etc/lists/staff.txt:3: 'ann.private@@' is no mailbox; write it like x"]
    monkeypatch.setattr(status, "read", lambda *_: {**page, "list_errors": wrong})
    parts = made(box)
    assert "ann.private" not in "\n".join(parts.values())
    assert "/etc/lists/staff.txt:3" in parts["status.json"]


def test_nothing_is_written_over(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for odd in ("there.tar.gz", "link.tar.gz"):
        there = box / odd
        if odd.startswith("link"):
            there.symlink_to(box / "t.toml")
        else:
            there.write_text("mine")
        before = there.read_text()
        words = ["--config", str(box / "t.toml"), "--run-dir", str(box / "run"), "--output", str(there)]
        assert cli.main(["support", *words]) == Exit.FAILED
        assert "--output" in capsys.readouterr().err
        assert there.read_text() == before


def test_a_box_on_which_all_is_broken(box: Path) -> None:
    (box / "t.toml").write_text("[bridge\n")
    parts = made(box)
    assert parts["configuration.toml"].startswith("cannot be told")
    assert "Python" in parts["version.txt"]


def test_no_part_is_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "MOST_BYTES", 100)
    file = io.BytesIO()
    parts = {"long": lambda: "x" * 1000 + "\ud800end", "broken": lambda: str(1 / 0)}
    assert support.write(file, parts, "f") == ["long", "broken"]
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        long, broken = archive.getmembers()
        assert long.size == 100
        assert _text(archive, long).endswith("end")
        assert _text(archive, broken) == "cannot be told: ZeroDivisionError: division by zero\n"


def test_a_program_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "WAIT_S", 0.2)
    assert "TimeoutExpired" in support.said(support._runs(("sleep", "60")))
    assert "FileNotFoundError" in support.said(support._runs(("no-such-program",)))
