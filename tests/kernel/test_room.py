"""The wire has a network namespace of its own: whatever rules, sysctls, routes, links and services the host has or
gets, mail is inspected, passed, and crosses the stopped gateway.

::

    host                                    room
      ufw, firewalld, Docker's rules,         p0 ── br0 ── p1, lanes, rules, interceptor
      strongSwan's table, docker0, :25,
      networkd, sysctl --system
      tb0 ═══════════════════════════════════ tb0p (port of br0)
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from pyroute2 import netns

from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.capture import Way, recorded
from smtp_intercept.app.lab.host import SOON_S, Process, patient
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.snapshot import Snapshot, difference, settled_difference, snapshot
from tests.kernel.conftest import DEFAULT
from tests.tools import TOOLS, as_installed, data

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

INSPECTED, PASSED = ("192.0.2.20", "2001:db8::20"), ("192.0.2.21", "2001:db8::21")
LISTEN = """
import socket, time
held = [socket.create_server(("", 25)), socket.create_server(("::1", 25), family=socket.AF_INET6)]
print("listens", flush=True)
time.sleep(600)
"""
UFW = (
    f"cp -a {TOOLS}/lib/ufw /lib/; cp /usr/share/ufw/iptables/*.rules /usr/share/ufw/ufw.conf /etc/ufw/; "
    "ufw --force enable"
)
FIREWALLD = (
    "mount -t tmpfs run /run; mkdir -p /run/dbus; dbus-daemon --system --fork --nopidfile; "
    "exec firewalld --nofork --nopid"
)
# Without udev's database it takes every link for ready, as in a container: sysfs is read-only there.
NETWORKD = (
    "mount -t tmpfs run /run; mount -o remount,ro,bind /sys || mount -t sysfs -o ro sysfs /sys; "
    "mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp; "
    "printf '[Match]\\nName=*\\n[Network]\\nDHCP=yes\\nAddress=192.0.2.99/24\\n' >/run/systemd/network/50-all.network; "
    "exec {networkd}"
)


def ufw(lab: Lab) -> None:
    lab.gateway.run(as_installed("sh", "-ec", UFW), timeout_s=60.0)
    assert "ufw-before-input" in lab.gateway.run(["iptables", "-S", "INPUT"]).stdout


def firewalld(lab: Lab) -> None:
    process = lab.gateway.spawn(as_installed("sh", "-ec", FIREWALLD))
    wait(lambda: "filter_INPUT_ZONES" in lab.gateway.run(["nft", "list", "ruleset"]).stdout, process)


def networkd(lab: Lab) -> None:
    """It runs, and has taken a link that nobody keeps from it."""
    lab.gateway.run(["ip", "link", "add", "spare9", "type", "bridge"])
    found = str(data("lib/systemd/systemd-networkd")[0])
    process = lab.gateway.spawn(as_installed("sh", "-ec", NETWORKD.format(networkd=found)))
    wait(lambda: "192.0.2.99" in lab.gateway.run(["ip", "address", "show", "spare9"]).stdout, process)


def service(lab: Lab) -> None:
    lab.gateway.spawn([sys.executable, "-c", LISTEN]).wait_for("listens")


def wait(true: Callable[[], bool], process: Process) -> None:
    deadline_at = time.monotonic() + patient(SOON_S)
    while not true():
        assert process.running, process.stdout + process.stderr
        assert time.monotonic() < deadline_at, process.stdout + process.stderr
        time.sleep(0.2)


def commands(*lines: str) -> Callable[[Lab], None]:
    def change(lab: Lab) -> None:
        for line in lines:
            lab.gateway.run(line.split())

    return change


def both(*lines: str) -> tuple[str, ...]:
    return tuple(f"{program} {line}" for line in lines for program in ("iptables", "ip6tables"))


# Each as an administrator, a program or a package does it.
CONDITIONS: Mapping[str, Callable[[Lab], None]] = {
    "ufw": ufw,
    "firewalld": firewalld,
    "input dropped": commands(*both("-P INPUT DROP", "-P OUTPUT DROP")),
    "docker": commands(
        *both("-P FORWARD DROP", "-t nat -A POSTROUTING -j MASQUERADE"),
        "ip link add docker0 type bridge",
        "ip link set docker0 up",
        "sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
    ),
    "the client's network on docker0": commands("ip address add 192.0.2.10/26 dev docker0"),
    "the server's address on docker0": commands("ip address add 192.0.2.20/32 dev docker0"),
    "port 25 of the host": service,
    "sysctl --system": commands(
        "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.tcp_fwmark_accept=0",
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv4.conf.all.arp_ignore=0",
    ),
    "strongSwan": commands(
        "ip rule add pref 220 lookup 220", "ip route add 192.0.2.0/24 dev docker0 table 220", "ip rule flush"
    ),
    "networkd": networkd,
    "nft flush ruleset": commands("nft flush ruleset"),
    "systemctl restart nftables": commands("nft -f /etc/nftables.conf"),
}


@pytest.fixture(scope="module")
def peers() -> Iterator[Lab]:
    with Lab() as lab:
        MailServer.start(lab.host("server"))
        lab.gateway.configure(DEFAULT)
        yield lab


@pytest.fixture(scope="module")
def host_before(peers: Lab) -> Snapshot:
    return snapshot(peers.gateway.namespace)


@pytest.fixture(scope="module")
def working(peers: Lab, host_before: Snapshot) -> Lab:
    peers.gateway.start()
    return peers


def fates(lab: Lab) -> dict[str, str]:
    """Of one message to each server: lost, crossed uninspected, or inspected."""
    found = {}
    for server in INSPECTED + PASSED:
        sender = f"s{time.monotonic_ns()}@example.net"
        client = lab.host("client").of_version(6 if ":" in server else 4)[0]
        (delivery,) = send(lab.host("client"), server, source=client, sender=sender, timeout=patient(20.0))
        told = lab.gateway.wait_log(type="message", sender=sender, timeout_s=0.2)  # written before it is accepted
        found[server] = "lost" if not delivery["accepted"] else "inspected" if told else "crossed"
    return found


WORKING = dict.fromkeys(INSPECTED, "inspected") | dict.fromkeys(PASSED, "crossed")
STOPPED = dict.fromkeys(INSPECTED + PASSED, "crossed")


def test_up_leaves_the_host_as_it_was_but_for_its_ports(working: Lab, host_before: Snapshot) -> None:
    now = snapshot(working.gateway.namespace)
    others = [line for line in difference(host_before, now) if "p0" not in line and "p1" not in line]
    assert others == []


@pytest.mark.parametrize("name", CONDITIONS)
def test_nothing_of_the_host_disturbs_mail(working: Lab, name: str) -> None:
    """One upon the other."""
    CONDITIONS[name](working)
    assert fates(working) == WORKING
    assert working.gateway.status()["live"]


def test_nor_the_stopped_gateway(working: Lab) -> None:
    """With all of it, and with what has been flushed since anew."""
    for line in both("-P INPUT DROP", "-P FORWARD DROP"):
        working.gateway.run(line.split())
    working.gateway.stop(down=False)
    assert fates(working) == STOPPED


def test_all_of_it_before_up(working: Lab) -> None:
    gateway = working.gateway
    gateway.end()  # networkd would have the ports, for in a lab nobody tells it of them
    gateway.stop()
    assert gateway.room_name == ""
    for line in (*both("-P INPUT DROP", "-P FORWARD DROP"), "sysctl -qw net.ipv4.conf.all.log_martians=1"):
        gateway.run(line.split())
    gateway.start()
    assert fates(working) == WORKING
    gateway.stop(down=False)
    assert fates(working) == STOPPED
    gateway.stop()


# --- the management leg ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def managed() -> Iterator[Lab]:
    with Lab() as lab:
        management = ["192.0.2.2/24", "2001:db8::2/64"]
        lab.gateway.configure(
            {**DEFAULT, "bridge": {"management": management, "gateway": ["192.0.2.10", "fe80::1"]}, "intercept": {}}
        )
        lab.server = MailServer.start(lab.host("server"))  # type: ignore[attr-defined]
        lab.gateway.start()
        yield lab


def test_two_default_routes(managed: Lab) -> None:
    routes = [managed.gateway.run(["ip", version, "route", "show", "default"]).stdout for version in ("-4", "-6")]
    assert [route.split(" proto")[0] for route in routes] == [
        "default via 192.0.2.10 dev tb0",
        "default via fe80::1 dev tb0",
    ]


@pytest.mark.parametrize("server", INSPECTED)
def test_the_hosts_own_mail_crosses_and_is_not_inspected(managed: Lab, server: str) -> None:
    (delivery,) = send(managed.gateway, server, sender="own@example.net", timeout=patient(4.0))
    assert delivery["accepted"]
    assert managed.gateway.wait_log(type="message", sender="own@example.net", timeout_s=0.5) == []


def test_the_leg_says_nothing_by_itself() -> None:
    """With an IPv4 address not even that it is there, but once, to those who knew it elsewhere."""
    with Lab() as lab, ExitStack() as stack:
        lab.gateway.configure({"bridge": {"management": ["192.0.2.2/24"]}})
        lab.gateway.tollbridge("up")
        lab.gateway.run(["ip", "link", "set", "tb0", "down"])
        with lab.capture() as frames:
            lab.gateway.run(["ip", "link", "set", "tb0", "up"])
            time.sleep(3.0)  # a router is asked for within a second, groups are joined at once
        mac = json.loads(lab.gateway.run(["ip", "-json", "link", "show", "tb0"]).stdout)[0]["address"]
        assert [frame for frame in frames if frame.way is Way.OUT and frame.packet.src == mac] == []
        stack.callback(lab.gateway.tollbridge, "down")


def test_not_hidden_it_speaks_from_the_hosts_address(managed: Lab) -> None:
    """Which is in another network namespace than the session's process."""
    managed.gateway.stop(down=False)
    with managed.gateway.running({**DEFAULT, **open_config()}):
        (delivery,) = send(managed.host("client"), "192.0.2.20", sender="open@example.net", timeout=patient(4.0))
        assert delivery["accepted"]
        assert managed.gateway.wait_log(type="message", sender="open@example.net")
        (taken,) = managed.server.messages(sender="open@example.net")  # type: ignore[attr-defined]
        assert taken["client"]["address"] == "192.0.2.2"


