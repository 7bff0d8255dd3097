"""Clients that speak before the server does, with octets that are no SMTP: TLS crosses where its server speaks it, the
PROXY protocol from those that are named balancers.

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


@pytest.fixture(scope="module")
def servers(lab: Lab, lanes: None) -> dict[str, MailServer]:
    host = lab.host("server")
    pem = host.directory / "server.pem"
    pem.write_text(certificate())
    return {
        "tls": MailServer.start(host, SERVER, port=PORTS["tls"], certificate=str(pem), tls_at_once=True),
        "proxy": MailServer.start(host, SERVER, port=PORTS["proxy"], proxied=True),
    }


def test_their_mail_arrives_and_is_inspected_or_counted(lab: Lab, servers: dict[str, MailServer]) -> None:
    balanced = {**CONFIG, "intercept": {**CONFIG["intercept"], "balancers": [CLIENT]}}
    with lab.gateway.running(balanced):
        for first, script in CLIENTS.items():
            lab.host("client").python(script, SERVER, f"{first}@example.net")
            assert servers[first].messages(sender=f"{first}@example.net")
        sessions = lab.gateway.wait_sessions(0, len(CLIENTS))  # they may end in any order
        encrypted, proxied = sorted(sessions, key=lambda each: -int(each["server"]["port"]))
        assert lab.gateway.wait_log(type="message", sender="proxy@example.net", outcome="accepted")
        hung.wait_until(lambda: lab.gateway.status()["not_inspected"]["encrypted"] == 1, "TLS is counted")
        assert lab.gateway.status()["not_inspected"]["in_doubt"] == 0
    assert (encrypted["server"]["port"], encrypted["tls"], encrypted["doubt"]) == (PORTS["tls"], "started", None)
    assert (proxied["client"]["address"], proxied["client"]["port"]) == ("203.0.113.5", 0x3039)
    assert proxied["balancer"]["address"] == CLIENT


def test_who_is_no_balancer_speaks_for_nobody(lab: Lab, servers: dict[str, MailServer]) -> None:
    with lab.gateway.running(CONFIG):
        client = lab.host("client").python(CLIENTS["proxy"], SERVER, "ended@example.net", check=False)
        assert client.returncode
        assert not servers["proxy"].messages(sender="ended@example.net")
        assert lab.gateway.wait_log(type="session", doubted="client", outcome="aborted")
        hung.wait_until(lambda: lab.gateway.status()["mail"]["foreign"] == 1, "it is counted")
