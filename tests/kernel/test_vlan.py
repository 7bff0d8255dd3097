"""Trunks: mail of a listed VLAN is inspected and leaves with its tag; the same addresses in two VLANs stay apart.

::

    outside ─┬ client    untagged                                  ┌ server    untagged ─ inside
             ├ client10  VLAN 10   ══ p0 [ vlans = 10, 20 ] p1 ══  ├ server10  VLAN 10
             ├ client20  VLAN 20                                   ├ server20  VLAN 20
             └ client30  VLAN 30                                   └ server30  VLAN 30

All clients have the addresses of one client, all servers those of one server: only the tag tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.host import Host, Process
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab, Station
from smtp_intercept.app.lab.snapshot import settled_difference, snapshot
from tests.kernel.frames import counters, crossing, inject, sightings
from tests.unshown import NO_DOT1Q

pytestmark = pytest.mark.kernel

CLIENT, SERVER = {4: "192.0.2.10", 6: "2001:db8::10"}, {4: "192.0.2.20", 6: "2001:db8::20"}
VLANS, UNLISTED = (10, 20), 30
EVERY = (0, *VLANS, UNLISTED)


def station(name: str, vlan: int, addresses: dict[int, str]) -> Station:
    return Station(f"{name}{vlan or ''}", (f"{addresses[4]}/24", f"{addresses[6]}/64"), vlan)


WIRES = {
    "outside": tuple(station("client", vlan, CLIENT) for vlan in EVERY),
    "inside": tuple(station("server", vlan, SERVER) for vlan in EVERY),
}
CONFIG: dict[str, Any] = {
    "bridge": {"vlans": list(VLANS)},
    "pickup": {"rule": [{"vlan": 20, "client": CLIENT[6], "action": "reject"}]},
    "protected": [{"domain": "example.com", "servers": list(SERVER.values())}],
}
# One session from a given port, held until the file is there: its banner, and the reply to NOOP after that.
HELD = """
import json, pathlib, socket, sys, time
source, port, server, go = sys.argv[1:]
sock = socket.create_connection((server, 25), 30, (source, int(port)))
lines = sock.makefile("r")
banner = lines.readline()
print("held", flush=True)
until = time.monotonic() + 120
while not pathlib.Path(go).exists() and time.monotonic() < until:
    time.sleep(0.02)
sock.sendall(b"NOOP\\r\\n")
print(json.dumps({"banner": banner.strip(), "reply": lines.readline().strip()}))
"""
HELD_PORT = 41_025


@pytest.fixture(scope="module")
def lab(dot1q: None) -> Iterator[Lab]:
    with Lab(WIRES) as lab:
        yield lab


@pytest.fixture(scope="module")
def servers(lab: Lab) -> dict[int, MailServer]:
    """One in each VLAN, with the VLAN in its banner."""
    started = {
        vlan: MailServer.start(lab.host(f"server{vlan or ''}"), wait=False, hostname=f"vlan{vlan}.example.com")
        for vlan in EVERY
    }
    for server in started.values():
        server.wait_ready()
    return started


def client(lab: Lab, vlan: int) -> Host:
    return lab.host(f"client{vlan or ''}")


def untagged(frame: Frame) -> tuple[int | None, Frame]:
    """The VID, None without a tag, and the frame without it."""
    if frame.ethertype != 0x8100:
        return None, frame
    vlan = int.from_bytes(frame.data[14:16], "big") & 0xFFF
    return vlan, replace(frame, data=frame.data[:12] + frame.data[16:])


def mail(frames: Sequence[Frame], interface: str, way: Way) -> Iterator[tuple[int | None, Frame, int, int]]:
    """The TCP frames to and from port 25 at one of the gateway's ports: VID, frame, source and destination port."""
    for frame in frames:
        if (frame.host, frame.interface, frame.way) != ("gateway", interface, way):
            continue
        vlan, bare = untagged(frame)
        packet = bare.packet
        if TCP in packet and 25 in (packet[TCP].sport, packet[TCP].dport):
            yield vlan, bare, packet[TCP].sport, packet[TCP].dport


def records(lab: Lab, **wanted: Any) -> list[dict[str, Any]]:
    return lab.gateway.wait_log(type="session", **wanted)


