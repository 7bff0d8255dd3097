"""The package on a stock kernel, between real machines.

::

    client ──┬── outside ── p0 [gateway] p1 ── inside ── server: Postfix, example.com
    internet ┘ Postfix, example.org; DNS
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from smtp_intercept.app.lab.remote import ROOM
from tests.vm.conftest import COMMAND_S, RUNS, SETTLED_S, Machine, Machines

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

LOG = "/var/log/tollbridge/mail.log"
INSIDE = f"ip netns exec {ROOM}"  # where the wire is


@pytest.fixture(autouse=True)
def _at_work(machines: Machines) -> None:
    """Every test finds the gateway at work."""
    machines.gateway.wait(RUNS)


def ping(source: Machine, target: str, *, count: int = 3) -> bool:
    return source.does(f"ping -n -q -c {count} -W 10 {target}")


def send(client: Machine, server: str = "192.0.2.20", *words: str, to: str = "user@example.com") -> str:
    """A message through swaks; its token, which is in its body and in its sender."""
    token = uuid.uuid4().hex
    sender, options = f"{token}@example.org", " ".join(words)
    client.run(f"swaks --timeout 120 --server {server} --from {sender} --to {to} --body {token} {options}")
    return token


def arrived(mta: Machine, token: str) -> str:
    """The message in the mailbox, as soon as it is there."""
    mta.wait(f"grep -rq {token} /var/mail/lab/new")
    return mta.run(f"cat $(grep -rl {token} /var/mail/lab/new)")


def logged(gateway: Machine, token: str) -> list[dict[str, Any]]:
    """What the gateway's mail log says of the message; empty if it was not inspected. After a power cut zeros stand in
    the place of what was not written yet."""
    return [json.loads(line) for line in gateway.run(f"tr '\\0' '\\n' <{LOG} | grep {token} || true").splitlines()]


def test_the_lane_is_made_of_what_the_kernel_has(machines: Machines) -> None:
    """nft's own queue, without iptables; modules that nobody loaded by hand."""
    rules = machines.gateway.run(f"{INSIDE} nft list ruleset")
    assert "queue flags bypass to 25" in rules
    assert "NFQUEUE" not in machines.gateway.run(f"{INSIDE} iptables-save; {INSIDE} ip6tables-save")
    loaded = machines.gateway.run("lsmod")
    assert all(module in loaded for module in ("br_netfilter", "nfnetlink_queue", "nft_queue", "nft_socket", "veth"))


def test_the_box_has_no_address(machines: Machines) -> None:
    addresses = json.loads(machines.gateway.run(f"{INSIDE} ip -json address"))
    held = {entry["ifname"]: [a["local"] for a in entry["addr_info"]] for entry in addresses}
    assert [held["p0"], held["p1"], held["br0"]] == [[], [], []]


@pytest.mark.parametrize("server", ["192.0.2.20", "2001:db8::20"])
def test_what_is_not_mail_crosses(machines: Machines, server: str) -> None:
    assert ping(machines.client, server)


@pytest.mark.parametrize("server", ["192.0.2.20", "[2001:db8::20]"])
def test_mail_is_inspected_and_the_server_sees_the_client(machines: Machines, server: str) -> None:
    token = send(machines.client, server)
    delivered = arrived(machines.server, token)
    sees = "[192.0.2.10]" if "." in server else "[IPv6:2001:db8::1"
    assert sees in delivered
    (record,) = [entry for entry in logged(machines.gateway, token) if entry["type"] == "message"]
    assert record["sender"] == f"{token}@example.org"


def test_starttls_crosses(machines: Machines) -> None:
    token = send(machines.client, "192.0.2.20", "--tls")
    assert "with ESMTPS" in arrived(machines.server, token)
    assert logged(machines.gateway, token) == [], "it cannot be read"


def test_mail_goes_out_by_names(machines: Machines) -> None:
    """The server's Postfix asks the lab's DNS for example.org's MX; outgoing mail passes."""
    token = uuid.uuid4().hex
    machines.server.run(f"printf 'Subject: {token}\\n\\ntext\\n' | sendmail -f user@example.com friend@example.org")
    assert "from mx.example.com" in arrived(machines.internet, token)


def test_a_load_crosses(machines: Machines) -> None:
    """Every message that smtp-source was told 250 for is in the mailbox."""
    token = uuid.uuid4().hex[:12]
    where = f"-f {token}@example.org -t user@example.com 192.0.2.20:25"
    machines.client.run(f"smtp-source -s 5 -m 50 {where}", timeout_s=SETTLED_S)
    machines.server.wait(f'[ "$(grep -rl "<{token}@" /var/mail/lab/new | wc -l)" = 50 ]')


def test_a_stopped_gateway_is_a_wire(machines: Machines) -> None:
    machines.gateway.run("systemctl stop tollbridge.service", timeout_s=SETTLED_S)
    try:
        token = send(machines.client)
        assert "[192.0.2.10]" in arrived(machines.server, token)
        assert logged(machines.gateway, token) == []
    finally:
        machines.gateway.run("systemctl start tollbridge.service", timeout_s=SETTLED_S)


@pytest.mark.parametrize(("link", "port"), [("client-gateway", "p0"), ("gateway-server", "p1")])
def test_a_cable_is_pulled_and_put_back(machines: Machines, link: str, port: str) -> None:
    machines.link(link, "down")
    try:
        machines.gateway.wait(f"[ $({INSIDE} cat /sys/class/net/{port}/carrier) = 0 ]")
        assert not ping(machines.client, "192.0.2.20", count=1)
    finally:
        machines.link(link, "up")
    machines.gateway.wait(f"[ $({INSIDE} cat /sys/class/net/{port}/carrier) = 1 ]")
    machines.client.wait("ping -n -q -c 1 -W 10 192.0.2.20")
    assert logged(machines.gateway, send(machines.client))


def test_a_reboot_brings_everything_back(machines: Machines) -> None:
    before = machines.gateway.boots()
    machines.gateway.run("systemctl reboot", check=False)
    machines.gateway.wait_booted(before)
    machines.gateway.wait(RUNS)
    assert ping(machines.client, "192.0.2.20")
    assert logged(machines.gateway, send(machines.client))


def test_a_power_cut_under_load(machines: Machines) -> None:
    """The box comes back by itself, and inspects."""
    before, token = machines.gateway.boots(), uuid.uuid4().hex[:12]
    source = f"timeout {COMMAND_S:.0f} smtp-source -s 3 -m 300 -f {token}@example.org -t user@example.com 192.0.2.20:25"
    machines.client.run(f"nohup {source} >/root/load.txt 2>&1 </dev/null &")
    machines.server.wait(f'grep -rq "<{token}@" /var/mail/lab/new')
    machines.gateway.power("off")
    assert not ping(machines.client, "192.0.2.20", count=1)
    machines.gateway.power("on")
    machines.gateway.wait_booted(before)
    machines.gateway.wait(RUNS)
    assert logged(machines.gateway, send(machines.client))
