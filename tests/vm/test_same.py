"""Tests of tests/kernel as they are, between machines instead of namespaces: the fixtures decide, by `remote`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from smtp_intercept.app.lab.gateway import toml
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.remote import RemoteGateway, RemoteLab
from tests.kernel.test_lab import (  # noqa: F401 (collected here)
    test_a_refused_recipient_and_the_others,
    test_a_session_without_a_message_is_recorded_too,
    test_a_stream_comes_back_as_it_was_sent,
    test_ping_crosses_the_bare_bridge,
)
from tests.kernel.test_verdicts import CONFIG, test_intercept, test_pass  # noqa: F401
from tests.vm.conftest import SETTLED_S, Machines, configured, station

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]
PORTS = {"bridge": {"ports": ["p0", "p1"]}}


@pytest.fixture(scope="module")
def gateway_lab(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteLab]:
    """The machines as a lab. Its servers take the place of the server's Postfix; the gateway has `test_verdicts`'
    configuration."""
    directory = tmp_path_factory.mktemp("gateway")
    gateway = RemoteGateway("gateway", tuple(machines.gateway.facts["ssh"]), directory)
    hosts = [station(one, tmp_path_factory.mktemp(one.name)) for one in (machines.client, machines.server)]
    machines.server.run("systemctl stop postfix.service", timeout_s=SETTLED_S)
    try:
        with configured(machines.gateway, toml({**PORTS, **CONFIG})):
            yield RemoteLab(tuple(hosts), gateway)
    finally:
        for host in hosts:
            host.end()
        machines.server.run("systemctl start postfix.service", timeout_s=SETTLED_S)


@pytest.fixture(scope="module")
def bare(gateway_lab: RemoteLab) -> RemoteLab:
    """No plain bridge: the same holds with a gateway at work."""
    return gateway_lab


@pytest.fixture(scope="module")
def servers(gateway_lab: RemoteLab) -> dict[str, MailServer]:
    return {host.name: MailServer.start(host) for host in gateway_lab.hosts}


@pytest.fixture(scope="module")
def server(servers: dict[str, MailServer]) -> MailServer:
    return servers["server"]
