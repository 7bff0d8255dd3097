"""Bad wires, an upgrade, a power cut with mail on the disk, a day of uptime: what has been accepted arrives, once or
more, and unchanged.

::

    client ── loses, delays, doubles, swaps frames ── p0 [gateway] p1 ── the same ── server
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from tests.packaging.test_package import UNITS
from tests.vm.conftest import BOOT_S, PYTHON, RUNS, SETTLED_S, Machine, Machines, configured
from tests.vm.test_machines import LOG, arrived, logged, send

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

BAD_WIRE = "delay 20ms 10ms loss 3% duplicate 2% reorder 10% 50%"
LINES = 20_000
AHEAD = "25 hours"
HOUR_S = 3600
# The box's clock goes on by half an hour every few seconds: the MTA looks at its queue every second.
STEP_S, PAUSE_S = HOUR_S // 2, 3.0
DAY_STEPS = 24 * HOUR_S // STEP_S
MAIL_EVERY = 8  # steps
CLOCK = "/etc/lab-clock"  # where the service's sandbox lets it be read
# The built-in MTA takes what comes for the server, and delivers from an address of its own.
MTA = """\
[bridge]
ports = ["p0", "p1"]
management = ["192.0.2.2/24"]
[intercept]
incoming = "mta"
[mta]
hostname = "gateway.example.com"
[[protected]]
domain = "example.com"
servers = ["192.0.2.20"]
"""
# The proxy serves one address, the built-in MTA the other.
BOTH = """\
[bridge]
ports = ["p0", "p1"]
management = ["192.0.2.2/24"]
[dns]
resolvers = ["192.0.2.40"]
[mta]
hostname = "gateway.example.com"
[[protected]]
domain = "example.com"
servers = ["192.0.2.20"]
[[protected]]
domain = "example.net"
servers = ["192.0.2.21"]
handler = "mta"
"""
# libfaketime moves the clock of the wall only: a session's time-outs are the network's, and that is no faster.
FAKED = f"""\
[Service]
Environment=LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1)
Environment=FAKETIME_TIMESTAMP_FILE={CLOCK} FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1
"""
# As the kernel tells it, of a process of the unit: no way back to more privilege, and a filter of system calls.
CONFINED = {"NoNewPrivs": "1", "Seccomp": "2"}
ONE_CAPABILITY = {"diverter": 1 << 12, "interceptor": 1 << 13}  # CAP_NET_ADMIN, CAP_NET_RAW


@pytest.fixture(autouse=True)
def _at_work(machines: Machines) -> None:
    machines.gateway.wait(RUNS)


class Load:
    """`mailclient` on the client: messages until `ended`, and what it was told of each."""

    def __init__(self, client: Machine, *words: str) -> None:
        self.client, self.token = client, uuid.uuid4().hex[:12]
        self.file = f"/root/{self.token}"
        options = f"--server 192.0.2.20 --to user@example.com --sender {{n}}.{self.token}@example.org {' '.join(words)}"
        program = f"{PYTHON} -m smtp_intercept.app.lab.mailclient --count 0 --timeout 120 {options}"
        client.run(f"nohup {program} >{self.file}.out 2>{self.file}.err </dev/null & echo $! >{self.file}.pid")
        self.wait_accepted(3)

    def wait_accepted(self, number: int) -> None:
        self.client.wait(f"[ $(grep -c '\"accepted\": true' {self.file}.out) -ge {number} ]")

    def ended(self) -> list[dict[str, Any]]:
        """What became of each message; the one in hand is waited for."""
        self.client.run(
            f"kill $(cat {self.file}.pid); tail --pid=$(cat {self.file}.pid) -f /dev/null", timeout_s=SETTLED_S
        )
        return [json.loads(line) for line in self.client.run(f"cat {self.file}.out").splitlines()]


def all_arrive(server: Machine, deliveries: list[dict[str, Any]]) -> None:
    """Every message that was accepted is in the mailbox."""
    senders = [entry["sender"] for entry in deliveries if entry["accepted"]]
    assert senders
    tests = " && ".join(f"grep -rqF '<{sender}>' /var/mail/lab/new" for sender in senders)
    server.wait(tests)


def processes(gateway: Machine) -> dict[str, int]:
    """The service's, with their pids."""
    return dict(json.loads(gateway.run("cat /run/tollbridge/status.json"))["processes"])


