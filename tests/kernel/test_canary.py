"""The beat proves the datapath: what other programs put in mail's way has it bridged within two seconds, and told.

::

    client ── p0 ─ smtp0w0 ══ smtp0l0 ─ smtp0 ── gate, queue, verdict ── listener
                      ▲                    └──── the answer, and the dial (to the other leg) ──┘
                      └── the canary begins and ends here

The other programs' rules are theirs: iptables, nft as firewalld and ufw write it, ip rule.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.canary import ENDS
from smtp_intercept.app.lab.host import POLL_S, patient
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

AGAIN_S = patient(15.0)
SERVERS = {"IPv4": "192.0.2.20", "IPv6": "2001:db8::20"}
BOTH = ("IPv4", "IPv6")
HOST = {"namespace": "host"}  # where other programs are
CONFIG: dict[str, Any] = {"bridge": HOST, "protected": [{"domain": "example.com", "servers": [*SERVERS.values()]}]}
FIREWALL = """
table inet filter {
  chain input { type filter hook input priority filter; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname lo accept
    meta l4proto { icmp, icmpv6 } accept
    tcp dport 22 accept
  }
}
"""
REJECTING = """
table inet firewalld {
  chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
    iifname "lo" accept
    tcp dport 22 accept
    reject with icmpx type admin-prohibited
  }
}
"""
RP_FILTER6 = """
table inet firewalld {
  chain filter_PREROUTING { type filter hook prerouting priority filter + 10; policy accept;
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop
  }
}
"""
PREROUTING = """
table ip other {
  chain early { type filter hook prerouting priority -320;
    iifname "smtp0" tcp dport 25 drop
  }
}
"""

# What another program has → how, how it is undone, which mail it is in the way of, at which stage it is lost.
IN_THE_WAY: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "a firewall that drops": (FIREWALL, "nft delete table inet filter", BOTH, "delivered"),
    "a firewall that rejects": (REJECTING, "nft delete table inet firewalld", BOTH, "delivered"),
    "iptables, input": (
        "iptables -I INPUT -p tcp --dport 25 -j DROP",
        "iptables -D INPUT -p tcp --dport 25 -j DROP",
        ("IPv4",),
        "delivered",
    ),
    "ip6tables, answers": (
        "ip6tables -I OUTPUT -p tcp --sport 25 -j DROP",
        "ip6tables -D OUTPUT -p tcp --sport 25 -j DROP",
        ("IPv6",),
        "left",
    ),
    "iptables, what is dialled": (
        "iptables -I OUTPUT -p tcp --dport 25 -j DROP",
        "iptables -D OUTPUT -p tcp --dport 25 -j DROP",
        ("IPv4",),
        "sent",
    ),
    "a rule of routing before ours": (
        "ip rule add pref 5 blackhole",
        "ip rule del pref 5",
        ("IPv4",),
        "delivered",
    ),
}


@pytest.fixture(scope="module")
def box(lanes: None, lab: Lab, server: MailServer) -> Iterator[Lab]:
    with lab.gateway.running(CONFIG):
        yield lab


@pytest.fixture
def undone(box: Lab) -> Iterator[Lab]:
    """Whatever a test leaves is taken away, for the next."""
    yield box
    for _, undo, *_ in IN_THE_WAY.values():
        box.gateway.run(undo.split(), check=False)
    until(lambda: page(box).get("lost") == [], AGAIN_S)


def page(lab: Lab) -> dict[str, Any]:
    return dict(lab.gateway.state().get("watch", {}))


def lost_at(lab: Lab) -> set[tuple[str, str]]:
    """Path and stage, of one moment."""
    return {(lost["path"], lost["stage"]) for lost in page(lab).get("lost", [])}


def do(lab: Lab, what: str) -> None:
    if "{" in what:
        path = lab.gateway.directory / "other.nft"
        path.write_text(what)
        what = f"nft -f {path}"
    lab.gateway.run(what.split())


def until(true: Callable[[], bool], timeout_s: float) -> None:
    deadline_at = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_at
        time.sleep(POLL_S)


def crosses(lab: Lab, version: str, timeout_s: float = 1.0) -> tuple[bool, bool]:
    """Whether a message is accepted at last, and whether it was inspected: that was written before it was accepted."""
    sender = f"{time.monotonic_ns()}@example.net"
    server = SERVERS[version]
    (entry,) = send(
        lab.host("client"), server, ["user@example.com"], sender=sender, timeout=patient(timeout_s), retries=20
    )
    return entry["accepted"], bool(lab.gateway.wait_log(type="message", sender=sender, timeout_s=0.3))


def live(lab: Lab) -> str:
    return str(lab.gateway.run(["nft", "list", "set", "inet", "tollbridge", "live"]).stdout)


MARK = {"IPv4": "0x7b250002", "IPv6": "0x7b250012"}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_is_in_the_way_has_mail_bridged_and_named_and_inspected_again_by_itself(undone: Lab, name: str) -> None:
    what, undo, versions, stage = IN_THE_WAY[name]
    lab = undone
    do(lab, what)
    since = time.monotonic()
    until(lambda: not any(MARK[version] in live(lab) for version in versions), AGAIN_S)
    open_after_s = time.monotonic() - since
    for version in BOTH:
        accepted, inspected = crosses(lab, version)
        assert accepted
        assert inspected is (version not in versions)
    until(lambda: lost_at(lab) == {(f"{v}, port 25", stage) for v in versions}, AGAIN_S)
    status = lab.gateway.tollbridge("status", check=False)
    assert status.returncode == 3
    assert not status.stdout.startswith("inspecting;")
    for version in versions:
        assert f"! {version}, port 25: a canary was lost" in status.stdout
    if "firewalld" in what and stage == "delivered" and "INPUT" in what:
        assert "in the way may be: inet firewalld filter_INPUT" in " ".join(status.stdout.split())
    do(lab, undo)
    until(lambda: all(crosses(lab, version) == (True, True) for version in BOTH), AGAIN_S)
    print(f"{name}: bridged after {open_after_s:.1f} s")


@pytest.mark.parametrize(
    ("what", "undo", "version"),
    [
        (RP_FILTER6, "nft delete table inet firewalld", "IPv6"),
        ("iptables -P FORWARD DROP", "iptables -P FORWARD ACCEPT", "IPv4"),
    ],
    ids=["firewalld's IPv6 rp_filter", "Docker's FORWARD DROP"],
)
def test_what_is_in_the_way_of_mail_that_passes_is_named(undone: Lab, what: str, undo: str, version: str) -> None:
    lab = undone
    do(lab, what)
    try:
        assert crosses(lab, version) == (True, True), "what is inspected is another matter"
        until(lambda: [lost["path"] for lost in page(lab)["lost"]] == [f"{version}, port 25"], AGAIN_S)
        status = lab.gateway.tollbridge("status", check=False)
        assert status.returncode == 3
        assert f"inspecting IN PART, but not {version}, port 25 (if it passes)" in status.stdout
        assert "mail that is not inspected does not cross the lane" in " ".join(status.stdout.split())
    finally:
        do(lab, undo)


def test_what_is_in_the_way_of_the_lane_itself_is_named(undone: Lab) -> None:
    """It takes what would be bridged, too: no rule of ours comes before it."""
    lab = undone
    do(lab, PREROUTING)
    try:
        until(lambda: [lost["stage"] for lost in page(lab)["lost"]] == ["met"], AGAIN_S)
        status = lab.gateway.tollbridge("status", check=False)
        assert "ip other early (policy accept)" in " ".join(status.stdout.split())
    finally:
        do(lab, "nft delete table ip other")


def test_a_whole_networks_rule_of_routing_is_behind_ours(undone: Lab) -> None:
    """strongSwan's table 220 with the network of the wire."""
    lab = undone
    do(lab, "ip rule add pref 220 lookup 220")
    do(lab, "ip route add blackhole 192.0.2.0/24 table 220")
    try:
        assert crosses(lab, "IPv4") == (True, True)
    finally:
        do(lab, "ip rule del pref 220")


