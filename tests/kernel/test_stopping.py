"""Sessions while the gateway stands still or is stopped in good order, and what systemd hears of it.

diverter     ────────┤ SIGSTOP            SIGCONT ├────────
running      EHLO MAIL RCPT DATA ...  . QUIT                 goes on: it needs no diverter
patient          SYN ·· SYN ·· SYN, DATA ...      . QUIT     bridged, and stays so when its old SYNs are looked at

daemon       ────────┤ SIGTERM ───────────── drain_s ┤ ends
busy         DATA ...              . 250 QUIT                accepted and logged
idle         EHLO                                    ┤ cut
meanwhile               connects, is bridged, and stays
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from bridge import firewall
from smtp_intercept.app import status
from smtp_intercept.app.ended import lives
from smtp_intercept.app.lab import hung, namespaces
from smtp_intercept.app.lab.host import SOON_S
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.rundir import RunDir
from smtp_intercept.app.signals import ASKS
from tests.kernel.pace import slowness

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

THROUGH_S = 3.0  # the promise
SO_TIMESTAMP = 29  # asm-generic/socket.h
DRAIN_S = 4
SERVER = "192.0.2.20"
PROTECTED = {"protected": [{"domain": "example.com", "servers": [SERVER]}]}


class Call:
    """A client's side of one dialogue, from the test itself: its socket belongs to the client's namespace."""

    def __init__(self, lab: Lab, timeout_s: float = 10.0) -> None:
        self.began_at = time.monotonic()
        client = lab.host("client").enter[-1]
        self.sock = namespaces.inside(client, lambda: socket.create_connection((SERVER, 25), timeout_s))
        self.port: int = self.sock.getsockname()[1]
        self.file = self.sock.makefile("rb")
        self.banner = self.reply()
        self.answered_s = time.monotonic() - self.began_at

    def reply(self) -> str:
        """The last line of one; "" at the end of the stream."""
        while (line := self.file.readline().decode()) and line[3:4] == "-":
            pass
        return line.rstrip()

    def say(self, line: str) -> str:
        self.sock.sendall(f"{line}\r\n".encode())
        return self.reply()

    def begin(self, sender: str) -> None:
        """Up to the middle of DATA."""
        assert self.say("EHLO client.example.net").startswith("250")
        self.envelope(sender)

    def envelope(self, sender: str) -> None:
        replies = [self.say(f"MAIL FROM:<{sender}>"), self.say("RCPT TO:<user@example.com>"), self.say("DATA")]
        assert [reply[:3] for reply in replies] == ["250", "250", "354"]
        self.sock.sendall(b"Subject: in the middle\r\n\r\nhalf")

    def finish(self) -> None:
        assert self.say(" and half\r\n.").startswith("250")
        assert self.say("QUIT").startswith("221")

    def cut_after(self, since: float) -> float:
        """Seconds from ``since`` to the end of the connection, however it comes."""
        with suppress(ConnectionError):
            assert self.reply() == ""
        return time.monotonic() - since


def is_live(lab: Lab) -> bool:
    """A heart-beat still holds."""
    return bool(namespaces.inside(lab.gateway.room.enter[-1], firewall.live))


def wait_ended(pid: int) -> None:
    """A signal that kills is sent, and obeyed a moment later."""
    hung.wait_until(lambda: not lives(pid), f"process {pid} has ended")


@pytest.fixture
def calls(request: pytest.FixtureRequest, lanes: None) -> Iterator[Lab]:
    """The gateway at work with a short drain, and a server. Its parameter is the number of interceptors."""
    workers = getattr(request, "param", 1)
    with Lab() as lab:
        MailServer.start(lab.host("server"), SERVER)
        lab.gateway.configure({**PROTECTED, "limits": {"drain_s": DRAIN_S}, "interceptor": {"workers": workers}})
        daemon = lab.gateway.start()
        yield lab
        for _ in range(2):  # the second one does not wait for sessions
            daemon.signal(signal.SIGTERM)
            time.sleep(0.2)


def test_a_stopped_diverter_is_no_matter_to_sessions_and_later_hijacks_none(calls: Lab) -> None:
    """SYNs wait in its queue; their clients repeated them, got through, and must keep what they have."""
    gateway = calls.gateway
    running = Call(calls)
    running.begin("running@example.net")
    diverter = gateway.pids()["diverter"]
    os.kill(diverter, signal.SIGSTOP)
    try:
        patient = [Call(calls) for _ in range(2)]
        # Its own SYN and two repetitions, and the server's banner.
        assert max(call.answered_s for call in patient) <= THROUGH_S + 0.3 * slowness()
        patient[0].begin("patient0@example.net")
        running.finish()
    finally:
        os.kill(diverter, signal.SIGCONT)
    hung.wait_until(lambda: gateway.status()["not_inspected"].get("stale", 0) > 0, "its old SYNs have been looked at")
    hung.wait_until(lambda: is_live(calls), "the switch is closed")
    patient[0].finish()
    patient[1].begin("patient1@example.net")
    patient[1].finish()
    after = Call(calls)
    after.begin("after@example.net")
    after.finish()
    assert gateway.wait_log(type="message", sender="after@example.net")
    seen = {record["sender"] for record in gateway.mail_log("message")}
    assert seen == {"running@example.net", "after@example.net"}
    assert not {call.port for call in patient} & {r["client"]["port"] for r in gateway.mail_log("session")}


@pytest.mark.parametrize("calls", [1, 2], indirect=True)
def test_a_graceful_stop_waits_for_sessions_up_to_drain_s_and_cuts_the_rest(calls: Lab) -> None:
    gateway = calls.gateway
    assert gateway.run_process
    busy, idle = Call(calls), Call(calls)
    busy.begin("busy@example.net")
    assert idle.say("EHLO client.example.net").startswith("250")
    gateway.run_process.signal(signal.SIGTERM)
    stopped_at = time.monotonic()
    hung.wait_until(lambda: not is_live(calls), "the switch is open")
    meanwhile = Call(calls)  # bridged: the switch is open
    assert meanwhile.answered_s < 1.0
    meanwhile.begin("meanwhile@example.net")
    busy.finish()
    assert DRAIN_S - 1.0 <= idle.cut_after(stopped_at) <= DRAIN_S + 2.5
    assert gateway.run_process.wait().returncode == 128 + signal.SIGTERM
    meanwhile.finish()
    (message,) = gateway.mail_log("message")
    assert (message["sender"], message["outcome"]) == ("busy@example.net", "accepted")
    outcomes = {record["client"]["port"]: record["outcome"] for record in gateway.mail_log("session")}
    assert outcomes == {busy.port: "completed", idle.port: "stopped"}


def test_status_knows_at_once_who_was_killed(calls: Lab) -> None:
    """Whatever the last heart-beat still says, and whether or not the supervisor has seen it: it stands still."""
    gateway = calls.gateway
    for kind in ("diverter", "interceptor"):
        pids = gateway.pids()
        os.kill(pids["supervisor"], signal.SIGSTOP)
        os.kill(pids[kind], signal.SIGKILL)
        wait_ended(pids[kind])
        page = namespaces.inside(gateway.namespace, lambda: status.read(RunDir(gateway.run_dir)))
        assert page["ended"] == [kind]
        # On a machine that is so busy the last heart-beat may be over by now.
        news = kind if page["live"] else "the switch is open"
        said = gateway.tollbridge("status", check=False)
        assert (said.returncode, news in status.as_text(page).splitlines()[0]) == (3, True), said.stdout
        os.kill(pids["supervisor"], signal.SIGCONT)
        until = time.monotonic() + SOON_S
        while (
            gateway.pids().get(kind, pids[kind]) == pids[kind] or gateway.tollbridge("status", check=False).returncode
        ):
            assert time.monotonic() < until
            time.sleep(0.2)


def test_down_asks_and_the_exit_status_says_so() -> None:
    """Also where a shell, as of what it starts in the background, has it ignore the signal."""
    with Lab() as lab:
        lab.gateway.configure()
        lab.gateway.tollbridge("up")
        daemon = lab.gateway.spawn(["sh", "-c", 'trap "" INT; exec "$@"', "sh", *lab.gateway.command("run")])
        while RunDir(lab.gateway.run_dir).holder("run") != daemon.pid:
            assert daemon.running, daemon.stderr
            time.sleep(0.02)
        lab.gateway.tollbridge("down")
        assert daemon.wait().returncode == 128 + ASKS


def sent_at(end: socket.socket) -> tuple[bytes, float]:
    """A datagram, and when it was sent, by the kernel's word: however late it is read."""
    word, told, _, _ = end.recvmsg(100, 64)
    ((_, _, at),) = told
    seconds, microseconds = struct.unpack("ll", at)
    return word, seconds + microseconds / 1e6


def test_systemd_hears_ready_alive_and_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tollbridge run` as a unit of Type=notify with WatchdogSec=1."""
    with Lab() as lab, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(SOON_S)
        systemd.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
        lab.gateway.configure()
        lab.gateway.tollbridge("up")
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        daemon = lab.gateway.spawn(lab.gateway.command("run"))
        first = systemd.recv(100)
        while first == b"WATCHDOG=1":  # may come before the first beat
            first = systemd.recv(100)
        assert first == b"READY=1"
        assert json.loads(RunDir(lab.gateway.run_dir).status.read_text())["ready"], "status says so from then on"
        assert lab.gateway.tollbridge("status", "--json").json()["live"]
        alive = [sent_at(systemd) for _ in range(4)]
        daemon.signal(signal.SIGTERM)
        assert {word for word, _ in alive} == {b"WATCHDOG=1"}
        assert max(later - earlier for (_, earlier), (_, later) in pairwise(alive)) < 1.0 * slowness()
        while (last := systemd.recv(100)) == b"WATCHDOG=1":
            pass
        assert last.startswith(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=")
        assert daemon.wait().returncode == 128 + signal.SIGTERM
