"""Real senders and real receivers, over a bare bridge and through the gateway: nothing differs but dates and ids.

::

    smtplib, postfix, exim, opensmtpd, swaks ── client ── [bare bridge | gateway] ── server ── postfix, exim,
                                                                                    opensmtpd, aiosmtpd, smtp-sink

    and by STARTTLS, by IPv6 and with BINARYMIME not all with all, but each at least once (tests/peers/matrix.py)

    what is compared            with what               what is forgiven
    stored messages             the bare bridge's       the table in tests/peers/normal.py
    what client and server said the bare bridge's       the same, and how many connections a sender makes
    the client's wire           the server's wire       nothing
    the gateway's mail log      the stored messages     nothing: as many, for every pair; none behind STARTTLS

The corpus is in tests/peers/corpus.py. The 50 MB message is compared as stored, not on the wire. What was said behind
STARTTLS nobody can compare, but for the two wires.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from smtp_intercept.app.lab.network import Lab
from tests.peers.matrix import ALL_PAIRS, CONFIG, NAMES, PAIRS, STARTTLS, WIRES, Pair, Run, carry
from tests.peers.normal import normal
from tests.peers.senders import SWAKS
from tests.peers.wire import Transcript

pytestmark = pytest.mark.kernel

EVERY_PAIR = pytest.mark.parametrize("pair", ALL_PAIRS, ids="-to-".join)
ENCRYPTED = [pair for pair in ALL_PAIRS if pair[0].endswith("-tls")]

GREETING = re.compile(rb"\A220 .*\r\n(?:250-.*\r\n)*250 .*\r\n")
STARTED = re.compile(rb"\A220 .*\r\n(?:250-.*\r\n)*250 .*\r\n220 .*\r\n")
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


@EVERY_PAIR
def test_the_servers_store_the_same(bare: Run, through: Run, pair: Pair) -> None:
    stored = [Counter(run.delivered[pair]) for run in (bare, through)]
    assert len(bare.delivered[pair]) >= len(SWAKS) - 1
    assert pair not in PAIRS or any(b"\nSubject: 50 MB" in content for content in stored[0])
    assert not differences(*stored)


@EVERY_PAIR
def test_clients_and_servers_say_the_same(bare: Run, through: Run, pair: Pair) -> None:
    said = [[in_clear(each) for each in run.at_client[pair].values()] for run in (bare, through)]
    commands = [Counter(transactions(each)) for each in said]
    answers = [Counter(replies(each)) for each in said]
    frames = [set(greetings(each)) for each in said]
    assert bool(commands[0]) is (pair not in ENCRYPTED)
    assert not differences(*commands)
    assert not differences(*answers)
    assert frames[0] == frames[1]


@EVERY_PAIR
def test_both_wires_carry_the_same_octets(through: Run, pair: Pair) -> None:
    assert through.at_client[pair]
    assert through.at_client[pair] == through.at_server[pair]


@EVERY_PAIR
def test_the_log_counts_what_was_stored(through: Run, pair: Pair) -> None:
    sessions = {
        entry["session"]: entry for entry in through.log if entry["type"] == "session" and between(entry) == pair
    }
    accepted = [entry for entry in through.log if entry["type"] == "message" and entry["outcome"] == "accepted"]
    counted = sum(entry["session"] in sessions for entry in accepted)
    assert sessions
    assert counted == (0 if pair in ENCRYPTED else len(through.delivered[pair]))
    assert not [entry for entry in sessions.values() if entry["doubt"]]


@pytest.mark.parametrize("receiver", ["postfix", "exim", "binary"])
def test_chunks_were_sent_in_every_way(through: Run, receiver: str) -> None:
    said = b"".join(transcript.client for transcript in through.at_client["smtplib", receiver].values())
    assert re.search(rb"BDAT \d+ LAST\r\n", said)
    assert re.search(rb"RCPT TO:[^\r]*\r\nBDAT 1\r\nSBDAT 1\r\n", said), "all at once"
    assert (b"BODY=BINARYMIME" in said) is (receiver == "binary")


def test_no_difference_but_a_date_or_an_id_is_forgiven() -> None:
    trace = b"Received: from a (b)\n\tby postfix.test (Postfix) with ESMTP id %s\n\tfor <c@d>; %s (UTC)\n\nbody %s\n"
    first = trace % (b"AD5A528", b"Sun, 22 Nov 2026 11:09:36 +0000", b"id AD5A528")
    later = trace % (b"97D3929", b"Mon, 23 Nov 2026 01:00:00 +0000", b"id AD5A528")
    other = trace % (b"97D3929", b"Mon, 23 Nov 2026 01:00:00 +0000", b"id 97D3929")
    early = trace % (b"97D3929", b"Tue, 1 Dec 2026 00:08:37 +0000", b"id AD5A528")
    assert normal(first) == normal(later) == normal(early) != normal(other)


def between(session: dict[str, Any]) -> Pair:
    """The pair that a session's record belongs to."""
    client, server = session["client"]["address"], session["server"]["address"]
    way = "-six" if ":" in client else "-tls" if session["tls"] == "started" else ""
    return NAMES[client] + way, NAMES[server]


def in_clear(said: Transcript) -> Transcript:
    """What was said up to the answer to STARTTLS."""
    client, started, _ = said.client.partition(STARTTLS)
    if not started:
        return said
    answered = STARTED.search(said.server)
    assert answered, said.server
    return Transcript(client + started, said.server[: answered.end()])


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
