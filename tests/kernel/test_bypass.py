"""Bypass hardware at work: who dies, and by which way what is not mail crosses then.

what happens                        the ports         by way of
nothing of Tollbridge's             joined            the relay, as at power-on
`up`                                apart, armed      the bridge
the daemon is killed, or hangs      apart, armed      the bridge: no link of a neighbour goes down
a port is down, the bridge is gone  joined, told so   the relay
the keeper is killed, or hangs      joined            the relay, by its watchdog
`hw bypass`                         joined            the relay, until `hw arm`
`down`                              as before `up`
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.ended import lives
from smtp_intercept.app.lab.gateway import Gateway
from smtp_intercept.app.lab.host import patient
from smtp_intercept.app.lab.network import MAC, PORT_MACS_FROM, Lab
from smtp_intercept.app.lab.snapshot import settled_difference, snapshot
from smtp_intercept.app.signals import ASKS
from tests.kernel.relay_card import Card
from tests.kernel.test_boot import BROKEN, PROGRAM

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

LONG_MS = 60_000  # longer than any pause of a busy machine: what joins the ports in a test was told to
SHORT_MS = 2_000
SOON_S = 30.0


@pytest.fixture(scope="module")
def lab(lanes: None) -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def box(lab: Lab, card: Card) -> Iterator[Gateway]:
    yield lab.gateway
    lab.gateway.stop()
    assert keeper_of(lab.gateway) == 0


@pytest.fixture(scope="module")
def card(lab: Lab) -> Iterator[Card]:
    card = Card(lab)
    yield card
    card.close()


MACS = [MAC.format(PORT_MACS_FROM + index) for index in (0, 1)]


def configure(box: Gateway, card: Card, watchdog_ms: int = LONG_MS, **bridge: Any) -> None:
    ports = bridge.setdefault("ports", ["p0", "p1"])
    relay = {"ports": ports, "kind": "silicom", "driven_by": str(card.program), "watchdog_ms": watchdog_ms}
    box.configure({"bridge": bridge, "bypass": [relay]})


def crosses(lab: Lab) -> bool:
    client = lab.host("client")
    ping = client.run(client.program("traffic", "ping", lab.host("server").ipv4, "--count", "1", "--timeout", "5"))
    return bool(ping.json()["received"])


def keeper_of(box: Gateway) -> int:
    """The process that keeps the relays, or 0."""
    lock = box.run_dir / "relay.lock"
    return int(lock.read_text() or 0) if lock.exists() else 0


def all_of(keeper: int) -> list[int]:
    """The keeper, and the process of its that is where the bridge is."""
    return [keeper, *map(int, Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split())]


def until(what: Callable[[], bool]) -> bool:
    deadline_at = time.monotonic() + SOON_S
    while not what():
        if time.monotonic() > deadline_at:
            return False
        time.sleep(0.05)
    return True


def state(box: Gateway) -> tuple[str, str]:
    """What the keeper says, and `status` shows while it lives."""
    try:
        (relay,) = json.loads((box.run_dir / "relays.json").read_text())["relays"]
    except FileNotFoundError:
        return "", ""
    return relay["state"], relay["why"]


def test_up_arms_and_down_gives_back(lab: Lab, box: Gateway, card: Card) -> None:
    configure(box, card)
    before = snapshot(box.namespace)
    assert card.joined()
    assert crosses(lab), "by the relay"
    box.tollbridge("up")
    assert not card.joined()
    assert box.status()["relays"] == [{"ports": ["p0", "p1"], "kind": "silicom", "state": "armed", "why": ""}]
    assert crosses(lab), "by the bridge"
    keeper = keeper_of(box)
    box.tollbridge("up")
    assert keeper_of(box) == keeper, "an `up` that changes nothing leaves the relay alone"
    os.kill(keeper, signal.SIGTERM)
    assert until(lambda: keeper_of(box) == 0)
    box.tollbridge("up")
    assert keeper_of(box) not in (0, keeper)
    assert "set_bypass on" not in card.told(), "whoever comes next is within the watchdog"
    box.tollbridge("down")
    assert card.joined()
    assert crosses(lab)
    assert settled_difference(box.namespace, before) == []
    assert "set_bypass off" in card.told()
    assert card.told()[-2:] == ["set_bypass on", "set_bypass_wd 0"]


def test_ports_that_were_apart_are_apart_again(box: Gateway, card: Card) -> None:
    """And ports may be named by their MACs, which the bridge has one of."""
    box.run([str(card.program), "p0", "set_bypass", "off"])
    try:
        configure(box, card, ports=MACS)
        box.tollbridge("up")
        box.tollbridge("up")
        assert state(box) == ("armed", "")
        box.tollbridge("down")
        assert not card.joined()
        assert card.told()[-2:] == ["set_bypass off", "set_bypass_wd 0"]
    finally:
        box.run([str(card.program), "p0", "set_bypass", "on"])


def test_a_dead_or_hung_gateway_is_a_bridge_and_no_link_goes_down(lab: Lab, box: Gateway, card: Card) -> None:
    configure(box, card)
    box.start()
    told = len(card.told())
    pids = box.pids()
    os.kill(pids["supervisor"], signal.SIGKILL)
    assert crosses(lab)
    assert until(lambda: not any(map(lives, pids.values()))), "its children end with it"
    box.spawn_daemon()
    pids = box.pids()
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    assert crosses(lab)
    assert state(box) == ("armed", "")
    for pid in pids.values():
        os.kill(pid, signal.SIGCONT)
    box.stop(down=False)
    assert state(box) == ("armed", "")
    assert {*card.told()[told:]} <= {"reset_bypass_wd"}


def test_a_box_that_does_not_bridge_is_bypassed_until_it_does(lab: Lab, box: Gateway, card: Card) -> None:
    configure(box, card)
    box.tollbridge("up")
    box.room.run(["ip", "link", "set", "p1", "down"])
    assert card.becomes(joined=True)
    assert crosses(lab)
    assert until(lambda: state(box) == ("bypassed", "p1 is down"))
    box.room.run(["ip", "link", "set", "p1", "up"])
    assert card.becomes(joined=False)
    box.room.run(["ip", "link", "del", "br0"])
    assert card.becomes(joined=True)
    assert crosses(lab)
    assert until(lambda: state(box) == ("bypassed", "there is no br0"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_keeper_that_says_nothing_is_bypassed_by_the_watchdog(
    lab: Lab, box: Gateway, card: Card, how: signal.Signals
) -> None:
    configure(box, card, SHORT_MS)
    box.tollbridge("up")
    assert card.becomes(joined=False)
    told = card.told()
    keeper = all_of(keeper_of(box))
    for process in keeper:
        os.kill(process, how)
    assert card.becomes(joined=True)
    assert "set_bypass on" not in card.told()[len(told) :], "nobody told it"
    assert crosses(lab)
    if how is signal.SIGSTOP:
        for process in keeper:
            os.kill(process, signal.SIGCONT)
    else:
        said = box.tollbridge("status").stdout
        assert "! relay p0-p1 is bypassed, the box is out of the path: nobody keeps it: tollbridge up" in said
        box.tollbridge("up")
    assert card.becomes(joined=False)


def test_out_of_the_path_and_back_by_hand(lab: Lab, box: Gateway, card: Card) -> None:
    configure(box, card)
    box.tollbridge("up")
    assert "p0-p1: bypassed: asked for" in box.tollbridge("hw", "bypass").stdout
    assert card.joined()
    assert crosses(lab)
    box.tollbridge("up")
    assert card.joined(), "what somebody asked for is his to end"
    assert "p0-p1: armed" in box.tollbridge("hw", "arm").stdout
    assert not card.joined()


def test_at_boot_the_relay_is_armed_once_the_box_bridges_and_not_before(lab: Lab, box: Gateway, card: Card) -> None:
    """The unit of the keeper may be early, and the lane may not be made: a plain bridge is enough."""
    configure(box, card)
    keeper = box.spawn(box.command("hw", "keep"))
    assert until(lambda: state(box) == ("bypassed", "there is no br0"))
    assert card.joined()
    interpreter, _, _, *words = box.command("up", "--boot")
    program = PROGRAM.format(part="probe", error=BROKEN["probe"])
    assert box.run([interpreter, "-c", program, *words], check=False, timeout_s=60.0).returncode == 1
    assert card.becomes(joined=False)
    assert crosses(lab)
    assert keeper.running
    box.tollbridge("down")
    assert card.joined()
    assert keeper.wait().returncode == 128 + ASKS, "so that its unit lets it be"


def test_a_keeper_that_has_said_nothing_yet_is_not_taken_for_a_stranger(box: Gateway, card: Card) -> None:
    """At boot it begins beside `up`: who ended it would leave the relays to nobody."""
    configure(box, card)
    keeper = box.spawn(box.command("hw", "keep"))
    assert until(lambda: keeper_of(box) == keeper.pid)
    keeper.signal(signal.SIGSTOP)
    assert state(box) == ("", ""), "it has begun, and no more"
    up = box.spawn(box.command("up", "--boot"))
    assert until((box.run_dir / "made.toml").exists)
    time.sleep(patient(1.0))  # `up` has done all else
    keeper.signal(signal.SIGCONT)
    assert up.wait().returncode == 0
    assert card.becomes(joined=False)
    assert keeper.running


def test_another_keeper_than_is_wanted_is_started_again_by_its_unit(box: Gateway, card: Card) -> None:
    configure(box, card)
    keeper = box.spawn(box.command("hw", "keep"))
    assert until(lambda: state(box)[0] == "bypassed")
    configure(box, card, watchdog_ms=LONG_MS + 1000)
    box.tollbridge("up", "--boot")
    assert keeper.wait().returncode in (128 + signal.SIGTERM, -signal.SIGKILL), "not asked to: its unit starts another"
    box.spawn(box.command("hw", "keep"))
    assert card.becomes(joined=False)


def test_a_stray_sigterm_is_not_a_question(box: Gateway, card: Card) -> None:
    """To the process that looks after the relays: another does at once. To the keeper: its unit starts it again."""
    configure(box, card)
    keeper = box.spawn(box.command("hw", "keep"))
    box.tollbridge("up", "--boot")
    assert card.becomes(joined=False)
    (kept,) = set(all_of(keeper.pid)) - {keeper.pid}
    told = len(card.told())
    os.kill(kept, signal.SIGTERM)
    assert until(lambda: bool(set(all_of(keeper.pid)) - {keeper.pid, kept}))
    assert until(lambda: "reset_bypass_wd" in card.told()[told:])
    assert not card.joined()
    keeper.signal(signal.SIGTERM)
    assert keeper.wait().returncode == 128 + signal.SIGTERM


def test_with_gateway_the_relay_follows_the_dead_mans_switch(lab: Lab, box: Gateway, card: Card) -> None:
    configure(box, card, bypass="gateway")
    assert "p0-p1: bypassed: mail is not inspected" in box.tollbridge("up").stderr
    assert card.joined()
    box.spawn_daemon()
    assert card.becomes(joined=False)
    for pid in box.pids().values():
        with suppress(ProcessLookupError):  # the others end with the supervisor
            os.kill(pid, signal.SIGKILL)
    assert card.becomes(joined=True)
    assert crosses(lab)


def test_a_relay_that_cannot_be_told_is_a_warning_with_its_name(lab: Lab, box: Gateway, card: Card) -> None:
    box.configure({"bypass": [{"ports": ["p0", "p1"], "kind": "silicom", "driven_by": "/nonexistent/bpctl_util"}]})
    up = box.tollbridge("up")
    said = "relay p0-p1: failed: /nonexistent/bpctl_util is missing: it comes with the card's driver"
    assert f"tollbridge: warning: {said}" in up.stderr
    assert "up: br0 over p0, p1" in up.stdout
    assert state(box)[0] == "failed"
    configure(box, card)
    up = box.tollbridge("up")
    assert card.becomes(joined=False), "another configuration, another keeper"
