"""`up --boot`, where nobody watches: it waits for the ports, and whatever fails, the wire is not cut.

what happens                        what is left                exit status
the ports come late                 bridge and mail lane        0
the kernel lacks what a lane needs  plain bridge, management    1
a step fails                        plain bridge, management    1
it is killed, at any step           as the unit starts it again: bridge and mail lane
an adopted bridge is not there yet  nothing, and later its mail lane     0
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.network import Lab
from tests.kernel.test_up_down import assert_crosses, done, killed

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

# The product with one of its parts broken.
BROKEN = {
    "probe": "raise firewall.MissingFeatureError('this kernel lacks: a lane')",
    "nft": "raise firewall.FirewallError('nft: no')",
}
PROGRAM = """\
import sys
from bridge import firewall
from smtp_intercept.app import cli
def broken(*_):
    {error}
firewall.{part} = broken
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def box() -> Iterator[Lab]:
    with Lab() as lab:
        lab.gateway.configure({"bridge": {"ports": list(lab.gateway.ports), "management": ["192.0.2.222/24"]}})
        yield lab
        lab.gateway.tollbridge("down")


def crosses(lab: Lab) -> bool:
    client = lab.host("client")
    ping = client.run(client.program("traffic", "ping", lab.host("server").ipv4, "--count", "1", "--timeout", "3"))
    return bool(ping.json()["received"] == 1)


def test_it_waits_for_the_ports(box: Lab) -> None:
    late = box.gateway.ports[1]
    box.gateway.run(["ip", "link", "set", late, "down"])
    box.gateway.run(["ip", "link", "set", late, "name", "early0"])
    process = box.gateway.spawn(box.gateway.command("up", "--boot"))
    time.sleep(2.0)
    assert process.running
    box.gateway.run(["ip", "link", "set", "early0", "name", late])
    assert "up: br0 over" in process.wait().stdout
    assert crosses(box)


@pytest.mark.parametrize("part", BROKEN)
def test_whatever_fails_a_plain_bridge_is_left(box: Lab, part: str) -> None:
    program = PROGRAM.format(part=part, error=BROKEN[part])
    interpreter, _, _, *words = box.gateway.command("up", "--boot")
    done = box.gateway.run([interpreter, "-c", program, *words], check=False, timeout_s=60.0)
    assert done.returncode == 1
    assert "br0 is a plain bridge: all mail crosses uninspected" in done.stderr
    assert crosses(box)
    assert "192.0.2.222/24" in box.gateway.run(["ip", "addr", "show", "tb0"]).stdout
    assert "smtp0" not in box.gateway.room.run(["ip", "link"]).stdout


def test_killed_at_any_step_it_goes_on_where_it_was(box: Lab) -> None:
    """Restart=on-abnormal of its unit starts it again; before a step, and in the middle of one."""
    line, points = 1, 0
    while (said := killed(box, "up", "--boot", lines=line, at_once=bool(points % 2))) == line:
        rest = done(box, "up", "--boot")
        assert rest, f"killed at line {line}"
        assert done(box, "up", "--boot") == []
        assert "192.0.2.222/24" in box.gateway.run(["ip", "addr", "show", "tb0"]).stdout
        assert_crosses(box)
        done(box, "down")
        points, line = points + 1, line + 19
    assert said > 60
    assert points > 3


def test_an_adopted_bridge_may_come_later(box: Lab) -> None:
    gateway = box.gateway
    gateway.configure({"bridge": {"adopt": True, "namespace": "host"}})
    assert "no br0 to adopt yet" in gateway.tollbridge("up", "--boot").stdout
    assert not gateway.run_dir.joinpath("ledger.jsonl").exists()
    process = gateway.spawn(gateway.command("up", "--boot", "--adopted"))
    namespaces.add_switch(gateway.namespace, "br0", gateway.ports)
    assert "up: br0 over p0, p1" in process.wait().check().stdout
    gateway.tollbridge("down")
    gateway.configure()
    assert gateway.tollbridge("up", "--boot", "--adopted").stdout == ""
    assert "smtp0" not in gateway.run(["ip", "link"]).stdout
