"""Gateway and server agree on how many messages there were, whatever the client wrote and however it was cut.

::

    raw client ── [gateway] ── postfix, exim, opensmtpd, aiosmtpd, smtp-sink

    DATA, "first" <a sequence that is not CRLF.CRLF, cut anywhere> MAIL RCPT DATA "second" CRLF.CRLF QUIT
    the senders whose mail the gateway logged as accepted = the senders whose mail the server stored

It does not matter which of them refuses: a server may reject, the gateway may, and neither may be fooled alone. What
is sent behind STARTTLS in clear is never carried out, and never logged as mail.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.lab.network import Lab
from tests.peers.matrix import CONFIG, RECEIVERS, WIRES, receivers
from tests.peers.peer import Peer
from tests.peers.senders import ADDRESSES

pytestmark = pytest.mark.kernel

RAW = Path(__file__).parents[1] / "peers/raw.py"
CLIENT = ADDRESSES["smtplib"]

SEQUENCES = (
    *(b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n\0.\r\n"),
    *(b"\r\n.\r\r\n", b"\r\r\n.\r\r\n"),
)
END = b"\r\n.\r\n"


def cuts(sequence: bytes) -> Iterator[tuple[int, ...]]:
    """Nowhere, at every place, and everywhere at once. Places are octets from the sequence's first."""
    yield ()
    yield from ((place,) for place in range(len(sequence) + 1))
    yield tuple(range(len(sequence) + 1))


def data_session(sequence: bytes, places: tuple[int, ...], name: str, domain: str) -> dict[str, Any]:
    """One client: what it says until DATA is answered, the first message in its pieces, and the second behind it."""
    envelope = "MAIL FROM:<{0}@evil.test>\r\nRCPT TO:<user@{1}>\r\nDATA\r\n"
    head = b"Subject: first\r\n\r\nfirst"
    body = head + sequence
    borders = [0, *(len(head) + place for place in places), len(body)]
    pieces = [body[start:end] for start, end in pairwise(borders) if end > start]
    second = "Subject: second\r\n\r\nsecond\r\n.\r\n"
    return {
        "steps": ["EHLO client.test\r\n", *_lines(envelope.format(f"plain-{name}", domain))],
        "pieces": [piece.hex() for piece in pieces],
        "then": [*_lines(envelope.format(f"smuggled-{name}", domain)), second, "QUIT\r\n"],
    }


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


CASES = [
    (f"{number}-{'.'.join(map(str, places)) or 'whole'}", sequence, places)
    for number, sequence in enumerate(SEQUENCES)
    for places in cuts(sequence)
]


@pytest.fixture(scope="module")
def peers(lanes: None) -> Iterator[tuple[Lab, dict[str, Peer]]]:
    with Lab(WIRES) as lab, lab.gateway.running(CONFIG):
        yield lab, {peer.name: peer for peer in receivers(lab.host("server"))}


def converse(lab: Lab, peer: Peer, sessions: list[dict[str, Any]], name: str, *, patient: bool = False) -> list[str]:
    """Have the sessions with the server; all that it answered in each."""
    client = lab.host("client")
    job = client.directory / f"raw-{peer.name}-{name}"
    job.write_text(json.dumps({"server": peer.address, "source": CLIENT, "patient": patient, "sessions": sessions}))
    answers: list[str] = client.python(RAW, str(job), timeout_s=90).json()
    peer.settle()
    return answers


def stored(peer: Peer, prefix: str = "") -> set[str]:
    return {mail.sender for mail in peer.deliveries() if prefix in mail.sender}


def logged(lab: Lab) -> set[str]:
    return {entry["sender"] for entry in lab.gateway.mail_log("message") if entry["outcome"] == "accepted"}


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("client", ["pipelining", "patient"])
def test_gateway_and_server_count_the_same_messages(
    peers: tuple[Lab, dict[str, Peer]], receiver: str, client: str
) -> None:
    lab, servers = peers
    peer, mark = servers[receiver], f"{client}-{receiver}"
    sessions = [data_session(sequence, places, f"{mark}-{name}", peer.domain) for name, sequence, places in CASES]
    control = data_session(END, (), f"{mark}-control", peer.domain)  # two messages, and nobody doubts it
    answers = converse(lab, peer, [*sessions, control], mark, patient=client == "patient")

    at_server, at_gateway = stored(peer, f"-{mark}-"), {each for each in logged(lab) if f"-{mark}-" in each}
    assert not [(n, answer) for n, answer in enumerate(answers) if "354" not in answer]
    if client == "patient":  # OpenSMTPD hangs up on those that pipeline
        assert {f"{kind}-{mark}-control@evil.test" for kind in ("plain", "smuggled")} <= at_server
    assert sorted(at_server - at_gateway) == sorted(at_gateway - at_server) == []


INJECTED = "MAIL FROM:<{}@evil.test>\r\nRCPT TO:<user@{}>\r\nDATA\r\nSubject: injected\r\n\r\ninjected\r\n.\r\nQUIT\r\n"
# What is said up to STARTTLS in each case, and what in clear once that has been answered.
INJECTIONS = {
    "before the answer": (["EHLO client.test\r\n", "STARTTLS\r\n{}"], ""),
    "in lower case": (["EHLO client.test\r\n", "starttls\r\n{}"], ""),
    "in one segment with EHLO": (["EHLO client.test\r\nSTARTTLS\r\n{}"], ""),
    "after the answer": (["EHLO client.test\r\n", "STARTTLS\r\n"], "{}"),
}


@pytest.mark.parametrize("receiver", [name for name in RECEIVERS if name != "smtp-sink"])
@pytest.mark.parametrize("case", INJECTIONS)
def test_nothing_injected_around_starttls_is_carried_out(
    peers: tuple[Lab, dict[str, Peer]], receiver: str, case: str
) -> None:
    lab, servers = peers
    peer, (steps, rest), name = servers[receiver], INJECTIONS[case], f"{case.replace(' ', '-')}-{receiver}"
    injected = INJECTED.format(name, peer.domain)
    session = {"steps": [step.format(injected) for step in steps], "pieces": [], "then": [rest.format(injected)]}
    (answer,) = converse(lab, peer, [session], name)
    assert "354" not in answer
    assert not stored(peer, name)
    assert not {each for each in logged(lab) if name in each}
