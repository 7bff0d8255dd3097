"""Hardware profiles: the files that ship, a strict reader, and the choice among them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hwprofiles.box import from_json, to_json
from hwprofiles.facts import box
from hwprofiles.match import match, named
from hwprofiles.profile import Limits, Profile, ProfileError, Spread, read
from hwprofiles.schema import FEATURES
from hwprofiles.shelf import profiles
from hwprofiles.sysfs import NET, place
from tests.hwprofiles.keys import BOUNDS, TABLES
from tests.unshown import NIC

GENERIC = """\
description = "any"
sources = []
[match]
drivers = []
[sysctl]
somaxconn = 16384
tcp_max_syn_backlog = 16384
netdev_max_backlog = 10000
netdev_budget = 300
netdev_budget_usecs = 2000
rmem_max = 4194304
wmem_max = 4194304
[mtu]
max_bytes = 1500
[diverter]
queue_length = 16384
queues = 1
[interceptor]
workers = 1
[memory]
per_session_kib = 40
sessions_percent = 25
[limits]
new_connections_per_s = 10000
new_connections_per_s_per_network = 1000
sessions = 10000
session_idle_s = 1800
drain_s = 30
"""
ANY = read("generic", GENERIC)


SHIPPED = """appliance-1u apu2 e1000e generic hyperv i40e ice igb igc ixgbe lanner-bypass mlx5 raspberry-cm4
silicom-bypass vbox virtio vmxnet3 xen"""


def test_the_profiles_that_ship_are_whole() -> None:
    assert [profile.name for profile in profiles()] == SHIPPED.split()


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_a_profile_says_what_it_is_of(profile: Profile) -> None:
    """Sources of its facts, ports that it has, an MTU that Ethernet has; queues that the product serves."""
    assert profile.sources
    assert profile.queues == 1, "one decides more than any profile's limit lets in"
    assert bool(profile.bypass.pairs) is (profile.bypass.kind != "none")
    assert profile.mtu_max_bytes >= 1500


def test_every_key_of_the_schema_is_bounded_or_chosen_among() -> None:
    numbers = {tuple(key.split(".", 1)) for key in BOUNDS}
    others = {"match", "ports", "features", "affinity"}
    assert {(t, k) for t, keys in TABLES.items() if t not in others | {"bypass"} for k in keys} <= numbers
    assert TABLES["features"] == set(FEATURES)
    assert TABLES["affinity"] == {"rps", "xps", "irq"}


def test_sessions_are_no_more_than_the_memory_has_room_for() -> None:
    """A quarter of it at 40 KiB each: 10000 sessions need 1562.5 MiB."""
    sessions = [ANY.fitted(memory_mib, 2).limits.sessions for memory_mib in (None, 0, 16, 1562, 1563, 65_536)]
    assert sessions == [10_000, 1, 102, 9_996, 10_000, 10_000]


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (64, 4)])
def test_one_cpu_is_left_to_the_ports(cores: int, workers: int) -> None:
    fitted = replace(ANY, workers=4, queues=4).fitted(None, cores)
    assert (fitted.workers, fitted.queues) == (workers, workers)


def test_the_generic_limits_are_the_documented_defaults() -> None:
    assert named("generic", profiles()).limits == Limits(10_000, 1_000, 10_000, 1_800, 30)


def test_the_sysctls_are_ones_that_the_kernel_has() -> None:
    for name in ANY.sysctls.by_name():
        path = Path("/proc/sys") / name.replace(".", "/")
        assert path.exists() or name.startswith("net.core."), path  # net.core is hidden in some containers


GPIO = """
[ports]
order = "bus"
labels = ["c", "d"]
[bypass]
kind = "gpio"
driven_by = "{}"
pairs = [["c", "{}"]]
watchdog_ms = 2000
[mtu]"""


class TestReading:
    @pytest.mark.parametrize(
        ("line", "instead", "error"),
        [
            ("sessions = 10000", "", "profile x: limits.sessions: is missing"),
            ("[diverter]\nqueue_length = 16384\nqueues = 1", "", "profile x: diverter: is missing"),
            (
                "drain_s = 30",
                "drain_s = 30\ndrain_min = 1",
                "profile x: limits.drain_min: is not a known key; did you mean drain_s?",
            ),
            (
                'description = "any"',
                'description = "any"\nvendor = "?"',
                "profile x: vendor: is not a known key; known here are",
            ),
            ('description = "any"', 'description = " "', "profile x: description: says nothing"),
            ("drivers = []", 'drivers = "e1000e"', "profile x: match.drivers: 'e1000e' is not a list"),
            ("drivers = []", "drivers = [1]", "profile x: match.drivers: 1 is not a text"),
            ("sessions = 10000", "sessions = true", "profile x: limits.sessions: true is not a whole number"),
            ("sessions = 10000", 'sessions = "10"', "profile x: limits.sessions: '10' is not a whole number"),
            (
                "sessions = 10000",
                "sessions = 0",
                "profile x: limits.sessions: 0 is too low; the least is 1",
            ),
            ("sessions = 10000", "sessions = 1.5", "profile x: limits.sessions: 1.5 is not a whole number"),
            ("sessions = 10000", "sessions = ", "profile x: Invalid value"),
            ("[mtu]", "[rings]\nrx = 31\n[mtu]", "profile x: rings.rx: 31 is too low; the least is 32"),
            ("[mtu]", "[rings]\nmini = 64\n[mtu]", "profile x: rings.mini: is not a known key; known here are rx, tx"),
            ("[mtu]", "[features]\nrx-lro = true\n[mtu]", "profile x: features.rx-lro: is off on every bridged port"),
            ("[mtu]", "[features]\nrx-lro = false\n[mtu]", "profile x: features.rx-lro: is off on every bridged port"),
            ("[mtu]", "[features]\nrx-gro = 1\n[mtu]", "profile x: features.rx-gro: 1 is not true or false"),
            ("[mtu]", '[affinity]\nrps = "some"\n[mtu]', "profile x: affinity.rps: 'some' is not one of keep, all"),
            ("[mtu]", "[ports]\norder = 'bus'\n[mtu]", "profile x: ports.labels: is missing"),
            (
                "[mtu]",
                "[ports]\norder = 'bus'\nlabels = ['a']\npairs = [['a', 'b']]\n[mtu]",
                "profile x: ports.pairs: 'b' is not one of ports.labels",
            ),
            (
                "[mtu]",
                "[ports]\norder = 'bus'\nlabels = ['a']\npairs = [['a', 'a']]\n[mtu]",
                "profile x: ports.pairs: joins a port with itself",
            ),
            ("[mtu]", "[ports]\norder = 'bus'\nlabels = ['a', 'a']\n[mtu]", "profile x: ports.labels: names a port"),
            ("[mtu]", "[ports]\norder = 'path'\nlabels = ['a']\n[mtu]", "profile x: ports.paths: needs one for each"),
            (
                "[mtu]",
                "[ports]\norder = 'bus'\nlabels = ['LAN 1']\n[mtu]",
                "profile x: ports.labels: 'LAN 1' is not 1-15",
            ),
            ("[mtu]", f"[ports]\norder = 'bus'\nlabels = ['{16 * 'x'}']\n[mtu]", "profile x: ports.labels: 'xxxx"),
            ("[mtu]", "[bypass]\nkind = 'silicom'\n[mtu]", "profile x: bypass.driven_by: is missing"),
            ("[mtu]", GPIO.format("/x", "b"), "profile x: bypass.pairs: 'b' is not one of ports.labels"),
            (
                "[mtu]",
                GPIO.format("gpio17", "d"),
                "profile x: bypass.driven_by: is the absolute path of the one pair's",
            ),
            ("[mtu]", GPIO.format("/x", "d").replace("2000", "1999"), "profile x: bypass.watchdog_ms: 1999 is too low"),
        ],
    )
    def test_mistakes_are_named(self, line: str, instead: str, error: str) -> None:
        assert line in GENERIC
        with pytest.raises(ProfileError, match="^" + error.replace("?", r"\?").replace(".", r"\.")):
            read("x", GENERIC.replace(line, instead))

    def test_what_is_not_said_stays_as_the_driver_has_it(self) -> None:
        assert (ANY.rings, ANY.channels, ANY.features, ANY.coalesce) == ({}, {}, {}, {})
        assert (ANY.rps, ANY.xps, ANY.irq) == (Spread.KEEP, Spread.KEEP, Spread.KEEP)

    def test_a_table_must_be_a_table(self) -> None:
        with pytest.raises(ProfileError, match="sysctl: 1 is not a table"):
            read("x", "sysctl = 1\n" + GENERIC.replace("[sysctl]", "[limits.x]"))

    @pytest.mark.parametrize(
        ("key", "low", "high"),
        [
            ("somaxconn", 128, 65_535),
            ("queue_length", 64, 65_535),
            ("session_idle_s", 300, 3_600),
            ("drain_s", 0, 3_600),
        ],
    )
    def test_edges_of_the_bounds(self, key: str, low: int, high: int) -> None:
        lines = GENERIC.splitlines()
        (at,) = (number for number, line in enumerate(lines) if line.startswith(f"{key} ="))
        for value, good in ((low - 1, False), (low, True), (high, True), (high + 1, False)):
            text = "\n".join([*lines[:at], f"{key} = {value}", *lines[at + 1 :]])
            if good:
                read("x", text)
            else:
                with pytest.raises(
                    ProfileError, match=rf"{key}: {value} is too (low; the least is {low}|high; the most is {high})$"
                ):
                    read("x", text)


class TestFacts:
    @NIC.mark
    def test_what_sysfs_says_of_this_machine(self) -> None:
        ports = [path.name for path in NET.iterdir() if (path / "device" / "driver").exists() and place(path.name)]
        found = {nic.name: nic.driver for nic in box(ports).nics}
        assert found == {port: (NET / port / "device" / "driver").resolve().name for port in ports}
        assert {nic.name for nic in box().nics} >= {*ports}

    def test_links_without_a_driver(self) -> None:
        assert [(nic.name, nic.driver) for nic in box(["lo", "no-such-port"]).nics] == [
            ("lo", None),
            ("no-such-port", None),
        ]

    def test_this_machine_can_be_replayed_and_has_a_profile(self) -> None:
        here = box()
        assert from_json(to_json(here)) == here
        assert here.cpu.cores >= 1
        assert (here.memory_mib or 0) > 0
        assert match(here, profiles())[1]


def test_what_the_profiles_let_sessions_take_is_below_what_the_unit_allows() -> None:
    """docs/hardware.md has the reckoning; of a GiB, the rest is 200 MiB of processes, rules and queues."""
    unit = (Path(__file__).parents[2] / "smtp_intercept/app/packaging/files/tollbridge.service").read_text()
    high, most = (int(re.search(rf"^{key}=(\d+)%$", unit, re.MULTILINE)[1]) for key in ("MemoryHigh", "MemoryMax"))  # type: ignore[index]
    assert high < most < 100
    for profile in profiles():
        assert profile.sessions_percent + 100 * 200 / 1024 < high
        for mib in (1024, 4096):
            fitted = profile.fitted(mib, 2)
            assert fitted.limits.sessions * fitted.per_session_kib <= mib * 1024 * profile.sessions_percent / 100