def test_the_sandbox_is_in_force(machines: Machines) -> None:
    """Of the processes as they run, not of the unit as it is written."""
    for name, pid in processes(machines.gateway).items():
        lines = machines.gateway.run(f"cat /proc/{pid}/status").splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert {key: status[key] for key in CONFINED} == CONFINED, name
        if name in ONE_CAPABILITY:
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == ONE_CAPABILITY[name], name
            assert int(status["CapBnd"], 16) == 0, name
    told = machines.gateway.run("systemd-analyze security --no-pager tollbridge.service")
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert float(exposure) <= UNITS["tollbridge.service"]


def test_bad_wires_lose_no_mail_and_change_none(machines: Machines) -> None:
    stations = (machines.client, machines.server)
    text = "".join(f"{number}\n" for number in range(LINES))
    machines.client.run(f"seq 0 {LINES - 1} >/root/body")
    for station in stations:
        station.run(f"tc qdisc replace dev lab0 root netem {BAD_WIRE}")
    try:
        load = Load(machines.client, "--parallel 3")
        token = send(machines.client, "192.0.2.20", "--body @/root/body")
        load.wait_accepted(30)
        deliveries = load.ended()
    finally:
        for station in stations:
            station.run("tc qdisc del dev lab0 root")
    assert [entry for entry in deliveries if not entry["accepted"]] == []
    all_arrive(machines.server, deliveries)
    delivered = arrived(machines.server, token)
    numbers = "".join(f"{line}\n" for line in delivered.splitlines() if line.isdigit())
    assert hashlib.sha256(numbers.encode()).digest() == hashlib.sha256(text.encode()).digest()
    assert logged(machines.gateway, token)


def test_an_upgrade_under_load_refuses_and_loses_nothing(machines: Machines) -> None:
    load = Load(machines.client, "--parallel 2")
    machines.gateway.run("dpkg -i /root/lab/tollbridge.deb", timeout_s=BOOT_S)
    machines.gateway.wait(RUNS)
    load.wait_accepted(20)
    deliveries = load.ended()
    assert [entry for entry in deliveries if not entry["accepted"]] == []
    all_arrive(machines.server, deliveries)
    token = send(machines.client)
    arrived(machines.server, token)
    assert logged(machines.gateway, token)


def test_what_the_box_has_accepted_survives_a_power_cut(machines: Machines) -> None:
    """The server is away, the box takes its mail; then it loses its power in the middle of the load."""
    gateway = machines.gateway
    with configured(gateway, MTA):
        machines.server.run("systemctl stop postfix.service", timeout_s=SETTLED_S)
        try:
            load = Load(machines.client, "--parallel 2", "--interval 0.2")
            load.wait_accepted(20)
            before = gateway.boots()
            gateway.power("off")
            deliveries = load.ended()
            gateway.power("on")
            gateway.wait_booted(before)
            gateway.wait(RUNS)
        finally:
            machines.server.run("systemctl start postfix.service", timeout_s=SETTLED_S)
        gateway.run("tollbridge queue retry --all")
        all_arrive(machines.server, deliveries)


def test_the_clock_jumps_by_a_day(machines: Machines) -> None:
    """The machine's own clock is set: mail that waits is tried again by itself, and the box goes on inspecting."""
    gateway = machines.gateway
    with configured(gateway, MTA):
        machines.server.run("systemctl stop postfix.service", timeout_s=SETTLED_S)
        try:
            token = send(machines.client)
            gateway.wait(f"tollbridge queue list | grep -A1 {token} | grep -q refused")
        finally:
            machines.server.run("systemctl start postfix.service", timeout_s=SETTLED_S)
        gateway.run(f"date -s '{AHEAD}'")
        try:
            arrived(machines.server, token)
        finally:
            gateway.run(f"date -s '{AHEAD} ago'")
    token = send(machines.client)
    arrived(machines.server, token)
    gateway.wait(f"grep -q {token} {LOG}")


