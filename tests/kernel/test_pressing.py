r"""Attackers and victims in one lab: whatever one client does, the others' mail is accepted, inspected, and in time.

::

    victims  .10 ─┐                ┌─ .20 server of the victims
                  ├─ p0 box p1 ────┤
    attacker ─────┘                └─ .21 server of the attacker

| the attacker's, ten times what one address may | it gets                       | the victims' mail              |
|------------------------------------------------|-------------------------------|--------------------------------|
| SYNs                                           | its rate, the rest is dropped | all accepted, all inspected,   |
| sessions                                       | its share, then 421           | the median no more than twice  |
| lines that cost most to read                   | what time is left             | that of the same run before,   |
| octets that are kept                           | its share, then 421           | memory within what is reckoned |
| replies that it hardly reads                   | its share, then 421           |                                |

The attacker's processes give way to the box's (`nice`): they stand for another machine, whose CPU is not ours. The
box's run as its unit has them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from smtp_intercept.accounts import LEAST_HELD_BYTES
from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.host import Process
from smtp_intercept.app.lab.mail import MailServer, deliveries, sending
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.kernel.pace import slowness
from tests.kernel.test_flood import rss_bytes

pytestmark = [pytest.mark.kernel, pytest.mark.alone]

WIRES: Wires = {
    "outside": (Station("client", ("192.0.2.10/24",)), Station("attacker", ("192.0.2.66/24",))),
    "inside": (Station("server", ("192.0.2.20/24",)), Station("other", ("192.0.2.21/24",))),
}
GOOD, BAD = "192.0.2.20", "192.0.2.21"
PLACES, PER_NETWORK = 300, 200
ONE_MAY = PLACES // 3  # sessions
CONFIG: dict[str, Any] = {
    "protected": [{"domain": "example.com", "servers": [GOOD, BAD]}],
    "limits": {"drain_s": 0, "sessions": PLACES, "new_connections_per_s_per_network": PER_NETWORK},
}
UNIT = Path(__file__).parents[2] / "smtp_intercept/app/packaging/files/tollbridge.service"
GIVES_WAY = 'echo 19 >/proc/self/autogroup; exec "$0" "$@"'
FOREIGN = "10.66.0.0/16"  # all addresses of the attacker's
ONE = "10.66.7.0/24"
MAILS, PARALLEL = 40, 2
# A median below FLOOR_S is nobody's delay; where others want the CPU, the box has used up its share of it when pressed.
RATIO, FLOOR_S = 2.0, 0.1
GROWN_BYTES = LEAST_HELD_BYTES + PLACES * (40 << 10)  # docs/hardware.md: what is held, and 40 KiB a session
TIMES = 10


@pytest.fixture(scope="module")
def pressed(gateway_lab: Lab) -> Iterator[Lab]:
    """Everybody is there, and the attacker has all addresses of its network."""
    MailServer.start(gateway_lab.host("server"))
    as_in_the_unit(gateway_lab)
    attacker, other = gateway_lab.host("attacker"), gateway_lab.host("other")
    attacker.run(["ip", "route", "add", "local", FOREIGN, "dev", "lo"])
    other.run(["ip", "route", "add", FOREIGN, "dev", "eth0"])
    served = other.spawn(gives_way(other.program("rude", "serve", BAD, "--manners", "good")))
    served.wait_for("ready")
    yield gateway_lab
    served.end()


def as_in_the_unit(lab: Lab) -> None:
    """Ten times the weight that others have, for the gateway's processes and for whatever they start."""
    assert "\nCPUWeight=1000\n" in UNIT.read_text()
    for pid in lab.gateway.pids().values():
        weigh(pid, -10)


def weigh(pid: int, nice: int) -> None:
    """A process and, where the scheduler has groups of its own making, the whole of its session."""
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    with suppress(FileNotFoundError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def gives_way(command: Sequence[str]) -> list[str]:
    """Each has a session of its own already (`Host.spawn`)."""
    return ["nice", "-n", "19", "sh", "-c", GIVES_WAY, *command]


def attacking(lab: Lab, *words: str) -> Process:
    attacker = lab.host("attacker")
    return attacker.spawn(gives_way([attacker.interpreter, "-m", *words]))


@contextmanager
def pressing(lab: Lab, kind: str) -> Iterator[Process]:
    """Ten times what one address may."""
    attacker, other = lab.host("attacker"), lab.host("other")
    if kind == "SYNs":
        rate = TIMES * PER_NETWORK // 2
        where = [BAD, "--to", other.mac, "--by", attacker.mac, "--sources", "10.66.7.7/32"]
        process = attacking(
            lab, "tests.kernel.flood", *where, "--rate", str(rate), "--seconds", "60", "--frames", "5000"
        )
    else:
        process = attacking(lab, "tests.kernel.pressing", kind, BAD, "--sources", ONE, "--count", str(TIMES * ONE_MAY))
    process.wait_for("ready", 20)
    time.sleep(1.5)
    try:
        yield process
    finally:
        process.end()


def mail(lab: Lab, sender: str) -> tuple[int, int, float]:
    """So many were accepted, so many of them are in the log; the median of the seconds, of all tries."""
    client = lab.host("client")
    process = sending(client, GOOD, count=MAILS, parallel=PARALLEL, sender=f"{sender}.{{n}}@example.net", size=2_000)
    process.wait(60).check()
    sent = deliveries(process)
    logged = {entry["sender"] for entry in lab.gateway.mail_log("message")}
    accepted = [entry for entry in sent if entry["accepted"]]
    seconds = [sum(attempt["seconds"] for attempt in entry["attempts"]) for entry in accepted]
    return len(accepted), sum(entry["sender"] in logged for entry in accepted), median(seconds)


@pytest.mark.parametrize(
    ("kind", "costs"),
    [
        ("SYNs", "rate_client"),
        ("sessions", "client_shares_used_up"),
        ("lines", "client_shares_used_up"),
        ("octets", "client_shares_used_up"),
        ("readers", "client_shares_used_up"),
    ],
)
def test_whatever_one_client_does_the_others_mail_is_inspected(pressed: Lab, kind: str, costs: str) -> None:
    gateway = pressed.gateway
    accepted, logged, quiet_s = mail(pressed, f"quiet-{kind}")
    assert (accepted, logged) == (MAILS, MAILS)
    before, small = gateway.status(), rss_bytes(gateway.pids()["interceptor"])
    with pressing(pressed, kind):
        accepted, logged, pressed_s = mail(pressed, f"pressed-{kind}")
        slow = slowness()
        hung.wait_until(lambda: gateway.status()["put_off"][costs] > before["put_off"][costs], "somebody is put off")
        large, during = rss_bytes(gateway.pids()["interceptor"]), gateway.status()
    print(f"\n{kind}: {quiet_s * 1e3:.1f} ms, then {pressed_s * 1e3:.1f} ms; {(large - small) >> 10} KiB more", end="")
    print(f"; {during['sessions']} sessions, {during['put_off']}, {during['mail']['deferred']} deferred")
    assert (accepted, logged) == (MAILS, MAILS)
    assert pressed_s <= max(RATIO * quiet_s, FLOOR_S * slow)
    assert large - small <= GROWN_BYTES
    assert during["not_inspected"] == before["not_inspected"]
    assert during["live"]
    assert during["restarts"] == dict.fromkeys(during["restarts"], 0)
