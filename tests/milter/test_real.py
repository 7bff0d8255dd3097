"""The filters that people run, from their packages, with configurations of their own, on loopback: rspamd, OpenDKIM,
clamav-milter; live and in the MTA."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from smtp_intercept.milter.client import Settings
from tests.milter.conftest import run
from tests.milter.town import rule, town
from tests.smtp.box import Run
from tests.tools import as_installed

__all__ = ["run"]
BOTH = pytest.mark.parametrize("mta", [False, True], ids=["proxy", "mta"])
HEADER = b"From: <a@c.example>\r\nTo: <b@example.com>\r\nSubject: x\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\n"
TEXT = HEADER + b"Message-ID: <1@c.example>\r\n\r\nHello.\r\n..dot\r\n"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
SIGNATURE = b"tollbridge-test-signature-that-no-mail-has"
MARKED = TEXT.replace(b": x", b": mark")
RSPAMD = """
options {{ pidfile = "{0}/pid"; temp_dir = "{0}"; filters = ""; gtube_patterns = "all"; control_socket = "{0}/control";
  hs_cache_dir = "{0}"; dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }} }}
logging {{ type = "console"; level = "warning"; }}
actions {{ reject = 15; add_header = 6; greylist = 4; }}
worker "rspamd_proxy" {{
  bind_socket = "{0}/socket mode=0666"; milter = yes; timeout = 20s; count = 1;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
lua = "{0}/own.lua";
"""
# Two rules of our own: what is worth a header, and what is to come again.
OWN_LUA = """
rspamd_config.OWN_MARK = { callback = function(task) return task:get_subject() == 'mark' end, score = 7.0 }
rspamd_config.OWN_LATER = { type = 'prefilter', callback = function(task)
  if task:get_subject() == 'later' then task:set_pre_result('soft reject', 'come again') end
end }
"""
OPENDKIM = """
Mode {1}
Domain c.example
Selector s
KeyFile {0}/key
Socket local:{0}/socket
UserID root
RequireSafeKeys no
UMask 000
AlwaysAddARHeader yes
AuthservID box.example
TestPublicKeys {0}/keys
Syslog no
InternalHosts {0}/internal
"""
CLAMD = "LocalSocket {0}/clamd\nDatabaseDirectory {0}/signatures\nForeground yes\nUser root\n"
CLAMAV_MILTER = """
MilterSocket {0}/socket
ClamdSocket unix:{0}/clamd
Foreground yes
User root
OnInfected Reject
RejectMsg found %v
AddHeader Replace
"""

Started = Callable[[Sequence[str], Path], None]


@pytest.fixture(scope="module")
def started() -> Iterator[Started]:
    """Starts a program, and waits for a file that it makes; it is ended with the module."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(words: Sequence[str], until: Path) -> None:
        processes.append(subprocess.Popen(as_installed(*words), stdout=sys.stderr))
        deadline_at = time.monotonic() + 120
        while not until.exists():
            assert processes[-1].poll() is None, f"{words[0]} has ended"
            assert time.monotonic() < deadline_at
            time.sleep(0.05)

    yield start
    for process in reversed(processes):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def rspamd(started: Started, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    place = tmp_path_factory.mktemp("rspamd")
    (place / "rspamd.conf").write_text(RSPAMD.format(place))
    (place / "own.lua").write_text(OWN_LUA)
    started(["rspamd", "-f", "-i", "-c", str(place / "rspamd.conf")], place / "socket")
    return Settings("rspamd", str(place / "socket"))


@BOTH
def test_rspamd(run: Run, tmp_path: Path, rspamd: Settings, mta: bool) -> None:
    async def work() -> None:
        async with town(tmp_path, [rule("rspamd")], rspamd, mta=mta) as it:
            assert (await it.mail(TEXT + GTUBE))[-1] == "554 5.7.1 Gtube pattern"
            assert (await it.mail(TEXT.replace(b": x", b": later")))[-1] == "451 4.7.1 come again"
            assert (await it.mail(MARKED))[-1].startswith("250")
            assert (await it.mail(TEXT))[-1].startswith("250")
        marked, plain = it.stored
        assert b"\r\nX-Spam: Yes\r\n" in marked.content
        assert marked.content.replace(b"X-Spam: Yes\r\n", b"").endswith(MARKED)
        assert plain.content.endswith(TEXT)

    run(work())


def opendkim(started: Started, place: Path, mode: str, internal: str) -> Settings:
    subprocess.run(["openssl", "genrsa", "-out", place / "key", "2048"], check=True, capture_output=True)
    public = subprocess.run(["openssl", "rsa", "-in", place / "key", "-pubout"], check=True, capture_output=True)
    value = "".join(public.stdout.decode().splitlines()[1:-1])
    (place / "keys").write_text(f"s._domainkey.c.example v=DKIM1; k=rsa; p={value}\n")
    (place / "internal").write_text(f"{internal}\n")
    (place / "opendkim.conf").write_text(OPENDKIM.format(place, mode))
    started(["opendkim", "-f", "-x", str(place / "opendkim.conf")], place / "socket")
    return Settings(f"opendkim-{mode}", str(place / "socket"))


@pytest.fixture(scope="module")
def signer(started: Started, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Settings]:
    """One that signs, and one that verifies with its key."""
    place = tmp_path_factory.mktemp("opendkim")
    signing = opendkim(started, place, "s", "0.0.0.0/0")
    other = tmp_path_factory.mktemp("opendkim")
    (other / "keys").write_text((place / "keys").read_text())
    (other / "key").write_text((place / "key").read_text())
    (other / "internal").write_text("203.0.113.1\n")
    (other / "opendkim.conf").write_text(OPENDKIM.format(other, "v"))
    started(["opendkim", "-f", "-x", str(other / "opendkim.conf")], other / "socket")
    return signing, Settings("opendkim-v", str(other / "socket"))


@BOTH
def test_opendkim_signs_and_verifies(run: Run, tmp_path: Path, signer: tuple[Settings, Settings], mta: bool) -> None:
    """What one has signed the other one verifies, behind a server between them; a changed one it does not."""
    signing, verifying = signer

    async def work() -> None:
        async with town(tmp_path, [rule(signing.name)], signing, mta=mta) as it:
            assert (await it.mail(TEXT))[-1].startswith("250")
        signed = it.stored[0].content
        assert b"DKIM-Signature: v=1; a=rsa-sha256; c=" in signed
        assert signed.endswith(TEXT)
        for content, result in ((signed, b"pass"), (signed + b"more\r\n", b"fail")):
            async with town(tmp_path, [rule(verifying.name)], verifying, mta=mta) as it:
                assert (await it.mail(content))[-1].startswith("250")
            assert b"dkim=" + result in it.stored[0].content

    run(work())


@pytest.fixture(scope="module")
def clamav(started: Started, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """With one signature, of our own: nothing is downloaded."""
    place = tmp_path_factory.mktemp("clamav")
    (place / "signatures").mkdir()
    (place / "signatures" / "own.ndb").write_text(f"Own.Test:0:*:{SIGNATURE.hex()}\n")
    (place / "clamd.conf").write_text(CLAMD.format(place))
    (place / "milter.conf").write_text(CLAMAV_MILTER.format(place))
    started(["clamd", "-c", str(place / "clamd.conf")], place / "clamd")
    started(["clamav-milter", "-c", str(place / "milter.conf")], place / "socket")
    return Settings("clamav", str(place / "socket"))


@BOTH
def test_clamav(run: Run, tmp_path: Path, clamav: Settings, mta: bool) -> None:
    async def work() -> None:
        async with town(tmp_path, [rule("clamav")], clamav, mta=mta) as it:
            assert (await it.mail(TEXT + SIGNATURE + b"\r\n"))[-1] == "550 5.7.1 found Own.Test.UNOFFICIAL"
            assert (await it.mail(TEXT))[-1].startswith("250")
        (clean,) = it.stored
        assert b"X-Virus-Status: Clean\r\n" in clean.content

    run(work())


def test_all_of_them_in_order(
    run: Run, tmp_path: Path, rspamd: Settings, clamav: Settings, signer: tuple[Settings, Settings]
) -> None:
    assert os.geteuid() == 0

    async def work() -> None:
        every = (rspamd, clamav, signer[0])
        async with town(tmp_path, [rule(*(each.name for each in every))], *every) as it:
            assert (await it.mail(TEXT))[-1].startswith("250")
            assert (await it.mail(TEXT + SIGNATURE + b"\r\n"))[-1] == "550 5.7.1 found Own.Test.UNOFFICIAL"
        (stored,) = it.stored
        for name in (b"X-Virus-Status: ", b"DKIM-Signature: "):
            assert b"\r\n" + name in b"\r\n" + stored.content

    run(work())
