r"""The next-hop table end to end: real servers, a real DNS, and the box's MTA between them.

::

    client .10 ── p0 ┐                     ┌ p1 ── server  .20 Postfix   (protected: postfix.test)
                     ├─ gateway .2, nsd ───┤       second  .21 OpenSMTPD (relays exim.test to .30)
                     │                     └ p2 ── world   .30 Exim      (MX of exim.test)

| row | dialled       | handler | configuration              | recipient    | arrives at | by way of |
|-----|---------------|---------|----------------------------|--------------|------------|-----------|
| R1  | .20 protected | mta     |                            | postfix.test | Postfix    |           |
| R2  | .21 protected | mta     | deliver_via_server         | exim.test    | Exim       | OpenSMTPD |
| R3  | .20 protected | mta     | relay host .21             | exim.test    | Exim       | OpenSMTPD |
| R4  | .20 protected | mta     |                            | exim.test    | Exim       |           |
| R5  | .30           | proxy   |                            | exim.test    | Exim       |           |
| R6  | .30           | mta     |                            | postfix.test | Postfix    |           |
| R7  | .30           | mta     | relay host .21             | exim.test    | Exim       | OpenSMTPD |
| R8  | .21           | mta     |                            | exim.test    | Exim       |           |
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from smtp_intercept.app.lab.host import LabError
from smtp_intercept.app.lab.mail import send
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.kernel.resolver import Resolver
from tests.peers import exim, opensmtpd, postfix
from tests.peers.matrix import certificate
from tests.peers.peer import Delivery, Peer

pytestmark = pytest.mark.kernel

CLIENT, BOX, SERVER, SECOND, WORLD = (f"192.0.2.{n}" for n in (10, 2, 20, 21, 30))


def station(name: str, number: int) -> Station:
    return Station(name, (f"192.0.2.{number}/24", f"2001:db8::{number}/64"))


WIRES: Wires = {
    "outside": (station("client", 10),),
    "inside": (station("server", 20), station("second", 21)),
    "third": (station("world", 30),),
}
ZONES: Mapping[str, str] = {
    "exim.test": "@ MX 10 mail\nmail A 192.0.2.30\n",
    "postfix.test": "@ MX 10 mail\nmail A 192.0.2.20\n",
}
BASE: dict[str, Any] = {
    "bridge": {"management": [f"{BOX}/24", "2001:db8::2/64"]},
    "pickup": {"incoming": "intercept", "outgoing": "intercept"},
    "protected": [{"domain": "postfix.test", "servers": [SERVER]}],
    "mta": {"hostname": "box.test", "relay_from": [f"{CLIENT}/32"]},
    "limits": {"drain_s": 2},
}
INCOMING: dict[str, Any] = {"intercept": {"incoming": "mta"}}
OUTGOING: dict[str, Any] = {"intercept": {"outgoing": "mta"}}
RELAY: dict[str, Any] = {"relay": {"host": SECOND}}
VIA: dict[str, Any] = {
    "protected": [
        {"domain": "postfix.test", "servers": [SERVER]},
        {"domain": "opensmtpd.test", "servers": [SECOND], "deliver_via_server": True},
    ]
}


@dataclass(frozen=True)
class Row:
    name: str
    dialled: str
    config: Mapping[str, Any]
    recipient: str
    arrives_at: str
    by_way_of: str = ""
    handler: str = "mta"


ROWS = (
    Row("R1", SERVER, INCOMING, "u@postfix.test", "postfix"),
    Row("R2", SECOND, INCOMING | VIA, "u@exim.test", "exim", "opensmtpd"),
    Row("R3", SERVER, INCOMING | RELAY, "u@exim.test", "exim", "opensmtpd"),
    Row("R4", SERVER, INCOMING, "u@exim.test", "exim"),
    Row("R5", WORLD, {}, "u@exim.test", "exim", handler="proxy"),
    Row("R6", WORLD, OUTGOING, "u@postfix.test", "postfix"),
    Row("R7", WORLD, OUTGOING | RELAY, "u@exim.test", "exim", "opensmtpd"),
    Row("R8", SECOND, OUTGOING, "u@exim.test", "exim"),
)


@dataclass
class World:
    lab: Lab
    peers: Mapping[str, Peer]
    dns: Resolver


@pytest.fixture(scope="module")
def world(lanes: None, lab: Lab) -> Iterator[World]:
    pem = certificate()
    peers = {
        "postfix": postfix.start(lab.host("server"), SERVER, pem),
        "opensmtpd": opensmtpd.start(lab.host("second"), SECOND, pem, {"exim.test": WORLD}),
        "exim": exim.start(lab.host("world"), WORLD, pem),
    }
    with Resolver(lab.gateway, lab.gateway.namespace) as dns:
        dns.serve(ZONES)
        for peer in peers.values():
            peer.wait_ready()
        yield World(lab, peers, dns)


def configured(world: World, config: Mapping[str, Any]) -> dict[str, Any]:
    """`BASE` with these tables over it, and a spool in the gateway's own directory."""
    tables = {**BASE, **config}
    tables["mta"] = {**BASE["mta"], "spool": str(world.lab.gateway.directory / "spool"), **config.get("mta", {})}
    return tables


def arrived(peer: Peer, subject: str, timeout_s: float = 15.0) -> Delivery:
    """The one message with that subject, once it is there."""
    deadline_at = time.monotonic() + timeout_s
    while True:
        found = [
            each
            for each in peer.deliveries()
            if f"\nSubject: {subject}\r\n".encode() in each.content
            or f"\nSubject: {subject}\n".encode() in each.content
        ]
        if found:
            assert len(found) == 1
            return found[0]
        if time.monotonic() > deadline_at:
            raise LabError(f"no {subject!r} at {peer.name}: {[each.content[:300] for each in peer.deliveries()]}")
        time.sleep(0.05)


def post(world: World, dialled: str, to: str | list[str], subject: str, sender: str = "s@postfix.test") -> Any:
    """From the client; the one message's report."""
    client = world.lab.host("client")
    message = client.directory / f"{subject}.eml"
    message.write_bytes(f"From: <{sender}>\r\nSubject: {subject}\r\n\r\n.dot\r\nbody of {subject}\r\n".encode())
    (report,) = send(client, dialled, to, source=CLIENT, sender=sender, message=str(message))
    return report


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_table(world: World, row: Row) -> None:
    gateway = world.lab.gateway
    subject = f"row-{row.name}"
    with gateway.running(configured(world, row.config)):
        report = post(world, row.dialled, row.recipient, subject)
        assert report["accepted"], report
        stored = arrived(world.peers[row.arrives_at], subject)
        assert stored.recipients == (row.recipient,)
        (session,) = gateway.wait_log(type="session", handler=row.handler)[-1:]
        assert (session["client"]["address"], session["server"]["address"]) == (CLIENT, row.dialled)
        if row.handler == "mta":
            (delivery,) = gateway.wait_log(type="delivery", outcome="delivered", row=row.name)[-1:]
            assert delivery["recipient"] == row.recipient
    received = re.findall(rb"^Received: (?:.*\n[ \t]+)*.*", stored.content, re.M)
    names = b"\n".join(received)
    assert (b"by box.test" in names) == (row.handler == "mta")
    assert (b"opensmtpd.test" in names) == (row.by_way_of == "opensmtpd")
    assert b"\n.dot" in stored.content
