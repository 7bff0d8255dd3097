"""Hardware profiles: the files that ship, a strict reader, and the choice among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hwprofiles.facts import SYSFS_NET, driver, facts, profiles
from hwprofiles.match import Facts, match, named
from hwprofiles.profile import Limits, Profile, ProfileError, read

GENERIC = """\
description = "any"
[match]
drivers = []
[sysctl]
somaxconn = 16384
tcp_max_syn_backlog = 16384
netdev_max_backlog = 10000
[diverter]
queue_length = 16384
[limits]
new_connections_per_s = 10000
new_connections_per_s_per_network = 1000
next_hops = 131072
sessions = 10000
session_idle_s = 1800
drain_s = 30
"""
ANY = read("generic", GENERIC)


def test_generic_and_virtio_ship_and_are_whole() -> None:
    assert [profile.name for profile in profiles()] == ["generic", "virtio"]


def test_the_generic_limits_are_the_documented_defaults() -> None:
    assert named("generic", profiles()).limits == Limits(10_000, 1_000, 131_072, 10_000, 1_800, 30)


def test_the_sysctls_are_ones_that_the_kernel_has() -> None:
    for name in ANY.sysctls.by_name():
        path = Path("/proc/sys") / name.replace(".", "/")
        assert path.exists() or name.startswith("net.core."), path  # net.core is hidden in some containers


class TestReading:
    @pytest.mark.parametrize(
        ("line", "instead", "error"),
        [
            ("sessions = 10000", "", "profile x: limits.sessions: is missing"),
            ("[diverter]\nqueue_length = 16384", "", "profile x: diverter: is missing"),
            (
                "drain_s = 30",
                "drain_s = 30\ndrain_min = 1",
                "profile x: limits.drain_min: is unknown; known are drain_s,",
            ),
            ('description = "any"', 'description = "any"\nvendor = "?"', "profile x: vendor: is unknown"),
            ('description = "any"', 'description = " "', "profile x: description: is not a text"),
            ("drivers = []", 'drivers = "e1000e"', "profile x: match.drivers: is not a list of driver names"),
            ("drivers = []", "drivers = [1]", "profile x: match.drivers: is not a list of driver names"),
            ("sessions = 10000", "sessions = true", "profile x: limits.sessions: True is not a whole number from 1 to"),
            ("sessions = 10000", 'sessions = "10"', "profile x: limits.sessions: '10' is not a whole number"),
            (
                "sessions = 10000",
                "sessions = 0",
                "profile x: limits.sessions: 0 is not a whole number from 1 to 1000000",
            ),
            ("sessions = 10000", "sessions = 1.5", "profile x: limits.sessions: 1.5 is not a whole number"),
            ("sessions = 10000", "sessions = ", "profile x: Invalid value"),
        ],
    )
    def test_mistakes_are_named(self, line: str, instead: str, error: str) -> None:
        assert line in GENERIC
        with pytest.raises(ProfileError, match="^" + error.replace("?", r"\?").replace(".", r"\.")):
            read("x", GENERIC.replace(line, instead))

    def test_a_table_must_be_a_table(self) -> None:
        with pytest.raises(ProfileError, match="sysctl: is not a table"):
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
                with pytest.raises(ProfileError, match=rf"{key}: {value} is not a whole number from {low} to {high}"):
                    read("x", text)


class TestChoice:
    VIRTIO = replace(ANY, name="virtio", drivers=frozenset({"virtio_net"}))
    BROAD = replace(ANY, name="broad", drivers=frozenset({"virtio_net", "e1000e"}))

    @pytest.mark.parametrize(
        ("drivers", "chosen", "why"),
        [
            (("virtio_net", "virtio_net"), "virtio", "profile virtio is for these"),
            (("virtio_net", "e1000e"), "broad", "enp1s0 is virtio_net, enp2s0 is e1000e: profile broad is for these"),
            (("virtio_net", "veth"), "generic", "enp2s0 is veth: no profile is for all of these"),
            (("virtio_net", None), "generic", "enp2s0 is of no known driver: no profile"),
        ],
    )
    def test_the_narrowest_that_covers_every_port(self, drivers: tuple[str | None, ...], chosen: str, why: str) -> None:
        shelf = (ANY, self.BROAD, self.VIRTIO)
        profile, because = match(Facts(dict(zip(("enp1s0", "enp2s0"), drivers, strict=True))), shelf)
        assert profile.name == chosen
        assert why in because

    def test_no_ports_no_special_profile(self) -> None:
        assert match(Facts({}), (ANY, self.VIRTIO)) == (ANY, "no ports: no profile is for all of these")

    def test_the_generic_profile_must_exist(self) -> None:
        with pytest.raises(ProfileError, match="profile generic: is missing"):
            match(Facts({"enp1s0": "e1000e"}), (self.VIRTIO,))

    def test_by_name(self) -> None:
        assert named("virtio", (ANY, self.VIRTIO)) is self.VIRTIO
        with pytest.raises(ProfileError, match="profile virtoi: is unknown; known are generic, virtio"):
            named("virtoi", (ANY, self.VIRTIO))


class TestFacts:
    def test_what_sysfs_says_of_this_machine(self) -> None:
        ports = [path.name for path in SYSFS_NET.iterdir() if (path / "device" / "driver").exists()]
        if not ports:
            pytest.skip("this machine has no NIC with a driver in sysfs")
        assert facts(ports).drivers == {p: (SYSFS_NET / p / "device" / "driver").resolve().name for p in ports}

    def test_links_without_a_driver(self) -> None:
        assert driver("lo") is None
        assert driver("no-such-port") is None

    def test_a_shipped_profile_is_found_for_whatever_this_machine_has(self) -> None:
        profile, why = match(facts(path.name for path in Path("/sys/class/net").iterdir()), profiles())
        assert isinstance(profile, Profile)
        assert why
