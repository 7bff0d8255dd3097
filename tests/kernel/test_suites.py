"""Other people's SMTP suites, with the gateway between their clients and their servers.

::

    the suite's clients ── p0 [bare bridge | gateway] p1 ── the suite's servers     (tests/peers/across.py)

    suite                    from
    CPython's test_smtplib   Debian's libpython3.x-testsuite
    aiosmtpd's own tests     the installed aiosmtpd

What passes over the bare bridge passes through the gateway, but for what `EXCEPTIONS` names.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.lab.host import Process
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.peers.across import ENVIRONMENT, PORTS
from tests.tools import data

pytestmark = pytest.mark.kernel

SUITE_S = 600.0
ROOT = Path(__file__).parents[2]
HOSTS = range(32, 48)
WIRES: Wires = {
    "outside": (Station("client", ("192.0.2.10/24", "2001:db8::10/64")),),
    "inside": (Station("server", (*(f"192.0.2.{n}/24" for n in HOSTS), *(f"2001:db8::{n}/64" for n in HOSTS))),),
}
CONFIG: dict[str, Any] = {
    # By default the box refuses what aiosmtpd's test of smuggling sends; the test then leaves smtplib as it has patched
    # it, and the next ones wait for ever. And its tests of the PROXY protocol come from no balancer of ours.
    "intercept": {"ports": list(PORTS), "bare_newline": "pass", "on_client_doubt": "pass"},
    "protected": [{"domain": "example.com", "servers": ["192.0.2.32/28", "2001:db8::/64"]}],
}

# What passes over the bare bridge and may not through the gateway, and why.
EXCEPTIONS: Mapping[str, str] = {
    "test_server.py::TestUnthreaded::test_inet_loopstop": "where nobody listens, the client is reset, not refused; on "
    "a busy machine the reset can be there before the client has seen that it was accepted",
    "test_smtp.py::TestSMTP::test_way_too_long_command": "a line beyond limits.command_line_bytes is answered by "
    "the box, in its own words, and never reaches the server",
}


def smtplib_suite() -> list[str]:
    return [str(data("usr/lib/python3*/test/test_smtplib.py")[0])]


def aiosmtpd_suite() -> list[str]:
    return ["--pyargs", "aiosmtpd.tests"]


# Tests that pass, and tests whose connections cross, at the least.
SUITES = {"smtplib": (smtplib_suite, 80, 40), "aiosmtpd": (aiosmtpd_suite, 400, 300)}


def start(lab: Lab, suite: list[str]) -> Process:
    """The suite at work; `entries` reads its report when it has ended."""
    client, server = lab.host("client"), lab.host("server")
    setting = {
        "namespace": server.enter[-1],
        "client": [client.ipv4, client.ipv6],
        "servers": [server.of_version(4), server.of_version(6)],
        "report": str(client.directory / "report"),
        "test_path": [str(path.parent) for path in data("usr/lib/python3*/test/test_smtplib.py")],
    }
    settings = [
        f"{ENVIRONMENT}={json.dumps(setting)}",
        f"PYTHONPATH={ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    ]
    options = ["-p", "no:cacheprovider", "-p", "tests.peers.across", "-c", "/dev/null", "--rootdir=/", "--timeout=15"]
    pytest_line = [client.interpreter, "-m", "pytest", *options, "--import-mode=importlib", "-q", *suite]
    return client.spawn(["env", *settings, *pytest_line])


def entries(lab: Lab, process: Process) -> dict[str, dict[str, Any]]:
    """The suite's tests by name: outcome, and connections across."""
    process.wait(SUITE_S)
    lines = (lab.host("client").directory / "report").read_text().splitlines()
    return {entry["test"].rpartition("/")[2]: entry for entry in map(json.loads, lines)}


@pytest.mark.parametrize("name", SUITES)
def test_what_passes_without_the_gateway_passes_through_it(lanes: None, name: str) -> None:
    suite, at_least, crossing = SUITES[name][0](), *SUITES[name][1:]
    with Lab(WIRES) as bare, Lab(WIRES) as lab, lab.gateway.running(CONFIG):
        bare.gateway.bridge_bare()
        running = [(each, start(each, suite)) for each in (bare, lab)]  # at once: they mostly wait
        without, through = (entries(each, process) for each, process in running)
        lab.gateway.stop()
        sessions = len(lab.gateway.mail_log("session"))

    passed = {test for test, entry in without.items() if entry["outcome"] == "passed"}
    assert len(passed) >= at_least, Counter(entry["outcome"] for entry in without.values())
    failing = {test for test in passed if through.get(test, {}).get("outcome") != "passed"}
    assert failing <= EXCEPTIONS.keys()
    assert sum(entry["crossed"] > 0 for entry in through.values()) >= crossing
    assert sessions >= crossing
