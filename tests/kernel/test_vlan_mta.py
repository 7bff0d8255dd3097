"""A trunk's mail that the box takes itself (`intercept` "mta"): in whose name, and in which VLAN, it goes on.

::

    outside ─┬ client    untagged                                    ┌ server    untagged ─ inside
             └ client10  VLAN 10   ══ p0 [ vlans = 10; box .2 ] p1 ══└ server10  VLAN 10

Both clients have the same addresses, and both servers.
"""

from __future__ import annotations

from typing import Any

import pytest

from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab
from tests.kernel.test_mta_box import BOX, take
from tests.kernel.test_vlan import CLIENT, SERVER, mail, station

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("dot1q")]

VLAN = 10
WIRES = {
    "outside": (station("client", 0, CLIENT), station("client", VLAN, CLIENT)),
    "inside": (station("server", 0, SERVER), station("server", VLAN, SERVER)),
}


@pytest.fixture(scope="module")
def servers(lab: Lab) -> dict[int, MailServer]:
    return {0: MailServer.start(lab.host("server")), VLAN: MailServer.start(lab.host(f"server{VLAN}"))}


def config(lab: Lab, source: str) -> dict[str, Any]:
    return {
        "bridge": {"vlans": [VLAN], "management": [f"{BOX}/24", "2001:db8::2/64"]},
        "protected": [{"domain": "example.com", "servers": list(SERVER.values())}],
        "intercept": {"incoming": "mta"},
        "mta": {"hostname": "box.test", "spool": str(lab.gateway.directory / "spool"), "source": source},
        "limits": {"drain_s": 2},
    }


def post(lab: Lab, version: int, sender: str) -> dict[str, Any]:
    (report,) = send(lab.host(f"client{VLAN}"), SERVER[version], sender=sender)
    assert report["accepted"], report
    return report


def to_servers(frames: list[Frame], port: str, way: Way) -> set[tuple[int | None, str]]:
    """VID and source MAC of all that goes to port 25 there."""
    return {(vid, frame.source) for vid, frame, _, port_to in mail(frames, port, way) if port_to == 25}


@pytest.mark.parametrize("version", [4, 6])
def test_in_the_clients_name_it_stays_in_its_vlan(lab: Lab, servers: dict[int, MailServer], version: int) -> None:
    sender = f"kept-{version}@example.net"
    with lab.gateway.running(config(lab, "client")), lab.capture("outside", "inside") as frames:
        report = post(lab, version, sender)
        taken = take(servers[VLAN], sender)
    assert taken["client"]["address"] == CLIENT[version]
    assert taken["client"]["port"] == report["attempts"][0]["client_port"]
    assert taken["helo"] == "box.test"
    client = lab.host(f"client{VLAN}").mac
    assert to_servers(frames, "p0", Way.IN) == to_servers(frames, "p1", Way.OUT) == {(VLAN, client)}


def test_in_the_boxs_own_name_it_goes_where_the_boxs_address_is(lab: Lab, servers: dict[int, MailServer]) -> None:
    """Which is the bridge itself, without a tag."""
    with lab.gateway.running(config(lab, "box")), lab.capture("outside", "inside") as frames:
        post(lab, 4, "own@example.net")
        taken = take(servers[0], "own@example.net")
    assert taken["client"]["address"] == BOX
    assert {vid for vid, _ in to_servers(frames, "p0", Way.IN)} == {VLAN}
    assert {vid for vid, _ in to_servers(frames, "p1", Way.OUT)} == {None}
    assert servers[VLAN].messages(sender="own@example.net") == []
