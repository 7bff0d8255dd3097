"""The server sees the client's own source port: counted over thousands of connections, and when a port is used again.

::

    client 192.0.2.10:P ──→ p0  gateway  p1 ──→ server :25     the server notes every client's address and port

============================  ==================================================================================
a client dials …              again from the same port, when the connection before …
============================  ==================================================================================
`QUIT`                        was closed by the server first, as SMTP has it: TIME_WAIT is the server's
`RESET`                       was reset by the client: no TIME_WAIT anywhere
`CLOSE`                       was closed by the client first: TIME_WAIT is the client's, which waits 1 s (tcp_tw_reuse)
============================  ==================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.lab.host import Process, json_lines
from smtp_intercept.app.lab.network import Lab
from tests.kernel.conftest import DEFAULT

pytestmark = pytest.mark.alone

HERE = Path(__file__).parent
CONNECTIONS, PARALLEL = 5000, 20
CONFIG: dict[str, Any] = {  # a fast machine opens some 3,600 a second: the limits are not the subject here
    **DEFAULT,
    "limits": {"new_connections_per_s": 10 * CONNECTIONS, "new_connections_per_s_per_network": 10 * CONNECTIONS},
    "log": {"records_per_minute_per_network": 0, "records_per_minute": 0},
}
KEPT_AT_LEAST = 0.999
INSPECTED_AT_LEAST = 0.9  # on a machine with other work the switch may open for a moment
VERSIONS = (4, 6)
AGAIN = 100  # connections from one and the same port


@pytest.fixture(scope="module")
def noting(gateway_lab: Lab) -> Iterator[Process]:
    """A server that notes who came: one line for each connection, as it is accepted."""
    server = gateway_lab.host("server")
    server.run(["sysctl", "-qw", "net.core.somaxconn=65535"])
    process = server.spawn([server.interpreter, str(HERE / "ports.py"), "serve", server.ipv4, server.ipv6])
    process.wait_for("ready")
    yield process
    process.end()


def came(noting: Process, since: int) -> list[list[Any]]:
    """Address and port of the clients that the server has seen, after the first so many."""
    return json_lines(noting.stdout)[1:][since:]


def dial(lab: Lab, version: int, how: str, count: int, *words: str) -> dict[str, Any]:
    """What the client says of its connections: their source ports, and the errors."""
    client, server = lab.host("client"), lab.host("server").of_version(version)[0]
    source = client.of_version(version)[0]
    program = [client.interpreter, str(HERE / "ports.py"), how, source, server, str(count), *words]
    answer: dict[str, Any] = client.run(program, timeout_s=120).json()
    return answer


@pytest.mark.parametrize("version", VERSIONS)
def test_the_source_port_is_kept(
    gateway_lab: Lab, noting: Process, version: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """5,000 connections, half of them over IPv6, new ones as fast as they go."""
    count, since = CONNECTIONS // len(VERSIONS), len(came(noting, 0))
    records = len(gateway_lab.gateway.mail_log("session"))
    said = dial(gateway_lab, version, "many", count, str(PARALLEL))
    assert said["errors"] == {}
    seen = came(noting, since)
    assert {address for address, _ in seen} == {gateway_lab.host("client").of_version(version)[0]}
    assert len(seen) == len(said["ports"]) == count
    kept = (Counter(said["ports"]) & Counter(port for _, port in seen)).total()
    assert kept / count >= KEPT_AT_LEAST
    sessions = wait_sessions(gateway_lab, records, count)
    assert len(sessions) >= INSPECTED_AT_LEAST * count
    by_us = [session["source_port_kept"] for session in sessions].count(True)
    with capsys.disabled():
        rate = f"{count / said['seconds']:.0f} connections/s"
        print(f"\nIPv{version}: source port kept in {kept} of {count} ({by_us} of {len(sessions)} intercepted), {rate}")
    assert by_us / len(sessions) >= KEPT_AT_LEAST


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("how", "count", "kept"), [("quit", AGAIN, AGAIN), ("reset", AGAIN, 0.9 * AGAIN), ("close", 4, 4)]
)
def test_the_same_source_port_again(
    gateway_lab: Lab, noting: Process, version: int, how: str, count: int, kept: float
) -> None:
    """At once, or as soon as the client's own kernel lets it; every connection is intercepted and keeps the port.

    But for a client that resets and dials again within the same millisecond: its next SYN may overtake the news.
    """
    gateway_lab.host("client").run(["sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"])
    port = 3000 + version * 100 + len(how)
    since, records = len(came(noting, 0)), len(gateway_lab.gateway.mail_log("session"))
    said = dial(gateway_lab, version, how, count, str(port))
    assert said["errors"] == {}
    assert said["slowest_s"] < 0.9  # no SYN had to be repeated
    source = gateway_lab.host("client").of_version(version)[0]
    seen = came(noting, since)
    assert len(seen) == count
    assert seen.count([source, port]) >= kept
    sessions = [r for r in wait_sessions(gateway_lab, records, count) if r["client"]["port"] == port]
    assert len(sessions) == count
    assert [session["source_port_kept"] for session in sessions].count(True) >= kept


def wait_sessions(lab: Lab, since: int, count: int) -> list[dict[str, Any]]:
    for _ in range(100):
        if len(found := lab.gateway.mail_log("session")[since:]) >= count:
            break
        lab.gateway.run(["sleep", "0.05"])
    return found
