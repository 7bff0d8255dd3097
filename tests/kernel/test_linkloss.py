"""With ``bridge.link_loss = "propagate"`` the box is a cable also when one end of it is pulled out.

::

    client eth0 ╳── p0  gateway  p1 ──╳ server eth0
           pulled, so this ────────────┘ has no carrier; and put back, so that it has
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from bridge.linkloss import SETTLE_S
from smtp_intercept.app.lab.host import Host
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.snapshot import settled_difference, snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

SEEN_S = 0.5  # the box has looked: what was never seen with a carrier is given the time that one takes …
TOLD_S = SETTLE_S + 10.0  # … and if it has not, on a busy machine, it tells a little later than that
STAYS_S = 3.0


def pull(host: Host, state: str) -> None:
    host.run(["ip", "link", "set", "eth0", state])


def becomes(host: Host, port: str, carrier: bool, within_s: float = TOLD_S) -> bool:
    """Within the time; the port of a host that has not pulled its own wire."""
    deadline_at = time.monotonic() + within_s
    while time.monotonic() < deadline_at:
        if ("LOWER_UP" in host.run(["ip", "link", "show", port]).stdout) is carrier:
            return True
        time.sleep(0.05)
    return False


def test_a_lost_carrier_crosses_the_box_and_comes_back() -> None:
    with Lab() as lab:
        client, server, gateway = lab.host("client"), lab.host("server"), lab.gateway
        gateway.configure({"bridge": {"link_loss": "propagate"}})
        before = snapshot(gateway.namespace)
        gateway.start()
        for pulled, told in ((client, server), (server, client)):
            pull(pulled, "down")
            assert becomes(told, "eth0", carrier=False)
            pull(pulled, "up")
            assert becomes(told, "eth0", carrier=True)
            assert becomes(pulled, "eth0", carrier=True)
            time.sleep(SEEN_S)
        ping = client.run(client.program("traffic", "ping", server.ipv4, "--count", "1", "--timeout", "3"))
        assert ping.json()["received"] == 1
        pull(client, "down")
        assert becomes(server, "eth0", carrier=False)
        gateway.stop(down=False)
        assert becomes(server, "eth0", carrier=True), "a bridge that nobody watches has both its ports"
        pull(client, "up")
        gateway.tollbridge("down")
        assert settled_difference(gateway.namespace, before) == []


def test_down_brings_up_what_a_killed_daemon_held() -> None:
    with Lab() as lab:
        client, server, gateway = lab.host("client"), lab.host("server"), lab.gateway
        gateway.configure({"bridge": {"link_loss": "propagate"}})
        gateway.run(["ip", "link", "set", "p0", "up"])  # so that `up` has nothing of it to undo
        gateway.run(["ip", "link", "set", "p1", "up"])
        before = snapshot(gateway.namespace)
        gateway.start()
        time.sleep(SEEN_S)
        pull(client, "down")
        assert becomes(server, "eth0", carrier=False)
        os.kill(gateway.pids()["supervisor"], signal.SIGKILL)
        pull(client, "up")
        gateway.tollbridge("down")
        assert becomes(server, "eth0", carrier=True)
        assert settled_difference(gateway.namespace, before) == []


def test_by_default_the_other_port_keeps_its_carrier() -> None:
    with Lab() as lab:
        lab.gateway.configure({})
        lab.gateway.start()
        pull(lab.host("client"), "down")
        assert not becomes(lab.host("server"), "eth0", carrier=False, within_s=STAYS_S)
