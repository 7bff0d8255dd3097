"""`up --confirm SECONDS`: undone by itself, whoever is gone, unless `confirm` comes in time.

Five boxes side by side, for the shortest time that may be asked is 10 s (on a busy machine all of it takes longer):

    box          t = 0                                                10 s      later
    deserted     up; the shell, its session and process group killed  undone
    cut_short    up, killed -9 half-way                               undone
    kept         up, confirm                                          stays     down undoes
    renewed      up, a second `up --confirm 16`                       stays     undone after its 16 s
    late         up; another one is at work until 12 s                stays     undone then, confirm is refused
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from smtp_intercept.app.lab.host import SOON_S
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.snapshot import Snapshot, settled_difference, snapshot
from tests.kernel.pace import slowness

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

SHORTEST_S, LONGEST_S = 10, 60  # that may be asked; that a test waits for, however busy the machine
UNDONE_S = SOON_S  # slack: for Python to start and take the steps back
AT_WORK = threading.Semaphore(os.cpu_count() or 1)  # an `up` that others keep waiting would be late for itself
SETTINGS = (
    "ip link set p0 up",
    "sysctl -qw net.ipv6.conf.p0.accept_dad=0",
    "ip addr add 198.51.100.2/24 dev p0",
    "ip route add default via 198.51.100.1",
)


class Box:
    """One of the boxes: managed through the port that it bridges, as seldom is wise."""

    def __init__(self, lab: Lab, confirm_s: int) -> None:
        self.lab, self.gateway = lab, lab.gateway
        self.confirm_s, self.renewed_s = confirm_s, round(1.6 * confirm_s)
        for command in SETTINGS:
            self.gateway.run(command.split())
        self.gateway.configure({"bridge": {"management": ["198.51.100.2/24"], "gateway": "198.51.100.1"}})
        self.before: Snapshot = snapshot(self.gateway.namespace)
        self.up_at = time.monotonic()

    def up(self, seconds: int = 0) -> None:
        self.up_at = time.monotonic()
        self.gateway.tollbridge("up", "--confirm", str(seconds or self.confirm_s))

    def up_from_a_shell_that_dies(self) -> None:
        """The shell waits for something else when its session is killed, as a lost SSH connection would."""
        self.up_at = time.monotonic()
        command = " ".join(self.gateway.command("up", "--confirm", str(self.confirm_s)))
        shell = self.gateway.spawn(["sh", "-c", f"{command} && echo up && sleep 60; true"])
        shell.wait_for("up\n")
        os.killpg(shell.pid, signal.SIGHUP)
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()

    def up_killed_half_way(self) -> None:
        self.up_at = time.monotonic()
        process = self.gateway.spawn(self.gateway.command("up", "--confirm", str(self.confirm_s)))
        process.wait_for("address add 198.51.100.2/24 on tb0")
        process.signal(signal.SIGKILL)
        process.wait()

    def sleep_until(self, since_up_s: float) -> None:
        time.sleep(max(0.0, self.up_at + since_up_s - time.monotonic()))

    @property
    def is_up(self) -> bool:
        return self.gateway.room.run(["ip", "link", "show", "br0"], check=False).returncode == 0

    def undone_at(self) -> float:
        """Seconds from `up` to the moment when nothing of it is left."""
        deadline_at = time.monotonic() + self.renewed_s + UNDONE_S
        while self.is_up or (self.gateway.run_dir / "ledger.jsonl").exists():
            assert time.monotonic() < deadline_at, self.guard_log
            time.sleep(0.05)
        return time.monotonic() - self.up_at

    @property
    def guard_log(self) -> str:
        return (self.gateway.run_dir / "guard.log").read_text()


Story = dict[str, Any]


def deserted(box: Box) -> Story:
    with AT_WORK:
        box.up_from_a_shell_that_dies()
        was_up = box.is_up
    return {"was_up": was_up, "asked_s": box.confirm_s, "undone_s": box.undone_at()}


def cut_short(box: Box) -> Story:
    with AT_WORK:
        box.up_killed_half_way()
        was_up = box.is_up
    return {"was_up": was_up, "asked_s": box.confirm_s, "undone_s": box.undone_at()}


def kept(box: Box) -> Story:
    with AT_WORK:
        box.up()
        box.gateway.tollbridge("confirm")
    box.sleep_until(box.confirm_s + 3.0)
    stays, waits = box.is_up, box.gateway.status()["waits_for_confirm"]
    box.gateway.tollbridge("down")
    return {"stays": stays, "waits": waits}


def renewed(box: Box) -> Story:
    with AT_WORK:
        box.up()
        box.up(box.renewed_s)
    box.sleep_until(box.confirm_s + 2.0)
    stays, waits = box.is_up, box.gateway.status()["waits_for_confirm"]
    return {"stays": stays, "waits": waits, "asked_s": box.renewed_s, "undone_s": box.undone_at()}


def late(box: Box) -> Story:
    with ExitStack() as held:
        with AT_WORK:
            box.up()
            lock = held.enter_context((box.gateway.run_dir / "up.lock").open("a+"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        box.sleep_until(box.confirm_s + 2.0)
        stays = box.is_up
    story = {"stays": stays, "asked_s": box.confirm_s, "undone_s": box.undone_at(), "log": box.guard_log}
    return {**story, "confirm": box.gateway.tollbridge("confirm", check=False)}


STORIES: tuple[Callable[[Box], Story], ...] = (deserted, cut_short, kept, renewed, late)


@pytest.fixture(scope="module")
def stories() -> Iterator[dict[str, Story]]:
    """What came of all five; and ``left``, what each box had not got back at the end."""
    with ExitStack() as labs, ThreadPoolExecutor(len(STORIES)) as pool:
        confirm_s = min(LONGEST_S, round(SHORTEST_S * slowness()))
        boxes = {story.__name__: Box(labs.enter_context(Lab()), confirm_s) for story in STORIES}
        told = {story.__name__: pool.submit(story, boxes[story.__name__]) for story in STORIES}
        found = {name: future.result() for name, future in told.items()}
        for name, box in boxes.items():
            found[name]["left"] = settled_difference(box.gateway.namespace, box.before)
        yield found


@pytest.mark.parametrize("name", ["deserted", "cut_short"])
def test_undone_though_whoever_called_it_is_gone(stories: dict[str, Story], name: str) -> None:
    story = stories[name]
    assert story["was_up"]
    assert story["undone_s"] >= story["asked_s"]
    assert story["left"] == []


def test_a_confirm_in_time_keeps_it(stories: dict[str, Story]) -> None:
    assert stories["kept"] == {"stays": True, "waits": False, "left": []}


def test_a_confirm_after_its_time_is_refused_though_it_is_still_up(stories: dict[str, Story]) -> None:
    """Another `up` or `down` that is at work keeps the undoing waiting, not away."""
    story = stories["late"]
    assert story["stays"]
    assert story["undone_s"] >= story["asked_s"] + 2.0
    assert story["log"].startswith("not confirmed: undoing")
    assert story["confirm"].returncode == 1
    assert story["left"] == []


def test_a_second_one_takes_the_place_of_the_first(stories: dict[str, Story]) -> None:
    story = stories["renewed"]
    assert (story["stays"], story["waits"]) == (True, True)
    assert story["undone_s"] >= story["asked_s"]
    assert story["left"] == []


def test_nothing_waits() -> None:
    with Lab() as lab:
        lab.gateway.configure()
        confirm = lab.gateway.tollbridge("confirm", check=False)
    assert confirm.returncode == 1
    assert confirm.stderr == (
        "tollbridge: nothing waits for a confirmation: `up --confirm` was not run, or its time is over\n"
    )
