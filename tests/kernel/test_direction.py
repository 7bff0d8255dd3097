r"""The direction of connections is their server's, wherever they come from; and servers given by name follow the DNS.

::

    client .10 ── p0 ┐           ┌ p1 ── server .20 .21 .22 .23
                     ├─ gateway ─┤
                     │    nsd    └ p2 ── other  .30
                     127.0.0.1:53

| sentence                                             | protected | dialled | from           | direction |
|------------------------------------------------------|-----------|---------|----------------|-----------|
| protected: every connection to it is incoming        | .20       | .20     | outside, third | incoming  |
| not protected: every connection to it is outgoing    |           | .30     | outside, inside| outgoing  |
| so is one from a protected server to one that is not | .20       | .10     | inside         | outgoing  |
| a network protects all of its addresses              | .22/31    | .22 .23 | outside        | incoming  |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab, Station, Wires
from smtp_intercept.names import Limits
from tests.kernel.resolver import Resolver

pytestmark = pytest.mark.kernel


def station(name: str, *numbers: int) -> Station:
    return Station(name, (*(f"192.0.2.{n}/24" for n in numbers), *(f"2001:db8::{n}/64" for n in numbers)))


WIRES: Wires = {
    "outside": (station("client", 10),),
    "inside": (station("server", 20, 21, 22, 23),),
    "third": (station("other", 30),),
}
ALL = {"pickup": {"incoming": "intercept", "outgoing": "intercept"}, "limits": {"drain_s": 1}}
BY_ADDRESS = {
    **ALL,
    "protected": [
        {"domain": "example.com", "servers": ["192.0.2.20", "2001:db8::20"]},
        {"domain": "example.org", "servers": ["192.0.2.22/31", "2001:db8::22/127"]},
    ],
}
BY_NAME = {
    **ALL,
    "protected": [
        {"domain": "example.com", "servers": ["mail.example.com"]},
        {"domain": "example.net", "servers": ["mx"]},
        {"domain": "example.org", "servers": ["mail.example.org"]},
    ],
}
LEARNED_S = 7.0  # the interceptor's answer reaches the diverter within 5 s


def direction(lab: Lab, host: str, server: str) -> str:
    """That the mail log gives for a connection of this host's; each makes one of its own."""
    before = len(lab.gateway.mail_log("session"))
    client = lab.host(host)
    source = client.of_version(6 if ":" in server else 4)[0]
    ended = client.run([client.interpreter, "-m", "tests.kernel.dialling", f"{source}>{server}"]).json()
    assert list(ended.values()) == ["banner"]
    (record,) = lab.gateway.wait_sessions(before)
    assert (record["client"]["address"], record["server"]["address"]) == (source, server)
    return str(record["direction"])


@pytest.fixture(scope="module")
def servers(lanes: None, lab: Lab) -> Lab:
    for host in lab.hosts:
        MailServer.start(host)
    return lab


@pytest.fixture(scope="module")
def by_address(servers: Lab) -> Iterator[Lab]:
    with servers.gateway.running(BY_ADDRESS):
        yield servers


@pytest.mark.parametrize("address", ["192.0.2.{}", "2001:db8::{}"])
@pytest.mark.parametrize(
    ("host", "number", "expected"),
    [
        ("client", 20, "incoming"),
        ("other", 20, "incoming"),
        ("client", 30, "outgoing"),
        ("server", 30, "outgoing"),
        ("server", 10, "outgoing"),
        ("other", 10, "outgoing"),
        ("client", 21, "outgoing"),
        ("client", 22, "incoming"),
        ("client", 23, "incoming"),
    ],
)
def test_direction_is_the_servers(by_address: Lab, host: str, number: int, expected: str, address: str) -> None:
    server = address.format(number)
    assert direction(by_address, host, server) == expected
    port = {"client": "p0", "server": "p1", "other": "p2"}[host]
    words = ["--from", by_address.host(host).of_version(6 if ":" in server else 4)[0], "--to", server, "--port", port]
    if host == "client":  # one process each is slow; the rule is the same for all
        assert by_address.gateway.tollbridge("explain", *words, "--json").json()["direction"] == expected