def open_config() -> dict[str, Any]:
    return {"bridge": {"management": ["192.0.2.2/24"]}, "intercept": {"hidden": False}}


# --- moving in, out, and what goes wrong -----------------------------------------------------------------------------


def test_an_installation_in_the_host_moves_and_moves_back() -> None:
    with Lab() as lab:
        gateway = lab.gateway
        before = snapshot(gateway.namespace)
        MailServer.start(lab.host("server"))
        for home in ("host", "own", "host"):
            gateway.configure({**DEFAULT, "bridge": {"namespace": home, "management": ["192.0.2.2/24"]}})
            gateway.start()
            assert bool(gateway.room_name) == (home == "own")
            assert fates(lab) == WORKING
            gateway.stop(down=False)
        gateway.tollbridge("down")
        assert settled_difference(gateway.namespace, before) == []


def test_a_port_that_comes_back_says_nothing_of_its_own() -> None:
    """As a replugged adapter does: it is in the host, and taken from there."""
    with Lab() as lab, lab.gateway.running(DEFAULT):
        end, gateway = (lab.host("server"), "eth0"), lab.gateway
        mac = gateway.room.run(["cat", "/sys/class/net/p1/address"]).stdout.strip()
        with recorded([end]) as frames:
            for _ in range(3):
                gateway.room.run(["ip", "link", "set", "p1", "netns", gateway.namespace])
                deadline_at = time.monotonic() + patient(SOON_S)
                while "master br0" not in gateway.room.run(["ip", "link", "show", "p1"], check=False).stdout:
                    assert time.monotonic() < deadline_at
                    time.sleep(0.05)
                time.sleep(1.5)  # groups are joined at once, an address is tried within a second
        assert [frame for frame in frames if frame.source == mac] == []


