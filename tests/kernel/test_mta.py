r"""The next-hop table end to end: real servers, a real DNS, and the box's MTA between them.

::

    client .10 ── p0 ┐                     ┌ p1 ── server  .20 Postfix   (protected: postfix.test)
                     ├─ gateway .2, nsd ───┤       second  .21 OpenSMTPD (relays exim.test to .30)
                     │                     └ p2 ── world   .30 Exim      (MX of exim.test), .31

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
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.gateway import Gateway
from smtp_intercept.app.lab.host import SOON_S, LabError
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.kernel.resolver import Resolver
from tests.peers import exim, opensmtpd, postfix
from tests.peers.matrix import certificate
from tests.peers.peer import PLAIN, Delivery, Peer, Route

pytestmark = pytest.mark.kernel

CLIENT, UNLISTED, BOX, SERVER, SECOND, WORLD = (f"192.0.2.{n}" for n in (10, 11, 2, 20, 21, 30))
SENDER = "s@postfix.test"


def station(name: str, *numbers: int) -> Station:
    return Station(name, tuple(f"{prefix}{n}/{length}" for prefix, length in NETWORKS for n in numbers))


NETWORKS = (("192.0.2.", 24), ("2001:db8::", 64))
WIRES: Wires = {
    "outside": (station("client", 10, 11),),
    "inside": (station("server", 20), station("second", 21)),
    "third": (station("world", 30, 31),),
}
ZONES: Mapping[str, str | None] = {
    "exim.test": "@ MX 10 mail\nmail A 192.0.2.30\n",
    "null.test": "@ MX 0 .\n",
    "own.test": "@ MX 10 mail\nmail A 192.0.2.2\n",
    "dead.test": "@ MX 10 dead\n@ MX 20 mail.exim.test.\ndead A 192.0.2.99\n",
    "six.test": "@ MX 10 mail\nmail AAAA 2001:db8::31\n",
    "broken.test": None,
    "stuck.test": None,
    "postfix.test": "@ MX 10 mail\nmail A 192.0.2.20\n",
}
BASE: dict[str, Any] = {
    "bridge": {"management": [f"{BOX}/24", "2001:db8::2/64"]},
    # What the relay sends on is its own: picked up again, it would come back to the relay.
    "pickup": {
        "incoming": "intercept",
        "outgoing": "intercept",
        "rule": [{"client": SECOND, "direction": "outgoing", "action": "pass"}],
    },
    "protected": [{"domain": "postfix.test", "servers": [SERVER]}],
    "mta": {"hostname": "box.test", "relay_from": [f"{CLIENT}/32"], "relay_from_ports": ["p0"]},
    "limits": {"drain_s": 2},
}
INCOMING: dict[str, Any] = {"intercept": {"incoming": "mta"}}
OUTGOING: dict[str, Any] = {"intercept": {"outgoing": "mta"}}
RELAY: dict[str, Any] = {"relay": {"host": SECOND}}
BY_ADDRESS: dict[str, Any] = {
    "intercept": {"incoming": "mta", "outgoing": "mta"},
    "protected": [{"servers": [SERVER]}],
}
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
    Row("R4", SERVER, INCOMING, "u@exim.test", "exim"),
    Row("R2", SECOND, INCOMING | VIA, "u@exim.test", "exim", "opensmtpd"),
    Row("R3", SERVER, INCOMING | RELAY, "u@exim.test", "exim", "opensmtpd"),
    Row("R5", WORLD, {}, "u@exim.test", "exim", handler="proxy"),
    Row("R6", WORLD, OUTGOING, "u@postfix.test", "postfix"),
    Row("R8", SECOND, OUTGOING, "u@exim.test", "exim"),
    Row("R7", WORLD, OUTGOING | RELAY, "u@exim.test", "exim", "opensmtpd"),
)


@dataclass
class World:
    """``at_work`` is the configuration that the gateway has now: tests of the same one share a run."""

    lab: Lab
    peers: Mapping[str, Peer]
    dns: Resolver
    stack: ExitStack
    at_work: Mapping[str, Any] | None = None

    def with_(self, config: Mapping[str, Any]) -> Gateway:
        """The gateway at work with `BASE` and these tables over it."""
        if self.at_work != config:
            self.stack.close()
            self.at_work = None
            mta = {**BASE["mta"], "spool": str(self.lab.gateway.directory / "spool"), **config.get("mta", {})}
            self.stack.enter_context(self.lab.gateway.running({**BASE, **config, "mta": mta}))
            self.at_work = config
        return self.lab.gateway


@pytest.fixture(scope="module")
def world(lanes: None, lab: Lab) -> Iterator[World]:
    pem = certificate()
    peers = {
        "postfix": postfix.start(lab.host("server"), SERVER, pem),
        "opensmtpd": opensmtpd.start(lab.host("second"), SECOND, pem, [Route("exim.test", WORLD, PLAIN)]),
        "exim": exim.start(lab.host("world"), WORLD, pem),
    }
    with Resolver(lab.gateway, lab.gateway.namespace) as dns, ExitStack() as stack:
        lab.gateway.bridge_bare()
        for peer in peers.values():
            peer.wait_ready()
        lab.gateway.unbridge()
        dns.serve(ZONES)
        yield World(lab, peers, dns, stack)


def arrived(peer: Peer, text: str, timeout_s: float = SOON_S) -> Delivery:
    """The one message that has ``text`` in it, once it is there."""
    deadline_at = time.monotonic() + timeout_s
    while not (found := [each for each in peer.deliveries() if text.encode() in each.content]):
        if time.monotonic() > deadline_at:
            raise LabError(f"no {text!r} at {peer.name}")
        time.sleep(0.05)
    assert len(found) == 1
    return found[0]


def post(world: World, dialled: str, to: str | list[str], subject: str, source: str = CLIENT) -> dict[str, Any]:
    """From the client; the one message's report."""
    client = world.lab.host("client")
    message = client.directory / f"{subject}.eml"
    message.write_bytes(f"From: <{SENDER}>\r\nSubject: {subject}\r\n\r\n.dot\r\nbody of {subject}\r\n".encode())
    (report,) = send(client, dialled, to, source=source, sender=SENDER, message=str(message))
    return report


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_table(world: World, row: Row) -> None:
    gateway = world.with_(row.config)
    subject = f"row-{row.name}"
    assert post(world, row.dialled, row.recipient, subject)["accepted"]
    stored = arrived(world.peers[row.arrives_at], f"Subject: {subject}")
    assert stored.recipients == (row.recipient,)
    message = gateway.wait_log(type="message", handler=row.handler)[-1]  # it was there before the client heard 250
    (session,) = gateway.wait_log(type="session", session=message["session"])
    assert (session["client"]["address"], session["server"]["address"]) == (CLIENT, row.dialled)
    if row.handler == "mta":
        delivery = gateway.wait_log(type="delivery", outcome="delivered", row=row.name)[-1]
        assert delivery["recipient"] == row.recipient
    received = b"\n".join(re.findall(rb"^Received: (?:.*\n[ \t]+)*.*", stored.content, re.M))
    assert (b"by box.test" in received) == (row.handler == "mta")
    assert (b"by opensmtpd.test" in received) == (row.by_way_of == "opensmtpd")
    assert b"\n.dot" in stored.content


