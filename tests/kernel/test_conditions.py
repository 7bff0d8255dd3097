"""Every cell of the table *condition × policy* (tests.kernel.conditions), in a running gateway of each policy."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from smtp_intercept.app import simulate
from smtp_intercept.app.lab.host import POLL_S, Result, patient
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab
from tests.kernel.conditions import CELLS, POLICIES, Cell

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

SERVER, MAILBOX = "192.0.2.20", "192.0.2.21"
CONFIG: dict[str, Any] = {
    "protected": [
        {"domain": "example.com", "servers": [SERVER]},
        {"domain": "example.org", "servers": [MAILBOX], "handler": "mta"},
    ],
}
LASTED_S = patient(3.0)
AGAIN_S = patient(40.0)


@dataclass(frozen=True)
class Found:
    """What a cell speaks of, as it was."""

    crosses: bool
    inspected: bool
    counted: frozenset[str]
    headline: str
    status: int

    def fits(self, cell: Cell) -> bool:
        counted = bool((self.counted or {""}) & set(cell.counted or {""}))
        facts = (self.crosses, self.inspected, self.status) == (cell.crosses, cell.inspected, cell.status)
        return facts and counted and self.headline.startswith(cell.headline)


class Box:
    """A gateway of one policy."""

    def __init__(self, lab: Lab, policy: str) -> None:
        self.lab, self.gateway, self.policy = lab, lab.gateway, policy
        self.server = MailServer.start(lab.host("server"))
        self.gateway.run_dir.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tollbridge", self.gateway.run_dir], check=True)
        disk = lab.gateway.directory / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tollbridge", disk], check=True)
        lab.gateway.log.symlink_to(disk / "mail.log")
        self.mounted = (self.gateway.run_dir, disk)
        self.journal = lab.gateway.directory / "journal"
        os.mkfifo(self.journal)
        self.ears = os.open(self.journal, os.O_RDWR | os.O_NONBLOCK)  # what it said last is not lost with it
        mta = {"spool": str(lab.gateway.directory / "spool"), "hostname": "gateway.example.com"}
        log = {"reserve_bytes": 0}  # its disk is smaller
        bridge = {"on_failure": policy, "namespace": "host"}
        self.gateway.configure({**CONFIG, "mta": mta, "log": log, "bridge": bridge})
        self.gateway.tollbridge("up")
        self.start()
        self.wait_well()

    def start(self) -> None:
        """What it says goes into a pipe that nobody else reads."""
        words = ["sh", "-c", 'exec "$@" 2<>"$0"', str(self.journal), *self.gateway.command("run")]
        self.gateway.run_process = self.gateway.spawn(words)

    def said(self) -> str:
        try:
            return os.read(self.ears, 1 << 20).decode()
        except BlockingIOError:
            return ""

    @contextmanager
    def simulated(self, name: str) -> Iterator[None]:
        """While it lasts; afterwards all is well again."""
        condition, lasting = simulate.CONDITIONS[name], None
        if condition.lasts:
            lasting = self.gateway.spawn(self.words(name))
        else:
            self.gateway.run(self.words(name))
        try:
            yield
        finally:
            if lasting is not None:
                lasting.end()
            if condition.undo:
                self.gateway.run(self.words(name, "--undo"))
            if name == "no-daemon":
                self.start()
            self.wait_well()

    def words(self, name: str, *options: str) -> list[str]:
        words = ["-m", simulate.__name__, "--run-dir", str(self.gateway.run_dir), name, *options]
        return ["env", f"{simulate.WORD}=1", self.gateway.interpreter, *words]

    def end(self) -> None:
        self.gateway.stop()
        os.close(self.ears)
        subprocess.run(["umount", "-l", *self.mounted], check=True)

    def mail(self, to: str, *, retries: int) -> tuple[bool, bool]:
        sender = f"{time.monotonic_ns()}@example.net"
        domain = "example.org" if to == MAILBOX else "example.com"
        (entry,) = send(
            self.lab.host("client"), to, [f"user@{domain}"], sender=sender, timeout=patient(1.0), retries=retries
        )
        return entry["accepted"], bool(self.gateway.wait_log(sender=sender, timeout_s=0.5))

    def counts_at_rest(self) -> dict[str, int]:
        """Of what was before: each process tells of it once a second."""
        earlier, counts = dict[str, int](), self.counts()
        deadline_at = time.monotonic() + AGAIN_S
        while earlier != counts:
            assert time.monotonic() < deadline_at, f"{earlier}\n{counts}"
            time.sleep(patient(1.5))
            earlier, counts = counts, self.counts()
        return counts

    def counts(self) -> dict[str, int]:
        status = self.gateway.tollbridge("status", "--json", check=False).json()
        lost = {name: status["mail"].get(name, 0) for name in ("mta_silent", "log_lines_lost")}
        return {**status["not_inspected"], **lost, "unsaid": status["unsaid"]}

    def messages(self) -> int:
        return int(self.gateway.status()["mail"].get("messages", 0))

    def status(self, headline: str) -> Result:
        """As it begins so, or as it is after some seconds: reports come once a second."""
        deadline_at = time.monotonic() + patient(6.0)
        time.sleep(patient(1.2))
        while not (status := self.gateway.tollbridge("status", check=False)).stdout.startswith(headline):
            if time.monotonic() > deadline_at:
                break
            time.sleep(0.5)
        return status

    def wait_well(self) -> None:
        def well() -> bool:
            return self.mail(SERVER, retries=0) == (True, True)

        self.until(well)
        self.until(lambda: self.gateway.state()["watch"].get("differences") == [])

    def until(self, true: Callable[[], bool]) -> None:
        deadline_at = time.monotonic() + AGAIN_S
        while not true():
            assert time.monotonic() < deadline_at, self.said()
            time.sleep(POLL_S)

    def try_out(self, name: str) -> Found:
        cell = CELLS[name][POLICIES.index(self.policy)]
        before = self.counts() if all(cell.counted or ("",)) else self.counts_at_rest()
        messages = self.messages()
        with self.simulated(name):
            time.sleep(LASTED_S)
            to = MAILBOX if name == "mta-hung" else SERVER
            sessions = len(self.gateway.mail_log("session"))
            accepted, inspected = self.mail(to, retries=3)
            # Who was told to come again was spoken to, and has no message.
            inspected = inspected or (name == "mta-hung" and len(self.gateway.mail_log("session")) > sessions)
            # What lies in the way of a stopped gateway is looked for less often.
            time.sleep(patient(6.8 if name == "foreign-forward" else 0.0))
            status = self.status(cell.headline)
            inspected = inspected or (name == "log-full" and self.messages() > messages)  # but no record has room
            after = self.counts()
        counted = frozenset(reason for reason, n in after.items() if n > before.get(reason, 0))
        return Found(accepted, inspected, counted, status.stdout.splitlines()[0], status.returncode)


def asked_for(request: pytest.FixtureRequest) -> list[str]:
    tests = [item.name for item in request.session.items if item.path == request.path]
    return [name for name in CELLS if any(f"[{policy}-{name}]" in test for test in tests for policy in POLICIES)]


def outcomes_of(box: Box, names: list[str]) -> Iterator[tuple[str, Future[Found]]]:
    """One that fails does not keep the next from being tried."""
    for name in names:
        future: Future[Found] = Future()
        try:
            future.set_result(box.try_out(name))
        except Exception as error:
            future.set_exception(error)
        yield name, future


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, lanes: None) -> Iterator[dict[str, dict[str, Future[Found]]]]:
    """Both policies side by side: most of it is waiting."""
    names = asked_for(request)
    with ExitStack() as labs, ThreadPoolExecutor(2) as pool:
        boxes = {policy: Box(labs.enter_context(Lab()), policy) for policy in POLICIES}
        tried = {policy: pool.submit(lambda b: dict(outcomes_of(b, names)), box) for policy, box in boxes.items()}
        yield {policy: outcome.result() for policy, outcome in tried.items()}
        for box in boxes.values():
            box.end()


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("policy", POLICIES)
def test_cell(found: dict[str, dict[str, Future[Found]]], policy: str, name: str) -> None:
    cell, outcome = CELLS[name][POLICIES.index(policy)], found[policy][name].result()
    assert outcome.fits(cell), f"{outcome}\nis not\n{cell}"
