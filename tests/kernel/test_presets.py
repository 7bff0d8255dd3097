"""The presets as they are shipped, but for the names of the ports: what each inspects, and what it leaves alone."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from smtp_intercept.app import presets
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab
from tests.kernel.resolver import Resolver

pytestmark = pytest.mark.kernel

CLIENT, SERVER = "192.0.2.10", "192.0.2.20"
PROGRAM = (
    b'Content-Type: multipart/mixed; boundary="B"\r\n\r\n--B\r\nContent-Type: text/plain\r\n\r\nhello\r\n'
    b'--B\r\nContent-Disposition: attachment; filename="evil.pdf.EXE"\r\n\r\nMZ\r\n--B--\r\n'
)
PLAIN = b"Subject: x\r\n\r\nhello\r\n"
TALK = """
import json, smtplib, sys
server, mails = sys.argv[1], json.loads(sys.argv[2])
heard = []
for sender, recipients, content in mails:
    with smtplib.SMTP(server, 25, local_hostname="c.example", timeout=30) as client:
        try:
            refused = client.sendmail(sender, recipients, content)
            heard.append(sorted({code for code, _ in refused.values()}) or "accepted")
        except smtplib.SMTPSenderRefused as error:
            heard.append(error.smtp_code)
        except smtplib.SMTPRecipientsRefused as error:
            heard.append(sorted({code for code, _ in error.recipients.values()}))
        except smtplib.SMTPResponseException as error:
            heard.append(error.smtp_code)
print(json.dumps(heard))
"""


def said(lab: Lab, host: str, server: str, *mails: tuple[str, list[str], bytes]) -> list[Any]:
    talk = json.dumps([[sender, recipients, content.decode()] for sender, recipients, content in mails])
    client = lab.host(host)
    heard: list[Any] = client.run([client.interpreter, "-c", TALK, server, talk], timeout_s=100).json()
    return heard


@pytest.fixture(scope="module")
def ends(lanes: None, lab: Lab) -> Iterator[Lab]:
    with Resolver(lab.gateway, lab.gateway.namespace) as resolver:
        resolver.serve({"sender.test": "@ MX 10 mx\nmx A 192.0.2.10\n", "null.test": "@ MX 0 .\n"})
        for name in ("client", "server"):
            MailServer.start(lab.host(name))
        yield lab


@pytest.fixture
def running(ends: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    tables = tomllib.loads(presets.text(request.param))
    del tables["bridge"]["ports"]
    tables["inspect"]["directory"] = str(ends.gateway.directory / "held")
    with ends.gateway.running(tables):
        yield ends


def seen(lab: Lab, before: int) -> list[tuple[str, str]]:
    """Client and direction of the connections that were picked up since."""
    return [(each["client"]["address"], each["direction"]) for each in lab.gateway.mail_log("session")[before:]]


A, NULL, USER = "a@sender.test", "a@null.test", ["user@example.com"]


@pytest.mark.parametrize("running", ["protect-servers"], indirect=True)
def test_protect_servers(running: Lab) -> None:
    before = len(running.gateway.mail_log("session"))
    heard = said(
        running, "client", SERVER, (A, USER, PLAIN), (A, USER, PROGRAM), (NULL, USER, PLAIN), ("", USER, PLAIN)
    )
    assert heard == ["accepted", 550, [550], "accepted"]
    assert said(running, "server", CLIENT, (NULL, ["x@example.net"], PROGRAM)) == ["accepted"]
    running.gateway.wait_log(type="session", outcome="completed")
    assert seen(running, before) == [(CLIENT, "incoming")] * 4


@pytest.mark.parametrize("running", ["isp-outbound"], indirect=True)
def test_isp_outbound(running: Lab) -> None:
    """Whoever sends to whom: nothing is protected."""
    before, many = len(running.gateway.mail_log("session")), [f"u{number}@example.net" for number in range(101)]
    for host, server in (("server", CLIENT), ("client", SERVER)):
        mails = ((A, USER, PLAIN), (A, USER, PROGRAM), (NULL, USER, PLAIN), (A, many, PLAIN))
        assert said(running, host, server, *mails) == ["accepted", 550, 550, 452]
    assert seen(running, before) == [(SERVER, "outgoing")] * 4 + [(CLIENT, "outgoing")] * 4
    assert "mta" not in running.gateway.pids()


@pytest.mark.parametrize("running", ["hub"], indirect=True)
def test_hub(running: Lab) -> None:
    """What a branch brings for somebody else is inspected on its way to the hub, and not once more behind it."""
    before, other = len(running.gateway.mail_log("session")), ["x@example.net"]
    mails = ((A, other, PLAIN), (A, other, PROGRAM), (A, USER, PROGRAM), (NULL, USER, PLAIN))
    assert said(running, "client", SERVER, *mails) == ["accepted", 550, 550, [550]]
    assert said(running, "server", CLIENT, (A, other, PLAIN)) == ["accepted"]
    assert seen(running, before) == [(CLIENT, "incoming")] * 4
