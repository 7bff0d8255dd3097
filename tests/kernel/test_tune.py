"""`hw tune`: what it measures on, what it refuses to touch, and that it leaves no trace.

::

    box ┌ ca ══ cable ══ cb ┐   (a veth pair for a cable)      two ports that nothing uses
        │ da ══════════ db  │   whose other end is down
        │ ea ══════════ eb  │   whose other end is up
        └ p0, p1: bridge.ports
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtp_intercept.app.lab import hung, looped, namespaces
from smtp_intercept.app.lab.host import Result
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.rig import LOADS, Rig
from smtp_intercept.app.rundir import RunDir
from tests.unshown import MACVLAN

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

CABLES = """
set -e
ip link add ca type veth peer name cb
ip link add da type veth peer name db
ip link add ea type veth peer name eb
ip link set ea up
ip link set eb up
ip link set cb up
ip link set ca up
ip link set ca mtu 1400
sysctl -qw net.ipv4.conf.ca.proxy_arp=1
"""
SHOWN = "ip -o -d link; ip -o addr; ip route; ip -6 route; cat /proc/sys/net/ipv4/conf/c?/proxy_arp; ethtool -k ca"
BASE = {"interceptor.workers": 1, "diverter.queues": 1}


@pytest.fixture(scope="module")
def box(lab: Lab) -> Lab:
    lab.gateway.run(["sh", "-c", CABLES])
    lab.gateway.configure()
    return lab


def shown(box: Lab) -> list[str]:
    """Without what a new index changes, and what the kernel does in its own time when a link goes up."""
    lines = box.gateway.run(["sh", "-c", SHOWN]).stdout.splitlines()
    own = [line.split(": ", 1)[-1] for line in lines if "fe80::" not in line and "ff00::" not in line]
    return sorted(re.sub(r"(NO-CARRIER|LOWER_UP|M-DOWN),?|(state|qdisc) \w+", "", line) for line in own)


def tune(box: Lab, *words: str) -> Result:
    return box.gateway.tollbridge("hw", "tune", *words, check=False)


@pytest.mark.parametrize(
    ("setting_up", "ports", "told"),
    [
        ("", ("ca", "ca"), "name two different ports"),
        ("", ("ca", "nowhere"), "there is no port nowhere; there are ca, cb,"),
        ("", ("lo", "ca"), "lo is the loopback"),
        ("", ("p0", "ca"), "p0 is one of the bridge's (bridge.ports)"),
        ("ip addr add 198.51.100.2/24 dev cb", ("ca", "cb"), "cb has the address 198.51.100.2"),
        ("ip addr add 2001:db8:1::2/64 dev cb nodad", ("ca", "cb"), "cb has the address 2001:db8:1::2"),
        ("ip link add other0 type bridge; ip link set cb master other0", ("ca", "cb"), "cb belongs to other0"),
        pytest.param(
            "ip link add link ca name above type macvlan", ("ca", "cb"), "ca carries above", marks=MACVLAN.mark
        ),
    ],
)
def test_a_port_that_has_a_purpose_is_refused_and_not_touched(
    box: Lab, setting_up: str, ports: tuple[str, str], told: str
) -> None:
    box.gateway.run(["sh", "-c", f"set -e; {setting_up}"])
    before = shown(box)
    try:
        with pytest.raises(looped.PortsError, match=re.escape(told)):
            namespaces.inside(box.gateway.namespace, lambda: looped.refuse_used(ports, box.gateway.ports))
        assert shown(box) == before
    finally:
        undo = "ip addr flush dev cb; ip link del above; ip link set cb nomaster; ip link del other0"
        box.gateway.run(["sh", "-c", undo], check=False)


def test_the_ports_of_the_configuration_are_the_bridges(box: Lab) -> None:
    before = shown(box)
    result = tune(box, "--ports", "ca", "p1")
    assert result.returncode == 1
    assert "p1 is one of the bridge's (bridge.ports)" in result.stderr
    assert shown(box) == before
    assert not (box.gateway.run_dir / "tune.json").exists()


@pytest.mark.parametrize(("ports", "told"), [(("ca", "da"), "has no link"), (("ca", "ea"), "does not arrive at ea")])
def test_two_ports_that_no_cable_joins_are_refused(
    box: Lab, ports: tuple[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looped, "_CARRIER_S", 1.0 if told == "has no link" else 10.0)
    monkeypatch.setattr(looped, "_HEARD_S", 0.5)
    before, record = shown(box), box.gateway.directory / "joined.json"
    with pytest.raises(looped.PortsError, match=rf"{told}.* by a cable"):
        namespaces.inside(box.gateway.namespace, lambda: try_joined(record, ports))
    namespaces.inside(box.gateway.namespace, lambda: looped.restore(record))
    assert shown(box) == before


def try_joined(record: Path, ports: tuple[str, str]) -> None:
    record.write_text(json.dumps(looped.remembered(ports, [])))
    looped.check_joined(*ports)


def test_interrupted_it_gives_the_ports_back_as_they_were(box: Lab) -> None:
    before = shown(box)
    process = box.gateway.spawn(box.gateway.command("hw", "tune", "--ports", "ca", "cb", "--only", "features"))
    links = ["ip", "-o", "link"]
    hung.wait_until(lambda: "ca@" not in box.gateway.run(links).stdout, "the ports are the lab's")
    process.signal(signal.SIGINT)
    ended = process.wait()
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (
        130, "tollbridge hw tune: interrupted; all is as it was",
    )  # fmt: skip
    assert shown(box) == before
    assert not (box.gateway.run_dir / "tune.json").exists()


def test_what_a_killed_one_left_behind_is_made_good_by_the_next(box: Lab) -> None:
    before = shown(box)
    record = box.gateway.run_dir / "tune.json"
    record.parent.mkdir(exist_ok=True)
    was = namespaces.inside(
        box.gateway.namespace, lambda: looped.remembered(("ca", "cb"), ["features.tx-tcp-segmentation"])
    )
    record.write_text(json.dumps(was))
    box.gateway.run(
        [
            "sh",
            "-c",
            "ethtool -K ca tx-tcp-segmentation off; sysctl -qw net.ipv4.conf.ca.proxy_arp=0; ip link set ca down",
        ]
    )
    assert shown(box) != before
    assert "name two different ports" in tune(box, "--ports", "ca", "ca").stderr
    tune(box, "--only", "nothing")
    assert not record.exists()
    assert shown(box) == before


def test_while_the_gateway_is_at_work_nothing_is_measured(box: Lab) -> None:
    with RunDir(box.gateway.run_dir).lock("run"):
        result = tune(box)
    assert result.returncode == 1
    assert "systemctl stop tollbridge" in result.stderr


@pytest.fixture(scope="module")
def rig(lanes: None) -> Iterator[Rig]:
    with Lab() as lab:
        ports = {"p0": lab.gateway.namespace, "p1": lab.gateway.namespace}
        yield Rig(lab, {**BASE, "features.rx-gro": False}, {"features.rx-gro": False}, ports)


def test_a_changed_gateway_carries_both_loads_inspected(rig: Rig) -> None:
    """`Rig.measure` fails where the gateway has not inspected all."""
    rig.set({"interceptor.workers": 2, "diverter.queues": 2, "features.rx-gro": True})
    for load in LOADS.values():
        assert rig.measure(load, 0.5) > 0