# --- names -----------------------------------------------------------------------------------------------------------

BEFORE = {
    "example.com": "mail A 192.0.2.20\nmail AAAA 2001:db8::20\n",
    "example.net": "@ MX 10 mx.example.net.\nmx A 192.0.2.22\n",
}
AFTER = {
    "example.com": "mail A 192.0.2.21\nmail AAAA 2001:db8::21\n",
    "example.net": None,  # SERVFAIL
    "example.org": "mail A 192.0.2.23\n",
}
NAMES = ("mail.example.com", "MX of example.net", "mail.example.org")


def until(true: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline_at = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_at, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.25)


def known(lab: Lab) -> Mapping[str, Any]:
    """name → (addresses, has an error), as the running gateway reports it."""
    names = lab.gateway.state().get("resolver", {}).get("protected", [])
    return {entry["name"]: (entry["addresses"], bool(entry["error"])) for entry in names}


def knows(lab: Lab, *expected: tuple[list[str], bool]) -> Callable[[], bool]:
    return lambda: known(lab) == dict(zip(NAMES, expected, strict=True))


@pytest.fixture(scope="module")
def dns(servers: Lab, by_address: Lab) -> Iterator[Resolver]:
    """The lab without the gateway of the tests above, and with a name server in the gateway's namespace."""
    servers.gateway.stop()
    with Resolver(servers.gateway, servers.gateway.namespace) as resolver:
        yield resolver


def test_servers_by_name_follow_the_dns_and_outlive_it(servers: Lab, dns: Resolver) -> None:
    """In the order of time: one run of the gateway, which asks again after 30 s (15 s if there was no answer)."""
    limits = Limits()
    dns.serve(BEFORE)
    with servers.gateway.running(BY_NAME):
        both = ["192.0.2.20", "2001:db8::20"]
        until(knows(servers, (both, False), (["192.0.2.22"], False), ([], True)), LEARNED_S, "the first answers")
        assert direction(servers, "client", "192.0.2.23") == "outgoing"
        status = " ".join(servers.gateway.tollbridge("status").stdout.split())
        assert "mail.example.org: " in status
        assert "no address known yet" in status

        dns.serve(AFTER)  # who has no address is asked for sooner than the others, which are kept so long
        for server, expected in ((20, "incoming"), (21, "outgoing"), (22, "incoming")):
            assert direction(servers, "client", f"192.0.2.{server}") == expected
        assert direction(servers, "client", "2001:db8::20") == "incoming"

        new = ["192.0.2.21", "2001:db8::21"]
        until(
            knows(servers, (new, False), (["192.0.2.22"], True), (["192.0.2.23"], False)),
            limits.ttl_min_s + LEARNED_S,
            "the answers that have changed",
        )
        for server, expected in ((20, "outgoing"), (21, "incoming"), (22, "incoming"), (23, "incoming")):
            assert direction(servers, "client", f"192.0.2.{server}") == expected
        assert direction(servers, "client", "2001:db8::20") == "outgoing"
        assert direction(servers, "client", "2001:db8::21") == "incoming"
        assert "kept: 192.0.2.22" in servers.gateway.tollbridge("status").stdout
        assert servers.gateway.status()["restarts"] == dict.fromkeys(("diverter", "interceptor", "resolver"), 0)


def test_without_dns_at_the_start_mail_flows(servers: Lab, dns: Resolver) -> None:
    dns.stop()
    with servers.gateway.running(BY_NAME):
        assert direction(servers, "client", "192.0.2.20") == "outgoing"
        until(
            knows(servers, ([], True), ([], True), ([], True)), 3 * Limits().query_timeout_s, "an error for each name"
        )
        assert direction(servers, "client", "192.0.2.20") == "outgoing"
        assert all(name in servers.gateway.tollbridge("status").stdout for name in NAMES)
