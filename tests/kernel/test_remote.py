"""A lab whose hosts are reached through a shell each, as machines are by SSH: the same tests pass in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from smtp_intercept.app.lab import remote
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab, Wire
from smtp_intercept.app.lab.remote import RemoteGateway, RemoteHost, RemoteLab
from tests.kernel import test_verdicts
from tests.kernel.test_verdicts import (  # noqa: F401 (collected here)
    test_a_rejected_client_whose_whereabouts_the_lane_forgot,
    test_drop,
    test_intercept,
    test_pass,
    test_reject,
)

WIRES = test_verdicts.WIRES
# Captures over a shell are taken where it opens.
CONFIG = {**test_verdicts.CONFIG, "bridge": {**test_verdicts.CONFIG.get("bridge", {}), "namespace": "host"}}
SHELL = ("sh", "-c")


@pytest.fixture(scope="module")
def gateway_lab(lanes: None, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteLab]:
    """The module's lab with the product at work in it, by one word to a shell in each namespace."""
    with lab.gateway.running(CONFIG), pytest.MonkeyPatch.context() as patched:
        patched.setattr(remote, "MAIL_LOG", str(lab.gateway.log))
        patched.setattr(remote, "PLACE", str(tmp_path_factory.mktemp("place")))
        box = RemoteGateway("gateway", (*lab.gateway.enter, *SHELL), tmp_path_factory.mktemp("gateway"))
        hosts = [
            RemoteHost(host.name, (*host.enter, *SHELL), tmp_path_factory.mktemp(host.name), host.addresses, host.mac)
            for host in lab.hosts
        ]
        by_name = {host.name: host for host in (*hosts, box)}
        wires = [
            Wire(wire.name, wire.port, tuple((by_name[host.name], interface) for host, interface in wire.ends))
            for wire in lab.wires
        ]
        yield RemoteLab(tuple(hosts), box, tuple(wires))
        for host in hosts:
            host.end()


@pytest.fixture(scope="module")
def servers(gateway_lab: RemoteLab) -> dict[str, MailServer]:
    return {host.name: MailServer.start(host) for host in gateway_lab.hosts}