def test_a_message_to_both_kinds_is_split(world: World) -> None:
    gateway = world.with_(INCOMING)
    assert post(world, SERVER, ["u@postfix.test", "u@exim.test"], "mixed")["accepted"]
    for name in ("postfix", "exim"):
        assert arrived(world.peers[name], "Subject: mixed").recipients == (f"u@{name}.test",)
    queue_id = gateway.wait_log(type="message", handler="mta")[-1]["queue_id"]
    for recipient, row in (("u@postfix.test", "R1"), ("u@exim.test", "R4")):
        (delivery,) = gateway.wait_log(type="delivery", queue_id=queue_id, recipient=recipient)
        assert delivery["row"] == row


def test_an_unlisted_client_reaches_the_protected_only(world: World) -> None:
    world.with_(INCOMING)
    report = post(world, SERVER, ["u@postfix.test", "u@exim.test", "u%exim.test@postfix.test"], "relay", UNLISTED)
    (attempt,) = report["attempts"]
    assert attempt["outcome"] == "accepted"
    assert {rcpt: reply[0] for rcpt, reply in attempt["refused"].items()} == {
        "u@exim.test": 550,
        "u%exim.test@postfix.test": 550,
    }
    assert arrived(world.peers["postfix"], "Subject: relay").recipients == ("u@postfix.test",)


