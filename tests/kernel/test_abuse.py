"""Hostile peers, one at a time and in crowds: the box's memory stays bounded, and other sessions stay prompt.

::

    peer                                    what it may cost            and the others meanwhile
    a line without end                      GROWTH_BYTES                PROMPT_S
    a header without end                    GROWTH_BYTES                PROMPT_S
    a client that never reads               GROWTH_BYTES, backpressure  PROMPT_S
    a server that never reads               GROWTH_BYTES, backpressure  PROMPT_S
    500 clients, an octet now and then      -                           PROMPT_S
    a server that answers octet by octet    -                           PROMPT_S
    3,000 connections as fast as they come  none lost after retries     PROMPT_S
    10,000 idle sessions                    40 KiB each                 PROMPT_S
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.lab.host import SOON_S, Process
from smtp_intercept.app.lab.network import Lab
from tests.kernel.pace import slowness

pytestmark = [pytest.mark.kernel, pytest.mark.alone]

GOOD, BAD = "192.0.2.20", "192.0.2.21"
MANY = 1_000_000
SESSIONS = 10_000
CONFIG: dict[str, Any] = {
    "pickup": {"incoming": "intercept"},
    "protected": [{"domain": "example.com", "servers": [GOOD, BAD]}],
    "limits": {
        "sessions": SESSIONS,
        "sessions_per_client": SESSIONS,
        "client_percent": 0,
        "network_percent": 0,
        "new_connections_per_s": MANY,
        "new_connections_per_s_per_network": MANY,
    },
}

PROMPT_S = 2.0  # a session of four replies: milliseconds on a quiet machine, and never a SYN's second repeat
GROWTH_BYTES = 8 << 20  # of the interceptor, whatever a single session does
IN_FLIGHT_BYTES = 32 << 20  # all socket buffers on the way, which the kernels of four hosts may grow
FLOOD_BYTES = 128 << 20
SESSION_BYTES = 40 << 10
FILES_BESIDE = 32  # of the interceptor: listeners, channels, the loop's own; and a polite client's two sockets


def rude(lab: Lab, host: str, *words: str) -> Process:
    station = lab.host(host)
    return station.spawn(station.program("rude", *words))


def said(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.fixture(scope="module", autouse=True)
def fresh_bytes(gateway_lab: Lab) -> Iterator[int]:
    """The interceptor's memory before its first session. The polite server runs from here on."""
    with serving(gateway_lab, GOOD, "good"):
        yield memory_bytes(gateway_lab)


@contextmanager
def serving(lab: Lab, address: str, manners: str) -> Iterator[Process]:
    server = rude(lab, "server", "serve", address, "--manners", manners)
    server.wait_for("ready")
    try:
        yield server
    finally:
        server.end()


@contextmanager
def attacking(lab: Lab, *words: str, ready: str = "ready", timeout_s: float = SOON_S) -> Iterator[Process]:
    client = rude(lab, "client", *words)
    try:
        client.wait_for(ready, timeout_s)
        yield client
    finally:
        client.end()


def memory_bytes(lab: Lab) -> int:
    """The interceptor's own: what it shares with other processes does not grow."""
    pid = lab.gateway.pids()["interceptor"]
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * resource.getpagesize()


def files_allowed(lab: Lab) -> int:
    """The interceptor's limit: it raises it, but not even root may everywhere (CAP_SYS_RESOURCE)."""
    limits = Path(f"/proc/{lab.gateway.pids()['interceptor']}/limits").read_text().splitlines()
    return next(int(line.split()[3]) for line in limits if line.startswith("Max open files"))


def prompt_s(lab: Lab, count: int = 5) -> float:
    """The slowest of some polite sessions, from another address than the rude ones."""
    client = lab.host("client")
    words = ("prompt", GOOD, "--count", str(count), "--source", client.of_version(4)[4])
    return float(max(client.run(client.program("rude", *words), timeout_s=60).json()["seconds"]))


def sessions(lab: Lab) -> int:
    return int(lab.gateway.state()["interceptor"]["sessions"])


def counted(lab: Lab) -> int:
    return int(lab.gateway.state()["interceptor"]["counts"]["sessions"])


def wait_until(holds: Any, timeout_s: float = SOON_S) -> bool:
    deadline_at = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline_at:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("where", [(), ("--data",)], ids=["line", "header"])
