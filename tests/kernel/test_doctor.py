"""`tollbridge doctor` beside a running gateway: nothing where all is well, and each ailment that is brought about."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from smtp_intercept.app.exits import Exit
from smtp_intercept.app.lab.host import SOON_S, patient
from smtp_intercept.app.lab.network import Lab
from tests.kernel.conftest import DEFAULT

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

DROPPING = "table inet firewall {\n chain input {\n type filter hook input priority 0; policy drop;\n }\n}\n"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.gateway.configure(DEFAULT | {"log": {"mail": str(lab.gateway.log), "reserve_bytes": 0}})
        lab.gateway.start()
        yield lab


def doctor(lab: Lab) -> tuple[int, str]:
    """Its exit status, and what it says; the clock is this machine's own, and not looked at here."""
    done = lab.gateway.tollbridge("doctor", "--json", check=False)
    page = json.loads(done.stdout)
    assert page["unread"] == []
    found = [each for each in page["findings"] if "clock" not in each["what"]]
    assert all(each["remedy"] for each in found)
    return done.returncode, "\n".join(each["what"] for each in found)


def until(lab: Lab, what: str, status: Exit) -> None:
    deadline_at = time.monotonic() + patient(SOON_S)
    while True:
        told = doctor(lab)
        if what in told[1]:
            break
        assert time.monotonic() < deadline_at, told
    assert told[0] == status, told


def test_all_is_well(lab: Lab) -> None:
    status, said = doctor(lab)
    assert said == ""
    assert status in (Exit.DONE, Exit.FAILED), "the clock's"
    assert "clock" in lab.gateway.tollbridge("doctor", check=False).stdout or status == Exit.DONE


def test_ports_of_different_mtu(lab: Lab) -> None:
    lab.gateway.room.run(["ip", "link", "set", "p0", "mtu", "1400"])
    until(lab, "MTUs differ", Exit.FAILED)
    lab.gateway.room.run(["ip", "link", "set", "p0", "mtu", "1500"])


def test_a_log_that_was_renamed(lab: Lab) -> None:
    log = lab.gateway.log
    moved = log.rename(log.with_name("mail.log.1"))
    log.touch()
    until(lab, f"writes its mail log to {moved}", Exit.FAILED)
    moved.rename(log)


def test_a_firewall_in_the_way(lab: Lab) -> None:
    room = lab.gateway.room
    rules = lab.gateway.directory / "firewall.nft"
    rules.write_text(DROPPING)
    room.run(["nft", "-f", str(rules)])
    until(lab, "mail is lost on its way through the box", Exit.NOT_INSPECTING)
    room.run(["nft", "delete", "table", "inet", "firewall"])


def test_a_wire_without_carrier_and_a_gateway_that_does_not_run(lab: Lab) -> None:
    """The last of this lab's."""
    server = lab.host("server")
    server.run(["ip", "link", "set", "eth0", "down"])
    until(lab, "p1 has no carrier", Exit.NOT_INSPECTING)
    lab.gateway.stop(down=False)
    until(lab, "not running", Exit.NOT_INSPECTING)
