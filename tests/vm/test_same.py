"""Tests of tests/kernel as they are, between machines instead of namespaces: the fixtures decide, by `remote`."""

from __future__ import annotations

import pytest

from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.remote import RemoteLab
from tests.kernel.test_lab import (  # noqa: F401 (collected here)
    test_a_refused_recipient_and_the_others,
    test_a_session_without_a_message_is_recorded_too,
    test_a_stream_comes_back_as_it_was_sent,
    test_ping_crosses_the_bare_bridge,
)
from tests.kernel.test_verdicts import (  # noqa: F401
    CONFIG,
    test_a_rejected_client_whose_whereabouts_the_lane_forgot,
    test_drop,
    test_intercept,
    test_pass,
    test_reject,
)

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]


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
