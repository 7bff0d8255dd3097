"""The loads: mail as smtp-source sends it, and what is not mail. Each gives one value, the less the better."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tests.bench.systems import BULK_PORT, SERVER, System, cpu_s, run_timed
from tests.tools import program

SENDERS = 20  # connections at a time


@dataclass(frozen=True, slots=True)
class Load:
    """``value`` is in ``unit``; ``connections`` is what a proxy must have taken for it (0: none)."""

    unit: str
    run: Callable[[System], tuple[float, float]]
    connections: int = 0


def mail(
    count: int, size_bytes: int, *, reuse: bool, senders: int = SENDERS
) -> Callable[[System], tuple[float, float]]:
    """``count`` messages; ``reuse`` (smtp-source -d): the next one on the same connection."""

    def run(system: System) -> tuple[float, float]:
        path, env = program("smtp-source")
        words = [path, "-4", "-s", str(senders), "-m", str(count), "-l", str(size_bytes), *(["-d"] if reuse else [])]
        return run_timed(system, [*words, "-f", "a@example.net", "-t", "u@example.com", f"{SERVER}:25"], env)

    return run


def stream(size_bytes: int, times: int) -> Callable[[System], tuple[float, float]]:
    """So many TCP streams, one after the other, to a port that is not mail's."""

    def run(system: System) -> tuple[float, float]:
        client = system.lab.host("client")
        words = [client.interpreter, "-m", "tests.bench.bulk", "stream", SERVER, "--port", str(BULK_PORT)]
        return float(client.run([*words, "--size", str(size_bytes), "--times", str(times)], timeout_s=120).stdout), 0.0

    return run


def ping(count: int) -> Callable[[System], tuple[float, float]]:
    """Round trips one after another; µs of the median one."""

    def run(system: System) -> tuple[float, float]:
        client = system.lab.host("client")
        words = client.program("traffic", "ping", SERVER, "--count", str(count), "--interval", "0")
        times_ms = sorted(json.loads(client.run(words, timeout_s=60).stdout)["times_ms"])
        assert len(times_ms) == count, f"{count - len(times_ms)} pings were lost"
        return times_ms[count // 2] * 1000, 0.0

    return run


LOADS: Mapping[str, Load] = MappingProxyType(
    {
        "new": Load("s, 2,000 × 4 KB, one each", mail(2_000, 4096, reuse=False), connections=2_000),
        "reused": Load("s, 5,000 × 4 KB, reused", mail(5_000, 4096, reuse=True), connections=SENDERS),
        "big": Load("s, 40 × 10 MB", mail(40, 10_000_000, reuse=True), connections=SENDERS),
        "stream": Load("s, 16 × 128 MiB, port 5001", stream(2 << 30, 16)),
        "ping": Load("µs, a round trip", ping(2_000)),
    }
)
MAIL = ("new", "reused", "big")


def measure(system: System, load: Load) -> tuple[float, dict[str, float]]:
    """(value, CPU seconds by process group)."""
    before = {group: cpu_s(pids) for group, pids in system.groups.items()}
    value, source_s = load.run(system)
    used = {group: cpu_s(pids) - before[group] for group, pids in system.groups.items()}
    return value, {"source": source_s, **used} if load.connections else {}
