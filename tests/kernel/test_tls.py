"""Real senders and real receivers behind STARTTLS, with the box in between that reads what they say.

::

    smtplib, postfix, exim, swaks ── client ── gateway ── server ── postfix .20, exim .21 (protected: an identity)
                                                                    aiosmtpd .23 (not: a leaf of the authority's,
                                                                        but by the name that has TLSA records)
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from smtp_intercept.app.lab.host import Host, patient
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.renewal import LOOK_EVERY_S
from tests.kernel.resolver import ADDRESS, Resolver
from tests.peers import exim, postfix, sinks
from tests.peers.corpus import Mail, made, packaged
from tests.peers.matrix import NAMES, WIRES, mtas
from tests.peers.peer import TLS, Peer
from tests.peers.senders import MTAS, SEND_S, SWAKS, Outbox
from tests.tls.pki import Root, der

pytestmark = pytest.mark.kernel

WORLD, ORGANISATION = Root(), Root()
SERVERS = WORLD.issue("postfix.test", "exim.test", "aiosmtpd.test", "mx.dane.test")
RECEIVERS = {
    "postfix": ("192.0.2.20", postfix.start),
    "exim": ("192.0.2.21", exim.start),
    "aiosmtpd": ("192.0.2.23", sinks.start_aiosmtpd),
}
INSIDE = {"postfix", "exim"}
SENDERS = ("smtplib", "postfix", "exim", "swaks")
PAIRS = [(sender, receiver) for sender in SENDERS for receiver in RECEIVERS]
MAILS = [mail for mail in [*packaged(), *made()] if mail.name in SWAKS]
# What a client sees behind STARTTLS: the certificate's fingerprint and issuer, or what kept it from seeing one.
LOOK = """
import hashlib, json, smtplib, ssl, sys
address, name, version, roots = sys.argv[1:]
context = ssl.create_default_context(cafile=roots)
context.maximum_version = ssl.TLSVersion[version]
with smtplib.SMTP(address, 25, timeout=30) as client:
    client._host = name
    client.starttls(context=context)
    shown = client.sock.getpeercert(True)
    print(json.dumps([hashlib.sha256(shown).hexdigest(), client.sock.version(), client.ehlo()[0]]))
"""


# A server of submission whose clients begin with TLS: it takes everything.
FIRST = """
import socket, ssl, sys
SAYS = {b"EHLO": b"250-mx\\r\\n250 AUTH PLAIN\\r\\n", b"AUTH": b"235 in\\r\\n", b"QUIT": b"221 bye\\r\\n"}
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
with socket.create_server((sys.argv[1], 465)) as listener:
    while True:
        try:
            with context.wrap_socket(listener.accept()[0], server_side=True) as peer, peer.makefile("rwb", 0) as lines:
                lines.write(b"220 submission\\r\\n")
                while line := lines.readline():
                    lines.write(SAYS.get(line[:4].upper(), b"250 ok\\r\\n"))
        except OSError:
            pass
"""
SUBMIT = """
import json, smtplib, socket, ssl, sys
class Client(smtplib.SMTP_SSL):
    def _get_socket(self, host, port, timeout):
        return self.context.wrap_socket(socket.create_connection((host, port), timeout), server_hostname="exim.test")
with Client(sys.argv[1], timeout=30, context=ssl.create_default_context(cafile=sys.argv[2])) as client:
    client.login("boss", "not-to-be-logged")
    print(json.dumps(client.sock.version()))
"""


def configured(lab: Lab) -> dict[str, Any]:
    """The files are root's alone."""
    place = lab.gateway.directory
    for name, pem in {
        "own.crt": SERVERS[0],
        "own.key": SERVERS[1],
        "ca.crt": ORGANISATION.pem,
        "ca.key": ORGANISATION.key,
        "roots.pem": WORLD.pem,
    }.items():
        (place / name).write_bytes(pem)
        (place / name).chmod(0o600)
    identity = {"servers": ["192.0.2.20", "192.0.2.21"], "certificate": f"{place}/own.crt", "key": f"{place}/own.key"}
    return {
        "bridge": {"on_failure": "block"},  # what a busy machine does not inspect in time waits, and does not cross
        "protected": [{"domain": f"{name}.test", "servers": [RECEIVERS[name][0]]} for name in sorted(INSIDE)],
        "pickup": {"outgoing": "intercept"},
        "dns": {"resolvers": [ADDRESS]},
        "intercept": {"starttls": "terminate", "ports": [25, 465], "tls_ports": [465]},
        "tls": {
            "roots": f"{place}/roots.pem",
            "identity": [identity],
            "authority": {"certificate": f"{place}/ca.crt", "key": f"{place}/ca.key"},
        },
    }


