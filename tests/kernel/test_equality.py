"""Real senders and real receivers, over a bare bridge and through the gateway: nothing differs but dates and ids.

::

    smtplib, postfix, exim, opensmtpd, swaks ── client ── [bare bridge | gateway] ── server ── postfix, exim,
                                                                                    opensmtpd, aiosmtpd, smtp-sink

    what is compared            with what               what is forgiven
    stored messages             the bare bridge's       the table in tests/peers/normal.py
    what client and server said the bare bridge's       the same, and how many connections a sender makes
    the client's wire           the server's wire       nothing
    the gateway's mail log      the stored messages     nothing: as many, for every pair

The corpus is in tests/peers/corpus.py. The 50 MB message is compared as stored, not on the wire.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import pytest

from smtp_intercept.app.lab.network import Lab
from tests.peers.matrix import CONFIG, RECEIVERS, WIRES, Pair, Run, carry
from tests.peers.normal import normal
from tests.peers.senders import ADDRESSES, SWAKS
from tests.peers.wire import Transcript

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(480)]

PAIRS = [(sender, receiver) for sender in ADDRESSES for receiver in RECEIVERS]
ALL_PAIRS = pytest.mark.parametrize("pair", PAIRS, ids="-to-".join)

GREETING = re.compile(rb"\A220 .*\r\n(?:250-.*\r\n)*250 .*\r\n")
FAREWELL = re.compile(rb"221 .*\r\n\Z")
MAIL_OR_QUIT = re.compile(rb"(?<=\r\n)(?=MAIL FROM:|QUIT\r\n)")


@pytest.fixture(scope="module")
def bare(namespaces: None) -> Run:
    with Lab(WIRES) as lab:
        lab.gateway.bridge_bare()
        return carry(lab)


@pytest.fixture(scope="module")
def through(lanes: None) -> Run:
    with Lab(WIRES) as lab, lab.gateway.running(CONFIG):
        run = carry(lab)
        lab.host("client").end()  # what has no end has no session record
        lab.gateway.stop()
        run.log = lab.gateway.mail_log()
    return run


@ALL_PAIRS
def test_the_servers_store_the_same(bare: Run, through: Run, pair: Pair) -> None:
    stored = [Counter(run.delivered[pair]) for run in (bare, through)]
    assert len(bare.delivered[pair]) >= len(SWAKS)
    assert any(b"\nSubject: 50 MB" in content for content in stored[0])
    assert not differences(*stored)


@ALL_PAIRS
def test_clients_and_servers_say_the_same(bare: Run, through: Run, pair: Pair) -> None:
    commands = [Counter(transactions(run.at_client[pair].values())) for run in (bare, through)]
    answers = [Counter(replies(run.at_client[pair].values())) for run in (bare, through)]
    frames = [set(greetings(run.at_client[pair].values())) for run in (bare, through)]
    assert not differences(*commands)
    assert not differences(*answers)
    assert frames[0] == frames[1]


@ALL_PAIRS
def test_both_wires_carry_the_same_octets(through: Run, pair: Pair) -> None:
    assert through.at_client[pair]
    assert through.at_client[pair] == through.at_server[pair]


@ALL_PAIRS
def test_the_log_counts_what_was_stored(through: Run, pair: Pair) -> None:
    ends = ADDRESSES[pair[0]], RECEIVERS[pair[1]][0]
    sessions = [
        entry
        for entry in through.log
        if entry["type"] == "session" and (entry["client"]["address"], entry["server"]["address"]) == ends
    ]
    names = {entry["session"] for entry in sessions}
    accepted = [entry for entry in through.log if entry["type"] == "message" and entry["outcome"] == "accepted"]
    assert sum(entry["session"] in names for entry in accepted) == len(through.delivered[pair])
    assert not [entry for entry in sessions if entry["doubt"]]


def test_no_difference_but_a_date_or_an_id_is_forgiven() -> None:
    trace = b"Received: from a (b)\n\tby postfix.test (Postfix) with ESMTP id %s\n\tfor <c@d>; %s (UTC)\n\nbody %s\n"
    first = trace % (b"AD5A528", b"Sun, 22 Nov 2026 11:09:36 +0000", b"id AD5A528")
    later = trace % (b"97D3929", b"Mon, 23 Nov 2026 01:00:00 +0000", b"id AD5A528")
    other = trace % (b"97D3929", b"Mon, 23 Nov 2026 01:00:00 +0000", b"id 97D3929")
    assert normal(first) == normal(later) != normal(other)


def transactions(all_said: Iterable[Transcript]) -> list[bytes]:
    """What the clients said from each MAIL to the next; greetings are in `greetings`."""
    return [part for said in all_said for part in MAIL_OR_QUIT.split(normal(said.client)) if part.startswith(b"MAIL")]


def replies(all_said: Iterable[Transcript]) -> list[bytes]:
    """The reply lines of the transactions."""
    return [
        line
        for said in all_said
        for line in FAREWELL.sub(b"", GREETING.sub(b"", normal(said.server))).splitlines(keepends=True)
    ]


def greetings(all_said: Iterable[Transcript]) -> list[tuple[bytes, ...]]:
    """Banner, EHLO, its reply and the farewell, of each connection."""
    found: list[tuple[bytes, ...]] = []
    for said in all_said:
        greeting, server = GREETING.search(normal(said.server)), normal(said.server)
        assert greeting, server
        farewell = FAREWELL.search(server)
        found.append((said.client.partition(b"MAIL")[0], greeting[0], farewell[0] if farewell else b""))
    return found


def differences(one: Counter[bytes], other: Counter[bytes]) -> list[str]:
    """What only one of them has, each at its first octets."""
    return [f"{sign} {item[:400]!r}" for sign, more in (("-", one - other), ("+", other - one)) for item in more]
