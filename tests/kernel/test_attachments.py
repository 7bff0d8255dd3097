"""Rules that ask what is in a message, on the wire: live and in the MTA, and with a reader that hangs and dies."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import signal
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab

pytestmark = pytest.mark.kernel

TALK = """
import json, smtplib, sys
from pathlib import Path
heard = []
with smtplib.SMTP("192.0.2.20", 25, local_hostname="c.example", timeout=60) as client:
    for path in json.loads(sys.argv[1]):
        try:
            client.sendmail("a@c.example", ["user@example.com"], Path(path).read_bytes())
            heard.append("accepted")
        except smtplib.SMTPResponseException as error:
            heard.append(f"{error.smtp_code} {error.smtp_error.decode()}")
print(json.dumps(heard))
"""
NO = "550 5.7.1 attachment type not accepted"
UNKNOWN = "451 4.4.3 Cannot be decided now, come again later"


def configured(lab: Lab) -> dict[str, Any]:
    return {
        "protected": [{"domain": "example.com", "servers": ["192.0.2.20"]}],
        "inspect": {"directory": str(lab.gateway.directory / "held"), "look_wait_s": 5},
        "rule": [
            {"name": "programs", "when": {"attachment": ["*.exe", "*.js"]}, "then": {"refuse": NO}},
            {"name": "sheets", "when": {"attachment_type": "*/x-sheet"}, "then": {"discard": True}, "mode": "observe"},
        ],
    }


def message(name: str, body: bytes = b"text\r\n", kind: str = "text/plain") -> bytes:
    part = f'Content-Type: {kind}\r\nContent-Disposition: attachment; filename="{name}"\r\n'.encode()
    return b'Content-Type: multipart/mixed; boundary="B"\r\n\r\n--B\r\n' + part + b"\r\n" + body + b"\r\n--B--\r\n"


def zipped() -> bytes:
    octets = io.BytesIO()
    with zipfile.ZipFile(octets, "w") as archive:
        archive.writestr("dir/Evil.EXE", os.urandom(200_000))
    whole = message("a.zip", base64.encodebytes(octets.getvalue()).replace(b"\n", b"\r\n"))
    return whole.replace(b"Content-Disposition", b"Content-Transfer-Encoding: base64\r\nContent-Disposition")


FINE = [message("a.txt"), message("b.txt", b"..dots \xff\r\n" * 30_000), message("c.txt", kind="application/x-sheet")]
BAD = [message("evil.pdf.exe"), zipped(), message("evil.js", b".\xff\r\n" * 30_000)]


def said(lab: Lab, *messages: bytes) -> list[str]:
    client, paths = lab.host("client"), []
    for number, content in enumerate(messages):
        paths.append(client.directory / f"message{number}")
        paths[-1].write_bytes(content)
    talk = json.dumps(list(map(str, paths)))
    heard: list[str] = client.run([client.interpreter, "-c", TALK, talk], timeout_s=100).json()
    return heard


@pytest.fixture(scope="module")
def looking(lanes: None, lab: Lab) -> Iterator[tuple[Lab, MailServer]]:
    lab.gateway.configure(configured(lab))
    server = MailServer.start(lab.host("server"))
    lab.gateway.start()
    yield lab, server
    lab.gateway.stop()


def test_what_clients_hear_and_servers_get(looking: tuple[Lab, MailServer]) -> None:
    lab, server = looking
    assert said(lab, *FINE, *BAD, FINE[0]) == ["accepted"] * 3 + [NO] * 3 + ["accepted"]
    wanted = [hashlib.sha256(each).hexdigest() for each in (*FINE, FINE[0])]
    assert [each["sha256"] for each in server.messages()] == wanted
    lab.gateway.wait_log(type="session", outcome="completed")
    told = [(each.get("rules"), each.get("would")) for each in lab.gateway.mail_log("message")]
    assert told[2:4] == [(None, ["sheets"]), (["programs"], None)]


def test_a_reader_that_hangs_or_dies(looking: tuple[Lab, MailServer]) -> None:
    lab, _ = looking
    reader = lab.gateway.pids()["reader"]
    os.kill(reader, signal.SIGSTOP)
    assert said(lab, FINE[0], BAD[0]) == [UNKNOWN, UNKNOWN]
    deadline_at = time.monotonic() + 60
    while lab.gateway.pids().get("reader") in (reader, None) or said(lab, BAD[0], FINE[0]) != [NO, "accepted"]:
        assert time.monotonic() < deadline_at, "it was not ended and started anew"
        time.sleep(1)
    os.kill(lab.gateway.pids()["reader"], signal.SIGKILL)
    while said(lab, BAD[0], FINE[0]) != [NO, "accepted"]:
        assert time.monotonic() < deadline_at + 60
        time.sleep(1)


def test_the_mta_goes_by_the_same(looking: tuple[Lab, MailServer]) -> None:
    """The last: it takes the lab's gateway down, and up with the other handler."""
    lab, _ = looking
    lab.gateway.stop()
    mta = {"hostname": "box.example", "spool": str(lab.gateway.directory / "spool"), "tls": "none"}
    lab.gateway.configure({**configured(lab), "intercept": {"incoming": "mta"}, "mta": mta})
    lab.gateway.start()
    assert said(lab, *FINE, *BAD) == ["accepted"] * 3 + [NO] * 3