@dataclass
class Carried:
    """What became of the mails of all pairs."""

    lab: Lab
    receivers: dict[str, Peer]
    log: list[dict[str, Any]]
    page: dict[str, Any]


@pytest.fixture(scope="module")
def carried(lanes: None) -> Iterator[Carried]:
    with Lab(WIRES) as lab, Resolver(lab.gateway, lab.gateway.namespace) as dns:
        dns.serve({"dane.test": f"mx A {RECEIVERS['aiosmtpd'][0]}\n_25._tcp.mx TLSA 3 1 1 {'ab' * 32}\n"}, ttl_s=60)
        lab.gateway.configure(configured(lab))
        lab.gateway.start()
        pem = (SERVERS[1] + SERVERS[0]).decode()
        client, server = lab.host("client"), lab.host("server")
        started = {name: start(server, address, pem) for name, (address, start) in RECEIVERS.items()}
        receivers = {name: peer.wait_ready() for name, peer in started.items()}
        relays = mtas(client, [name for name in SENDERS if name in MTAS])
        post(client, list(receivers.values()))
        for peer in (*relays.values(), *receivers.values()):
            peer.settle()
        page = settled(lab)
        yield Carried(lab, receivers, lab.gateway.mail_log(), page)
        lab.gateway.stop()


def settled(lab: Lab) -> dict[str, Any]:
    """`status`, when all sessions have ended and been told of; it may be a second old."""
    deadline_at = time.monotonic() + patient(30.0)
    while (page := lab.gateway.status())["sessions"] or page["tls"]["taken_part_in"] != taken(lab.gateway.mail_log()):
        assert time.monotonic() < deadline_at, page["tls"]
        time.sleep(0.5)
    return dict(page)


def taken(log: list[dict[str, Any]]) -> int:
    return sum(each["type"] == "session" and each["tls"] == "taken part in" for each in log)


def post(client: Host, receivers: list[Peer]) -> None:
    for sender in SENDERS:
        if sender in MTAS:
            processes = [Outbox(client, receivers).handed(sender, MAILS, receivers, TLS)]
        elif sender == "smtplib":
            processes = [Outbox(client, [each]).direct(MAILS, each, TLS) for each in receivers]
        else:
            processes = [Outbox(client, [each]).swaks(mail, each, TLS) for each in receivers for mail in MAILS]
        for process in processes:
            process.wait(SEND_S)
            client.processes.remove(process)


def sent_by(sender: str, receiver: str, carried: Carried) -> list[bytes]:
    found = carried.receivers[receiver].deliveries()
    return [each.content for each in found if each.sender.rpartition("@")[2].startswith(f"{sender}-tls.")]


@pytest.mark.parametrize(("sender", "receiver"), PAIRS)
def test_mail_is_delivered_whole(carried: Carried, sender: str, receiver: str) -> None:
    stored = [unix(content) for content in sent_by(sender, receiver, carried)]
    assert len(stored) == len(MAILS)
    missing = [mail.name for mail in MAILS if not any(body(mail) in content for content in stored)]
    assert missing == []


@pytest.mark.parametrize(("sender", "receiver"), PAIRS)
def test_and_read(carried: Carried, sender: str, receiver: str) -> None:
    sessions = {each["session"]: each for each in carried.log if each["type"] == "session"}
    between = {
        name
        for name, each in sessions.items()
        if (NAMES[each["client"]["address"]], NAMES[each["server"]["address"]]) == (sender, receiver)
    }
    assert {sessions[name]["tls"] for name in between} == {"taken part in"}
    assert {sessions[name]["doubt"] for name in between} == {None}
    for name in between:
        encryption = sessions[name]["encryption"]
        assert encryption["client"]["version"] == encryption["server"]["version"] == "TLSv1.3"
    accepted = [each for each in carried.log if each["type"] == "message" and each["outcome"] == "accepted"]
    assert sum(each["session"] in between for each in accepted) == len(MAILS)


