"""Several interceptors and diverters behind one lane: each of them alone, and what they have in common.

::

    client .10 ┐                     ┌ diverter-1 ┐   ┌ interceptor-1 ┐
           .11 ┤── p0 ── smtp0: SYN ─┤            ├───┤ (one listener)├── p1 ── server .20, .21 (handler "mta")
           ... ┘      by pair of hosts diverter-2 ┘   └ interceptor-2 ┘

An interceptor that is stopped takes nothing: so a test chooses who serves a connection.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

SERVER, MAILBOX, CLIENTS = "192.0.2.20", "192.0.2.21", [f"192.0.2.{last}" for last in range(10, 13)]
CONFIG: dict[str, Any] = {
    "bridge": {"management": ["192.0.2.2/24"]},
    "intercept": {"on_overload": "defer"},
    "protected": [
        {"domain": "example.com", "servers": [SERVER]},
        {"domain": "example.org", "servers": [MAILBOX], "handler": "mta"},
    ],
    "limits": {"sessions": 2},
    "interceptor": {"workers": 2},
    "diverter": {"queues": 2},
}
BOTH = ("interceptor-1", "interceptor-2")
HELD = """
import signal, socket, sys
held = socket.create_connection((sys.argv[1], 25), 10)
print("heard", held.recv(3).decode(), flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def box(lanes: None, lab: Lab, server: MailServer) -> Iterator[Lab]:
    mta = {"spool": str(lab.gateway.directory / "spool"), "hostname": "gateway.example.com"}
    with lab.gateway.running({**CONFIG, "mta": mta}):
        yield lab


@contextmanager
def only(lab: Lab, worker: str) -> Iterator[None]:
    """The other one stands still."""
    (other,) = {*BOTH} - {worker}
    pid = lab.gateway.pids()[other]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def each(lab: Lab, kind: str) -> dict[str, Any]:
    return dict(lab.gateway.state()["each"][kind])


def test_each_serves_while_the_other_stands_still(box: Lab) -> None:
    for worker in BOTH:
        with only(box, worker):
            (entry,) = send(box.host("client"), SERVER, ["user@example.com"], sender=f"{worker}@example.net")
        assert entry["accepted"]
    records = [box.gateway.wait_log(type="message", sender=f"{worker}@example.net") for worker in BOTH]
    assert [len(found) for found in records] == [1, 1]
    series = {found[0]["session"].partition("-")[0] for found in records}
    assert len(series) == 2, "sessions of one name"
    hung.wait_until(
        lambda: all(each(box, "interceptor")[worker]["counts"]["messages"] == 1 for worker in BOTH), "both have counted"
    )
    status = box.gateway.status()
    assert status["mail"]["messages"] >= 2
    assert "interceptor-2" in box.gateway.tollbridge("status").stdout


def test_the_mta_takes_from_each(box: Lab, server: MailServer) -> None:
    for worker in BOTH:
        with only(box, worker):
            (entry,) = send(box.host("client"), MAILBOX, ["u@example.org"], sender=f"mta-{worker}@example.net")
        assert entry["accepted"]
    for worker in BOTH:
        sender = f"mta-{worker}@example.net"
        assert box.gateway.wait_log(type="delivery", sender=sender, outcome="delivered")
    hung.wait_until(
        lambda: [each(box, "interceptor")[worker]["counts"]["handed_over"] for worker in BOTH] == [1, 1], "one of each"
    )


def test_the_places_of_one_that_is_killed_are_free(box: Lab) -> None:
    """Two places: one worker holds both; its end is noticed, and nobody is turned away for them."""
    client, (one, other) = box.host("client"), BOTH
    hung.wait_until(lambda: box.gateway.status()["sessions"] == 0, "no session")
    with only(box, one):
        calls = [client.spawn([client.interpreter, "-c", HELD, SERVER]) for _ in range(2)]
        for call in calls:
            call.wait_for("heard 220")
    assert not send(client, SERVER, sender="late@example.net")[0]["accepted"]
    assert box.gateway.wait_log(type="session", outcome="deferred")
    os.kill(box.gateway.pids()[one], signal.SIGKILL)
    for call in calls:
        call.end()
    ready = [box.gateway.state()["ready"]]
    hung.wait_until(lambda: send(client, SERVER, sender="again@example.net")[0]["accepted"], "a free place")
    ready.append(box.gateway.state()["ready"])
    hung.wait_until(lambda: box.gateway.state()["restarts"][one] == 1, "the worker is back")
    assert box.gateway.state()["restarts"][other] == 0
    assert ready == [True, True], "mail is inspected by the other"


def test_lines_of_the_log_are_whole_and_sessions_have_names_of_their_own(box: Lab) -> None:
    box.gateway.wait_log(type="session")
    records = box.gateway.mail_log("session")  # each line is parsed
    assert len({record["session"] for record in records}) == len(records)


def decided(lab: Lab) -> dict[str, int]:
    """SYNs by diverter, as soon as their reports are as far as the kernel is."""

    def now() -> dict[str, int]:
        return {name: report.get("counts", {}).get("syns", 0) for name, report in each(lab, "diverter").items()}

    hung.wait_until(lambda: sum(now().values()) == lab.gateway.status()["kernel"]["queued"], "all SYNs are told of")
    return now()


def test_a_pair_of_hosts_is_one_diverters(box: Lab) -> None:
    for source in CLIENTS:
        before = decided(box)
        (*sent,) = send(box.host("client"), SERVER, source=source, sender="pair{n}@example.net", count=3)
        assert [entry["accepted"] for entry in sent] == [True] * 3
        after = decided(box)
        assert sorted(after[name] - before[name] for name in after) == [0, 3]


def test_the_status_names_a_diverter_that_does_not_beat(box: Lab) -> None:
    pid = box.gateway.pids()["diverter-2"]
    os.kill(pid, signal.SIGSTOP)
    try:
        hung.wait_until(lambda: box.gateway.status()["queues_open"] == [2], "its part of the switch is open")
        assert box.gateway.status()["live"]
        assert "! diverter-2 has no heart-beat" in box.gateway.tollbridge("status").stdout
    finally:
        os.kill(pid, signal.SIGCONT)
    hung.wait_until(lambda: box.gateway.status()["queues_open"] == [], "it beats again")


def test_another_number_of_queues_is_made_and_undone(box: Lab) -> None:
    """By one `up` after the other; the rules of the queues that are no longer wanted go."""
    gateway = box.gateway
    gateway.stop(down=False)
    text = gateway.config.read_text()
    for queues in (3, 1):
        gateway.config.write_text(text.replace("queues = 2", f"queues = {queues}"))
        gateway.tollbridge("up")
        again = gateway.tollbridge("plan").stdout
        assert not [line for line in again.splitlines() if line.startswith("+")], "up took every step"
    assert "queue-num 26" not in gateway.room.run(["iptables", "-t", "raw", "-S"], check=False).stdout