@pytest.mark.parametrize(("dialled", "row"), [(SERVER, "R1"), (WORLD, "R6")])
def test_a_server_without_a_domain_has_the_mail_of_its_address(world: World, dialled: str, row: str) -> None:
    """Whoever sends it, and whatever stands in the DNS; and through that address nobody else is reached."""
    gateway = world.with_(BY_ADDRESS)
    literal, subject = f"u@[{SERVER}]", f"literal-{row}"
    others = [f"u@[{WORLD}]", "u@postfix.test", f"u%exim.test@[{SERVER}]", f"@[{SERVER}]:u@exim.test"]
    (attempt,) = post(world, dialled, [literal, *others], subject, UNLISTED)["attempts"]
    assert {rcpt: reply[0] for rcpt, reply in attempt["refused"].items()} == dict.fromkeys(others, 550)
    message = gateway.wait_log(type="message", handler="mta")[-1]
    assert {each["address"] for each in message["recipients"] if each["direction"] == "incoming"} == {
        literal,
        others[2],
    }
    delivery = gateway.wait_log(type="delivery", queue_id=message["queue_id"])[-1]
    assert (delivery["outcome"], delivery["row"], delivery["next_hop"]) == ("delivered", row, f"{SERVER}:25")
    assert arrived(world.peers["postfix"], f"Subject: {subject}").recipients == (literal,)


@pytest.mark.parametrize(
    ("recipient", "status"), [("u@null.test", "5.1.10"), ("u@nowhere.exim.test", "5.1.2"), ("u@own.test", "5.4.6")]
)
def test_who_can_never_be_reached_comes_back(world: World, recipient: str, status: str) -> None:
    """A null MX, a domain that does not exist, an MX that is the box itself."""
    world.with_(INCOMING)
    assert post(world, SERVER, recipient, f"lost-{status}")["accepted"]
    notice = arrived(world.peers["postfix"], f"Status: {status}")
    assert (notice.sender, notice.recipients) == ("", (SENDER,))
    assert f"Final-Recipient: rfc822;{recipient}".encode() in notice.content.replace(b"; ", b";")
    assert f"Subject: lost-{status}".encode() in notice.content


def test_a_dead_mail_exchanger_is_passed_over(world: World) -> None:
    gateway = world.with_(INCOMING)
    assert post(world, SERVER, "u@dead.test", "dead")["accepted"]
    delivery = gateway.wait_log(type="delivery", recipient="u@dead.test")[-1]
    assert (delivery["outcome"], delivery["row"]) == ("delivered", "R4")
    assert "mail.exim.test" in delivery["host"]


def test_an_exchanger_with_ipv6_only(world: World) -> None:
    gateway = world.with_(INCOMING)
    exchanger = MailServer.start(world.lab.host("world"), "2001:db8::31")
    try:
        assert post(world, SERVER, "u@six.test", "six")["accepted"]
        delivery = gateway.wait_log(type="delivery", recipient="u@six.test")[-1]
        assert delivery["outcome"] == "delivered"
        assert "2001:db8::31" in delivery["host"]
    finally:
        exchanger.process.end()


def test_a_broken_domain_waits_and_recovers(world: World) -> None:
    """SERVFAIL: the mail stays, says why, and goes when the DNS is whole and an administrator says so."""
    gateway = world.with_(INCOMING)
    assert post(world, SERVER, "u@broken.test", "broken")["accepted"]
    first = gateway.wait_log(type="delivery", recipient="u@broken.test")[-1]
    assert first["outcome"] == "deferred"
    (entry,) = gateway.tollbridge("queue", "list", "--json").json_lines()
    assert entry["id"] == first["queue_id"]
    world.dns.serve({**ZONES, "broken.test": "@ MX 10 mail.exim.test.\n"})
    gateway.tollbridge("queue", "retry", entry["id"])
    (again,) = gateway.wait_log(type="delivery", queue_id=entry["id"], outcome="delivered")
    assert again["attempt"] == 2
    hung.wait_until(lambda: not gateway.tollbridge("queue", "list", "--json").json_lines(), "the queue is empty")


def test_an_administrator_reroutes(world: World) -> None:
    """An alternate host overrides the table."""
    gateway = world.with_(INCOMING)
    world.dns.serve(ZONES)
    assert post(world, SERVER, "rerouted@stuck.test", "rerouted")["accepted"]
    (first,) = gateway.wait_log(type="delivery", recipient="rerouted@stuck.test", attempt=1)
    gateway.tollbridge("queue", "reroute", first["queue_id"], "--via", WORLD)
    (again,) = gateway.wait_log(type="delivery", queue_id=first["queue_id"], outcome="delivered")
    assert (again["row"], again["next_hop"]) == ("alternate", f"{WORLD}:25")
