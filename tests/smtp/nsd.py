"""A real authoritative DNS server (Debian's nsd) on a loopback address, whose zones a test rewrites."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import dns.asyncresolver
import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from smtp_intercept.lookup import read_nameservers, stub_resolver
from tests import vacant
from tests.tools import program

ADDRESS = "127.0.0.53"
START_TIMEOUT_S = 60.0

CONF = """\
server:
  ip-address: {address}@{port}
  username: ""
  chroot: ""
  database: ""
  zonesdir: "{folder}"
  zonelistfile: "{folder}/zone.list"
  xfrdfile: ""
  xfrdir: "{folder}"
  pidfile: ""
  logfile: "{folder}/log"
  server-count: 1
remote-control:
  control-enable: no
"""
ZONE = """\
$TTL {ttl_s}
@ SOA ns.invalid. hostmaster.invalid. {serial} 60 60 60 {ttl_s}
@ NS ns.invalid.
"""


class Nsd:
    """Serves ``zones``: name to the text of its records; a zone of None cannot be loaded: SERVFAIL."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._serial, self.port = folder, 0, vacant.port(ADDRESS)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, zones: Mapping[str, str | None], ttl_s: int = 1) -> None:
        """Serve these zones and no others from now on; returns when they are served."""
        names = [*zones, "serial.invalid"]
        conf = CONF.format(address=ADDRESS, port=self.port, folder=self._folder)
        conf += "".join(f'zone:\n  name: "{name}"\n  zonefile: "{name}.zone"\n' for name in names)
        (self._folder / "nsd.conf").write_text(conf)
        self._serial += 1
        for name, records in {**zones, "serial.invalid": ""}.items():
            path = self._folder / f"{name}.zone"
            if records is None:
                path.unlink(missing_ok=True)
            else:
                path.write_text(ZONE.format(ttl_s=ttl_s, serial=self._serial) + records)
        self._restart()

    def stop(self) -> None:
        """No more answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
            self._process = None

    def resolver(self) -> dns.asyncresolver.Resolver:
        """A stub resolver that asks this server only, as `dns.resolvers` makes one."""
        return stub_resolver(read_nameservers([self.place]))

    @property
    def place(self) -> str:
        """Where it answers, as `dns.resolvers` has it."""
        return f"{ADDRESS}:{self.port}"

    def _restart(self) -> None:
        self.stop()
        path, environment = program("nsd")
        with (self._folder / "log.stderr").open("wb") as complaints:
            self._process = subprocess.Popen(
                [path, "-d", "-c", self._folder / "nsd.conf"],
                env={**os.environ, **environment},
                stderr=complaints,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._serves():
            assert self._process.poll() is None, self._complaint()
            assert time.monotonic() < deadline, self._complaint()
            time.sleep(0.02)

    def _complaint(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("log*")))

    def _serves(self) -> bool:
        question = dns.message.make_query("serial.invalid", dns.rdatatype.SOA)
        try:
            answer = dns.query.udp(question, ADDRESS, port=self.port, timeout=0.2)
        except (dns.exception.Timeout, OSError):
            return False
        return bool(answer.answer) and answer.answer[0][0].serial == self._serial
