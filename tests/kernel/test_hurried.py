"""`up` and `down` in a hurry: two at once, no room in the run directory.

::

    up ∥ up                     one does it, the other is told who; the host is as after one
    up, n pages of room         0 and whole, or 1 and as before, for every n; down needs no room at all
    run, no room                goes on inspecting, and says that `status` has old news
    up --confirm, guard killed  undone at once
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bridge import firewall
from smtp_intercept.app.lab.host import SOON_S, Process
from smtp_intercept.app.lab.namespaces import inside, processes
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.snapshot import difference, settled_difference, snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture(scope="module")
def box() -> Iterator[Lab]:
    with Lab() as lab:
        for name in ("all", "default", "p0", "p1"):
            lab.gateway.run(["sysctl", "-qw", f"net.ipv6.conf.{name}.accept_dad=0"])
        lab.gateway.configure()
        yield lab


def begun(lab: Lab, *verb: str) -> Process:
    return lab.gateway.spawn(lab.gateway.command(*verb))


def test_two_at_once(box: Lab) -> None:
    before = snapshot(box.gateway.namespace)
    both = [begun(box, "up"), begun(box, "up")]
    ended = [process.wait() for process in both]
    assert sorted(result.returncode for result in ended) in ([0, 0], [0, 1])
    for result in ended:
        assert "Traceback" not in result.stdout + result.stderr
        if result.returncode:
            assert "another `tollbridge up` or `down` is at work (process" in result.stderr
        else:
            assert "up: br0 over p0, p1" in result.stdout
    box.gateway.tollbridge("down")
    assert settled_difference(box.gateway.namespace, before) == []


@contextmanager
def room(directory: Path, pages: int) -> Iterator[None]:
    """A file system of its own with so much room; its root directory takes none."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={pages * PAGE}", "tollbridge", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_no_room_in_the_run_directory(box: Lab) -> None:
    gateway = box.gateway
    before, outcomes = snapshot(gateway.namespace), []
    for pages in (2, 4, 7, 9, 24):
        with room(gateway.run_dir, pages):
            done = gateway.tollbridge("up", check=False)
            outcomes.append(done.returncode)
            assert "Traceback" not in done.stdout + done.stderr
            if done.returncode:
                assert "No space left on device" in done.stderr
            else:
                fill(gateway.run_dir)
                gateway.tollbridge("down")
            assert difference(before, snapshot(gateway.namespace)) == [], pages
            left = {path.name for path in gateway.run_dir.iterdir()} - {"up.lock", "full"}
            assert left == set(), pages
    assert set(outcomes) == {0, 1}


def fill(directory: Path) -> None:
    with (directory / "full").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(PAGE))


def test_a_full_run_directory_ends_no_inspection(box: Lab) -> None:
    gateway = box.gateway
    with room(gateway.run_dir, 64):
        try:
            gateway.start()
            daemon = gateway.run_process
            assert daemon is not None
            fill(gateway.run_dir)
            time.sleep(4.0)  # longer than the switch remembers a beat
            assert daemon.running
            assert "status.json cannot be written" in daemon.stderr
            assert inside(gateway.room.enter[-1], firewall.live)
            (gateway.run_dir / "full").unlink()
        finally:
            gateway.stop()


def test_who_ends_the_guard_has_all_undone_at_once(box: Lab) -> None:
    """As logind does to all processes of a session that ends, where KillUserProcesses is set."""
    gateway = box.gateway
    before = snapshot(gateway.namespace)
    gateway.tollbridge("up", "--confirm", "600")
    (guard,) = processes([gateway.namespace])
    os.kill(guard, signal.SIGTERM)
    deadline_at = time.monotonic() + SOON_S
    while (gateway.run_dir / "ledger.jsonl").exists() and time.monotonic() < deadline_at:
        time.sleep(0.1)
    assert settled_difference(gateway.namespace, before) == []
    assert gateway.tollbridge("confirm", check=False).returncode == 1
