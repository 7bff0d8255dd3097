"""Nobody on the wires can tell that there is a box: captures at every end of every wire.

::

    client ── p0 ┐              A frame gives the box away if a MAC or an IP address in it is the box's, if its
                gateway         source MAC is no host's, if nobody has its destination MAC, or if it leaves by the
    server ── p1 ┤              port on which its source lives (a switch there would believe the host had moved).
                 │
     other ── p2 ┘   (not in the lab of two ports)

============  =================================================================
when          while …
============  =================================================================
under load    parallel clients, both ways, IPv4 and IPv6, all four verdicts
forgetful     the same, and the lane's forwarding table remembers nobody
mid-session   that table is emptied between two words of a dialogue
flooded       neighbours on one wire talk, and their switch shows it to the box
idle          from before `up` until after `down`, 20 s of it in silence
at the end    sessions are open when the daemon is stopped or killed, then `down`
============  =================================================================
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.host import Host, Process
from smtp_intercept.app.lab.mail import MailServer, deliveries, send, sending
from smtp_intercept.app.lab.network import THREE_WIRES, TWO_WIRES, Lab, Station, Wires
from tests.kernel.conftest import DEFAULT
from tests.kernel.frames import give_away

VERSIONS = (4, 6)
IDLE_S = 20.0
CONFIG: dict[str, Any] = {**DEFAULT, "pickup": {**DEFAULT["pickup"], "outgoing": "intercept"}, "limits": {"drain_s": 1}}
# Of the client's addresses: how `DEFAULT` treats them, and what a client is told.
SOURCES = {"accepted": (0, 3), "timeout": (1,), "refused": (2,)}
HOW_MANY = {"accepted": 24, "timeout": 1, "refused": 4}
LOSS_S = 1.2


@pytest.fixture(scope="module", params=[TWO_WIRES, THREE_WIRES], ids=["two-ports", "three-ports"])
def lab(request: pytest.FixtureRequest, lanes: None) -> Iterator[Lab]:
    with Lab(request.param) as lab:
        yield lab


@pytest.fixture(scope="module")
def servers(gateway_lab: Lab) -> list[MailServer]:
    return [MailServer.start(host) for host in gateway_lab.hosts]


def load(lab: Lab) -> dict[str, list[str]]:
    """Every pair of hosts on different wires at once; what each expectation met, the client's other verdicts too."""
    under_way: list[tuple[str, Process]] = []
    for version in VERSIONS:
        for client in lab.hosts:
            for server in lab.hosts:
                if client is not server:
                    under_way += post(client, server, version)
    seen: dict[str, list[str]] = {expected: [] for expected in SOURCES}
    for expected, process in under_way:
        process.wait().check()
        seen[expected] += [entry["attempts"][-1]["outcome"] for entry in deliveries(process)]
    return seen


def post(client: Host, server: Host, version: int) -> Iterator[tuple[str, Process]]:
    addresses, to = client.of_version(version), server.of_version(version)[0]
    for expected, indices in SOURCES.items():
        for index in indices if (client.name, server.name) == ("client", "server") else indices[:1]:
            if index < len(addresses) and (index == 0 or client.name == "client"):
                yield (
                    expected,
                    sending(
                        client,
                        to,
                        source=addresses[index],
                        count=HOW_MANY[expected],
                        parallel=4,
                        timeout=LOSS_S if expected == "timeout" else 20,
                    ),
                )


def strays(lab: Lab, frames: Sequence[Frame]) -> list[Frame]:
    """What leaves by a port behind which its destination does not live: flooding."""
    behind = {wire.port: {host.mac for host, _ in wire.ends[:-1]} for wire in lab.wires}
    leaving = [frame for frame in frames if frame.host == "gateway" and frame.way is Way.OUT]
    return [f for f in leaving if not f.data[0] & 1 and f.destination not in behind[f.interface]]


def test_under_a_mail_load(gateway_lab: Lab, servers: list[MailServer]) -> None:
    before = len(gateway_lab.gateway.mail_log("message"))
    with gateway_lab.capture() as frames:
        seen = load(gateway_lab)
    assert {expected: set(outcomes) for expected, outcomes in seen.items()} == {e: {e} for e in SOURCES}
    accepted = len(seen["accepted"])
    assert len(gateway_lab.gateway.mail_log("message")) - before == accepted - 2 * HOW_MANY["accepted"]  # all but .13's
    assert len(frames) > 4 * 10 * accepted
    assert give_away(gateway_lab, frames) == []
    assert strays(gateway_lab, frames) == []


def test_when_the_lane_remembers_nobody(gateway_lab: Lab, servers: list[MailServer]) -> None:
    """Entries of a table that ages at once are never found: everything on the lane is flooded."""
    age(gateway_lab, 0)
    try:
        with gateway_lab.capture() as frames:
            seen = load(gateway_lab)
    finally:
        age(gateway_lab, 300_00)
    assert {expected: set(outcomes) for expected, outcomes in seen.items()} == {e: {e} for e in SOURCES}
    assert give_away(gateway_lab, frames) == []
    if len(gateway_lab.wires) > 2:
        assert strays(gateway_lab, frames)  # the test tests something


