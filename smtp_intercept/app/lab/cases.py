"""The mail cases of the demo: send one message, then compare the accounts of client, server and the gateway's log.

Judges by what the peers saw; the gateway's word counts only for what it alone can know, the directions.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smtp_intercept.app.lab.figure1 import (
    COLLEAGUE,
    DROPPED,
    LOGIN,
    PASSED,
    PLAIN,
    REJECTED,
    STRANGER,
    SUBMISSION,
    USER,
    VERSIONS,
    Row,
    row,
)
from smtp_intercept.app.lab.host import Host
from smtp_intercept.app.lab.mail import MailServer, deliveries, send, sending
from smtp_intercept.app.lab.network import Lab

DROP_WAIT_S = 2.0
REJECT_MS = 100.0  # "at once": far below the second after which a client would repeat its SYN


@dataclass(frozen=True, slots=True)
class MailCase:
    """One message and how the gateway must class it; ``connection`` None: it must not touch it. ``login``: the client
    is a user's program, which says who it is (AUTH) before it submits."""

    title: str
    client: str
    server: str
    recipients: Mapping[str, str]
    connection: str | None
    source: int = PLAIN
    port: int = 25
    login: str = ""


CASES = (
    MailCase("incoming connection, incoming message", "mta", "relay", {USER: "incoming"}, "incoming"),
    MailCase("incoming connection, outgoing message", "mua", "relay", {STRANGER: "outgoing"}, "incoming"),
    MailCase(
        "incoming connection, mixed recipients",
        "mua",
        "relay",
        {USER: "incoming", STRANGER: "outgoing", COLLEAGUE: "incoming"},
        "incoming",
    ),
    MailCase("MUA authenticates and submits on 25", "mua", "relay", {STRANGER: "outgoing"}, "incoming", login=LOGIN),
    MailCase(
        "MUA authenticates and submits on 587",
        "mua",
        "relay",
        {USER: "incoming", STRANGER: "outgoing"},
        "incoming",
        port=SUBMISSION,
        login=LOGIN,
    ),
    MailCase("outgoing connection, incoming message", "relay", "mailbox", {USER: "incoming"}, "outgoing"),
    MailCase("outgoing connection, passed by its port's table", "user", "mta", {STRANGER: "outgoing"}, None),
    MailCase("incoming connection, passed by a rule", "mua", "relay", {USER: "incoming"}, None, PASSED),
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one message: the client's account, the server's, and the gateway's (None: it has none)."""

    case: MailCase
    version: int
    sender: str
    client: Host
    server: Host
    delivery: dict[str, Any]
    taken: dict[str, Any] | None


def post(lab: Lab, servers: Mapping[tuple[str, int], MailServer], case: MailCase, version: int) -> Evidence:
    """Send the message of one case; the server's record of it is complete when the client has its 250."""
    client, server = lab.host(case.client), lab.host(case.server)
    sender = f"case{CASES.index(case)}-ipv{version}@example.net"
    (delivery,) = send(
        client,
        server.of_version(version)[0],
        list(case.recipients),
        source=client.of_version(version)[case.source],
        helo=f"{case.client}.example.net",
        sender=sender,
        port=case.port,
        login=case.login or None,
    )
    taken = servers[case.server, case.port].messages(sender=sender)
    return Evidence(case, version, sender, client, server, delivery, taken[0] if taken else None)


def class_row(lab: Lab, item: Evidence) -> Row:
    """Direction of connection and recipients, from the mail log, and the port of arrival."""
    port = next(wire.port for wire in lab.wires if any(host is item.client for host, _ in wire.ends))
    user = f"{item.case.login.partition(':')[0]} on {item.case.port}" if item.case.login else ""
    expected = classes(item.case.connection, item.case.recipients, port, user)
    messages = lab.gateway.wait_log(type="message", sender=item.sender)
    if len(messages) != 1:
        return row(item.case.title, item.version, expected, f"{len(messages)} records; {fate(item)}", False)
    sessions = lab.gateway.wait_log(type="session", session=messages[0]["session"])
    recipients = {entry["address"]: entry["direction"] for entry in messages[0]["recipients"]}
    taken = item.taken
    known = f"{taken['user']} on {taken['server']['port']}" if taken and taken["user"] else ""
    seen = classes(messages[0]["direction"], recipients, sessions[0]["port"] if sessions else "?", known)
    holds = seen == expected and delivered(item) and messages[0]["outcome"] == "accepted"
    if item.case.login and (secret := leaked(json.dumps(lab.gateway.mail_log()), item.case.login)):
        seen, holds = f"{seen}; the mail log has {secret!r}", False
    return row(item.case.title, item.version, expected, seen if holds else f"{seen}; {fate(item)}", holds)


def classes(connection: str | None, recipients: Mapping[str, str], port: str, user: str) -> str:
    who = f"authenticated as {user}, " if user else ""
    return f"{who}{connection} on {port}: " + ", ".join(f"{address} {way}" for address, way in recipients.items())


def leaked(log: str, login: str) -> str:
    """What of the password is in the log, as it is or as AUTH PLAIN and LOGIN send it; "": nothing."""
    user, _, password = login.partition(":")
    sent = (f"\0{user}\0{password}", password)
    known = [password, *(base64.b64encode(text.encode()).decode() for text in sent)]
    return next((secret for secret in known if secret in log), "")


def delivered(item: Evidence) -> bool:
    """The client was told that it was taken, and the server has it, byte for byte."""
    return bool(item.delivery["accepted"] and item.taken and item.taken["sha256"] == item.delivery["sha256"])


def fate(item: Evidence) -> str:
    last = item.delivery["attempts"][-1]
    return str(last.get("error", last["outcome"])) if not delivered(item) else "delivered"


def untouched_row(lab: Lab, item: Evidence) -> Row:
    """Not one record of it in the mail log, and the server saw the client itself."""
    port = item.delivery["attempts"][-1].get("client_port")
    records = [
        entry
        for entry in lab.gateway.mail_log()
        if entry.get("sender") == item.sender or entry.get("client", {}).get("port") == port
    ]
    holds = delivered(item) and not records and sight(item) == itself(item)
    seen = f"{len(records)} records, {fate(item)}, server saw {sight(item) if holds else (sight(item), itself(item))}"
    return row(item.case.title, item.version, "no record, delivered, server saw the client itself", seen, holds)


def itself(item: Evidence) -> str:
    """The client as it is: MAC, IP, source port, EHLO name, and the server that it dialled."""
    address = item.client.of_version(item.version)[item.case.source]
    port = item.delivery["attempts"][-1].get("client_port")
    return f"{item.client.mac} {address} port {port} EHLO {item.case.client}.example.net"


def sight(item: Evidence) -> str:
    """The client as the server saw it; the MAC is from the SYN."""
    if item.taken is None:
        return "nothing"
    client, mac = item.taken["client"], (item.taken["mac"] or {}).get("source")
    return f"{mac} {client['address']} port {client['port']} EHLO {item.taken['helo']}"


def identity_row(evidence: Sequence[Evidence], version: int) -> Row:
    """What the servers saw of the clients whose mail was intercepted."""
    items = [item for item in evidence if item.case.connection and item.version == version]
    wrong = [f"{sight(item)} for {itself(item)}" for item in items if sight(item) != itself(item)]
    seen = wrong[0] if wrong else f"{len(items)} of {len(items)}, e.g. {sight(items[0])}"
    return row("what the server saw", version, "the client's own MAC, IP, port and EHLO name", seen, not wrong)


def refusals(lab: Lab, relay_server: MailServer) -> Iterator[Row]:
    """Both at once: the time-out of the dropped ones is waited for only once."""
    client, relay = lab.host("mua"), lab.host("relay")
    under_way = {
        (index, version): sending(
            client,
            relay.of_version(version)[0],
            source=client.of_version(version)[index],
            timeout=DROP_WAIT_S,
        )
        for index in (DROPPED, REJECTED)
        for version in VERSIONS
    }
    for (index, version), process in under_way.items():
        process.wait().check()
        last = deliveries(process)[0]["attempts"][-1]
        reached = [
            entry
            for entry in relay_server.record("session")
            if entry["client"]["address"] == client.of_version(version)[index]
        ]
        yield (drop_row if index == DROPPED else reject_row)(version, last, len(reached))


def drop_row(version: int, last: dict[str, Any], reached: int) -> Row:
    seen = f"{last['outcome']} after {last['seconds']:.1f} s, {reached} connections at the server"
    return row(
        "drop", version, "timeout, 0 connections at the server", seen, last["outcome"] == "timeout" and not reached
    )


def reject_row(version: int, last: dict[str, Any], reached: int) -> Row:
    took_ms = last["seconds"] * 1000
    seen = f"{last['outcome']} after {took_ms:.1f} ms, {reached} connections at the server"
    holds = last["outcome"] == "refused" and took_ms < REJECT_MS and not reached
    return row("reject", version, f"refused within {REJECT_MS:.0f} ms, 0 connections at the server", seen, holds)