def test_no_frame_of_it_is_on_any_wire_whatever_is_in_its_way(undone: Lab) -> None:
    lab = undone
    reserved = {address for ends in ENDS.values() for address in ends}
    with lab.capture() as frames:
        for name in ("a firewall that rejects", "iptables, what is dialled"):
            what, undo, *_ = IN_THE_WAY[name]
            do(lab, what)
            time.sleep(1.0)
            do(lab, undo)
        do(lab, "nft flush ruleset")
        time.sleep(1.0)
        os.kill(lab.gateway.pids()["diverter"], 19)
        time.sleep(0.5)
        os.kill(lab.gateway.pids()["diverter"], 18)
        assert crosses(lab, "IPv4")[0]
    assert len(frames) > 20
    assert not [frame for frame in frames if any(address in frame.data for address in reserved)]
    assert not [frame for frame in frames if b"\x02\x74\x62" in frame.data[:12]]


def test_it_is_in_no_tally(box: Lab) -> None:
    def numbers() -> dict[str, Any]:
        status = box.gateway.status()
        counted = {**status["kernel"], **status["mail"], **status["picked_up"]}
        return {name: counted.get(name, 0) for name in ("queued", "turned_inwards", "sent", "sessions", "rate")}

    earlier: dict[str, Any] = {}
    before = numbers()
    while earlier != before:  # what the tests before have sent is told once a second
        time.sleep(2.5)
        earlier, before = before, numbers()
    until(lambda: box.gateway.state()["diverter"]["proven"] == 2, AGAIN_S)
    time.sleep(2.0)
    assert numbers() == before
    assert box.gateway.status()["sessions"] == 0


