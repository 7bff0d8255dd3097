"""SIGINT, SIGTERM and SIGKILL at every step of `up` and `down`: nothing is left half made, or `status` says so.

::

    before ─ up ─┬─ INT or TERM at step k: 130 or 143 ──────────────── equal to before, `status` says down
                 └─ KILL at step k: `status` says half made, or down ─┬─ down ──────┬─ equal
                                                                      └─ up ─ down ─┘
             up ─ another configuration ─ INT at step k: 0, it is whole
             down ─ INT or TERM at step k, thrice: 0 ─ equal;  KILL at step k ─ down ─ equal

A step has three places: before it is written down, between that and the step itself, and after it. There the command
sends the signal to itself: nothing is left to chance.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from pyroute2 import netns

from bridge import firewall
from bridge.hands import Hands
from bridge.ledger import Ledger
from bridge.links import Links
from smtp_intercept.app import cli, status
from smtp_intercept.app import here as look
from smtp_intercept.app.lab.namespaces import inside
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.snapshot import settled_difference, snapshot
from smtp_intercept.app.rundir import RunDir

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

# Of all places; 1: at every one of them, in minutes.
EVERY = int(os.environ.get("TOLLBRIDGE_SIGNALS_EVERY", "7"))
SIGNALS = (signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
SETTINGS = (
    *(f"sysctl -qw net.ipv6.conf.{name}.accept_dad=0" for name in ("all", "default", "p0", "p1")),
    "ip link set p0 up",
    "ip addr add 198.51.100.2/24 dev p0",
    "ip route add default via 198.51.100.1",
)
BRIDGE: dict[str, Any] = {"management": ["198.51.100.2/24"], "gateway": "198.51.100.1"}
WHOLE = "up, not running"
DOWN = "down: no bridge"


@dataclass(frozen=True)
class Blow:
    """The signal ``number``, so often as ``times`` says, at the ``k``-th place that is passed."""

    number: int
    k: int
    times: int = 1

    def strike(self, passed: Iterator[int]) -> Callable[[], None]:
        def here() -> None:
            if self.k <= next(passed) < self.k + self.times:
                os.kill(os.getpid(), self.number)

        return here


@dataclass(frozen=True)
class Unplugged:
    """A port goes away at the ``k``-th place."""

    port: str
    k: int

    def strike(self, passed: Iterator[int]) -> Callable[[], None]:
        def here() -> None:
            if next(passed) == self.k:
                with look.inside() as moved, Links() as links:
                    if not moved or links.index(self.port) is not None:
                        links.delete(self.port)
                        return
                with Links() as links:
                    links.delete(self.port)

        return here


@pytest.fixture(scope="module")
def box() -> Iterator[Lab]:
    with Lab() as lab:
        for command in SETTINGS:
            lab.gateway.run(command.split())
        lab.gateway.configure({"bridge": BRIDGE})
        command_of(lab, "down")  # the run directory is there
        yield lab


def command_of(lab: Lab, *verb: str, blow: Blow | Unplugged | None = None) -> tuple[int, int]:
    """The verb in a process of its own, without starting Python anew: how it ended, and the places that it passed."""
    probe(lab.gateway.namespace)
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        become(lab, write, verb, blow)
    os.close(write)
    with os.fdopen(read) as told:
        places = len(told.read())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), places


@functools.cache
def probe(namespace: str) -> bool:
    return inside(namespace, firewall.probe)


def become(lab: Lab, tell: int, verb: tuple[str, ...], blow: Blow | Unplugged | None) -> None:
    ended, probed = 70, probe(lab.gateway.namespace)
    try:
        netns.setns(lab.gateway.namespace)
        log = os.open(lab.gateway.directory / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        firewall.probe = lambda: probed  # no step, and asked once already
        strike = blow.strike(count()) if blow else lambda: None
        watch(Ledger, "record", tell, strike, after=False)
        watch(Hands, "perform", tell, strike, after=True)
        ended = cli.main(lab.gateway.command(*verb)[3:])
    finally:
        os._exit(ended)


def watch(owner: type, name: str, tell: int, strike: Callable[[], None], *, after: bool) -> None:
    """Strikes before, and ``after``, each call."""
    real = getattr(owner, name)

    def watched(*arguments: Any) -> Any:
        os.write(tell, b".")
        strike()
        done = real(*arguments)
        if after:
            os.write(tell, b".")
            strike()
        return done

    setattr(owner, name, watched)


def headline(lab: Lab) -> str:
    run_dir = RunDir(lab.gateway.run_dir)
    return inside(lab.gateway.namespace, lambda: status.as_text(status.read(run_dir))).splitlines()[0]


def files(lab: Lab) -> set[str]:
    return {path.name for path in lab.gateway.run_dir.iterdir() if path.suffix != ".lock"}


def said(lab: Lab) -> str:
    return (lab.gateway.directory / "said").read_text()


def assert_as_before(lab: Lab, before: Any, when: str) -> None:
    assert settled_difference(lab.gateway.namespace, before) == [], when
    assert files(lab) == set(), when
    assert headline(lab).startswith(DOWN), when


def test_a_first_up(box: Lab) -> None:
    """Each of its places meets one of the signals, by turns."""
    before = snapshot(box.gateway.namespace)
    ended, places = command_of(box, "up")
    assert (ended, headline(box)[: len(WHOLE)]) == (0, WHOLE)
    assert places > 150
    assert command_of(box, "down")[0] == 0
    assert_as_before(box, before, "no blow")
    for turn, k in enumerate(range(0, places, EVERY)):
        number = SIGNALS[turn % 3]
        when = f"{number.name} at {k} of {places}"
        ended, _ = command_of(box, "up", blow=Blow(number, k, times=1 + turn % 2))
        if number == signal.SIGKILL:
            assert ended == -signal.SIGKILL, when
            assert headline(box).startswith("HALF MADE: `tollbridge up`"), when
            if turn % 2:
                assert command_of(box, "up")[0] == 0, when
                assert headline(box).startswith(WHOLE), when
            assert command_of(box, "down")[0] == 0, when
        elif ended:  # what comes after the last step comes too late
            assert ended == 128 + number, when
            assert "Traceback" not in said(box), when
        else:
            assert k >= places - 1, when
            assert command_of(box, "down")[0] == 0
        assert_as_before(box, before, when)
    assert command_of(box, "up")[0] == 0
    assert headline(box).startswith(WHOLE)
    assert command_of(box, "down")[0] == 0


def test_a_port_that_is_unplugged_meanwhile(box: Lab) -> None:
    before = snapshot(box.gateway.namespace)
    box.gateway.configure({"bridge": {**BRIDGE, "ports": ["p0", "p1", "d0"]}})
    statuses = set()
    for k in range(20, 200, 4 * EVERY):
        box.gateway.run(["ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1"])
        ended, _ = command_of(box, "up", blow=Unplugged("d0", k))
        assert "Traceback" not in said(box), k
        if not ended:
            assert command_of(box, "down")[0] == 0, k
        assert_as_before(box, before, f"unplugged at {k}: {said(box)}")
        statuses.add(ended)
    assert 1 in statuses
    box.gateway.configure({"bridge": BRIDGE})


def test_down(box: Lab) -> None:
    """No signal but SIGKILL ends it, however often it comes."""
    before = snapshot(box.gateway.namespace)
    assert command_of(box, "up")[0] == 0
    _, places = command_of(box, "down")
    for turn, k in enumerate(range(0, places, 3 * EVERY)):
        number = SIGNALS[turn % 3]
        when = f"{number.name} at {k} of {places}"
        assert command_of(box, "up")[0] == 0
        ended, _ = command_of(box, "down", blow=Blow(number, k, times=3))
        if number == signal.SIGKILL:
            assert ended == -signal.SIGKILL, when
            assert headline(box).startswith("HALF MADE: `tollbridge down`"), when
            ended, _ = command_of(box, "down")
        assert ended == 0, when
        assert_as_before(box, before, when)


def test_a_later_up(box: Lab) -> None:
    """Another configuration, another address: what was begun is ended, and SIGKILL is mended by the next one."""
    before = snapshot(box.gateway.namespace)
    other = {"bridge": {**BRIDGE, "management": ["198.51.100.2/24", "198.51.100.7/24"], "on_failure": "block"}}
    configurations = itertools.cycle(({"bridge": BRIDGE}, other))
    box.gateway.configure(next(configurations))
    assert command_of(box, "up")[0] == 0
    box.gateway.configure(next(configurations))
    ended, places = command_of(box, "up")
    assert ended == 0, said(box)
    assert places > 5
    for turn, k in enumerate(range(0, places, EVERY)):
        number = SIGNALS[turn % 3]
        box.gateway.configure(next(configurations))
        ended, _ = command_of(box, "up", blow=Blow(number, k))
        if number == signal.SIGKILL:
            assert headline(box).startswith("HALF MADE"), k
            ended, _ = command_of(box, "up")
        assert ended == 0, k
        assert headline(box).startswith(WHOLE), k
        assert command_of(box, "up") == (0, 0), k
    assert command_of(box, "down")[0] == 0
    box.gateway.configure({"bridge": BRIDGE})
    assert_as_before(box, before, "another configuration")


def test_what_somebody_else_removed_is_named(box: Lab) -> None:
    assert command_of(box, "up")[0] == 0
    box.gateway.room.run(["nft", "flush", "ruleset"])
    assert headline(box).startswith("INCOMPLETE: somebody has removed the nft rules; repair it: tollbridge up")
    box.gateway.room.run(["ip", "link", "del", "br0"])
    assert "removed br0, the nft rules" in headline(box)
    assert command_of(box, "up")[0] == 0
    assert headline(box).startswith(WHOLE)
    assert command_of(box, "down")[0] == 0


def test_a_wire_with_a_namespace_of_its_own(box: Lab) -> None:
    """It is whole, half made and undone like any other, seen from outside."""
    before = snapshot(box.gateway.namespace)
    box.gateway.configure({"bridge": {**BRIDGE, "namespace": "own"}})
    assert command_of(box, "up")[0] == 0, said(box)
    assert box.gateway.tollbridge("status", check=False).stdout.startswith(WHOLE)
    assert command_of(box, "down")[0] == 0, said(box)
    assert_as_before(box, before, "down")
    assert command_of(box, "up", blow=Blow(signal.SIGKILL, 120))[0] == -signal.SIGKILL
    assert box.gateway.tollbridge("status", check=False).stdout.startswith("HALF MADE: `tollbridge up`")
    assert command_of(box, "down")[0] == 0, said(box)
    assert_as_before(box, before, "killed")
    for number, k in ((signal.SIGINT, 5), (signal.SIGTERM, 40), (signal.SIGINT, 100)):
        assert command_of(box, "up", blow=Blow(number, k, times=2))[0] == 128 + number, said(box)
        assert_as_before(box, before, f"{number} at {k}")
