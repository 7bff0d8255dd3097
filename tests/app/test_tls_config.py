"""The tables of TLS: which way each connection gets, and what is told of files that cannot be used, or not for long."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from smtp_intercept.app import tls_files
from smtp_intercept.app.config import parse, warnings, ways
from smtp_intercept.app.mistakes import MistakeError
from smtp_intercept.direction import Direction
from smtp_intercept.tls.manners import Way
from tests.tls.pki import Root, issue

LEAST = '[bridge]\nports = ["enp1s0", "enp2s0"]\n'
IN, OUT = Direction.INCOMING, Direction.OUTGOING
ROOT = Root()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (Way.PASS, Way.PASS, Way.PASS)),
        ("[intercept]\nstarttls = 'terminate'", (Way.TERMINATE, Way.TERMINATE, Way.TERMINATE)),
        ("[intercept]\nstarttls = {outgoing = 'strip'}", (Way.PASS, Way.STRIP, Way.PASS)),
        ("[intercept.port.enp2s0]\nstarttls = 'strip'", (Way.PASS, Way.STRIP, Way.PASS)),
        (
            "[intercept]\nstarttls = {incoming = 'strip'}\n[[protected]]\ndomain = 'example.com'\n"
            "starttls = 'terminate'",
            (Way.STRIP, Way.PASS, Way.TERMINATE),
        ),
    ],
)
def test_the_way(text: str, expected: tuple[Way, ...]) -> None:
    table = ways(parse(LEAST + text))
    assert (
        table.choose("enp1s0", IN),
        table.choose("enp2s0", OUT),
        table.choose("enp1s0", IN, ("example.com",)),
    ) == expected


def written(directory: Path, name: str, pair: tuple[bytes, bytes]) -> str:
    for suffix, pem in zip(("crt", "key"), pair, strict=True):
        (directory / f"{name}.{suffix}").write_bytes(pem)
    return f'certificate = "{directory}/{name}.crt"\nkey = "{directory}/{name}.key"\n'


def tables(directory: Path, own: tuple[bytes, bytes], authority: tuple[bytes, bytes], names: str = "") -> str:
    (directory / "roots.pem").write_bytes(ROOT.pem)
    identity = written(directory, "own", own) + names
    return (
        f'{LEAST}[intercept]\nstarttls = "terminate"\n[tls]\nroots = "{directory}/roots.pem"\n'
        f"[[tls.identity]]\n{identity}[tls.authority]\n{written(directory, 'ca', authority)}"
    )


def mistakes(text: str) -> list[str]:
    with pytest.raises(MistakeError) as caught:
        tls_files.part(parse(text))
    return [f"{each.key}: {each.reason}" for each in caught.value.mistakes]


GOOD = ROOT.issue("mx.example.com")
CA = (ROOT.pem, ROOT.key)


def test_what_is_good(tmp_path: Path) -> None:
    config = parse(tables(tmp_path, GOOD, CA))
    part = tls_files.part(config)
    assert part.report()["tls"] == {"taken_part_in": 0}
    assert not [line for line in warnings(config) if "tls" in line]


@pytest.mark.parametrize(
    ("own", "authority", "said"),
    [
        ((b"", GOOD[1]), CA, ["tls.identity[0].certificate: {}/own.crt has no certificate that can be read"]),
        ((GOOD[0], b"junk"), CA, ["tls.identity[0].certificate: {}/own.crt and {}/own.key cannot be used: "]),
        ((GOOD[0], ROOT.key), CA, ["tls.identity[0].certificate: {}/own.crt and {}/own.key cannot be used: "]),
        (
            GOOD,
            GOOD,
            ["tls.authority.certificate: {}/ca.crt and {}/ca.key cannot be used: the certificate is no"],
        ),
        (
            (GOOD[0], ROOT.key),
            (ROOT.pem, GOOD[1]),
            [
                "tls.identity[0].certificate: ",
                "tls.authority.certificate: {}/ca.crt and {}/ca.key cannot be used: the key",
            ],
        ),
    ],
)
def test_what_cannot_be_used(
    tmp_path: Path, own: tuple[bytes, bytes], authority: tuple[bytes, bytes], said: list[str]
) -> None:
    found = mistakes(tables(tmp_path, own, authority))
    assert len(found) == len(said)
    for line, begin in zip(found, said, strict=True):
        assert line.startswith(begin.replace("{}", str(tmp_path)))


def test_what_is_not_there(tmp_path: Path) -> None:
    text = tables(tmp_path, GOOD, CA)
    for name in ("own.crt", "own.key", "ca.key", "roots.pem"):
        (tmp_path / name).unlink()
    assert [line.partition(":")[0] for line in mistakes(text)] == [
        "tls.identity[0].certificate",
        "tls.identity[0].key",
        "tls.authority.key",
        "tls.roots",
    ]


@pytest.mark.parametrize(
    ("own", "names", "said"),
    [
        (ROOT.issue("mx.example.com", days=(-1, 29)), "", "expires on "),
        (ROOT.issue("mx.example.com", days=(-1, 31)), "", None),
        (ROOT.issue("mx.example.com", days=(-9, -1)), "", "has expired on "),
        (ROOT.issue("mx.example.com", days=(1, 40)), "", "is not valid before "),
        (ROOT.issue("*.example.com", days=(-1, 40)), 'names = ["mx.example.com"]\n', None),
        (
            ROOT.issue("mx.example.com", days=(-1, 40)),
            'names = ["mail.example.com"]\n',
            "does not name mail.example.com",
        ),
    ],
)
def test_what_will_surprise(tmp_path: Path, own: tuple[bytes, bytes], names: str, said: str | None) -> None:
    config = parse(tables(tmp_path, own, (Root().pem, b""), names))
    found = [line for line in tls_files.cautions(config, time.time()) if "identity" in line]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_a_way_without_means_is_told_of() -> None:
    assert [line for line in warnings(parse(LEAST + "[intercept]\nstarttls = 'terminate'")) if "starttls" in line] == [
        "intercept.starttls: there is no [[tls.identity]], so encrypted incoming connections are left alone",
        "intercept.starttls: there is no [tls.authority], so encrypted outgoing connections are left alone",
    ]
    assert [line for line in warnings(parse(LEAST + "[tls]\nexempt = ['.example.net']")) if line.startswith("tls")] == [
        'tls: says nothing: intercept.starttls is "terminate" for no connection'
    ]
    old = "[intercept]\nstarttls = 'terminate'\n[tls]\nminimum = '1.1'"
    assert "tls.minimum: TLS 1.1 is not to be used any more (RFC 8996)" in warnings(parse(LEAST + old))


def test_the_library_is_loaded_only_where_it_is_used() -> None:
    text = "import sys, smtp_intercept.app.interceptor; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0


def test_a_key_with_a_pass_phrase_waits_for_nobody(tmp_path: Path) -> None:
    _, key = issue(("mx.example.com",), (-1, 9))
    locked = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret"], input=key, capture_output=True, check=True
    ).stdout
    (line,) = mistakes(tables(tmp_path, (GOOD[0], locked), CA))
    assert "cannot be used: the key has a pass phrase" in line