@pytest.mark.parametrize(("vlan", "version"), [(10, 4), (10, 6), (20, 4)])
def test_tagged_mail_is_inspected_and_leaves_with_its_tag(
    gateway_lab: Lab, servers: dict[int, MailServer], vlan: int, version: int
) -> None:
    """With the client's address, port and MAC, as untagged mail does; and every answer with the server's."""
    lab, sender = gateway_lab, f"tagged-{vlan}-{version}@example.net"
    host, server = client(lab, vlan), servers[vlan]
    with lab.capture("outside", "inside") as frames:
        (delivery,) = send(host, SERVER[version], sender=sender)
    assert delivery["accepted"], delivery
    (taken,) = server.messages(sender=sender)
    assert taken["client"]["address"] == CLIENT[version]

    port = taken["client"]["port"]
    for way, interface in ((Way.IN, "p0"), (Way.OUT, "p1")):
        to_server = [seen for seen in mail(frames, interface, way) if seen[3] == 25]
        assert {(seen[0], seen[1].source, seen[1].destination, seen[2]) for seen in to_server} == {
            (vlan, host.mac, server.host.mac, port)
        }
    for way, interface in ((Way.IN, "p1"), (Way.OUT, "p0")):
        to_client = [seen for seen in mail(frames, interface, way) if seen[2] == 25]
        assert {(seen[0], seen[1].source, seen[1].destination, seen[3]) for seen in to_client} == {
            (vlan, server.host.mac, host.mac, port)
        }
    (record,) = records(lab, vlan=vlan, where=lambda each: each["client"]["port"] == port)
    assert (record["port"], record["source_port_kept"], record["hidden"]) == ("p0", True, True)
    assert record["client"]["mac"] == host.mac


def test_one_connection_in_three_places_at_once_is_three(gateway_lab: Lab, servers: dict[int, MailServer]) -> None:
    """The same client address and port, the same server, untagged and in two VLANs; each meets its own server."""
    lab, places = gateway_lab, (0, *VLANS)
    go = client(lab, 0).new_file("-go")  # all clients have the same files
    held = {vlan: hold(client(lab, vlan), str(go)) for vlan in places}
    for process in held.values():
        process.wait_for("held")
    client(lab, 0).run(["touch", str(go)])
    said = {vlan: process.wait().check().stdout.splitlines()[-1] for vlan, process in held.items()}
    for vlan in places:
        assert f"vlan{vlan}.example.com" in said[vlan]
        assert '"reply": "250' in said[vlan]
        session = [
            each
            for each in records(lab, vlan=vlan or None, where=lambda each: each["client"]["port"] == HELD_PORT)
            if each["source_port_kept"]
        ]
        assert len(session) == 1, session


def hold(host: Host, go: str) -> Process:
    return host.spawn([host.interpreter, "-c", HELD, CLIENT[4], str(HELD_PORT), SERVER[4], go])


def test_untagged_mail_beside_it_is_inspected_as_ever(gateway_lab: Lab, servers: dict[int, MailServer]) -> None:
    (delivery,) = send(client(gateway_lab, 0), SERVER[4], sender="plain@example.net")
    assert delivery["accepted"], delivery
    assert servers[0].messages(sender="plain@example.net")
    assert records(gateway_lab, vlan=None)


def test_a_rule_may_choose_by_vlan(gateway_lab: Lab, servers: dict[int, MailServer]) -> None:
    (refused,) = send(client(gateway_lab, 20), SERVER[6])
    assert not refused["accepted"]
    assert {attempt["outcome"] for attempt in refused["attempts"]} == {"refused"}, refused
    (delivery,) = send(client(gateway_lab, 10), SERVER[6])
    assert delivery["accepted"], delivery


def test_a_vlan_that_is_not_listed_crosses_untouched(gateway_lab: Lab, servers: dict[int, MailServer]) -> None:
    lab = gateway_lab
    before = counters(lab)
    with lab.capture("outside", "inside") as frames:
        # In one segment: a longer frame that a card has put together may leave in parts.
        (delivery,) = send(client(lab, UNLISTED), SERVER[4], sender="unlisted@example.net", size=500)
    after = counters(lab)
    assert delivery["accepted"], delivery
    assert servers[UNLISTED].messages(sender="unlisted@example.net")
    for one, other in (("p0", "p1"), ("p1", "p0")):
        came = [seen[1].data for seen in mail(frames, one, Way.IN)]
        assert came == [seen[1].data for seen in mail(frames, other, Way.OUT)] != []
    assert after["tagged"] - before["tagged"] == 1
    assert after["sent"] == before["sent"]
    assert lab.gateway.status()["not_inspected"]["tagged"] == after["tagged"]


