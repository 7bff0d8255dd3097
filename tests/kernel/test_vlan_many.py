"""As many VLANs as may be listed: the first and the last of them are inspected, and `down` leaves nothing of any.

::

    outside ─┬ client2     VLAN 2                                        ┌ server2     VLAN 2 ─ inside
             └ client4094  VLAN 4094 ══ p0 [ vlans = 2 … 64, 4094 ] p1 ══└ server4094  VLAN 4094
"""

from __future__ import annotations

import pytest

from bridge.lane import MAX_VLANS
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.snapshot import settled_difference, snapshot
from tests.kernel.test_vlan import CLIENT, SERVER, client, records, station

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("dot1q")]

LAST = 4094
VLANS = (*range(2, MAX_VLANS + 1), LAST)
ENDS = (VLANS[0], LAST)
WIRES = {
    "outside": tuple(station("client", vlan, CLIENT) for vlan in ENDS),
    "inside": tuple(station("server", vlan, SERVER) for vlan in ENDS),
}
CONFIG = {
    "bridge": {"vlans": list(VLANS)},
    "protected": [{"domain": "example.com", "servers": list(SERVER.values())}],
}


def test_each_has_its_lane_and_down_leaves_nothing(lanes: None, lab: Lab) -> None:
    assert len(VLANS) == MAX_VLANS
    gateway = lab.gateway
    before = snapshot(gateway.namespace)
    with gateway.running(CONFIG):
        assert gateway.status()["vlans"] == list(VLANS)
        assert not [line for line in gateway.tollbridge("plan").stdout.splitlines() if line.startswith("+ ")]
        for vlan in ENDS:
            server = MailServer.start(lab.host(f"server{vlan}"))
            (delivery,) = send(client(lab, vlan), SERVER[4], sender=f"{vlan}@example.net")
            assert delivery["accepted"], delivery
            (taken,) = server.messages(sender=f"{vlan}@example.net")
            assert taken["client"]["address"] == CLIENT[4]
            (record,) = records(lab, vlan=vlan)
            assert record["hidden"]
    assert settled_difference(gateway.namespace, before) == []
