"""The systems under test, each a box in a lab of its own; all stand at once, so that loads can take turns.

::

    client ── p0 │ bare bridge  or  lane + HAProxy + diverter  or  tollbridge run │ p1 ── server
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

from smtp_intercept.app.lab.network import Lab
from tests.bench.haproxy import VARIANTS, out_by_the_lane
from tests.tools import program

BARE = "bare"
HERE = "gateway"  # a name "gateway@DIR" runs the product of another working tree
SERVER = "192.0.2.20"
BULK_PORT = 5001
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MANY = 1_000_000
CONFIG: dict[str, Any] = {
    "pickup": {"incoming": "intercept"},
    "protected": [{"domain": "example.com", "servers": [SERVER]}],
    # One client network opens them all here.
    "limits": {"new_connections_per_s": MANY, "new_connections_per_s_per_network": MANY},
}


def cpu_s(pids: list[int]) -> float:
    """utime + stime of these processes and all their threads, living and dead."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


class System:
    """One box and its lab, ready for loads. ``taken``: how many connections its proxy has taken so far."""

    def __init__(self, name: str) -> None:
        self.name, self.lab = name, Lab()
        self.groups: dict[str, list[int]] = {}

    def __enter__(self) -> System:
        self.lab.__enter__()
        try:
            self._build()
            self._sink()
        except BaseException:
            self.lab.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exc: Any) -> None:
        self.lab.__exit__(None, None, None)

    @property
    def taken(self) -> int | None:
        return None

    def _build(self) -> None:
        self.lab.gateway.bridge_bare()

    def _sink(self) -> None:
        """smtp-sink takes mail and forgets it; the bulk server does the same with anything."""
        server = self.lab.host("server")
        path, env = program("smtp-sink")
        sink = server.spawn([*_with(env), path, "-u", "nobody", f"{SERVER}:25", "1000"])
        bulk = server.spawn([server.interpreter, "-m", "tests.bench.bulk", "serve", SERVER, "--port", str(BULK_PORT)])
        bulk.wait_for("ready")
        self.groups["sink"] = [sink.pid]
        deadline_at = time.monotonic() + 10
        probe = f"import socket; socket.create_connection(({SERVER!r}, 25), 5).recv(100)"
        while server.python(probe, check=False).returncode:
            assert time.monotonic() < deadline_at, sink.stderr
            time.sleep(0.1)


class Tollbridge(System):
    """The product, of this working tree or another."""

    def _build(self) -> None:
        gateway = self.lab.gateway
        gateway.configure(CONFIG)
        tree = self.name.partition("@")[2]
        with _environment({"PYTHONPATH": tree, "PYTHONSAFEPATH": "1"} if tree else {}):
            gateway.start()
        self.groups["gateway"] = [pid for name, pid in gateway.pids().items() if name != "diverter"]
        self.groups["diverter"] = [gateway.pids()["diverter"]]

    @property
    def taken(self) -> int | None:
        return int(self.lab.gateway.state()["interceptor"]["counts"]["sessions"])


class Haproxy(System):
    """HAProxy in place of the interceptor, on the lane that `tollbridge up` made, asked by the real diverter."""

    def _build(self) -> None:
        gateway = self.lab.gateway
        gateway.configure(CONFIG)
        gateway.start()
        gateway.stop(down=False)
        commands, rules = out_by_the_lane(port=0)
        (gateway.directory / "bench.nft").write_text(rules)
        for command in [*commands, ["nft", "-f", str(gateway.directory / "bench.nft")]]:
            gateway.room.run(command)
        self._stats = gateway.directory / "stats.sock"
        settings = gateway.directory / "haproxy.cfg"
        settings.write_text(VARIANTS[self.name].render(self._stats))
        path, env = program("haproxy")
        proxy = gateway.room.spawn([*_with(env), path, "-db", "-f", str(settings)])
        effective = str(gateway.run_dir / "effective.toml")
        diverting = gateway.room.spawn([gateway.interpreter, "-m", "tests.bench.diverting", effective, *gateway.ports])
        diverting.wait_for("beating")
        self.groups["haproxy"] = [proxy.pid]
        self.groups["diverter"] = [int(diverting.stdout.split()[0])]

    @property
    def taken(self) -> int | None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self._stats))
            sock.sendall(b"show stat\n")
            text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        names, *rows = [line.split(",") for line in text.lstrip("# ").splitlines() if line]
        return sum(int(row[names.index("stot")]) for row in rows if row[1] == "FRONTEND")


def system(name: str) -> System:
    """By its name; `KeyError` if there is none."""
    if name == BARE:
        return System(name)
    if name.partition("@")[0] == HERE:
        return Tollbridge(name)
    VARIANTS[name]
    return Haproxy(name)


def run_timed(system: System, argv: list[str], env: Mapping[str, str], timeout_s: float = 120.0) -> tuple[float, float]:
    """(seconds, CPU seconds) of a program on the client."""
    return timed(
        system.name, [*system.lab.host("client").enter, *argv], env, system.lab.directory / "load.err", timeout_s
    )


def timed(name: str, argv: list[str], env: Mapping[str, str], log: Path, timeout_s: float) -> tuple[float, float]:
    """(seconds, CPU seconds) of a program that loads ``name``. Waits in the kernel: polling costs 50 ms."""
    with log.open("wb") as out:
        began_at = time.perf_counter()
        process = Popen(argv, env={**os.environ, **env}, stdout=out, stderr=out)
        killer = threading.Timer(timeout_s, process.kill)
        killer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            took_s = time.perf_counter() - began_at
        finally:
            killer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{name}: {' '.join(argv)}: exit status {process.returncode}\n{log.read_text()}")
    return took_s, usage.ru_utime + usage.ru_stime


def _with(env: Mapping[str, str]) -> list[str]:
    return ["env", *(f"{name}={value}" for name, value in env.items())]


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