def test_it_leaves_nothing_half_open(box: Lab) -> None:
    """The listener is told to forget it."""
    time.sleep(1.0)
    half_open = ["ss", "-Htn", "state", "syn-recv"]  # several begin a second, and each lasted a minute
    until(lambda: len(box.gateway.run(half_open).stdout.splitlines()) <= 2, AGAIN_S)


def test_the_listener_that_answers_with_cookies_is_proven_too(undone: Lab) -> None:
    before = undone.gateway.run(["sysctl", "-n", "net.ipv4.tcp_syncookies"]).stdout.strip()
    do(undone, "sysctl -qw net.ipv4.tcp_syncookies=2")
    try:
        time.sleep(2.5)
        until(lambda: page(undone).get("lost") == [], AGAIN_S)
        assert crosses(undone, "IPv4") == (True, True)
    finally:
        do(undone, f"sysctl -qw net.ipv4.tcp_syncookies={before}")


def test_who_says_its_addresses_on_the_wire_is_taken_for_anybody(box: Lab) -> None:
    """A SYN with its addresses and a guessed number is decided and counted as ever; nothing is proven by it."""
    client = box.host("client")
    seen = box.gateway.status()["kernel"]["queued"]
    code = """
import sys
from scapy.all import IP, TCP, Ether, sendp
for port in range(20):
    sendp(Ether(src="02:74:62:00:00:77", dst="00:00:5e:00:53:02") / IP(src="192.0.0.201", dst="192.0.0.202")
          / TCP(sport=2000 + port, dport=25, flags="S", seq=port), iface="eth0", verbose=0)
"""
    client.run([client.interpreter, "-c", code])
    until(lambda: box.gateway.status()["kernel"]["queued"] == seen + 20, AGAIN_S)
    assert page(box)["lost"] == []


def test_it_costs_little(box: Lab) -> None:
    pid = box.gateway.pids()["diverter"]
    before = spent_s(pid)
    time.sleep(3.0)
    assert spent_s(pid) - before < 3.0 * 0.05


def spent_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def test_up_names_what_is_in_the_way_before_any_mail_vanishes(lanes: None) -> None:
    """By canaries, with nobody serving the lane; and says nothing where nothing is."""
    with Lab() as lab:
        lab.gateway.configure(CONFIG)
        said = lab.gateway.tollbridge("up")
        assert "canary" not in said.stderr
        do(lab, REJECTING)
        do(lab, "ip6tables -P FORWARD DROP")
        said = lab.gateway.tollbridge("up")
        for version in BOTH:
            assert f"warning: {version}, port 25: a canary was lost: it is lost on its way in" in said.stderr
        assert "inet firewalld filter_INPUT (policy accept)" in said.stderr
        assert "warning: IPv6, port 25: a canary was lost: mail that is not inspected does not cross" in said.stderr
        assert "ip6 filter FORWARD (policy drop)" in said.stderr
        assert said.stderr.count("canary") == 3
        do(lab, "nft delete table inet firewalld")
        do(lab, "ip6tables -P FORWARD ACCEPT")
        assert "canary" not in lab.gateway.tollbridge("up").stderr
        lab.gateway.tollbridge("down")
