"""Rules that ask the DNS, on the wire: live and in the MTA, with a name server that answers, fails and dies.

::

    client .10 .11 .12 ── p0 ─ gateway ─ p1 ── server .20
                               nsd 127.0.0.1:53
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from smtp_intercept.app.lab.host import SOON_S
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.kernel.resolver import Resolver

pytestmark = pytest.mark.kernel

NUMBERS = (10, 11, 12)
WIRES: Wires = {
    "outside": (Station("client", (*(f"192.0.2.{n}/24" for n in NUMBERS), *(f"2001:db8::{n}/64" for n in NUMBERS))),),
    "inside": (Station("server", ("192.0.2.20/24", "2001:db8::20/64")),),
}


def nibbles(address: str) -> str:
    return ".".join(reversed(ip_address(address).exploded.replace(":", "")))


ZONES: dict[str, str | None] = {
    "2.0.192.in-addr.arpa": "10 PTR mx.sender.test.\n12 PTR dial12.isp.test.\n",
    "ip6.arpa": f"{nibbles('2001:db8::10')} PTR mx.sender.test.\n",
    "sender.test": "@ MX 10 mx\nmx A 192.0.2.10\nmx AAAA 2001:db8::10\n",
    "isp.test": "dial12 A 192.0.2.12\n",
    "null.test": "@ MX 0 .\n",
    "black.test": f"11.2.0.192 A 127.0.0.2\n{nibbles('2001:db8::11')} A 127.0.0.2\n12.2.0.192 A 127.0.0.9\n",
    "broken.test": None,
}
RULES: list[dict[str, Any]] = [
    {"name": "black", "when": {"dns_list": "black"}, "then": {"refuse": "554 5.7.1 listed"}},
    {"name": "dial", "when": {"client_name": "*.isp.test"}, "then": {"refuse": "554 5.7.1 no dial-up"}},
    {"name": "unnamed", "when": {"client_named": False, "helo": "shy.test"}, "then": {"refuse": "550 5.7.25 no name"}},
    {"name": "helo", "when": {"helo_resolves": False}, "then": {"tag_subject": "[HELO]"}},
    {
        "name": "nowhere",
        "when": {"sender_resolves": False},
        "then": {"refuse": "550 5.1.8 no such domain"},
        "unanswered": "defer",
    },
    {"name": "lost", "when": {"dns_list": "lost"}, "then": {"refuse": "554 5.7.1 never"}},
]
CONFIG: dict[str, Any] = {
    "protected": [{"domain": "example.com", "servers": ["192.0.2.20", "2001:db8::20"]}],
    "inspect": {"dns_wait_s": 2},
    "dns": {
        "timeout_s": 2,
        "list": {
            "black": {"zone": "black.test", "answers": ["127.0.0.2"]},
            "lost": {"zone": "broken.test", "wait_s": 1},
        },
    },
    "rule": RULES,
}
TALK = """
import json, smtplib, sys, time
heard = []
for source, server, helo, sender in json.loads(sys.argv[1]):
    began_at = time.monotonic()
    client = smtplib.SMTP(timeout=20, local_hostname=helo, source_address=(source, 0))
    try:
        code, text = client.connect(server, 25)
        if code == 220:
            client.sendmail(sender, ["user@example.com"], "Subject: x\\r\\n\\r\\nhello\\r\\n")
            code, text = 250, b""
    except smtplib.SMTPSenderRefused as error:
        code, text = error.smtp_code, error.smtp_error
    except smtplib.SMTPHeloError as error:
        code, text = error.smtp_code, error.smtp_error
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
    except smtplib.SMTPResponseException as error:
        code, text = error.smtp_code, error.smtp_error
    heard.append([code, text.decode(), time.monotonic() - began_at])
    client.close()
print(json.dumps(heard))
"""


def said(lab: Lab, *mails: tuple[str, str, str]) -> list[tuple[str, float]]:
    """What the client hears from the server of its version of IP, and how long that took."""
    client = lab.host("client")
    talk = [[source, "2001:db8::20" if ":" in source else "192.0.2.20", *rest] for source, *rest in mails]
    heard = client.run([client.interpreter, "-c", TALK, json.dumps(talk)], timeout_s=100).json()
    return [(f"{code} {text}".strip(), seconds) for code, text, seconds in heard]


GOOD, BAD = "mx.sender.test", "a@sender.test"
CASES: dict[tuple[str, str, str], str] = {
    ("192.0.2.10", GOOD, BAD): "250",
    ("2001:db8::10", GOOD, BAD): "250",
    ("192.0.2.11", GOOD, BAD): "554 5.7.1 listed",
    ("2001:db8::11", GOOD, BAD): "554 5.7.1 listed",
    ("192.0.2.12", GOOD, BAD): "554 5.7.1 no dial-up",
    ("2001:db8::12", "shy.test", BAD): "550 5.7.25 no name",
    ("192.0.2.10", GOOD, "a@null.test"): "550 5.1.8 no such domain",
    ("192.0.2.10", GOOD, "a@nowhere.sender.test"): "550 5.1.8 no such domain",
    ("192.0.2.10", GOOD, ""): "250",
    ("192.0.2.10", GOOD, "a@broken.test"): "451 4.4.3 Cannot be decided now, come again later",
    ("192.0.2.10", "no.sender.test", BAD): "250",
}


@pytest.fixture(scope="module")
def asking(lanes: None, lab: Lab) -> Iterator[tuple[Lab, MailServer, Resolver]]:
    gateway = lab.gateway
    with Resolver(gateway, gateway.namespace) as resolver:
        resolver.serve(ZONES)
        gateway.configure({**CONFIG, "inspect": {"dns_wait_s": 2, "directory": str(gateway.directory / "held")}})
        server = MailServer.start(lab.host("server"))
        gateway.start()
        yield lab, server, resolver
        gateway.stop()


def test_what_clients_hear(asking: tuple[Lab, MailServer, Resolver]) -> None:
    lab, _, _ = asking
    found = dict(zip(CASES, said(lab, *CASES), strict=True))
    assert {case: text for case, (text, _) in found.items()} == CASES
    assert max(seconds for _, seconds in found.values()) < 12
    deadline_at = time.monotonic() + SOON_S
    while lab.gateway.state()["interceptor"]["counts"]["lookups"] == 0:  # which it reports now and then
        assert time.monotonic() < deadline_at
        time.sleep(0.1)


def test_a_name_server_that_dies_delays_for_no_longer_than_it_may(asking: tuple[Lab, MailServer, Resolver]) -> None:
    lab, _, resolver = asking
    resolver.stop()
    mail = ("192.0.2.10", GOOD, "a@gone.sender.test")
    ((text, seconds),) = said(lab, mail)
    assert text == "451 4.4.3 Cannot be decided now, come again later"
    assert seconds < 15
    resolver.serve(ZONES)
    deadline_at = time.monotonic() + 40
    while said(lab, mail)[0][0] != "550 5.1.8 no such domain":
        assert time.monotonic() < deadline_at
        time.sleep(2)


def test_the_mta_goes_by_the_same(asking: tuple[Lab, MailServer, Resolver]) -> None:
    """The last: it takes the lab's gateway down, and up with the other handler."""
    lab, _, _ = asking
    lab.gateway.stop()
    mta = {"hostname": "box.example", "spool": str(lab.gateway.directory / "spool"), "tls": "none"}
    lab.gateway.configure({**CONFIG, "intercept": {"incoming": "mta"}, "mta": mta})
    lab.gateway.start()
    found = dict(zip(CASES, said(lab, *CASES), strict=True))
    assert {case: text for case, (text, _) in found.items()} == CASES