def unix(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n").rstrip(b"\n")


def body(mail: Mail) -> bytes:
    return unix(mail.content.partition(b"\r\n\r\n")[2] or mail.content)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("receiver", RECEIVERS)
def test_what_the_client_is_shown(carried: Carried, receiver: str, version: str) -> None:
    """Who trusts the world sees the server's own; who trusts the organisation a leaf that is as good."""
    client, inside = carried.lab.host("client"), receiver in INSIDE
    roots = client.directory / f"roots-{receiver}.pem"
    roots.write_bytes((WORLD if inside else ORGANISATION).pem)
    shown, spoken, code = client.run(
        [client.interpreter, "-c", LOOK, RECEIVERS[receiver][0], f"{receiver}.test", version, str(roots)], timeout_s=60
    ).json()
    assert (shown == hashlib.sha256(der(SERVERS[0])).hexdigest()) is inside
    assert (spoken, code) == (version.replace("_", "."), 250)


def test_a_server_with_tlsa_records_is_left_alone_at_the_first_try(carried: Carried) -> None:
    """By the processes of a box: the one that is asked has no key, the one that has keys asks no DNS."""
    client, address = carried.lab.host("client"), RECEIVERS["aiosmtpd"][0]
    roots = client.directory / "roots-dane.pem"
    roots.write_bytes(WORLD.pem)
    shown, _, code = client.run(
        [client.interpreter, "-c", LOOK, address, "mx.dane.test", "TLSv1_3", str(roots)], timeout_s=60
    ).json()
    assert (shown, code) == (hashlib.sha256(der(SERVERS[0])).hexdigest(), 250)
    deadline_at = time.monotonic() + patient(10.0)
    while (page := carried.lab.gateway.status())["tls"].get("tlsa") != 1:
        assert time.monotonic() < deadline_at, page["tls"]
        time.sleep(0.2)


def test_status_tells_of_all_of_them_and_of_nobody_left_alone(carried: Carried) -> None:
    assert carried.page["tls"] == {"taken_part_in": taken(carried.log)}
    assert taken(carried.log) >= len(PAIRS)
    assert (carried.page["tls_remembered"], carried.page["tls_left"]) == ({}, [])


def test_tls_from_the_first_octet_is_read_and_names_its_user(carried: Carried) -> None:
    client, server, address = carried.lab.host("client"), carried.lab.host("server"), RECEIVERS["exim"][0]
    pem, roots = server.directory / "first.pem", client.directory / "roots-first.pem"
    pem.write_bytes(SERVERS[1] + SERVERS[0])
    roots.write_bytes(WORLD.pem)
    server.spawn([server.interpreter, "-c", FIRST, address, str(pem)])
    submit = [client.interpreter, "-c", SUBMIT, address, str(roots)]
    deadline_at = time.monotonic() + patient(20.0)
    while (result := client.run(submit, timeout_s=60, check=False)).returncode:
        assert time.monotonic() < deadline_at, result.stderr
        time.sleep(0.2)
    while not (found := [each for each in sessions_on(465, carried) if each["tls"] == "taken part in"]):
        assert time.monotonic() < deadline_at
        time.sleep(0.2)
    assert {each["user"] for each in found} == {"boss"}
    assert "not-to-be-logged" not in str(carried.lab.gateway.mail_log())


def sessions_on(port: int, carried: Carried) -> list[dict[str, Any]]:
    log = carried.lab.gateway.mail_log()
    return [each for each in log if each["type"] == "session" and each["server"]["port"] == port]


def test_a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not(carried: Carried) -> None:
    """First the key alone, as a program that renews may leave it for a while."""
    place, client = carried.lab.gateway.directory, carried.lab.host("client")
    chain, key = WORLD.issue("postfix.test", "exim.test")
    roots = client.directory / "roots-renewed.pem"
    roots.write_bytes(WORLD.pem)
    look = [client.interpreter, "-c", LOOK, RECEIVERS["exim"][0], "exim.test", "TLSv1_3", str(roots)]
    (place / "own.key").write_bytes(key)
    time.sleep(2.5 * LOOK_EVERY_S)
    assert client.run(look, timeout_s=60).json()[0] == hashlib.sha256(der(SERVERS[0])).hexdigest()
    (place / "own.crt").write_bytes(chain)
    deadline_at = time.monotonic() + patient(10 * LOOK_EVERY_S)
    while client.run(look, timeout_s=60).json()[0] != hashlib.sha256(der(chain)).hexdigest():
        assert time.monotonic() < deadline_at
        time.sleep(0.2)
