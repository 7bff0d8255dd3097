"""``hidden = false``: the server sees the box's management address instead of the client's.

::

    client 192.0.2.10 ── p0 [ br0 192.0.2.2 ] p1 ── server 192.0.2.20

The client still talks to 192.0.2.20, as it thinks. A family without a management address stays hidden.
"""

from __future__ import annotations

from typing import Any

import pytest

from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

pytestmark = pytest.mark.kernel

OWN = "192.0.2.2"
CONFIG: dict[str, Any] = {
    "bridge": {"management": [f"{OWN}/24"]},
    "intercept": {"hidden": False},
    "protected": [{"domain": "example.com", "servers": ["192.0.2.20", "2001:db8::20"]}],
}


def test_the_server_sees_the_box(gateway_lab: Lab, server: MailServer) -> None:
    (delivery,) = send(gateway_lab.host("client"), "192.0.2.20", source="192.0.2.10", sender="seen@example.net")

    assert delivery["accepted"], delivery
    (taken,) = server.messages(sender="seen@example.net")
    assert taken["client"]["address"] == OWN
    record = gateway_lab.gateway.wait_log(type="session", hidden=False)[-1]
    assert (record["client"]["address"], record["source_port_kept"]) == ("192.0.2.10", False)


def test_a_family_without_an_address_of_the_box_stays_hidden(gateway_lab: Lab, server: MailServer) -> None:
    (delivery,) = send(gateway_lab.host("client"), "2001:db8::20", source="2001:db8::10", sender="six@example.net")

    assert delivery["accepted"], delivery
    (taken,) = server.messages(sender="six@example.net")
    assert taken["client"]["address"] == "2001:db8::10"
    assert gateway_lab.gateway.wait_log(type="session", hidden=True)


@pytest.mark.parametrize("banner_after_s", [12])
def test_a_late_banner_still_finds_the_client(lanes: None, banner_after_s: int) -> None:
    """Later than a SYN's next hops are kept where servers are dialled through the lane."""
    with Lab() as lab, lab.gateway.running(CONFIG):
        MailServer.start(lab.host("server"), banner_after=banner_after_s)
        (delivery,) = send(lab.host("client"), "192.0.2.20", source="192.0.2.10", timeout=30, timeout_s=60)
        assert delivery["accepted"], delivery
        assert lab.gateway.wait_log(type="session", hidden=False)
