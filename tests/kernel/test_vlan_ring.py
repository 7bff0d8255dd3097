r"""A trunk through a ring: tagged mail is inspected, and takes the one way that the spanning tree left open.

::

                              ┌ p1 ══ eth0 root ── server: VLAN 10 on the root itself
    client: VLAN 10 ══ p0  gateway        ║ eth1
                              └ p2 ╳ eth0 spare        ╳ the port that the spanning tree blocks

The tree is one for all VLANs, as 802.1D has it; its own frames have no tag.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab, Station
from tests.kernel import test_stp
from tests.kernel.test_stp import CONVERGED_S, FAILED_OVER_S, VERSIONS, converged, port_state, until, wait_told
from tests.kernel.test_vlan import CLIENT, SERVER, mail, records, station

pytestmark = pytest.mark.kernel

VLAN = 10
WIRES = {
    "outside": (station("client", VLAN, CLIENT),),
    "left": (Station("root", ("198.51.100.20/24",)),),  # of the switch; its mail server is in the VLAN
    "right": (Station("spare", ()),),
}
CONFIG = {
    "bridge": {"stp": True, "vlans": [VLAN]},
    "protected": [{"domain": "example.com", "servers": list(SERVER.values())}],
}
IN_VLAN = f"""
ip link add link sw name sw.{VLAN} up type vlan id {VLAN}
ip address add {SERVER[4]}/24 dev sw.{VLAN}
ip address add {SERVER[6]}/64 dev sw.{VLAN} nodad
"""


@pytest.fixture(scope="module")
def ring(lanes: None, dot1q: None) -> Iterator[Lab]:
    with converged(WIRES, CONFIG) as lab:
        root = lab.host("root")
        for line in IN_VLAN.strip().splitlines():
            root.run(line.split())
        MailServer.start(root, *SERVER.values())
        lab.gateway.spawn_daemon()
        wait_told(lab)
        yield lab


def inspected(ring: Lab) -> list[Frame]:
    """What is on the wires while one message of each IP version crosses, and is inspected."""
    before = len(records(ring, vlan=VLAN)) if ring.gateway.mail_log("session") else 0
    with ring.capture() as frames:
        for version in VERSIONS:
            (delivery,) = send(ring.host(f"client{VLAN}"), SERVER[version])
            assert delivery["accepted"], delivery
    until(lambda: len(records(ring, vlan=VLAN)) == before + len(VERSIONS), 20.0, "both sessions are recorded")
    return frames


def left_by(frames: Sequence[Frame], port: str) -> set[tuple[int | None, str]]:
    """VID and source MAC of the mail that left by a port of the gateway's."""
    return {(vid, frame.source) for vid, frame, _, _ in mail(frames, port, Way.OUT)}


def test_tagged_mail_leaves_by_the_port_that_forwards_only(ring: Lab) -> None:
    frames = inspected(ring)
    assert left_by(frames, "p1") == {(VLAN, ring.host(f"client{VLAN}").mac)}
    assert left_by(frames, "p0") == {(VLAN, ring.host("root").mac)}
    assert left_by(frames, "p2") == set()


def test_what_comes_in_by_the_blocked_port_goes_nowhere(ring: Lab) -> None:
    """A tagged SYN that the spare switch sends; the same one is seen to cross where the way is open."""
    assert test_stp.injected(ring, "spare", "p2", VLAN) == {"in": 1, "out": 0}
    assert test_stp.injected(ring, "root", "p1", VLAN) == {"in": 1, "out": 1}


@pytest.mark.parametrize(("state", "open_", "shut"), [("down", "p2", "p1"), ("up", "p1", "p2")])
def test_when_the_way_changes_it_takes_the_other(ring: Lab, state: str, open_: str, shut: str) -> None:
    ring.host("root").run(["ip", "link", "set", "eth0", state])
    until(lambda: port_state(ring, open_) == "forwarding", CONVERGED_S + FAILED_OVER_S, f"{open_} forwards")
    until(lambda: port_state(ring, shut) != "forwarding", CONVERGED_S, f"{shut} does not")
    wait_told(ring)
    frames = inspected(ring)
    assert left_by(frames, open_) == {(VLAN, ring.host(f"client{VLAN}").mac)}
    assert left_by(frames, shut) == set()