@contextmanager
def faked_clock(gateway: Machine) -> Iterator[None]:
    """The service lives by a clock of its own, until it is next restarted. (It does not end well then: libfaketime
    #426, a `sleep` that the kernel refuses.)"""
    drop_in = "/run/systemd/system/tollbridge.service.d"
    again = "systemctl daemon-reload && systemctl restart tollbridge.service"
    set_clock(gateway, 0)
    gateway.run(f"mkdir -p {drop_in} && cat >{drop_in}/clock.conf <<EOF\n{FAKED}EOF\n{again}", timeout_s=SETTLED_S)
    try:
        gateway.wait(RUNS)
        yield
    finally:
        gateway.run(f"rm {drop_in}/clock.conf {CLOCK} && systemctl daemon-reload")


def set_clock(gateway: Machine, ahead_s: int) -> None:
    gateway.run(f"echo +{ahead_s} >{CLOCK}")
    time.sleep(PAUSE_S)


@contextmanager
def serves(server: Machine, domains: str) -> Iterator[None]:
    """The server's Postfix, while the context lasts, on all its addresses and for these domains; others' recipients
    are put off (``soft_bounce``)."""

    def set_up(*settings: str) -> None:
        words = " ".join(map(shlex.quote, settings))
        server.run(f"postconf -e {words} && systemctl restart postfix.service", timeout_s=SETTLED_S)

    before = server.run("postconf inet_interfaces virtual_mailbox_domains soft_bounce").splitlines()
    set_up("inet_interfaces=all", f"virtual_mailbox_domains={domains}", "soft_bounce=yes")
    try:
        yield
    finally:
        set_up(*before)


def test_a_day_of_uptime(machines: Machines) -> None:
    """By faketime. Mail that its server puts off is tried as the schedule has it, its sender is told once, and it
    arrives when the server takes it; the other server's is inspected all day, by the same processes. (A server that is
    away is left alone by a clock that nobody can set, faketime neither: tests/mta has that.)"""
    gateway, server, hours = machines.gateway, machines.server, float(HOUR_S)
    with configured(gateway, BOTH), faked_clock(gateway), serves(server, "example.com example.net"):
        began = processes(gateway)
        with serves(server, "example.com"):
            late = send(machines.client, "192.0.2.21", to="user@example.net")
            for step in range(1, DAY_STEPS + 1):
                set_clock(gateway, step * STEP_S)
                if step % MAIL_EVERY == 0:
                    token = send(machines.client)
                    arrived(server, token)
                    assert logged(gateway, token)
        deliveries = [entry for entry in logged(gateway, late) if entry["type"] == "delivery"]
        tries = [entry for entry in deliveries if entry["sender"]]  # without one: the notice's
        set_clock(gateway, (DAY_STEPS + 10) * STEP_S)  # the longest wait is four hours and a half
        arrived(server, late)
        assert processes(gateway) == began
        arrived(machines.internet, late)
        (notice,) = [entry for entry in logged(gateway, late) if entry["type"] == "notice"]
    assert {entry["outcome"] for entry in tries} == {"deferred"}
    first, *others = [datetime.fromisoformat(entry["time"]).timestamp() for entry in tries]
    waits = [after - before for before, after in zip([first, *others], others, strict=False)]
    assert 8 <= len(tries) <= 12, waits
    assert max(waits) <= 5 * hours, waits
    assert waits[0] < hours < waits[-1], waits
    assert notice["actions"] == ["delayed"]
    assert 4 * hours <= datetime.fromisoformat(notice["time"]).timestamp() - first + STEP_S <= 5 * hours
