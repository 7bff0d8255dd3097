r"""The MTA as a part of the box: who it is to the server, what happens without it, what an administrator sees.

::

    client .10 ── p0 ┐                ┌ p1 ── server .20 (protected: example.com)
                     ├─ gateway .2 ───┤
                     │                └ p2 ── other  .30
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest

from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.gateway import Gateway
from smtp_intercept.app.lab.host import SOON_S, patient
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import THREE_WIRES, Lab
from tests.mta.test_relaying import DENIED

pytestmark = pytest.mark.kernel

WIRES = THREE_WIRES
CLIENT, BOX, SERVER, OTHER = (f"192.0.2.{n}" for n in (10, 2, 20, 30))
CLIENT6, SERVER6 = "2001:db8::10", "2001:db8::20"


def config(lab: Lab, **tables: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bridge": {"management": [f"{BOX}/24", "2001:db8::2/64"], **tables.get("bridge", {})},
        "protected": [{"domain": "example.com", "servers": [SERVER, SERVER6]}],
        "intercept": {"incoming": "mta"},
        "mta": {"hostname": "box.test", "spool": str(lab.gateway.directory / "spool"), **tables.get("mta", {})},
        "limits": {"drain_s": 2},
    }


@pytest.fixture(scope="module")
def mailbox(lanes: None, lab: Lab) -> MailServer:
    return MailServer.start(lab.host("server"))


def take(mailbox: MailServer, sender: str, timeout_s: float = SOON_S) -> dict[str, Any]:
    """The server's record of the one message from ``sender``, once it is there."""
    deadline_at = time.monotonic() + patient(timeout_s)
    while not (found := mailbox.messages(sender=sender)):
        assert time.monotonic() < deadline_at, f"nothing from {sender}"
        time.sleep(0.05)
    (record,) = found
    return record


def post(lab: Lab, sender: str, source: str = CLIENT, server: str = SERVER, **settings: Any) -> dict[str, Any]:
    (report,) = send(lab.host("client"), server, "user@example.com", source=source, sender=sender, **settings)
    assert report["accepted"], report
    return report


@pytest.mark.parametrize(("source", "server"), [(CLIENT, SERVER), (CLIENT6, SERVER6)], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("name", ["box", "client"])
def test_who_dials_the_server(lab: Lab, mailbox: MailServer, name: str, source: str, server: str) -> None:
    """``mta.source``: the box itself, or the client's address and port, as far as the lane knows the way."""
    sender = f"{name}{source}@example.net".replace(":", "-")
    with lab.gateway.running(config(lab, mta={"source": name})):
        report = post(lab, sender, source, server)
        record = take(mailbox, sender)
    box = BOX if source == CLIENT else "2001:db8::2"
    assert record["client"]["address"] == (box if name == "box" else source)
    if name == "client":
        assert record["client"]["port"] == report["attempts"][0]["client_port"]
    assert record["helo"] == "box.test"


RECIPIENTS = """
import json, smtplib, sys
sender, *recipients = sys.argv[3:]
with smtplib.SMTP(sys.argv[2], 25, timeout=20, source_address=(sys.argv[1], 0)) as session:
    session.command_encoding = "utf-8"
    session.ehlo("client.example.net")
    assert session.docmd(f"MAIL FROM:<{sender}> SMTPUTF8")[0] == 250
    print(json.dumps({each: session.docmd(f"RCPT TO:<{each}>")[0] for each in recipients}))
"""


def test_never_an_open_relay(lab: Lab, mailbox: MailServer) -> None:
    """The attempts of tests/mta/test_relaying.py, of a client that nobody listed, through the running box: from a
    protected sender and the null one, on incoming connections and outgoing ones."""
    tables = config(lab) | {"intercept": {"incoming": "mta", "outgoing": "mta"}, "pickup": {"outgoing": "intercept"}}
    with lab.gateway.running(tables) as gateway:
        for server, sender in product((SERVER, OTHER), ("user@example.com", "")):
            tried = [*DENIED, "user@example.com"]
            replies = lab.host("client").python(RECIPIENTS, CLIENT, server, sender, *tried).json()
            assert replies.pop("user@example.com") == 250
            assert len(replies) >= 20
            assert {each: code for each, code in replies.items() if code not in (501, 550)} == {}
        assert gateway.tollbridge("queue", "list", "--json").json_lines() == []


def test_a_relay_has_it_before_the_client_hears_so(lab: Lab, mailbox: MailServer) -> None:
    """``mta.queue = "relay"``: nothing is kept here, and a relay that is away leaves the mail at the client."""
    relay = MailServer.start(lab.host("other"))
    tables = {**config(lab, mta={"queue": "relay"}), "relay": {"host": OTHER}}
    with lab.gateway.running(tables) as gateway:
        post(lab, "relayed@example.net")
        take(relay, "relayed@example.net", timeout_s=0)
        relay.process.end()
        (report,) = send(lab.host("client"), SERVER, "user@example.com", source=CLIENT, sender="kept@example.net")
        assert not report["accepted"]
        assert "45" in report["attempts"][0]["error"]
        assert gateway.tollbridge("queue", "list", "--json").json_lines() == []


@pytest.fixture
def killed(lab: Lab) -> Iterator[Gateway]:
    """A gateway whose MTA is stopped: it holds its channel, and says nothing."""
    with lab.gateway.running(config(lab)) as gateway:
        pid = gateway.pids()["mta"]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1.5)
        yield gateway


def test_without_the_mta_mail_goes_on_live(killed: Gateway, lab: Lab, mailbox: MailServer) -> None:
    post(lab, "live@example.net")
    take(mailbox, "live@example.net")
    assert killed.wait_log(type="message", handler="proxy", sender="live@example.net")
    hung.wait_until(lambda: "not the MTA's" in killed.tollbridge("status").stdout, "status says so")


def test_with_block_it_waits_at_the_client(lab: Lab, mailbox: MailServer) -> None:
    with lab.gateway.running(config(lab, bridge={"on_failure": "block"})) as gateway:
        os.kill(gateway.pids()["mta"], signal.SIGSTOP)
        time.sleep(1.5)
        (report,) = send(lab.host("client"), SERVER, "user@example.com", source=CLIENT, sender="later@example.net")
        assert not report["accepted"]
        assert "421" in report["attempts"][0]["error"]
        os.kill(gateway.pids()["mta"], signal.SIGCONT)
        post(lab, "later@example.net", retries=60, pause=0.5)
        take(mailbox, "later@example.net")


def test_a_dead_mta_comes_back_with_its_queue(lab: Lab, mailbox: MailServer) -> None:
    """Mail for a server that is down waits, survives kill -9, and is delivered when the server is there."""
    with lab.gateway.running(config(lab)) as gateway:
        mailbox.process.end()
        post(lab, "kept@example.net")
        before = gateway.pids()["mta"]
        os.kill(before, signal.SIGKILL)
        hung.wait_until(lambda: gateway.pids().get("mta", before) != before, "there is another")
        (entry,) = gateway.tollbridge("queue", "list", "--json").json_lines()
        assert entry["sender"] == "kept@example.net"
        again = MailServer.start(lab.host("server"))
        gateway.tollbridge("queue", "retry", "--all")
        take(again, "kept@example.net")
        hung.wait_until(lambda: waiting(gateway) == 0, "nothing waits any more")


def waiting(gateway: Gateway) -> int | None:
    """Messages in the queue, as the MTA tells; None: it has not told anything yet."""
    told = (gateway.status()["mta"] or {}).get("queue") or {}
    return None if "messages" not in told else int(told["messages"])
