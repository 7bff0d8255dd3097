"""SIGHUP ends no inspection: not of the supervisor, not of a process of its, not while one of them starts.

all          HUP HUP HUP HUP HUP HUP HUP HUP HUP HUP
a session    EHLO MAIL RCPT DATA ...        . 250 QUIT       one message, accepted and logged
diverter     ─┤ KILL   ├─ starts under the hail ──────       the only restart
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.gateway import Gateway
from smtp_intercept.app.lab.host import SOON_S
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

SERVER = "192.0.2.20"
HAIL_S = 2.0


@pytest.fixture
def lab(lanes: None) -> Iterator[Lab]:
    with Lab() as lab:
        MailServer.start(lab.host("server"), SERVER)
        mta = {"hostname": "box.test", "spool": str(lab.gateway.directory / "spool")}
        protected = [{"domain": "example.com", "servers": [SERVER]}]
        # Its MTA runs, and mail to the server is still a live session.
        lab.gateway.configure({"intercept": {"outgoing": "mta"}, "mta": mta, "protected": protected})
        lab.gateway.start()
        try:
            yield lab
        finally:
            lab.gateway.stop()


def family(pid: int) -> list[int]:
    """The process and its children as they are now."""
    with suppress(OSError):
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return []


def all_have_heard(gateway: Gateway, killed: int) -> bool:
    """The diverter that is there instead of the killed one too, which takes its time to start."""
    pids, log = gateway.pids(), gateway.run_process.stderr if gateway.run_process else ""
    heard = all(f"SIGHUP is ignored (process {pid})" in log for pid in pids.values())
    return heard and pids.get("diverter", killed) != killed


def test_mail_is_inspected_under_a_hail_of_sighup(lab: Lab) -> None:
    gateway = lab.gateway
    assert gateway.run_process
    pids = gateway.pids()
    assert set(pids) >= {"supervisor", "diverter", "interceptor", "mta"}
    os.kill(pids["diverter"], signal.SIGKILL)
    began_at = time.monotonic()
    while time.monotonic() - began_at < HAIL_S or not all_have_heard(gateway, pids["diverter"]):
        assert time.monotonic() - began_at < SOON_S, gateway.run_process.stderr
        for pid in family(pids["supervisor"]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)
        time.sleep(0.01)
    hung.wait_until(lambda: gateway.state()["ready"] and gateway.status()["live"], "the switch is closed")
    state = gateway.state()
    assert state["restarts"] == {name: int(name == "diverter") for name in pids if name != "supervisor"}
    survivors = {name: pid for name, pid in gateway.pids().items() if name != "diverter"}
    assert survivors == {name: pid for name, pid in pids.items() if name != "diverter"}
    (delivery,) = send(lab.host("client"), SERVER, sender="after@example.net")
    assert delivery["accepted"]
    assert gateway.wait_log(type="message", sender="after@example.net")
    log = gateway.run_process.stderr
    assert all(f"SIGHUP is ignored (process {pid})" in log for pid in gateway.pids().values()), log
    assert "Traceback" not in log
