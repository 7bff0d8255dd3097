"""Labs for the kernel tests: a bare bridge, and the gateway at work. Where none can be built, tests fail.

A test module chooses its lab by the globals ``WIRES`` and ``CONFIG``; without them it gets two wires and `DEFAULT`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.lab.host import LabError
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import TWO_WIRES, Lab, missing
from tests.unshown import DOT1Q, NOT_ROOT

HERE = Path(__file__).parent
# Its release, if this is a guest of `tests.stock`.
STOCK_KERNEL = os.environ.get("TOLLBRIDGE_STOCK_KERNEL", "")

# The client's addresses .10 and .14, .15 are intercepted; the others are for the other verdicts.
DEFAULT: dict[str, Any] = {
    "pickup": {
        "incoming": "intercept",
        "outgoing": "pass",
        "rule": [
            {"client": client.format(last), "action": action}
            for last, action in ((11, "drop"), (12, "reject"), (13, "pass"))
            for client in ("192.0.2.{}", "2001:db8::{}")
        ],
    },
    "protected": [{"domain": "example.com", "servers": ["192.0.2.20", "2001:db8::20"]}],
}

# What the lanes need of nft, apart from the product's own ruleset, lest a fault of that be taken for the kernel's.
NEEDED = """
table netdev probe {
    map hop { typeof ip saddr : ether saddr; flags dynamic,timeout; timeout 1m; size 16; }
    chain in { type filter hook ingress device p0 priority 0; tcp dport 25 fwd to p1; }
    chain out { type filter hook egress device p0 priority 0;
        ip version 4 ether saddr set ip saddr map @hop
    }
}
table inet probe {
    set live { typeof tcp dport; flags dynamic,timeout; timeout 2s; }
    chain beat { type filter hook output priority -400; update @live { udp dport } drop; }
    chain gate { type filter hook prerouting priority -305; tcp dport @live socket wildcard 1 socket transparent 1; }
}
table bridge probe {
    chain in { type filter hook prerouting priority 10; meta pkttype set host; }
}
"""
NFT_QUEUE = """
table inet probe_queue {
    chain in { type filter hook prerouting priority -300; queue num 0 bypass; }
}
"""
IPTABLES_QUEUE = ("iptables", "-t", "raw", "-A", "PREROUTING", "-j", "NFQUEUE", "--queue-bypass")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Labs can be built here."""
    NOT_ROOT.skip()
    if reasons := missing():
        raise LabError("; ".join(reasons))


@pytest.fixture(scope="session")
def dot1q(namespaces: None) -> None:
    """This kernel has VLANs."""
    DOT1Q.skip()


@pytest.fixture(scope="session")
def lanes(namespaces: None) -> None:
    """This kernel has what the two lanes are made of."""
    with Lab() as lab:
        try:
            load(lab, NEEDED)
        except LabError as error:
            raise LabError(f"nft cannot build the lanes on this kernel: {error}") from error
        try:
            load(lab, NFT_QUEUE)
        except LabError:
            if lab.gateway.run(IPTABLES_QUEUE, check=False).returncode:
                raise LabError("neither nft's queue nor iptables' NFQUEUE works on this kernel") from None


def load(lab: Lab, ruleset: str) -> None:
    """Load nft text in the gateway's namespace."""
    path = lab.gateway.directory / "probe.nft"
    path.write_text(ruleset)
    lab.gateway.run(["nft", "-f", str(path)])


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, namespaces: None) -> Iterator[Lab]:
    """The module's lab; its gateway does nothing yet."""
    with Lab(getattr(request.module, "WIRES", TWO_WIRES)) as lab:
        yield lab


@pytest.fixture(scope="module")
def bare(lab: Lab) -> Lab:
    """The module's lab with a plain Linux bridge for a gateway."""
    lab.gateway.bridge_bare()
    return lab


@pytest.fixture(scope="module")
def gateway_lab(request: pytest.FixtureRequest, lanes: None, lab: Lab) -> Iterator[Lab]:
    """The module's lab with the product at work in it."""
    with lab.gateway.running(getattr(request.module, "CONFIG", DEFAULT)):
        yield lab


@pytest.fixture(scope="module")
def server(lab: Lab) -> MailServer:
    """A mail server on all addresses of the host "server"."""
    return MailServer.start(lab.host("server"))
