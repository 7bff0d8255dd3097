"""The kernel's socket table is the flow table: what it remembers must neither hijack nor lose a connection.

::

    client ──SYN──→ gateway ──SYN──→ server

    lost SYN-ACK     the client repeats its SYN to our half-open socket: it is the same connection, intercepted once
    old TIME_WAIT    ours, of the connection before; the interceptor is gone: the next from that port is bridged whole
    from before      a connection that began while nobody inspected stays bridged when the interceptor is back
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from smtp_intercept.app.lab.host import SOON_S
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab
from tests.kernel.frames import counters, give_away, is_tcp

VERSIONS = (4, 6)
THROUGH_WITHIN_S = 3.0  # a client that retries its SYN always gets through
IP = pytest.mark.parametrize("version", VERSIONS)

# From one source port, dial so many times, each time as soon as the server has closed the one before.
DIAL = """
import json, socket, sys, time
source, server, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for _ in range(count):
    s = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(10)
    s.bind((source, port))
    began = time.monotonic()
    s.connect((server, 25))
    connect_s = time.monotonic() - began
    banner = s.recv(200).decode()
    s.sendall(b"QUIT\\r\\n")
    bye = b""
    while data := s.recv(200):
        bye += data
    s.close()
    print(json.dumps({"connect_s": connect_s, "whole_s": time.monotonic() - began,
                      "banner": banner[:3], "bye": bye[:3].decode()}), flush=True)
"""


@pytest.fixture(scope="module")
def mailbox(gateway_lab: Lab) -> MailServer:
    return MailServer.start(gateway_lab.host("server"))


def dial(lab: Lab, version: int, port: int, count: int = 1) -> list[dict[str, Any]]:
    client, server = lab.host("client"), lab.host("server")
    ends = (client.of_version(version)[0], server.of_version(version)[0])
    return client.python(DIAL, *ends, str(port), str(count)).json_lines()


def records(lab: Lab, port: int) -> list[dict[str, Any]]:
    return [entry for entry in lab.gateway.mail_log("session") if entry["client"]["port"] == port]


LOSE_FIRST = """
table inet losing {
    set once { type inet_service; flags dynamic; size 4096; }
    set repeated { type inet_service; flags dynamic; size 4096; }
    chain out {
        type filter hook output priority 0
        tcp dport 25 tcp flags & (syn | ack) == syn tcp sport @once add @repeated { tcp sport }
        tcp dport 25 tcp flags & (syn | ack) == syn add @once { tcp sport }
    }
    chain in {
        type filter hook input priority 0
        tcp sport 25 tcp flags & (syn | ack) == syn | ack tcp dport != @repeated drop
    }
}
"""


@pytest.fixture
def losing(gateway_lab: Lab) -> Iterator[None]:
    """The client's side of the network loses every SYN-ACK until the SYN has been repeated."""
    client = gateway_lab.host("client")
    rules = client.directory / "losing.nft"
    rules.write_text(LOSE_FIRST)
    client.run(["nft", "-f", str(rules)])
    yield
    client.run(["nft", "delete", "table", "inet", "losing"])


@IP
@pytest.mark.usefixtures("losing")
def test_a_repeated_syn_meets_the_half_open_socket(gateway_lab: Lab, mailbox: MailServer, version: int) -> None:
    port = 4100 + version
    with gateway_lab.capture() as frames:
        (told,) = dial(gateway_lab, version, port)
    assert (told["banner"], told["bye"]) == ("220", "221")
    assert 0.9 < told["connect_s"] < THROUGH_WITHIN_S  # the SYN-ACK was lost, indeed
    assert len(syns(frames, "client", port)) >= 2
    assert len(syns(frames, "server", port)) == 1
    assert [record["outcome"] for record in wait_records(gateway_lab, port)] == ["completed"]
    assert give_away(gateway_lab, frames) == []


def syns(frames: list[Any], host: str, port: int) -> list[Any]:
    tcp = [frame.packet["TCP"] for frame in frames if frame.host == host and is_tcp(frame)]
    return [segment for segment in tcp if segment.flags == "S" and segment.sport == port]


def wait_records(lab: Lab, port: int, count: int = 1) -> list[dict[str, Any]]:
    return lab.gateway.wait_log(type="session", at_least=count, where=lambda each: each["client"]["port"] == port)