def test_what_has_no_end_is_not_kept(gateway_lab: Lab, where: tuple[str, ...]) -> None:
    before, taken = memory_bytes(gateway_lab), counted(gateway_lab)
    client = rude(gateway_lab, "client", "endless", GOOD, "--octets", str(FLOOD_BYTES), *where)
    most = 0
    while client.running:
        most = max(most, memory_bytes(gateway_lab) - before)
        time.sleep(0.02)
    (end,) = said(client)
    assert end["ended"] in {"sent all", "closed"}, "refused or carried, but never left hanging"
    assert most <= GROWTH_BYTES
    assert prompt_s(gateway_lab) < PROMPT_S * slowness()
    assert wait_until(lambda: counted(gateway_lab) > taken), "it was bridged past the box: nothing has been shown"


def test_a_server_that_never_reads_stops_its_client(gateway_lab: Lab) -> None:
    before = memory_bytes(gateway_lab)
    with serving(gateway_lab, BAD, "deaf"):
        words = ("endless", BAD, "--data", "--octets", str(FLOOD_BYTES), "--patience", "1.5")
        with attacking(gateway_lab, *words, ready="ended") as client:
            (end,) = said(client)
            assert memory_bytes(gateway_lab) - before <= GROWTH_BYTES
            assert prompt_s(gateway_lab) < PROMPT_S * slowness()
    assert end["ended"] == "stalled"
    assert end["sent"] <= IN_FLIGHT_BYTES


def test_a_client_that_never_reads_stops_its_server(gateway_lab: Lab) -> None:
    before = memory_bytes(gateway_lab)
    with serving(gateway_lab, BAD, "flooding") as server, attacking(gateway_lab, "deaf", BAD):
        server.wait_for("sent")
        assert prompt_s(gateway_lab) < PROMPT_S * slowness()
        assert wait_until(lambda: stands_still(server)), "the server still sends"
        assert said(server)[-1]["sent"] <= IN_FLIGHT_BYTES
        assert memory_bytes(gateway_lab) - before <= GROWTH_BYTES


def stands_still(process: Process) -> bool:
    """It has said nothing for two seconds."""
    lines = said(process)
    time.sleep(2.0)
    return said(process) == lines


def test_slow_clients_keep_nobody_waiting(gateway_lab: Lab) -> None:
    within_s = PROMPT_S * slowness()
    with attacking(gateway_lab, "loris", GOOD, "--count", "500"):
        assert wait_until(lambda: sessions(gateway_lab) >= 500)
        assert prompt_s(gateway_lab) < within_s


def test_a_slow_server_keeps_nobody_waiting(gateway_lab: Lab) -> None:
    within_s = PROMPT_S * slowness()
    with serving(gateway_lab, BAD, "dripping"), attacking(gateway_lab, "loris", BAD, "--count", "200"):
        assert wait_until(lambda: sessions(gateway_lab) >= 200)
        assert prompt_s(gateway_lab) < within_s


def test_a_storm_of_connections_loses_none(gateway_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    within_s = PROMPT_S * slowness()
    storm = rude(gateway_lab, "client", "storm", GOOD, "--count", "3000", "--parallel", "1000")
    slowest_s = prompt_s(gateway_lab)
    end = storm.wait().check().json()
    with capsys.disabled():
        rate = end["done"] / end["seconds"]
        print(f" [storm: {rate:.0f} sessions a second, {end['failures'] or 'no'} failures, others {slowest_s:.2f} s]")
    assert end["done"] == 3_000
    assert slowest_s < within_s


def test_ten_thousand_idle_sessions(gateway_lab: Lab, fresh_bytes: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert wait_until(lambda: sessions(gateway_lab) == 0), "sessions of the tests before this one hang"
    within_s = PROMPT_S * slowness()
    idle = min(SESSIONS, (files_allowed(gateway_lab) - FILES_BESIDE) // 2)
    words = ("idle", GOOD, "--count", str(idle), "--parallel", "400")
    with attacking(gateway_lab, *words, ready='"open"', timeout_s=45) as crowd:
        (end,) = said(crowd)
        assert wait_until(lambda: sessions(gateway_lab) >= end["open"]), "some were bridged past the box"
        each = (memory_bytes(gateway_lab) - fresh_bytes) / end["open"]
        slowest_s = prompt_s(gateway_lab)
        with capsys.disabled():
            print(f" [{end['open']} idle sessions, {each / 1024:.1f} KiB each, others {slowest_s:.2f} s]")
        assert end["open"] == idle
        assert each <= SESSION_BYTES
        assert slowest_s < within_s
    assert said(crowd)[-1] == {"left": idle}
