"""The two MTAs of the bench, each with its queue on the same disk and its mail for the same smtp-sink.

Both take mail first and keep it (ours without a runner, Postfix by HOLD), and deliver when they are told to.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Protocol

from smtp_intercept.app.lab.host import Host, Process
from tests.bench.systems import cpu_s
from tests.peers import postfix
from tests.peers.jail import SPOOL, jailed
from tests.peers.peer import Peer
from tests.tools import program

OURS_PORT, POSTFIX_PORT, SINK_PORT = 2525, 25, 2526
POSTFIX_ADDRESS = "127.0.0.1"
PATIENCE_S = 120.0
# Behind that of the tests; the last line of a name counts. Its defaults otherwise.
MAIN = """
mynetworks = 127.0.0.0/8
smtp_connection_cache_on_demand = yes
in_flow_delay = 0
smtpd_recipient_restrictions = check_recipient_access static:HOLD, permit
default_transport = smtp:[127.0.0.1]:{sink}
virtual_mailbox_domains =
"""


class Sink:
    """smtp-sink, and how many messages it has taken."""

    def __init__(self, host: Host) -> None:
        path, env = program("smtp-sink")
        self._counts = host.directory / "sink"
        words = [path, "-c", "-u", "nobody", f"127.0.0.1:{SINK_PORT}", "1000"]
        self.process = host.spawn(["env", *_words(env), "sh", "-c", 'exec "$@" >' + str(self._counts), "sh", *words])
        time.sleep(0.5)

    @property
    def messages(self) -> int:
        """It writes "mesg=N" behind every command."""
        with self._counts.open("rb") as file:
            file.seek(max(0, self._counts.stat().st_size - 200))
            seen = re.findall(rb"mesg=(\d+)\r", file.read())
        return int(seen[-1]) if seen else 0

    def wait_for(self, messages: int) -> None:
        deadline_at = time.monotonic() + PATIENCE_S
        while self.messages < messages:
            assert time.monotonic() < deadline_at, f"{self.messages} of {messages} messages delivered"
            time.sleep(0.002)


class System(Protocol):
    """One of the two. ``place`` as smtp-source takes it."""

    name: str
    place: str

    def take(self) -> None:
        """Get ready to take mail and keep it."""

    def deliver(self) -> float:
        """Begin to deliver what was kept; since when (monotonic)."""

    def empty(self) -> None:
        """Nothing is queued any more."""

    def cpu_s(self) -> float:
        """Of all its processes so far."""


class Ours:
    name, place = "tollbridge", f"127.0.0.1:{OURS_PORT}"

    def __init__(self, host: Host, disk: Path) -> None:
        self._host, self.spool = host, disk / "ours"
        self.process: Process | None = None
        self._used_s = 0.0

    def take(self) -> None:
        self.empty()
        self.start("--hold")

    def deliver(self) -> float:
        self.stop()
        return self.start()

    def start(self, *options: str) -> float:
        """Since when it listens."""
        words = [str(self.spool), str(OURS_PORT), str(SINK_PORT), *options]
        self.process = self._host.spawn([self._host.interpreter, "-m", "tests.bench.mta_box", *words])
        self.process.wait_for("\n")
        return float(self.process.stdout.split()[1])

    def stop(self) -> None:
        if self.process is not None:
            self._used_s = self.cpu_s()
            self.process.end(10)
            self.process = None

    def empty(self) -> None:
        self.stop()
        shutil.rmtree(self.spool, ignore_errors=True)
        self.spool.mkdir()

    def cpu_s(self) -> float:
        return self._used_s + (cpu_s([self.process.pid]) if self.process else 0.0)


class Postfix:
    name, place = "postfix", f"{POSTFIX_ADDRESS}:{POSTFIX_PORT}"

    def __init__(self, host: Host, disk: Path) -> None:
        (queue := disk / "postfix").mkdir()
        self._host = host
        main = postfix.MAIN.format(
            domain="postfix.example",
            mine="",
            address=POSTFIX_ADDRESS,
            six="",
            spool=SPOOL,
            mailbox="/",
            uid="1",
            tls="none",
        )
        self.process = jailed(
            host,
            "postfix",
            {
                "postfix/main.cf": main + MAIN.format(sink=SINK_PORT),
                "postfix/master.cf": postfix.MASTER,
                "postfix/transport": "",
                "postfix/tls": "",
                "peer.pem": "",
            },
            [
                f"install -d {SPOOL}/postfix /var/lib/postfix",
                f"mount --bind {queue} {SPOOL}/postfix",
                f"install -d {SPOOL}/postfix/pid",
                "chown postfix /var/lib/postfix",
            ],
            ["postfix", "start-fg"],
        )
        Peer(self.name, host, POSTFIX_ADDRESS, self.process).wait_ready()

    def _inside(self, *words: str) -> None:
        self._host.run(["nsenter", "-t", str(self.process.pid), "-m", *words], timeout_s=PATIENCE_S)

    def take(self) -> None:
        self.empty()

    def deliver(self) -> float:
        self._inside("postsuper", "-H", "ALL")
        began_at = time.monotonic()
        self._inside("postqueue", "-f")
        return began_at

    def empty(self) -> None:
        self._inside("postsuper", "-d", "ALL")

    def cpu_s(self) -> float:
        """Its processes come and go: not told."""
        return 0.0


def _words(env: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in env.items()]