def test_the_name_of_the_room_is_lost() -> None:
    """Its processes keep it, and it has its name again; mail does not notice."""
    with Lab() as lab:
        gateway = lab.gateway
        MailServer.start(lab.host("server"))
        with gateway.running(DEFAULT):
            name = gateway.room_name
            netns.remove(name)
            assert fates(lab) == WORKING
            deadline_at = time.monotonic() + patient(SOON_S)
            while not (namespaces.NAMESPACES / name).exists() and time.monotonic() < deadline_at:
                time.sleep(0.1)
            assert gateway.status()["namespace_gone"] is False


def test_the_room_has_gone() -> None:
    """Status says so, and `down` gives back the rest."""
    with Lab() as lab:
        gateway = lab.gateway
        gateway.configure(DEFAULT)
        gateway.tollbridge("up")
        netns.remove(gateway.room_name)
        deadline_at = time.monotonic() + patient(SOON_S)
        while gateway.run(["ip", "link", "show", "p0"], check=False).returncode == 0 and time.monotonic() < deadline_at:
            time.sleep(0.1)
        page = gateway.tollbridge("status", check=False).stdout
        assert "the network namespace" in page
        assert "has gone" in page
        # A lab's ports are no hardware: they went with it, where NICs would be the host's again.
        assert "there is no interface p0" in gateway.tollbridge("up", check=False).stderr
        assert gateway.tollbridge("down").stdout.endswith("down: the host is as it was\n")
