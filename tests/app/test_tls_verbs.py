"""`tollbridge tls`: an authority that OpenSSL takes for one, and what a server's clients would see."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from smtp_intercept.app.cli import main
from tests.app.test_tls_config import CA, GOOD, ROOT, tables
from tests.tls.pki import der, issue
from tests.tls.rig import mail_server, server_context


def tollbridge(*words: object) -> int:
    return main([str(word) for word in words])


def created(directory: Path, *words: str) -> int:
    return tollbridge(
        *("tls", "authority", "create", "--certificate", directory / "a.crt", "--key", directory / "a.key", *words)
    )


def status_of(work: Callable[[], int]) -> object:
    """Also of words that the parser refuses."""
    with pytest.raises(SystemExit) as caught:
        sys.exit(work())
    return caught.value.code


def test_an_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert created(tmp_path, "--only", "example.com", "--days", "30") == 0
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", tmp_path / "a.crt"], capture_output=True, text=True, check=True
    ).stdout
    assert "CA:TRUE, pathlen:0" in shown
    assert "DNS:example.com" in shown
    assert "[tls.authority]" in capsys.readouterr().out


def test_nothing_is_overwritten_and_nothing_half_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.crt").write_text("mine")
    assert created(tmp_path) == 1
    assert "a.crt is there already: name another file, or move it away" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.crt"]
    assert (tmp_path / "a.crt").read_text() == "mine"


@pytest.mark.parametrize("words", [("--only", "*.example.com"), ("--only", ""), ("--name", ""), ("--days", "0")])
def test_what_is_none(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert status_of(lambda: created(tmp_path, *words)) == 2
    assert list(tmp_path.iterdir()) == []


def configured(directory: Path, protected: str = "") -> Path:
    path = directory / "t.toml"
    path.write_text(tables(directory, GOOD, CA) + protected)
    return path


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = configured(tmp_path)
    assert tollbridge("--config", path, "--run-dir", tmp_path / "run", "tls", "show", "--json") == 0
    page = json.loads(capsys.readouterr().out)
    assert [each["names"] for each in page["identities"]] == ["mx.example.com"]
    assert page["authority"]["names"] == "Test Root"
    assert (page["tls"], page["tls_left"]) == ({}, [])
    assert tollbridge("--config", path, "--run-dir", tmp_path / "run", "tls", "show") == 0
    assert "servers: every protected server" in capsys.readouterr().out


PROTECTED = '[[protected]]\ndomain = "example.com"\nservers = ["127.0.0.1"]\n'


@pytest.mark.parametrize(
    ("server", "protected", "sni", "status", "verified", "clients_see"),
    [
        (GOOD, PROTECTED, "mx.example.com", 0, "verified", "tls.identity[0]: the server's own"),
        (GOOD, "", "mx.example.com", 0, "verified", "a leaf of the authority's"),
        (GOOD, "", "mx.example.org", 1, "name_mismatch", "a leaf of the authority's"),
        (issue(("a.example",), (-1, 9)), "", "a.example", 1, "self_signed", "a leaf that nobody trusts"),
        (
            ROOT.issue("mx.example.com", days=(-9, -1)),
            PROTECTED,
            "mx.example.com",
            1,
            "expired",
            "tls.identity[0]: another than the server shows",
        ),
    ],
)
def test_a_server_is_asked(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    server: tuple[bytes, bytes],
    protected: str,
    sni: str,
    status: int,
    verified: str,
    clients_see: str,
) -> None:
    path = configured(tmp_path, protected)
    with mail_server(server_context(server)) as (port, _):
        words = ("--config", path, "tls", "test", "127.0.0.1", "--smtp-port", port, "--sni", sni, "--json")
        assert tollbridge(*words) == status
    page = json.loads(capsys.readouterr().out)
    assert (page["verified"], page["clients_see"]) == (verified, clients_see)
    assert page["direction"] == ("incoming" if protected else "outgoing")
    assert len(page["fingerprint"]) == 64
    assert der(server[0])


def test_a_server_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert tollbridge("--config", configured(tmp_path), "tls", "test", "127.0.0.1", "--smtp-port", port) == 1
    assert f"127.0.0.1:{port}: Connection refused" in capsys.readouterr().err
