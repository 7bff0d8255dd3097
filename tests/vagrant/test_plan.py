"""The lab on paper::

client ──┬── outside ── p0 [gateway] p1 ── inside ── server
internet ┘
"""

from __future__ import annotations

import json
import os
import subprocess
from ipaddress import ip_interface
from pathlib import Path

import pytest

from smtp_intercept.app.lab.host import LabError
from smtp_intercept.app.lab.network import TWO_WIRES
from tests.kernel import test_verdicts
from tests.tools import as_installed, program
from vagrant.lab import byvagrant, monitor, places, plan, qemu, runner
from vagrant.lab.box import Box

MACHINES = {machine.name: machine for machine in runner.planned()}
CARDS = [card for machine in MACHINES.values() for card in machine.cards]


def test_client_and_server_are_those_of_the_namespaces() -> None:
    """The same tests run in both: on the same wires, with the addresses of each lab that they have."""
    for wires in (TWO_WIRES, test_verdicts.WIRES):
        for wire, stations in wires.items():
            for station in stations:
                (card,) = MACHINES[station.name].cards
                assert card.wire == wire
                assert set(station.addresses) <= set(card.addresses)


def test_the_gateway_is_between_the_wires_and_has_no_address() -> None:
    assert [(card.name, card.wire, card.addresses) for card in MACHINES["gateway"].cards] == [
        ("p0", "outside", ()),
        ("p1", "inside", ()),
    ]
    assert plan.wires(MACHINES.values()) == {
        "outside": [("gateway", "p0"), ("client", "lab0"), ("internet", "lab0")],
        "inside": [("gateway", "p1"), ("server", "lab0")],
    }


def test_nothing_is_anybody_elses() -> None:
    macs, addresses = [card.mac for card in CARDS], [address for card in CARDS for address in card.addresses]
    assert len(set(macs)) == len(macs)
    assert len(set(addresses)) == len(addresses)
    assert all(mac.startswith("00:00:5e:00:53:") for mac in macs), "RFC 9542 §2.1.1: for documentation"
    assert all(str(ip_interface(a).network) in ("192.0.2.0/24", "2001:db8::/64") for a in addresses)


def test_the_names_that_are_served_are_the_machines_own() -> None:
    zones = places.VAGRANT / "provision/zones"
    common = (places.VAGRANT / "provision/common.sh").read_text()
    own = {str(ip_interface(address).ip) for card in CARDS for address in card.addresses}
    served = {
        line.split()[-1] for zone in zones.glob("example.*") for line in zone.read_text().splitlines() if " A" in line
    }
    assert served
    assert served <= own
    for address in MACHINES["internet"].cards[0].addresses:
        assert f"={ip_interface(address).ip}\n" in common, "everybody's resolver"


def test_a_card_as_provisioning_takes_it() -> None:
    (card,) = MACHINES["internet"].cards
    assert card.word == "lab0=00:00:5e:00:53:03=192.0.2.40/24,2001:db8::40/64"
    assert MACHINES["gateway"].provision == (
        "cd /root/lab && bash gateway.sh gateway p0=00:00:5e:00:53:f0 p1=00:00:5e:00:53:f1"
    )


def test_what_the_tests_are_told() -> None:
    serial = dict.fromkeys(MACHINES, "/console")
    told = plan.interface(
        "trixie", "qemu", MACHINES.values(), ssh=["ssh", "-F", "c"], rsync=["rsync"], command=["lab"], serial=serial
    )
    assert json.loads(json.dumps(told)) == told
    gateway = told["machines"]["gateway"]
    assert gateway["ssh"] == ["ssh", "-F", "c", "gateway"]
    assert gateway["ports"] == {"p0": "00:00:5e:00:53:f0", "p1": "00:00:5e:00:53:f1"}
    assert gateway["power_off"] == ["lab", "power", "off", "gateway"]
    assert told["links"]["gateway-server"]["down"] == ["lab", "link", "down", "gateway-server"]
    ends = {end for ends in plan.LINKS.values() for end in ends}
    assert ends == {(machine.name, card.name) for machine in MACHINES.values() for card in machine.cards}


def test_ssh_reads_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(plan.ssh_config({"client": {"Port": "2202", "HostName": "127.0.0.1"}}, "/run/lab"))
    words = as_installed("ssh", "-G", "-F", str(path), "client")
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    assert {"user root", "port 2202", "hostname 127.0.0.1", "controlpath /run/lab/client.ssh"} <= set(said)


def test_where_vagrant_says_that_its_machines_are() -> None:
    said = """\
Host client
  HostName 192.168.121.7
  User vagrant
  Port 22
  IdentityFile /keys/client

Host server
  HostName 127.0.0.1
  Port 2200
"""
    assert byvagrant.addresses(said) == {
        "client": {"HostName": "192.168.121.7", "Port": "22", "IdentityFile": "/keys/client"},
        "server": {"HostName": "127.0.0.1", "Port": "2200"},
    }


def command(tmp_path: Path, name: str) -> list[str]:
    (tmp_path / "cmdline").write_text("quiet\n")
    return qemu.command(MACHINES[name], Box(tmp_path), tmp_path / "disk", "tcg", 2201)


def test_no_machine_reaches_anything_but_its_wires(tmp_path: Path) -> None:
    for name, machine in MACHINES.items():
        words = command(tmp_path, name)
        networks = [words[index + 1] for index, word in enumerate(words) if word == "-netdev"]
        assert networks[0] == "user,id=management,restrict=on,hostfwd=tcp:127.0.0.1:2201-:22"
        assert [network.split(",")[:2] for network in networks[1:]] == [
            ["tap", f"id={name}-{card.name}"] for card in machine.cards
        ]
        assert all("vnet_hdr=off" in network for network in networks[1:]), "or frames would be longer than a wire's"


def test_names_of_devices_are_short_enough() -> None:
    """IFNAMSIZ, with its zero."""
    assert all(len(qemu.tap(m.name, card.name)) < 16 for m in MACHINES.values() for card in m.cards)


def test_a_machine_hears_its_monitor(tmp_path: Path) -> None:
    """A real QEMU, without a machine in it."""
    qemu, libraries = program("qemu-system-x86_64")
    path, pid = tmp_path / "m.qmp", tmp_path / "pid"
    machine = ["-machine", "none", "-nodefaults", "-display", "none", "-netdev", "user,id=cable"]
    words = [qemu, *machine, "-qmp", f"unix:{path},server=on,wait=off", "-pidfile", str(pid), "-daemonize"]
    subprocess.run(words, check=True, timeout=60, stdout=subprocess.DEVNULL, env=os.environ | libraries)
    try:
        assert monitor.say(path, "query-status")["running"] is True
        monitor.say(path, "set_link", name="cable", up=False)
        with pytest.raises(LabError, match=r"set_link.*Device 'none' not found"):
            monitor.say(path, "set_link", name="none", up=False)
    finally:
        monitor.say(path, "quit")
    with pytest.raises(LabError, match="has the machine power"):
        monitor.say(tmp_path / "nothing", "query-status")
