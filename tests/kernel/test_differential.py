"""Hostile sessions, random ones, against real servers: what they store is what the gateway logged as accepted.

::

    hostile client ── [live proxy, its defaults] ── postfix | exim | opensmtpd | aiosmtpd | a loose server
                                        all on one host: the lanes have tests of their own

Envelope by envelope, and nothing goes unread. `tests/fuzz` has the same sessions without sockets, and without end; here
TOLLBRIDGE_SESSIONS and TOLLBRIDGE_SEED make more of them, and others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from smtp_intercept.app.lab.network import Lab
from tests.fuzz.against import LOOSE
from tests.peers.matrix import RECEIVERS, WIRES, receivers
from tests.peers.peer import Peer

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(360)]

PEERS = ("postfix", "exim", "opensmtpd", "aiosmtpd")
# Of so many sessions one gets a message through, or they would show nothing; OpenSMTPD hangs up on most of them.
LEAST = {"postfix": 4, "exim": 4, "opensmtpd": 80, "aiosmtpd": 8, LOOSE: 4}
SESSIONS, SEED = int(os.environ.get("TOLLBRIDGE_SESSIONS", "2000")), os.environ.get("TOLLBRIDGE_SEED", "1")
MOST_S = 150.0

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
        found.setdefault(sender, set()).update(recipients)
    return found


@pytest.mark.parametrize("name", [*PEERS, LOOSE])
def test_what_is_stored_is_what_is_logged(attacked: tuple[dict[str, Any], dict[str, Peer]], name: str) -> None:
    result, peers = attacked
    logged = by_sender(result["logged"][name]["accepted"])
    if name == LOOSE:
        stored = by_sender(result["loose"])
    else:
        stored = by_sender([(mail.sender, list(mail.recipients)) for mail in peers[name].deliveries()])
    assert {
        sender: (stored.get(sender), logged.get(sender))
        for sender in stored.keys() | logged.keys()
        if stored.get(sender) != logged.get(sender)
    } == {}
    assert len(stored) >= result["logged"][name]["played"] // LEAST[name]


@pytest.mark.parametrize("name", [*PEERS, LOOSE])
def test_nothing_is_unread_and_nothing_breaks(attacked: tuple[dict[str, Any], dict[str, Peer]], name: str) -> None:
    said = attacked[0]["logged"][name]
    assert said["played"] == SESSIONS // (len(PEERS) + 1), "not in time"
    assert {counter: said["counts"][counter] for counter in ("unread", "errors", "server_doubts")} == {
        "unread": 0,
        "errors": 0,
        "server_doubts": 0,
    }