TAGS = {
    "priority tag": Dot1Q(vlan=0, prio=5),
    "802.1ad": Dot1AD(vlan=10),
    "802.1ad over 802.1Q": Dot1AD(vlan=10) / Dot1Q(vlan=20),
    "802.1Q twice": Dot1Q(vlan=10) / Dot1Q(vlan=20),
}


@pytest.mark.parametrize("tags", TAGS)
def test_other_tags_are_bridged_and_counted(gateway_lab: Lab, tags: str) -> None:
    lab = gateway_lab
    a, b = lab.host("client"), lab.host("server")
    syn = TCP(sport=42_025, dport=25, flags="S")
    ends = ({"src": CLIENT[4], "dst": SERVER[4]}, {"src": CLIENT[6], "dst": SERVER[6]})
    sent = [
        bytes(Ether(src=a.mac, dst=b.mac) / TAGS[tags] / ip(**pair) / syn)
        for ip, pair in zip((IP, IPv6), ends, strict=True)
    ]
    before = counters(lab)
    with lab.capture() as frames:
        inject(a, sent)
    after = counters(lab)
    for data in sent:
        seen = {place: n for place, n in sightings(frames, data).items() if place[0] in {"gateway", a.name, b.name}}
        assert seen == crossing(a, b, lab)
    assert after["tagged"] - before["tagged"] == 2
    assert after["queued"] == before["queued"]


def test_status_and_explain_name_the_vlans(gateway_lab: Lab) -> None:
    gateway = gateway_lab.gateway
    assert gateway.status()["vlans"] == list(VLANS)
    assert ", VLAN 10, 20 too; " in gateway.tollbridge("status").stdout
    asked = ("explain", "--from", CLIENT[6], "--to", SERVER[6])
    assert "reject, decided by pickup.rule[0]" in gateway.tollbridge(*asked, "--vlan", "20").stdout
    assert "intercept, decided by pickup.incoming" in gateway.tollbridge(*asked, "--vlan", "10").stdout
    other = gateway.tollbridge(*asked, "--vlan", "30", check=False)
    assert "--vlan: 30 is not one of bridge.vlans (10, 20)" in other.stderr


def test_a_dead_gateway_is_a_wire_in_every_vlan(gateway_lab: Lab, servers: dict[int, MailServer]) -> None:
    """The last of this lab: its daemon ends here."""
    lab = gateway_lab
    known = len(lab.gateway.mail_log("session"))
    lab.gateway.stop(down=False)
    for vlan in VLANS:
        (delivery,) = send(client(lab, vlan), SERVER[4], sender=f"dead-{vlan}@example.net")
        assert delivery["accepted"], delivery
        assert servers[vlan].messages(sender=f"dead-{vlan}@example.net")
    assert len(lab.gateway.mail_log("session")) == known


def test_up_follows_the_list_and_down_restores_all(lanes: None, dot1q: None) -> None:
    with Lab() as lab:
        before = snapshot(lab.gateway.namespace)
        for vlans in ([10, 20], [20, 4094], []):
            lab.gateway.configure({"bridge": {"vlans": vlans}})
            lab.gateway.tollbridge("up")
            links = lab.gateway.room.run(["ip", "-json", "link", "show", "type", "bridge"]).json()
            assert {link["ifname"] for link in links} == {"br0", "smtp0", *(f"smtp0.{vlan}" for vlan in vlans)}
            planned = lab.gateway.tollbridge("plan").stdout.splitlines()
            assert not [line for line in planned if line.startswith("+ ")]
            again = lab.gateway.tollbridge("up").stdout.splitlines()
            assert not [line for line in again if line.startswith("  ")]
        lab.gateway.tollbridge("down")
        assert settled_difference(lab.gateway.namespace, before) == []


def test_without_8021q_the_wire_is_made_and_said_to_inspect_untagged_mail_only(lanes: None) -> None:
    NO_DOT1Q.skip()
    with Lab() as lab:
        gateway = lab.gateway
        gateway.configure({"bridge": {"vlans": [10, 20]}, "protected": CONFIG["protected"]})
        made = gateway.tollbridge("up")
        assert "bridge.vlans: this kernel has no 802.1Q (module 8021q): mail of VLAN 10, 20 crosses" in made.stderr
        server = MailServer.start(lab.host("server"))
        gateway.spawn_daemon()
        (delivery,) = send(lab.host("client"), SERVER[4], source=CLIENT[4])
        assert delivery["accepted"], delivery
        assert server.messages()
        assert gateway.wait_log(type="session")
        assert gateway.status()["vlans"] == []
        gateway.stop()
