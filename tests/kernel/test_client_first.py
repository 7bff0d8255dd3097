"""Clients that speak before the server does, with octets that are no SMTP: the box lets them cross, unread and counted.

::

    client ── p0 [ gateway ] p1 ── server    465 TLS from the first octet (RFC 8314)
                                             25  PROXY protocol, version 2, before the dialogue
"""

from __future__ import annotations

from typing import Any

import pytest

from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab
from tests.peers.matrix import certificate

SERVER, CLIENT = "192.0.2.20", "192.0.2.10"
CONFIG: dict[str, Any] = {
    "intercept": {"ports": [25, 465]},
    "protected": [{"domain": "example.com", "servers": [SERVER]}],
}
DOUBT = "client speaks first and not SMTP"
SEND = """
client.ehlo("first.example.net")
client.sendmail(sys.argv[2], ["user@example.com"], b"Subject: first\\r\\n\\r\\nthrough\\r\\n")
client.quit()
"""
TLS = f"""
import smtplib, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
client = smtplib.SMTP_SSL(sys.argv[1], 465, timeout=10, context=context, source_address=("{CLIENT}", 0))
{SEND}
"""
PROXY = f"""
import smtplib, socket, sys
class Proxied(smtplib.SMTP):
    def _get_socket(self, *where):
        sock = super()._get_socket(*where)
        header = b"\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21\\x11\\0\\x0c"
        sock.sendall(header + socket.inet_aton("203.0.113.5") + socket.inet_aton(sys.argv[1]) + b"\\x30\\x39\\0\\x19")
        return sock
client = Proxied(sys.argv[1], 25, timeout=10, source_address=("{CLIENT}", 0))
{SEND}
"""
CLIENTS = {"tls": TLS, "proxy": PROXY}
PORTS = {"tls": 465, "proxy": 25}


def counted(lab: Lab) -> int:
    return int(lab.gateway.status()["not_inspected"]["in_doubt"])


@pytest.fixture(scope="module")
def servers(lab: Lab, lanes: None) -> dict[str, MailServer]:
    host = lab.host("server")
    pem = host.directory / "server.pem"
    pem.write_text(certificate())
    return {
        "tls": MailServer.start(host, SERVER, port=PORTS["tls"], certificate=str(pem), tls_at_once=True),
        "proxy": MailServer.start(host, SERVER, port=PORTS["proxy"], proxied=True),
    }


def test_their_mail_arrives_and_they_are_counted(lab: Lab, servers: dict[str, MailServer]) -> None:
    with lab.gateway.running(CONFIG):
        for number, (first, script) in enumerate(CLIENTS.items(), 1):
            lab.host("client").python(script, SERVER, f"{first}@example.net")
            assert servers[first].messages(sender=f"{first}@example.net")
            hung.wait_until(lambda number=number: counted(lab) == number, f"{first} is counted")  # type: ignore[misc]
        sessions = lab.gateway.mail_log("session")
    assert [session["server"]["port"] for session in sessions] == list(PORTS.values())
    assert {session["doubt"] for session in sessions} == {DOUBT}


def test_in_doubt_they_are_ended_if_that_is_wanted(lab: Lab, servers: dict[str, MailServer]) -> None:
    closing = {**CONFIG, "intercept": {**CONFIG["intercept"], "on_doubt": "close"}}
    with lab.gateway.running(closing):
        for first, script in CLIENTS.items():
            assert lab.host("client").python(script, SERVER, "ended@example.net", check=False).returncode
            assert not servers[first].messages(sender="ended@example.net")
        assert lab.gateway.wait_log(type="session", doubt=DOUBT, outcome="aborted")
