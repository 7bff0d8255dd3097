"""Hostile sessions, random ones, against real servers: what they store is what the gateway logged as accepted.

::

    hostile client ── [live proxy, its defaults] ── postfix | exim | opensmtpd | aiosmtpd | a loose server
                                        all on one host: the lanes have tests of their own

Envelope by envelope, and nothing goes unread; and honest mail in between arrives. `tests/fuzz` has the same sessions
without sockets, and without end; here TOLLBRIDGE_SESSIONS and TOLLBRIDGE_SEED make more of them, and others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from smtp_intercept.app.lab.network import Lab
from smtp_intercept.wire import common_spelling
from tests.fuzz.against import HONEST_EVERY, LOOSE
from tests.fuzz.loose import TRAP
from tests.peers.matrix import RECEIVERS, WIRES, receivers
from tests.peers.peer import DOMAIN, Peer

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(360)]

DISCARDING = ("exim", LOOSE)  # mail for `TRAP`, behind a 250
PEERS = ("postfix", "exim", "opensmtpd", "aiosmtpd")
# Of so many hostile sessions one gets a message through, all servers together, or they would show nothing. It is one of
# two or three; a single server may hang up on most of them, OpenSMTPD does.
LEAST = 10
SESSIONS, SEED = int(os.environ.get("TOLLBRIDGE_SESSIONS", "2000")), os.environ.get("TOLLBRIDGE_SEED", "1")
MOST_S = 150.0
HOSTILE = "@evil.test"

Envelopes = dict[str, set[str]]


@pytest.fixture(scope="module")
def attacked(namespaces: None) -> Iterator[tuple[dict[str, Any], dict[str, Peer]]]:
    with Lab(WIRES) as lab:
        host = lab.host("server")
        peers = {peer.name: peer for peer in receivers(host, {name: RECEIVERS[name] for name in PEERS})}
        job = host.directory / "job.json"
        job.write_text(
            json.dumps(
                {
                    "peers": {name: [peer.address, peer.domain] for name, peer in peers.items()},
                    "sessions": SESSIONS // (len(PEERS) + 1),
                    "seed": SEED,
                    "seconds": MOST_S,
                }
            )
        )
        result = host.run([host.interpreter, "-m", "tests.fuzz.against", str(job)], timeout_s=2 * MOST_S).check().json()
        for peer in peers.values():
            peer.settle()
        yield result, peers


def by_sender(envelopes: list[tuple[str, list[str]]]) -> Envelopes:
    found: Envelopes = {}
    for sender, recipients in envelopes:
        found.setdefault(sender, set()).update(common_spelling(each.encode()) for each in recipients)
    return found


def kept(envelopes: Envelopes) -> Envelopes:
    found = {sender: {each for each in to if not each.startswith(TRAP)} for sender, to in envelopes.items()}
    return {sender: to for sender, to in found.items() if to}


def stored_by(attacked: tuple[dict[str, Any], dict[str, Peer]], name: str) -> Envelopes:
    result, peers = attacked
    if name == LOOSE:
        return by_sender(result["loose"])
    return by_sender([(mail.sender, list(mail.recipients)) for mail in peers[name].deliveries()])


@pytest.mark.parametrize("name", [*PEERS, LOOSE])
def test_what_is_stored_is_what_is_logged(attacked: tuple[dict[str, Any], dict[str, Peer]], name: str) -> None:
    logged, stored = by_sender(attacked[0]["logged"][name]["accepted"]), stored_by(attacked, name)
    if name in DISCARDING:
        logged, stored = kept(logged), kept(stored)
    assert {
        sender: (stored.get(sender), logged.get(sender))
        for sender in stored.keys() | logged.keys()
        if stored.get(sender) != logged.get(sender)
    } == {}
    honest = attacked[0]["logged"][name]["honest"]
    assert len(honest) == -(-SESSIONS // (len(PEERS) + 1) // HONEST_EVERY)
    assert {sender: said for sender, said in honest.items() if said or sender not in stored} == {}
    as_logged = {each for sender, to in attacked[0]["logged"][name]["accepted"] if sender in honest for each in to}
    assert as_logged == {f"a@{DOMAIN.format(name)}"}  # however it was spelt


def test_hostile_sessions_get_mail_through(attacked: tuple[dict[str, Any], dict[str, Peer]]) -> None:
    hostile = [sender for name in (*PEERS, LOOSE) for sender in stored_by(attacked, name) if HOSTILE in sender]
    assert len(hostile) >= SESSIONS // LEAST


@pytest.mark.parametrize("name", [*PEERS, LOOSE])
def test_nothing_is_unread_and_nothing_breaks(attacked: tuple[dict[str, Any], dict[str, Peer]], name: str) -> None:
    said = attacked[0]["logged"][name]
    assert said["played"] == SESSIONS // (len(PEERS) + 1), "not in time"
    assert {counter: said["counts"][counter] for counter in ("unread", "errors", "server_doubts")} == {
        "unread": 0,
        "errors": 0,
        "server_doubts": 0,
    }