@contextmanager
def without_interceptor(lab: Lab) -> Iterator[None]:
    """Killed, and not started again: the supervisor stands still meanwhile."""
    pids = lab.gateway.pids()
    os.kill(pids["supervisor"], signal.SIGSTOP)
    os.kill(pids["interceptor"], signal.SIGKILL)
    try:
        yield
    finally:
        os.kill(pids["supervisor"], signal.SIGCONT)
        began_at = time.monotonic()
        while lab.gateway.pids().get("interceptor") in (None, pids["interceptor"]) or not lab.gateway.state()["ready"]:
            assert time.monotonic() - began_at < SOON_S
            time.sleep(0.05)
        live(lab)


def live(lab: Lab) -> None:
    """Wait until the switch is closed."""
    deadline_at = time.monotonic() + SOON_S
    while "expires" not in lab.gateway.room.run(["nft", "list", "set", "inet", "tollbridge", "live"]).stdout:
        assert time.monotonic() < deadline_at
        time.sleep(0.05)


def old_sockets(lab: Lab, port: int) -> str:
    return lab.gateway.room.run(["ss", "-Htan", "state", "time-wait", f"( sport = {port} or dport = {port} )"]).stdout


# Seconds after the interceptor died, and what a SYN meets then that finds a TIME_WAIT socket of ours.
MOMENTS = {
    0.0: "queued and turned inwards still; the old socket answers, the client resets it and dials again",
    1.5: "queued, and passed by the diverter, which has heard nothing for a second",
    3.5: "not queued any more, for nothing has been heard of the gateway",
}


def test_an_old_time_wait_of_ours_does_not_hijack_what_is_bridged(gateway_lab: Lab, mailbox: MailServer) -> None:
    ports = {(after_s, v): 4200 + 10 * n + v for n, after_s in enumerate(MOMENTS) for v in VERSIONS}
    for (_, version), port in ports.items():
        dial(gateway_lab, version, port)
        assert len(wait_records(gateway_lab, port)) == 1
        assert str(port) in old_sockets(gateway_lab, port)
    told = {}
    with without_interceptor(gateway_lab), gateway_lab.capture() as frames:
        began_at = time.monotonic()
        for (after_s, version), port in ports.items():
            time.sleep(max(0.0, began_at + after_s - time.monotonic()))
            told[after_s, version] = dial(gateway_lab, version, port, 5)
    for when, answers in told.items():
        assert [(t["banner"], t["bye"]) for t in answers] == [("220", "221")] * 5, when
        assert max(t["whole_s"] for t in answers) < THROUGH_WITHIN_S, when
    assert [len(records(gateway_lab, port)) for port in ports.values()] == [1] * len(ports)
    assert give_away(gateway_lab, frames) == []
    for (_, version), port in ports.items():  # what is remembered of the bridged ones must not keep the next one out
        (last,) = dial(gateway_lab, version, port)
        assert last["whole_s"] < THROUGH_WITHIN_S
        assert len(wait_records(gateway_lab, port, 2)) == 2


def test_a_connection_bridged_from_before_stays_bridged(gateway_lab: Lab, mailbox: MailServer) -> None:
    """It began while nobody inspected; the interceptor that comes back must leave its packets alone."""
    client = gateway_lab.host("client")
    with without_interceptor(gateway_lab):
        time.sleep(max(MOMENTS))
        held = {
            4300 + version: client.spawn(
                [client.interpreter, "-c", HELD, *ends(gateway_lab, version), str(4300 + version)]
            )
            for version in VERSIONS
        }
        for process in held.values():
            process.wait_for("220")
    before = counters(gateway_lab)["turned_inwards"]
    for port, process in held.items():
        process.signal(signal.SIGTERM)
        assert "221" in process.wait().check().stdout
        assert records(gateway_lab, port) == []
    assert counters(gateway_lab)["turned_inwards"] == before


HELD = """
import signal, socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
s.bind((sys.argv[1], int(sys.argv[3])))
s.connect((sys.argv[2], 25))
s.settimeout(10)
signal.signal(signal.SIGTERM, lambda *_: None)
print(s.recv(99), flush=True)
signal.pause()
for word in (b"NOOP", b"QUIT"):
    s.sendall(word + b"\\r\\n")
    print(s.recv(99), flush=True)
"""


def ends(lab: Lab, version: int) -> tuple[str, str]:
    return lab.host("client").of_version(version)[0], lab.host("server").of_version(version)[0]
