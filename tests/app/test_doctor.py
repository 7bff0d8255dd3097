"""What `tollbridge doctor` looks at: certificates, logs, disks, the clock, as they are on a real machine."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from smtp_intercept.app import config, doctor, status
from smtp_intercept.app.diagnosis import Finding
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.rundir import RunDir
from tests.watch.logs import BEGAN_S, line, message

DAY_S = 86_400.0


def made(directory: Path, *words: str) -> tuple[Path, Path]:
    """A self-signed certificate by openssl."""
    paths = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=box.example.com"]
    files = ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run([*command, *files, *words], check=True, capture_output=True)
    return paths


def test_a_certificate_and_its_end(tmp_path: Path) -> None:
    found = doctor.certificate(*made(tmp_path, "-days", "10"))
    assert found.why == ""
    assert found.ends_at is not None
    assert abs(found.ends_at - time.time() - 10 * DAY_S) < 300


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    certificate, key = made(tmp_path, "-days", "1")
    assert "expired" in doctor.certificate(_expired(tmp_path, certificate, key), key).why
    other = tmp_path / "other"
    other.mkdir()
    _, foreign = made(other, "-days", "10")
    assert "mismatch" in doctor.certificate(certificate, foreign).why.lower()
    certificate.write_text("no certificate\n")
    assert doctor.certificate(certificate, key).why
    assert doctor.certificate(tmp_path / "none.pem", key).why


def _expired(directory: Path, certificate: Path, key: Path) -> Path:
    """The same, signed anew with its end long ago: only `openssl ca` takes one."""
    (directory / "index.txt").touch()
    text = (
        f"[ca]\ndefault_ca=c\n[c]\ndatabase={directory}/index.txt\nrand_serial=1\nnew_certs_dir={directory}\npolicy=p\n"
    )
    (directory / "ca.cnf").write_text(f"{text}default_md=sha256\n[p]\ncommonName=supplied\n")
    words = ["-ss_cert", str(certificate), "-keyfile", str(key), "-cert", str(certificate), "-batch", "-notext"]
    out = directory / "expired.pem"
    dates = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-out", str(out)]
    command = ["openssl", "ca", "-config", str(directory / "ca.cnf"), *words, *dates]
    subprocess.run(command, check=True, capture_output=True)
    return out


def settings(directory: Path) -> config.Config:
    text = f'[bridge]\nports = ["p0", "p1"]\n[log]\nmail = "{directory}/mail.log"\n'
    return config.parse(text, directory / "t.toml")


def test_a_log_that_was_renamed_beneath_its_writer(tmp_path: Path) -> None:
    path, one = tmp_path / "mail.log", settings(tmp_path)
    assert doctor.mail_log(one, 0) is None
    path.write_bytes(line(message(0)) + b"\n")
    (tmp_path / "mail.log.1").write_text("older")
    writing = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        found = doctor.mail_log(one, os.getpid())
        assert found is not None
        assert (found.copies, found.began_at, found.elsewhere) == (1, BEGAN_S, "")
        path.rename(tmp_path / "mail.log.2")
        path.touch()
        found = doctor.mail_log(one, os.getpid())
        assert found is not None
        assert (found.elsewhere, found.began_at) == (str(tmp_path / "mail.log.2"), None)
    finally:
        os.close(writing)


def test_disks_and_clock(tmp_path: Path) -> None:
    (disk,) = doctor.disks(settings(tmp_path))
    assert (disk.key, disk.path) == ("log.mail", str(tmp_path))
    assert disk.free_bytes > 0
    assert doctor.synchronised() in (True, False)


def test_what_cannot_be_looked_at_is_named_and_the_rest_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a driver's fault")

    monkeypatch.setattr(status, "read", broken)
    broken_file = tmp_path / "t.toml"
    broken_file.write_text("[bridge\n")
    seen = doctor.look(RunDir(tmp_path / "run"), broken_file)
    assert any("the gateway: RuntimeError: a driver's fault" in what for what in seen.unread)
    assert any("tollbridge check" in what for what in seen.unread)
    assert seen.synchronised in (True, False)


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ([], Exit.DONE),
        ([Finding("a", "b")], Exit.FAILED),
        ([Finding("a", "b"), Finding("c", "d", mail=True)], Exit.NOT_INSPECTING),
    ],
)
def test_exit_statuses(found: list[Finding], status: Exit) -> None:
    assert doctor.verdict(found) is status


def test_strangers_words_command_no_terminal() -> None:
    lines = doctor._lines([Finding("\x1b[2J\n", "\x9b7m", mail=True)], ["\x1b]0;x\x07"])
    assert all(each.isprintable() for each in lines)
