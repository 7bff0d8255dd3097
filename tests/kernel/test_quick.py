"""What an administrator asks often is answered at once: verbs load what they use, and no more.

Time is CPU's, the least of several runs: however busy the machine, one of them is nearly undisturbed. What is loaded
is told by the interpreter.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

# In a network namespace of its own, with the two ports that the configuration names.
PORTS = "ip link add p0 type veth peer name p1"
LEAST = '[bridge]\nports = ["p0", "p1"]\n[[protected]]\ndomain = "example.com"\nservers = ["192.0.2.20"]\n'
# Each takes tens of milliseconds to load.
SLOW = {"aiosmtpd", "dns", "pyroute2", "scapy", "uvloop"}
CPU_S = 0.2
STARTS = 14  # of the bare interpreter, where that takes its time: a machine that is slow, or shared by others
RUNS = 12


def in_a_namespace(words: list[str]) -> subprocess.CompletedProcess[str]:
    line = ["unshare", "--net", "sh", "-ec", f'{PORTS}; exec "$@"', "sh", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def cpu_s(words: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    in_a_namespace(words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("verb", "status", "more"),
    [
        ("status", 3, {"pydantic"}),
        ("queue list", 0, {"pydantic", "rich"}),
        ("explain --from 192.0.2.10 --to 192.0.2.20", 0, {"asyncio", "rich"}),
    ],
)
def test_it_answers_at_once(verb: str, status: int, more: set[str], tmp_path: Path) -> None:
    config = tmp_path / "tollbridge.toml"
    config.write_text(f"{LEAST}[mta]\nspool = '{tmp_path}/none'\n")
    command = ["-m", "smtp_intercept.app", "--config", str(config), "--run-dir", str(tmp_path / "run"), *verb.split()]
    told = in_a_namespace([sys.executable, "-X", "importtime", *command])
    assert told.returncode == status, told.stderr.splitlines()[-1]
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.stderr.splitlines()}
    assert "smtp_intercept" in loaded
    assert loaded & (SLOW | more) == set()
    for _ in range(RUNS):
        taken_s = cpu_s([sys.executable, *command])
        if taken_s <= max(CPU_S, STARTS * cpu_s([sys.executable, "-c", ""])):
            return
    pytest.fail(f"{taken_s:.2f} s of CPU, the last of {RUNS} times")


def test_a_slow_verb_is_seen(tmp_path: Path) -> None:
    """The measure can fail: `plan` reads the links by a library."""
    words = [sys.executable, "-X", "importtime", "-c", "import smtp_intercept.app.verbs"]
    assert "pyroute2" in in_a_namespace(words).stderr


def test_links_at_a_glance_are_the_links() -> None:
    """By name, MAC and kind as the library has them."""
    code = (
        "from bridge import glance\nfrom bridge.links import Links\n"
        "with Links() as links: known = links.facts().values()\n"
        "seen = glance.links().values()\n"
        "assert {(l.name, l.mac, l.kind) for l in known} == {(l.name, l.mac, l.kind) for l in seen}\n"
        "print(sorted(l.kind for l in seen))"
    )
    more = "ip link add br0 type bridge; ip link set p0 master br0"
    done = in_a_namespace(["sh", "-ec", f'{more}; exec "$@"', "sh", sys.executable, "-c", code])
    assert done.stdout == "['', 'bridge', 'veth', 'veth']\n", done.stderr
