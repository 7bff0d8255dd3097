"""`up` and `down`: nothing of the host is lost, whatever it had, whenever they are killed, however often they run.

::

    before ── up ── up ── down ── down
       │       │     └ no step     └ no step
       │       └ what is not ours is untouched
       └───────────── equal ─────────┘

    before ── up, killed -9 at step n ──┬─ up: the rest of the steps ─ a ping crosses ─┐
       │                                └──────────────────────────────────────────────┴─ down
       └──────────────────────────────────── equal ───────────────────────────────────────┘

Equal is the whole `snapshot`: links with all attributes, addresses, routes of all tables, rules, permanent neighbours,
nft, iptables' raw tables, every sysctl below net.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pyroute2 import netns

from smtp_intercept.app import cli
from smtp_intercept.app.lab.host import patient
from smtp_intercept.app.lab.network import THREE_WIRES, Lab
from smtp_intercept.app.lab.snapshot import Snapshot, difference, settled_difference, snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

FOREIGN = (
    "nft add table inet mine",
    "nft add chain inet mine c { type filter hook input priority 0; }",
    "nft add rule inet mine c tcp dport 25 accept",
    "nft add table netdev mine",
    "iptables -t raw -A PREROUTING -s 10.9.9.9 -j DROP",
    "ip6tables -t raw -A PREROUTING -s 2001:db8:9::9 -j DROP",
    "ip link add other type bridge",
)
# A box that is managed through the port it is to bridge, with all that a port can carry.
MANAGED = (
    "ip link set p0 up mtu 1492",
    "ip addr add 198.51.100.2/24 brd + dev p0",
    "ip addr add 198.51.100.3/24 dev p0",
    "ip addr add 2001:db8:1::2/64 dev p0 nodad",
    "ip route add default via 198.51.100.1 dev p0 metric 100 proto dhcp",
    "ip route add default via 198.51.100.1 dev p0 metric 200",
    "ip route add 10.0.0.0/8 via 198.51.100.254 dev p0 src 198.51.100.3",
    "ip -6 route add default via 2001:db8:1::1 dev p0 metric 512",
    "ip route add 203.0.113.0/24 via 198.51.100.7 dev p0 table 77",
    "ip -6 route add 2001:db8:5::/48 via 2001:db8:1::7 dev p0 table 77",
    "ip rule add from 198.51.100.3 lookup 77 pref 1000",
    "ip neigh add 198.51.100.9 lladdr 02:00:00:00:00:09 dev p0 nud permanent",
    "ip neigh add 2001:db8:1::9 lladdr 02:00:00:00:00:09 dev p0 nud permanent",
    "ip route add blackhole 192.168.77.0/24",
)
MANAGEMENT = ["198.51.100.2/24", "198.51.100.3/24", "2001:db8:1::2/64"]
FILTERED = (
    "sysctl -qw net.ipv4.conf.all.rp_filter=1",
    "sysctl -qw net.ipv4.conf.p0.rp_filter=2",
    "sysctl -qw net.ipv4.conf.p1.rp_filter=0",
    "sysctl -qw net.bridge.bridge-nf-call-iptables=1",
)
STILL_S = 1.1
ADOPTED = (
    "ip link add br0 type bridge stp_state 0 group_fwd_mask 8 nf_call_iptables 1",
    "ip link set p0 master br0 up",
    "ip link set p1 master br0 up",
    "ip link set p1 type bridge_slave group_fwd_mask 16",
    "ip link set br0 up",
    "ip addr add 198.51.100.2/24 dev br0",
    "ip route add default via 198.51.100.1",
)
# Addresses are there at once, and so is the answer whether they are.
AT_ONCE = tuple(f"sysctl -qw net.ipv6.conf.{name}.accept_dad=0" for name in ("all", "default", "p0", "p1"))
# What the host had before → (commands that make it so, the tables [bridge] adds).
HOSTS: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "fresh": ((), {}),
    "ports up, one promiscuous": ((*AT_ONCE, "ip link set p0 up mtu 1400", "ip link set p1 up promisc on"), {}),
    "managed through a port": ((*AT_ONCE, *MANAGED), {"management": MANAGEMENT, "gateway": "198.51.100.1"}),
    "strict reverse paths": (FILTERED, {}),
    "others' rules and bridge": (FOREIGN, {"on_failure": "block"}),
    "adopted": ((*AT_ONCE, *ADOPTED), {"adopt": True, "namespace": "host"}),
}


@pytest.fixture
def box() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def prepare(lab: Lab, commands: tuple[str, ...], bridge: Mapping[str, Any]) -> Snapshot:
    """The host as the commands make it, its configuration, and its snapshot."""
    for command in commands:
        lab.gateway.run(command.split())
    lab.gateway.configure({"bridge": dict(bridge)})
    before = snapshot(lab.gateway.namespace)
    while True:  # a bridge hears of its carrier up to a second later (net/core/link_watch.c)
        time.sleep(STILL_S)
        before, last = snapshot(lab.gateway.namespace), before
        if before == last:
            return before


def steps(output: str) -> list[str]:
    """What `up` or `down` did, a line each."""
    return [line.strip() for line in output.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("host", HOSTS)
def test_down_gives_back_what_up_took(box: Lab, host: str) -> None:
    before = prepare(box, *HOSTS[host])
    gateway = box.gateway
    assert len(done(box, "up")) > 30
    gone = [line for line in difference(before, snapshot(gateway.namespace)) if line.startswith(("nft -", "raw"))]
    assert [line for line in gone if " - " in line] == []
    assert done(box, "up") == []
    assert done(box, "down") != []
    assert settled_difference(gateway.namespace, before) == []
    assert done(box, "down") == []
    assert not (gateway.run_dir / "ledger.jsonl").exists()


def test_the_snapshot_sees_what_down_could_forget(box: Lab) -> None:
    """A check that cannot fail is a defect: each of these shows."""
    before = prepare(box, MANAGED, {})
    for command in (
        "ip addr del 198.51.100.3/24 dev p0",
        "ip route del 203.0.113.0/24 table 77",
        "ip neigh del 198.51.100.9 dev p0",
        "ip link set p1 up",
        "sysctl -qw net.ipv4.tcp_fwmark_accept=1",
        "iptables -t raw -A PREROUTING -s 10.9.9.9 -j DROP",
    ):
        box.gateway.run(command.split())
    topics = {line.split()[0] for line in difference(before, snapshot(box.gateway.namespace))}
    assert topics >= {"links", "addresses", "routes4", "neighbours", "sysctls", "raw4", "nft"}


# --- killed at any step ---------------------------------------------------------------------------------------------

F_SETPIPE_SZ = 1031


def killed(lab: Lab, *verb: str, lines: int, at_once: bool) -> int:
    """Run a verb in a process of its own and kill it when it has said ``lines`` lines; how many it said.

    Its standard output is a pipe with room for one line: it stands still before the step after the next. ``at_once``
    does not wait for that: the blow falls while the step is being written down or taken.
    """
    read, write = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    fcntl.fcntl(write, F_SETPIPE_SZ, 4096)
    pid = os.fork()
    if not pid:
        os.dup2(write, 1)
        become(lab, *verb)
    os.close(write)
    said = 0
    while said < lines and os.read(read, 4096):
        said += 1
    if not at_once:
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read)
    return said


def become(lab: Lab, *verb: str) -> None:
    """The command in the gateway's namespace, without starting Python anew. Never returns."""
    import sys

    status = 70
    try:
        netns.setns(lab.gateway.namespace)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        status = cli.main(lab.gateway.command(*verb)[3:])
    finally:
        os._exit(status)


