"""The MTA, put together as `app.mta` does it, in as many lives as a test wants, and the world around them.

this process ── fork ─> world (see crash_world)
             └─ fork ─> MTA, life 0, killed; life 1, killed; ... the last one ends by SIGTERM, with an empty queue
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import tomli_w
import uvloop

from smtp_intercept.app import channel, config, handover
from smtp_intercept.app.mta import Mta, Secrets
from smtp_intercept.direction import Servers
from smtp_intercept.mta.faults import SpoolError
from tests.mta.crash_ledger import OURS, Sent, Taken, Verdict, judge
from tests.mta.crash_world import world
from tests.mta.spools import files

EMPTY_S = 60.0
END_S = 10.0
REFUSED = 1  # exit status: the spool cannot be opened
LOOPBACK = ("127.0.0.1", 0)


def settings(spool: Path, port: int, **mta: Any) -> config.Config:
    return config.parse(
        tomli_w.dumps(
            {
                "bridge": {"ports": ["p0", "p1"]},
                "intercept": {"incoming": "mta"},
                "protected": [{"domain": OURS, "servers": ["127.0.0.1"], "deliver_to": [f"127.0.0.1:{port}"]}],
                "relay": {"host": "127.0.0.1", "port": port},  # for what is told to senders
                "dns": {"resolvers": ["127.0.0.1:9"]},
                # Bounces are what is to be counted here: no recipient is refused before, no notice put off.
                "mta": {
                    "spool": str(spool),
                    "retry_s": 1,
                    "retry_most_s": 1,
                    "verify_recipients": False,
                    "notices_per_hour": 0,
                    **mta,
                },
                "limits": {"sessions": 1_000, "drain_s": 5},
            }
        )
    )


class Rig:
    """The world, and the lives of the MTA in it."""

    def __init__(self, directory: Path, seed: int, spool: Path, **mta: Any) -> None:
        self._directory, self.spool = directory, spool
        self.life, self.killed_at = -1, dict[int, float]()
        self._listener = socket.create_server(LOOPBACK, backlog=64)
        next_hop = socket.create_server(LOOPBACK, backlog=64)
        self._ends = handover.pair()
        self._told, told = socket.socketpair()
        self._settings = settings(spool, next_hop.getsockname()[1], **mta)
        for sock in (self._listener, next_hop, told):
            sock.setblocking(False)
        self._told.settimeout(EMPTY_S)
        self._world = self._fork(lambda: self._run_world(next_hop, told, seed), "world")
        told.close()
        next_hop.close()

    def _run_world(self, next_hop: socket.socket, told: socket.socket, seed: int) -> None:
        giving = handover.Giving(self._ends[0])
        seen = uvloop.run(world(self._listener, next_hop, giving, told, seed))
        (self._directory / "world.json").write_text(json.dumps(seen))

    def _fork(self, work: Callable[[], None], name: str) -> int:
        if not (child := os.fork()):
            with (self._directory / f"{name}.err").open("w") as errors:
                os.dup2(errors.fileno(), 2)
            _leave(work)
        return child

    # --- the MTA's lives ----------------------------------------------------------------------

    def start(self) -> int:
        """The next life; its pid."""
        self.life += 1
        return self._fork(self._run_mta, f"mta{self.life}")

    def _run_mta(self) -> None:
        of = self._settings
        of = of.model_copy(update={"mta": of.mta.model_copy(update={"hostname": f"life{self.life}.box.example"})})
        log = os.open(self._directory / f"mail{self.life}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        reports, _ = channel.pair()
        arguments = argparse.Namespace(
            **dict.fromkeys(("borrow", "ask", "look")),
            take=[self._ends[1].detach()],
            reports=reports.detach(),
            log=log,
            port=["p0", "p1"],
        )
        try:
            mta = Mta(of, arguments, Secrets(of), Servers.of(()))
        except SpoolError as error:
            sys.exit(str(error))
        uvloop.run(mta.run())

    def kill(self, pid: int, *or_ended: int) -> None:
        """A life that has ended by itself must have done so with one of these."""
        self.killed_at[self.life] = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        if (status := ended(pid, END_S)) not in (-signal.SIGKILL, *or_ended):
            raise RuntimeError(f"life {self.life} ended by itself, {status}: {self._errors()}")

    def finish(self) -> Verdict:
        """No more new mail; the last life delivers what is left, and ends in order."""
        pid = self.start()
        self._tell(b"stop")
        self._told.recv(16)
        left = self._emptied()
        self._tell(b"end")
        status = ended(self._world, END_S)
        if status:
            raise RuntimeError(f"world: {status}: {(self._directory / 'world.err').read_text()}")
        os.kill(pid, signal.SIGTERM)
        status = ended(pid, END_S)
        return self._verdict([*left, *([f"the last life ended with {status}"] if status else [])])

    def _tell(self, word: bytes) -> None:
        self._told.send(word)

    def _emptied(self) -> list[str]:
        deadline_at = time.monotonic() + EMPTY_S
        while (left := _queued(self.spool)) and time.monotonic() < deadline_at:
            time.sleep(0.05)
        return [f"{left} messages are left in the queue"] if left else []

    def _errors(self) -> str:
        return (self._directory / f"mta{self.life}.err").read_text()

    def _verdict(self, broken: list[str]) -> Verdict:
        seen = json.loads((self._directory / "world.json").read_text())
        sent = {each["name"]: Sent(**each) for each in seen["sent"]}
        taken = [Taken(**each) for each in seen["taken"]]
        verdict = judge(sent, taken, self._settled(), self.killed_at)
        verdict.counts["kills"] = len(self.killed_at)
        verdict.broken += broken + [f"client: {what}" for what in seen["mistakes"]]
        verdict.broken += [f"{name} is left in the spool" for name in files(self.spool)]
        verdict.broken += [
            f"{path.name}: {line}"
            for path in self._directory.glob("mta*.err")
            for line in path.read_text().splitlines()
            if "mistake of ours" in line or "Traceback" in line
        ]
        return verdict

    def _settled(self) -> dict[str, int]:
        """Recipient → the life whose log says that its delivery was on the disk; a line that is torn says nothing."""
        settled: dict[str, int] = {}
        for life in range(self.life + 1):
            with suppress(FileNotFoundError):
                for line in (self._directory / f"mail{life}.log").read_text().split("\n")[:-1]:
                    record = json.loads(line)
                    if record["type"] == "delivery" and record["outcome"] == "delivered":
                        settled.setdefault(record["recipient"], life)
        return settled


def _leave(work: Callable[[], None]) -> NoReturn:
    try:
        work()
    except SystemExit as reason:
        sys.stderr.write(f"{reason}\n")
        sys.stderr.flush()
        os._exit(REFUSED)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(2)
    os._exit(0)


def ended(pid: int, within_s: float) -> int:
    """The exit status; a negative one is a signal's."""
    deadline_at = time.monotonic() + within_s
    while time.monotonic() < deadline_at:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise RuntimeError(f"process {pid} did not end within {within_s} s")


def _queued(spool: Path) -> int:
    try:
        connection = sqlite3.connect(f"{(spool / 'queue.db').absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        with connection:
            return int(connection.execute("SELECT count(*) FROM message").fetchone()[0])
    except sqlite3.Error:
        return -1
