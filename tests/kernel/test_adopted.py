r"""A bridge of the administrator's, with ports that Tollbridge is not told of (virtual machines', say).

::

    client .10 ── p0 ┐
                     ├─ brx ── p2 ── vm .30       bridge.ports = ["p0", "p1"]
    server .20 ── p1 ┘
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.watch import REST_S
from smtp_intercept.app.lab.host import SOON_S
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import THREE_WIRES, Lab
from tests.kernel.pace import slowness
from tests.kernel.test_stopping import Call

pytestmark = pytest.mark.kernel

CONFIG: dict[str, Any] = {
    "bridge": {"ports": ["p0", "p1"], "name": "brx", "adopt": True, "namespace": "host"},
    "pickup": {"outgoing": "intercept"},
    "protected": [{"domain": "example.com", "servers": ["192.0.2.20", "2001:db8::20"]}],
}
VERSIONS = (4, 6)


@pytest.fixture(scope="module")
def lab(lanes: None) -> Iterator[Lab]:
    with Lab(THREE_WIRES) as lab:
        lab.gateway.run(["ip", "link", "add", "brx", "type", "bridge", "forward_delay", "0"])
        for port in lab.gateway.ports:
            lab.gateway.run(["ip", "link", "set", port, "master", "brx", "up"])
        lab.gateway.run(["ip", "link", "set", "brx", "up"])
        for host in lab.hosts:
            MailServer.start(host)
        yield lab


@pytest.mark.parametrize("version", VERSIONS)
def test_mail_of_ports_that_are_not_listed_crosses_and_is_counted(gateway_lab: Lab, version: int) -> None:
    ways = {
        ("client", "server"): True,
        ("server", "client"): True,
        ("client", "other"): False,
        ("other", "client"): False,
        ("other", "server"): False,
    }
    before = gateway_lab.gateway.status()["not_inspected"]
    for (source, to), inspected in ways.items():
        sender = f"{source}-{to}-{version}@example.net"
        (delivery,) = send(gateway_lab.host(source), gateway_lab.host(to).of_version(version)[0], sender=sender)
        assert delivery["accepted"], sender
        found = gateway_lab.gateway.wait_log(type="message", sender=sender, timeout_s=SOON_S if inspected else 0.5)
        assert bool(found) is inspected, sender
    after = gateway_lab.gateway.status()["not_inspected"]
    assert after["elsewhere"] - before["elsewhere"] >= 3
    assert after["past"] == before["past"]


@pytest.mark.alone
def test_one_that_begins_to_filter_vlans_is_left_alone(gateway_lab: Lab) -> None:
    """Within a second of the watch's next look, with its sessions cut: the lane joins what the bridge keeps apart. It
    is told in the log and by `status`; neither `run` nor `up` goes on before it is a plain bridge again."""
    gateway = gateway_lab.gateway
    gateway.stop()
    before, gateway.product = gateway.product, "tests.kernel.filtering"
    try:
        daemon = gateway.start()
        call = Call(gateway_lab)
        (gateway.run_dir / "filters").touch()
        gateway.run(["ip", "link", "set", "brx", "alias", "filtering"])  # an event, as the real one is
        began_at = time.monotonic()
        assert call.cut_after(began_at) < (max(REST_S) + 1.0) * slowness()
        assert daemon.wait(10).returncode == 1  # its processes have their own time to end
        assert "brx filters VLANs now" in daemon.stderr
        assert gateway.tollbridge("status", check=False).returncode == 3
        for verb in ("run", "up"):
            said = gateway.tollbridge(verb, check=False)
            assert (said.returncode, "brx filters VLANs" in said.stderr) == (1, True)
        (gateway.run_dir / "filters").unlink()
        gateway.start()
        assert gateway.tollbridge("status", check=False).returncode == 0
    finally:
        gateway.product = before


def test_a_bridge_that_filters_vlans_is_refused(dot1q: None, gateway_lab: Lab) -> None:
    """The last of this lab: its lanes are taken away."""
    gateway = gateway_lab.gateway
    gateway.stop()
    gateway.run(["ip", "link", "set", "brx", "type", "bridge", "vlan_filtering", "1"])
    said = gateway.tollbridge("up", check=False)
    assert said.returncode == 1
    assert "bridge.adopt: brx filters VLANs" in said.stderr
    assert "smtp0" not in gateway.run(["ip", "link"]).stdout
    gateway.run(["ip", "link", "set", "brx", "type", "bridge", "vlan_filtering", "0"])
    gateway.tollbridge("up")
    daemon = gateway.start()
    gateway.run(["ip", "link", "set", "brx", "type", "bridge", "vlan_filtering", "1"])
    assert daemon.wait(10).returncode == 1, "switched on later, it ends at once"
    assert "brx filters VLANs now" in daemon.stderr