def done(lab: Lab, *verb: str) -> list[str]:
    """The steps of a verb that runs to its end."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        os.dup2(write, 1)
        become(lab, *verb)
    os.close(write)
    with os.fdopen(read) as output:
        lines = steps(output.read())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return lines


def assert_crosses(lab: Lab) -> None:
    client = lab.host("client")
    # Several: a bridge hears of its carrier up to a second later, and what comes till then is lost.
    ping = client.run(client.program("traffic", "ping", lab.host("server").ipv4, "--count", "4", "--timeout", "2"))
    assert ping.json()["received"] > 0


def test_killed_while_it_goes_up(box: Lab) -> None:
    """At every sixth step, in turn: before the next step, and in the middle of one; repaired, and undone as it is."""
    before = prepare(
        box, (*AT_ONCE, *MANAGED, *FOREIGN, *FILTERED), {"management": MANAGEMENT, "gateway": "198.51.100.1"}
    )
    namespace, points, line = box.gateway.namespace, 0, 1
    while (said := killed(box, "up", lines=line, at_once=bool(points % 2))) == line:
        if points % 4 < 2 or line < 3:
            done(box, "up")
            assert done(box, "up") == [], f"killed at line {line}"
            assert_crosses(box)
        done(box, "down")
        assert settled_difference(namespace, before) == [], f"killed at line {line}"
        points, line = points + 1, line + 6
    assert said > 80
    assert points >= 15
    done(box, "down")
    assert settled_difference(namespace, before) == []


def test_killed_while_it_goes_down(box: Lab) -> None:
    before = prepare(box, (*AT_ONCE, *MANAGED, *FOREIGN), {"management": MANAGEMENT, "gateway": "198.51.100.1"})
    for line in (1, 6, 12, 17, 22):
        done(box, "up")
        assert killed(box, "down", lines=line, at_once=line % 2 == 0) == line
        if line in (6, 17):
            done(box, "up")
            assert done(box, "up") == [], f"killed at line {line}"
            assert_crosses(box)
        done(box, "down")
        assert settled_difference(box.gateway.namespace, before) == [], f"killed at line {line}"


# --- another configuration --------------------------------------------------------------------------------------------


def shape(taken: Snapshot) -> Snapshot:
    """Without the numbers and addresses that the kernel gives each new link."""
    number = re.compile(
        r'"(ifindex|link_index|link_netnsid|no|id|designated_port)": "?[-x0-9a-f]+|@if\d+|"inet6_addr_gen_mode": "\w+"'
    )
    mac = re.compile(r"(?!00:00:5e|02:74:62)([0-9a-f]{2}:){5}[0-9a-f]{2}")
    unused = re.compile(r"ipv6/conf/br0/(addr_gen_mode|accept_ra|router_solicitations) ")  # where IPv6 is off again
    return {
        topic: tuple(mac.sub("MAC", number.sub("N", line)) for line in lines if not unused.search(line))
        for topic, lines in taken.items()
    }


def settled(before: Snapshot, namespace: str) -> list[str]:
    """A port that has been moved hears of its carrier a moment later."""
    deadline_at = time.monotonic() + patient(20.0)
    while (found := difference(before, shape(snapshot(namespace)))) and time.monotonic() < deadline_at:
        time.sleep(0.1)
    return found


CHANGES: tuple[dict[str, Any], ...] = (
    {"ports": ["p0", "p1"]},
    {"ports": ["p0", "p1", "p2"], "on_failure": "block", "management": ["198.51.100.2/24"]},
    {"ports": ["p2", "p0"], "management": ["198.51.100.7/24", "2001:db8:1::7/64"], "gateway": "2001:db8:1::1"},
)


def test_another_configuration_takes_the_place_of_the_last() -> None:
    """A port more, a port less, block for pass, other addresses: as if it were the first, and `down` knows them all."""
    with Lab(THREE_WIRES) as lab:
        gateway = lab.gateway
        before = prepare(lab, FILTERED, {})
        fresh = []
        for bridge in CHANGES:
            gateway.configure({"bridge": bridge})
            done(lab, "up")
            fresh.append(shape(snapshot(gateway.namespace)))
            done(lab, "down")
        for index in (2, 1, 0):
            gateway.configure({"bridge": CHANGES[index]})
            done(lab, "up")
            assert settled(fresh[index], gateway.namespace) == [], CHANGES[index]
            assert done(lab, "up") == []
        done(lab, "down")
        # Where its number is taken meanwhile, a link that is moved gets another one.
        assert settled(shape(before), gateway.namespace) == []


# --- with the daemon --------------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_and_down_ends_the_first(box: Lab) -> None:
    before = prepare(box, (), {})
    gateway = box.gateway
    first = gateway.start()
    second = gateway.tollbridge("run", check=False)
    assert (second.returncode, second.stderr) == (
        1,
        f"tollbridge: a tollbridge daemon is already running (process {first.pid})\n",
    )
    assert gateway.status()["ready"]
    assert done(box, "up") == []
    assert gateway.status()["live"], "an `up` that changes nothing interrupts nothing"
    pids = gateway.pids()
    gateway.tollbridge("down")
    assert first.wait().returncode == 130, "as if by Ctrl-C: nobody starts it again"
    assert not [pid for pid in pids.values() if os.path.exists(f"/proc/{pid}")]  # noqa: PTH110
    assert settled_difference(gateway.namespace, before) == []


def test_down_ends_a_daemon_that_stands_still(box: Lab) -> None:
    before = prepare(box, (), {})
    box.gateway.start()
    for pid in box.gateway.pids().values():
        os.kill(pid, signal.SIGSTOP)
    box.gateway.tollbridge("down")
    assert settled_difference(box.gateway.namespace, before) == []
