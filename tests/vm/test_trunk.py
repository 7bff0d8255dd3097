"""Trunks between machines: `tests/kernel/test_vlan.py`, with 802.1Q tags on the cables.

Client and server have a network namespace for each VLAN, with the machine's own addresses in it once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest

from smtp_intercept.app.lab.remote import RemoteHost, RemoteLab
from tests.kernel import test_vlan
from tests.kernel.test_vlan import (  # noqa: F401 (collected here)
    CONFIG,
    EVERY,
    WIRES,
    servers,
    test_a_rule_may_choose_by_vlan,
    test_a_vlan_that_is_not_listed_crosses_untouched,
    test_one_connection_in_three_places_at_once_is_three,
    test_status_and_explain_name_the_vlans,
    test_tagged_mail_is_inspected_and_leaves_with_its_tag,
    test_untagged_mail_beside_it_is_inspected_as_ever,
)
from tests.vm.conftest import Machine, Machines, laboratory
from tests.vm.conftest import station as untagged

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]


@contextmanager
def tagged(machine: Machine, vlan: int, addresses: tuple[str, ...], directory: Path) -> Iterator[RemoteHost]:
    """The machine in a VLAN."""
    name = f"vlan{vlan}"  # of the namespace, and of the link in it
    steps = [
        f"ip netns add {name}",
        f"ip link add link lab0 name {name} netns {name} type vlan id {vlan}",
        *(f"ip -n {name} address add {address} dev {name} nodad" for address in addresses),
        f"ip -n {name} link set lo up",
        f"ip -n {name} link set {name} up",
    ]
    try:
        machine.run(" && ".join(steps))
        ends = tuple(ip_interface(address) for address in addresses)
        host = replace(untagged(machine, directory), name=f"{machine.name}{vlan}", addresses=ends, inside=name)
        yield host
        host.end()
    finally:
        machine.run(f"ip netns delete {name}")


@pytest.fixture(scope="module")
def lab(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteLab]:
    with ExitStack() as stack:
        lab = stack.enter_context(laboratory(machines, CONFIG, tmp_path_factory.mktemp("trunk")))
        places = [
            (machine, station.vlan, station.addresses)
            for machine, wire in ((machines.client, "outside"), (machines.server, "inside"))
            for station in WIRES[wire]
            if station.vlan
        ]
        hosts = [
            stack.enter_context(tagged(machine, vlan, addresses, tmp_path_factory.mktemp(f"{machine.name}{vlan}")))
            for machine, vlan, addresses in places
        ]
        assert len(lab.hosts) + len(hosts) == 2 * len(EVERY)
        yield replace(lab, hosts=(*lab.hosts, *hosts))


@pytest.fixture(scope="module")
def gateway_lab(lab: RemoteLab) -> RemoteLab:
    return lab


test_the_end = test_vlan.test_a_dead_gateway_is_a_wire_in_every_vlan  # after it nobody inspects
