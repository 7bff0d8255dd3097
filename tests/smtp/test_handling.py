"""Who speaks to the client: the domain's word, then the port's, then the direction's default."""

from __future__ import annotations

import pytest

from smtp_intercept.app.config import handling, parse, uses_mta
from smtp_intercept.direction import Direction

SITE = """
[bridge]
ports = ["52:54:00:00:00:01", "enp2s0", "enp3s0"]
[intercept]
incoming = "proxy"
outgoing = "mta"
[intercept.port."52:54:00:00:00:01"]
incoming = "mta"
[intercept.port.enp2s0]
outgoing = "proxy"
[[protected]]
domain = "queued.example"
servers = ["192.0.2.1", "192.0.2.3"]
handler = "mta"
[[protected]]
domain = "live.example"
servers = ["192.0.2.2"]
handler = "proxy"
[[protected]]
domain = "silent.example"
servers = ["192.0.2.4"]
deliver_to = ["192.0.2.4"]
"""


@pytest.mark.parametrize(
    ("port", "direction", "served", "handler", "decided_by"),
    [
        ("enp3s0", "incoming", "", "proxy", "intercept.incoming"),
        ("enp3s0", "outgoing", "", "mta", "intercept.outgoing"),
        ("enp1s0", "incoming", "", "mta", "intercept.port.52:54:00:00:00:01.incoming"),
        ("enp1s0", "outgoing", "", "mta", "intercept.outgoing"),
        ("enp2s0", "outgoing", "", "proxy", "intercept.port.enp2s0.outgoing"),
        ("enp2s0", "incoming", "", "proxy", "intercept.incoming"),
        ("enp3s0", "incoming", "silent.example", "proxy", "intercept.incoming"),
        ("enp3s0", "incoming", "queued.example", "mta", "protected[0].handler"),
        ("enp1s0", "incoming", "live.example", "proxy", "protected[1].handler"),
        ("enp1s0", "incoming", "silent.example live.example", "proxy", "protected[1].handler"),
        ("enp1s0", "incoming", "live.example queued.example", "mta", "protected[0].handler"),  # the file's order
        ("enp2s0", "outgoing", "queued.example", "proxy", "intercept.port.enp2s0.outgoing"),  # its servers, no others
        ("", "incoming", "", "proxy", "intercept.incoming"),  # the port of arrival is unknown
    ],
)
def test_the_table(port: str, direction: str, served: str, handler: str, decided_by: str) -> None:
    table = handling(parse(SITE), {"52:54:00:00:00:01": "enp1s0"})
    choice = table.choose(port, Direction(direction), tuple(served.split()))
    assert (choice.handler, choice.decided_by) == (handler, decided_by)


@pytest.mark.parametrize(
    ("lines", "used"),
    [
        ("", False),
        ("[intercept]\nincoming = 'mta'", True),
        ("[intercept]\noutgoing = 'mta'", True),
        ("[intercept.port.b]\noutgoing = 'mta'", True),
        ("[[protected]]\ndomain = 'a.example'\nhandler = 'mta'", True),
        ("[[protected]]\ndomain = 'a.example'\nhandler = 'proxy'", False),
    ],
)
def test_whether_the_mta_has_anything_to_do(lines: str, used: bool) -> None:
    assert uses_mta(parse(f"[bridge]\nports = ['a', 'b']\n{lines}\n")) is used
