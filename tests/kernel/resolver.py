"""A real name server (nsd) inside a lab's host, and the resolv.conf that makes its programs ask there only."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from smtp_intercept.app.lab.host import SOON_S, Host, LabError, Process
from tests.smtp.nsd import CONF, ZONE
from tests.tools import program

ADDRESS, PORT = "127.0.0.1", 53
ASK = """
import sys, dns.message, dns.query
answer = dns.query.udp(dns.message.make_query("serial.invalid", "SOA"), "127.0.0.1", timeout=0.2)
sys.exit(not answer.answer or answer.answer[0][0].serial != int(sys.argv[1]))
"""


class Resolver:
    """``ip netns exec`` gives a namespace the resolv.conf that lies in /etc/netns: made here, and removed at the end.

    The host's programs must be started while the context lasts, or they have the machine's resolv.conf.
    """

    def __init__(self, host: Host, namespace: str) -> None:
        self._host, self._serial = host, 0
        self._netns = Path("/etc/netns", namespace)
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self._netns.mkdir(parents=True)
        (self._netns / "resolv.conf").write_text(f"nameserver {ADDRESS}\noptions timeout:1 attempts:1\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._netns)
        with contextlib.suppress(OSError):  # somebody else's is in it, or it is the machine's own
            self._netns.parent.rmdir()

    def serve(self, zones: Mapping[str, str | None], ttl_s: int = 1) -> None:
        """These zones and no others from now on; one of None cannot be loaded: SERVFAIL. Returns when all is served."""
        self._serial += 1
        folder = self._host.directory / f"nsd{self._serial}"
        folder.mkdir()
        named = {**zones, "serial.invalid": ""}
        conf = CONF.format(address=ADDRESS, port=PORT, folder=folder)
        conf += "".join(f'zone:\n  name: "{name}"\n  zonefile: "{name}.zone"\n' for name in named)
        (folder / "nsd.conf").write_text(conf)
        for name, records in named.items():
            if records is not None:
                (folder / f"{name}.zone").write_text(ZONE.format(ttl_s=ttl_s, serial=self._serial) + records)
        self.stop()
        path, environment = program("nsd")
        words = [f"{name}={value}" for name, value in environment.items()]
        self._process = self._host.spawn(["env", *words, path, "-d", "-c", str(folder / "nsd.conf")])
        self._wait()

    def stop(self) -> None:
        """No more answers."""
        if self._process is not None:
            self._process.end()
            self._host.processes.remove(self._process)
            self._process = None

    def _wait(self, timeout_s: float = SOON_S) -> None:
        deadline_at = time.monotonic() + timeout_s
        while self._host.python(ASK, str(self._serial), check=False).returncode:
            if time.monotonic() > deadline_at:
                raise LabError(f"nsd does not answer: {self._process.stderr if self._process else ''}")