def age(lab: Lab, centiseconds: int) -> None:
    lab.gateway.room.run(["ip", "link", "set", "smtp0", "type", "bridge", "ageing_time", str(centiseconds)])


# Between its words the lane is made to forget.
SLOW_CLIENT = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 25), 10)
print("connected", flush=True)
print(s.recv(99), flush=True)
for word in ("NOOP", "RSET", "QUIT"):
    time.sleep(0.6)
    s.sendall(word.encode() + b"\\r\\n")
    print(word, s.recv(99), flush=True)
print("end", s.recv(99), flush=True)
"""


def test_when_the_lane_forgets_in_the_middle_of_a_session(gateway_lab: Lab, servers: list[MailServer]) -> None:
    """First the server speaks (its banner comes late), then the client; both ways, IPv4 and IPv6."""
    for server in servers:
        server.process.end()
    servers[:] = [MailServer.start(host, banner_after=1.5) for host in gateway_lab.hosts]
    sessions = len(gateway_lab.gateway.mail_log("session"))
    with gateway_lab.capture() as frames:
        dialogues = [
            gateway_lab.host(client).spawn([server.interpreter, "-c", SLOW_CLIENT, server.of_version(version)[-1]])
            for client, server in (("client", gateway_lab.host("server")), ("server", gateway_lab.host("client")))
            for version in VERSIONS
        ]
        for word in ("connected", "220", "NOOP", "RSET"):
            for dialogue in dialogues:
                dialogue.wait_for(word)
            gateway_lab.gateway.room.run(["ip", "link", "set", "smtp0", "type", "bridge", "fdb_flush"])
        for dialogue in dialogues:
            said = dialogue.wait().check().stdout
            assert [word in said for word in ("220", "NOOP b'250", "RSET b'250", "QUIT b'221", "end b''")] == [True] * 5
    assert len(gateway_lab.gateway.wait_sessions(sessions, len(dialogues))) == len(dialogues)
    assert give_away(gateway_lab, frames) == []


# --- mail that does not cross ----------------------------------------------------------------------------------------

NEAR: Wires = {
    "outside": (*TWO_WIRES["outside"], Station("near", ("192.0.2.40/24", "2001:db8::40/64"))),
    "inside": TWO_WIRES["inside"],
}


def test_mail_between_neighbours_that_their_switch_floods(lanes: None) -> None:
    """A hub, a promiscuous virtual switch, or a switch that has forgotten: the box hears it, and it is not its own."""
    with Lab(NEAR) as lab, lab.gateway.running(CONFIG):
        MailServer.start(lab.host("near"))
        hub = ["ip", "-n", f"{lab.prefix}-switch-outside", "link", "set", "switch", "type", "bridge"]
        subprocess.run([*hub, "ageing_time", "0"], check=True)
        with lab.capture() as frames:
            sent = [send(lab.host("client"), address, timeout=5) for address in lab.host("near").of_version(4)]
            sent += [send(lab.host("client"), address, timeout=5) for address in lab.host("near").of_version(6)]
        assert [delivery["accepted"] for (delivery,) in sent] == [True] * len(sent)
        assert give_away(lab, frames) == []


# --- life ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(lanes: None) -> Iterator[Lab]:
    """A lab of its own, whose gateway does nothing yet."""
    with Lab(THREE_WIRES) as lab:
        lab.gateway.configure(CONFIG)
        yield lab


def test_from_before_up_until_after_down(fresh: Lab) -> None:
    """Idle, no host says a word of its own, so there is nothing at all to hear but the pings at both ends of it."""
    with fresh.capture() as frames:
        fresh.gateway.start()
        ping(fresh)
        time.sleep(IDLE_S)
        ping(fresh)
        fresh.gateway.stop()
    assert len([frame for frame in frames if frame.addresses == ("192.0.2.10", "192.0.2.20")]) > 4
    assert give_away(fresh, frames) == []


def ping(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    for address in (server.ipv4, server.ipv6):
        sent = client.run(client.program("traffic", "ping", address, "--count", "1", "--timeout", "2")).json()
        assert sent["unchanged"] == 1


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_at_the_end_with_sessions_open(fresh: Lab, killed: bool) -> None:
    """Sockets that outlive the daemon go on speaking for others; none of it may leave by another way than the lane."""
    client, server = fresh.host("client"), fresh.host("server")
    MailServer.start(server)
    with fresh.capture() as frames:
        daemon = fresh.gateway.start()
        for address in (server.ipv4, server.ipv6) * 3:
            client.spawn([client.interpreter, "-c", HOLD, address]).wait_for("220")
        assert len(open_sockets(fresh)) >= 12  # both legs of six sessions
        if killed:
            daemon.signal(signal.SIGKILL)
            fresh.gateway.processes.remove(daemon)
            fresh.gateway.run_process = None
        fresh.gateway.stop()
        time.sleep(1.5)  # a retransmission
    assert give_away(fresh, frames) == []


HOLD = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 25), 10)
print(s.recv(99), flush=True)
time.sleep(60)
"""


def open_sockets(lab: Lab) -> list[str]:
    return lab.gateway.room.run(["ss", "-Htn", "state", "established"]).stdout.splitlines()
