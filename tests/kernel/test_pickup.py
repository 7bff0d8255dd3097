r"""What happens to a connection by its client, server and port of arrival; `explain` says the same as the kernel does.

::

    client .10-.14 ── p0 ┐           ┌ p1 ── server .20 .21
                         ├─ gateway ─┤
                         │           └ p2 ── other  .30 .31

| decided by            | client     | server | port | action                               |
|-----------------------|------------|--------|------|--------------------------------------|
| pickup.rule[0]        | .11        |        | p0   | reject, though rule[1] says drop     |
| pickup.rule[1]        | .11 to .12 |        |      | drop                                 |
| pickup.rule[2]        |            | .21    |      | pass, of incoming only               |
| pickup.port.p1        |            |        | p1   | incoming: pass, outgoing: intercept  |
| pickup.port.p2        |            |        | p2   | outgoing: reject                     |
| pickup                |            |        |      | incoming: intercept, outgoing: pass  |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest

from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.host import Host
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.kernel.frames import counters, is_tcp

pytestmark = pytest.mark.kernel


def station(name: str, *numbers: int) -> Station:
    return Station(name, (*(f"192.0.2.{n}/24" for n in numbers), *(f"2001:db8::{n}/64" for n in numbers)))


WIRES: Wires = {
    "outside": (station("client", 10, 11, 12),),
    "inside": (station("server", 20, 21),),
    "third": (station("other", 30, 31),),
}
CONFIG: dict[str, Any] = {
    "pickup": {
        "incoming": "intercept",
        "outgoing": "pass",
        "port": {"p1": {"incoming": "pass", "outgoing": "intercept"}, "p2": {"outgoing": "reject"}},
        "rule": [
            {"client": "192.0.2.11", "port": "p0", "action": "reject"},
            {"client": "192.0.2.11/32", "action": "drop"},
            {"client": "192.0.2.12/31", "action": "drop"},
            {"server": "192.0.2.21", "direction": "incoming", "action": "pass"},
            {"client": "2001:db8::11", "port": "p0", "action": "reject"},
            {"client": "2001:db8::10/124", "action": "drop"},
            {"server": "2001:db8::20/127", "direction": "incoming", "action": "pass"},
        ],
    },
    "protected": [
        {"domain": "example.com", "servers": ["192.0.2.20/31", "192.0.2.31", "2001:db8::20/123", "2001:db8::31"]}
    ],
}
SEEN = {"intercept": "banner", "pass": "banner", "drop": "silent", "reject": "refused"}
PORTS = {"client": "p0", "server": "p1", "other": "p2"}


def pairs(lab: Lab, host: Host) -> list[str]:
    """Every address of the host with every address of the others, of the same version."""
    return [
        f"{source}>{server}"
        for other in lab.hosts
        if other is not host
        for version in (4, 6)
        for source, server in product(host.of_version(version), other.of_version(version))
    ]


@pytest.fixture(scope="module")
def dialled(gateway_lab: Lab) -> dict[tuple[str, str], str]:
    """(port of arrival, pair) → how it ended; what was intercepted stands in the mail log afterwards."""
    for host in gateway_lab.hosts:
        MailServer.start(host)
    outcomes: dict[tuple[str, str], str] = {}
    for host in gateway_lab.hosts:
        ended = host.run(
            [host.interpreter, "-m", "tests.kernel.dialling", *pairs(gateway_lab, host)], timeout_s=60
        ).json()
        outcomes |= {(PORTS[host.name], pair): outcome for pair, outcome in ended.items()}
    return outcomes


def sessions(lab: Lab) -> dict[tuple[str, str], str]:
    """(port of arrival, pair) → direction, of every session in the mail log."""
    records = lab.gateway.mail_log("session")
    return {(r["port"], f"{r['client']['address']}>{r['server']['address']}"): r["direction"] for r in records}


EXPLAIN = """
import json, sys
from pathlib import Path
from smtp_intercept.app import config
from smtp_intercept.app.explain import Mail, explain
from smtp_intercept.direction import Servers
settings = config.load(Path(sys.argv[1]))
servers = Servers.of(item for protected in settings.protected for item in protected.servers)
policy = config.policy(settings, servers, frozenset())
mail = Mail(config.handling(settings), config.routes(settings), config.relay_rule(settings))
words = [word.split("@") for word in sys.argv[2:]]
print(json.dumps([
    explain(policy, mail, settings, client=pair.split(">")[0], server=pair.split(">")[1], port=port).as_json()
    for port, pair in words
]))
"""


def explained(lab: Lab, cases: list[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """What `explain` says of each, by its own function: a process each would take minutes."""
    words = [f"{port}@{pair}" for port, pair in cases]
    answers = lab.gateway.python(EXPLAIN, str(lab.gateway.config), *words).json()
    return dict(zip(cases, answers, strict=True))


def test_the_gateway_does_what_explain_says(gateway_lab: Lab, dialled: dict[tuple[str, str], str]) -> None:
    told = explained(gateway_lab, list(dialled))
    assert dialled == {case: SEEN[answer["action"]] for case, answer in told.items()}
    expected = {case: answer["direction"] for case, answer in told.items() if answer["action"] == "intercept"}
    gateway_lab.gateway.wait_sessions(0, len(expected))
    assert sessions(gateway_lab) == expected


def test_every_line_of_the_table_has_decided_something(gateway_lab: Lab, dialled: dict[tuple[str, str], str]) -> None:
    """Else the test above would have shown less than it seems to."""
    decided = {answer["decided_by"] for answer in explained(gateway_lab, list(dialled)).values()}
    assert decided == {
        *(f"pickup.rule[{number}]" for number in range(len(CONFIG["pickup"]["rule"]))),
        "pickup.port.p1.incoming",
        "pickup.port.p1.outgoing",
        "pickup.port.p2.outgoing",
        "pickup.incoming",
        "pickup.outgoing",
    } - {"pickup.rule[1]"}


@pytest.mark.parametrize(
    ("port", "pair", "outcome"),
    [
        ("p0", "192.0.2.10>192.0.2.20", "banner"),
        ("p0", "192.0.2.11>192.0.2.20", "refused"),
        ("p0", "192.0.2.12>192.0.2.30", "silent"),
        ("p0", "2001:db8::11>2001:db8::20", "refused"),
        ("p2", "192.0.2.30>192.0.2.10", "refused"),
    ],
)
def test_some_of_them_by_hand(dialled: dict[tuple[str, str], str], port: str, pair: str, outcome: str) -> None:
    assert dialled[port, pair] == outcome


def test_the_explain_command_says_what_its_function_says(gateway_lab: Lab) -> None:
    case = ("p1", "192.0.2.20>192.0.2.30")
    words = ["--from", "192.0.2.20", "--to", "192.0.2.30", "--port", "p1", "--json"]
    told = gateway_lab.gateway.tollbridge("explain", *words).json()
    assert told == {**explained(gateway_lab, [case])[case], "running": False, "drift": []}


def told_of_all(lab: Lab) -> dict[str, Any]:
    """The page of `status` as soon as the diverter has told of every SYN that the kernel has queued."""
    pages: list[dict[str, Any]] = []

    def whole() -> bool:
        pages[:] = [lab.gateway.status()]
        return bool(sum(pages[0]["picked_up"].values()) >= pages[0]["kernel"]["queued"])

    hung.wait_until(whole, "every SYN is told of")
    return pages[0]


def test_every_decision_is_counted_and_nothing_was_missed(
    gateway_lab: Lab, dialled: dict[tuple[str, str], str]
) -> None:
    status = told_of_all(gateway_lab)
    told = explained(gateway_lab, list(dialled)).values()
    for name, number in status["picked_up"].items():
        direction, _, action = name.partition(".")
        connections = sum((a["direction"], a["action"]) == (direction, action) for a in told)
        repeated = 2 if action == "drop" else 1  # the client repeats a SYN that is not answered
        assert number == connections * repeated, name
    assert not any(status["not_inspected"].values())
    assert counters(gateway_lab)["no_next_hop"] == 0


# --- twice through ---------------------------------------------------------------------------------------------------

TWICE: Wires = {
    "outside": (Station("client", ("192.0.2.10/24", "2001:db8::10/64")),),
    "router": (Station("router", ("192.0.2.1/24", "2001:db8::1/64")),),
    "inside": (Station("server", ("198.51.100.20/24", "2001:db8:1::20/64")),),
}
TWICE_CONFIG = {
    "pickup": {"outgoing": "intercept"},
    "protected": [{"domain": "example.com", "servers": ["198.51.100.20", "2001:db8:1::20"]}],
    "limits": {"drain_s": 1},  # the connection that met itself waits for a SYN-ACK that was not for it
}


@pytest.fixture(scope="module")
def hairpin(lanes: None) -> Iterator[Lab]:
    """A router on a stick: both of its networks are on the one wire, so what it forwards passes the gateway twice."""
    with Lab(TWICE) as lab:
        router = lab.host("router")
        router.run(["ip", "address", "add", "198.51.100.1/24", "dev", "eth0"])
        router.run(["ip", "address", "add", "2001:db8:1::1/64", "dev", "eth0", "nodad"])
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            router.run(["sysctl", "-qw", f"{name}=1"])
        for name, gateways in (("client", ("192.0.2.1", "2001:db8::1")), ("server", ("198.51.100.1", "2001:db8:1::1"))):
            for family in ("ipv4", "ipv6"):  # the router says that the others are on its wire: they are not to listen
                lab.host(name).run(["sysctl", "-qw", f"net.{family}.conf.eth0.accept_redirects=0"])
            for via in gateways:
                lab.host(name).run(["ip", "route", "add", "default", "via", via])
        MailServer.start(lab.host("server"))
        with lab.gateway.running(TWICE_CONFIG):
            yield lab


@pytest.mark.parametrize("version", [4, 6])
def test_mail_that_passes_twice_is_inspected_where_it_passes_first(hairpin: Lab, version: int) -> None:
    """From the first connection on. The router sees both ways of it, and every frame has the MACs of its wire."""
    client, server, router = (hairpin.host(name) for name in ("client", "server", "router"))
    pair = [client.of_version(version)[0], server.of_version(version)[0]]
    before = len(hairpin.gateway.mail_log("session"))
    came_round = counters(hairpin)["came_round"]
    with hairpin.capture() as frames:
        for _ in range(3):
            assert dial(client, ">".join(pair)) == "banner"
    sessions = hairpin.gateway.wait_sessions(before, 3)
    assert [entry["client"]["address"] for entry in sessions] == [pair[0]] * 3
    assert counters(hairpin)["came_round"] - came_round == 3
    assert not any(hairpin.gateway.status()["not_inspected"].values())
    assert syns(frames, "p2", Way.OUT, router.mac) == syns(frames, "p1", Way.OUT, client.mac) != set()
    leaving = [f for f in frames if f.host == "gateway" and f.way is Way.OUT and is_tcp(f)]
    ways = {(f.interface, f.source, f.destination) for f in leaving}
    assert ways == {
        ("p0", router.mac, client.mac),
        ("p1", client.mac, router.mac),
        ("p1", server.mac, router.mac),
        ("p2", router.mac, server.mac),
    }


def syns(frames: Sequence[Frame], port: str, way: Way, by: str) -> set[tuple[int, int]]:
    """(source port, sequence number) of the SYNs that a port of the gateway saw, sent by this MAC."""
    seen = [f.packet for f in frames if (f.host, f.interface, f.way, f.source) == ("gateway", port, way, by)]
    return {
        (packet["TCP"].sport, packet["TCP"].seq) for packet in seen if "TCP" in packet and packet["TCP"].flags == "S"
    }


def dial(client: Host, pair: str) -> str:
    """As a client does that repeats its SYN for 3 s, and one that tries again then."""
    for _ in range(3):
        outcome: str = client.run([client.interpreter, "-m", "tests.kernel.dialling", pair], timeout_s=30).json()[pair]
        if outcome == "banner":
            return outcome
    return outcome
