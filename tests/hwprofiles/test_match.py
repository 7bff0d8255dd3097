"""Files of facts, the profile that each must get, and why: replayed as `tollbridge hw detect --facts FILE` does.

::

    captured here or written from documents ── from_json ── match ── the profile, the reason, the labels of the ports
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprofiles.box import Box, Cpu, FactsError, Firmware, Nic, from_json, to_json
from hwprofiles.case import case
from hwprofiles.match import match, named, scores
from hwprofiles.profile import Profile, ProfileError
from hwprofiles.shelf import profiles
from hwprofiles.tuning import Setting, tuning

FILES = {path.stem: path for path in sorted((Path(__file__).parent / "facts").glob("*.json"))}
SHELF = profiles()
# file → (profile, the reason, where there are labels those of the first two)
EXPECTED: dict[str, tuple[str, str, dict[str, str]]] = {
    "fanless-igc": ("igc", "4 points: drivers is igc", {}),
    "fortimail-1u": ("appliance-1u", "8 points: vendor is Fortinet", {"port1": "eth5", "port2": "eth4"}),
    "hyperv-gen2": ("hyperv", "4 points: drivers is hv_netvsc", {}),
    "lanner-nca4210": ("lanner-bypass", "8 points: vendor is Lanner", {"MGMT": "enp1s0", "LAN1": "enp2s0"}),
    "pc-e1000e": ("e1000e", "4 points: drivers is e1000e", {}),
    "pc-two-makes": ("generic", "enp3s0 is r8169: no other profile is for this box", {}),
    "pcengines-apu2": (
        "apu2",
        "76 points: product is apu2; vendor is PC Engines; drivers is igb",
        {"LAN1": "enp1s0", "LAN2": "enp2s0"},
    ),
    "protectli-fw4b": ("igb", "4 points: drivers is igb", {}),
    "raspberry-cm4": ("raspberry-cm4", "64 points: product is Raspberry Pi", {"second": "eth1", "onboard": "eth0"}),
    "server-i40e": ("i40e", "4 points: drivers is i40e", {}),
    "server-ice": ("ice", "4 points: drivers is ice", {}),
    "server-ixgbe": ("ixgbe", "4 points: drivers is ixgbe", {}),
    "server-mlx5": ("mlx5", "4 points: drivers is mlx5_core", {}),
    "silicom-pe2g4bpi35": (
        "silicom-bypass",
        "32 points: subsystem is 1374:03d8",
        {"port1": "ens1f0", "port2": "ens1f1"},
    ),
    "virtio-kvm": ("virtio", "4 points: drivers is virtio_net", {}),
    "virtualbox-vagrant": ("vbox", "72 points: product is VirtualBox; vendor is innotek GmbH", {}),
    "vmware-vmxnet3": ("vmxnet3", "4 points: drivers is vmxnet3", {}),
    "xen-domu": ("xen", "4 points: drivers is vif", {}),
}


def replayed(file: str) -> Box:
    return from_json(FILES[file].read_text(encoding="utf-8"))


def test_there_are_a_dozen_files_and_each_is_expected_to_be_something() -> None:
    assert len(FILES) >= 12
    assert FILES.keys() == EXPECTED.keys()
    assert {profile.name for profile in SHELF} == {profile for profile, _, _ in EXPECTED.values()}


@pytest.mark.parametrize("file", FILES)
def test_the_profile_for_a_box_and_why(file: str) -> None:
    expected, reason, ports = EXPECTED[file]
    box = replayed(file)
    profile, why = match(box, SHELF)
    assert profile.name == expected
    assert reason in why
    assert list(case(profile, box).links.items())[:2] == list(ports.items())


@pytest.mark.parametrize("file", FILES)
def test_a_file_says_where_it_is_from_and_survives_being_read(file: str) -> None:
    box = replayed(file)
    assert box.source.startswith(("captured from a machine", "written from documents, not captured: "))
    assert to_json(box) == FILES[file].read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES)
def test_the_settings_of_a_box_are_ones_that_it_has(file: str) -> None:
    """Never more than the highest that the driver names, never a queue without a CPU, LRO never on."""
    box = replayed(file)
    made = tuning(match(box, SHELF)[0], box)
    nics = {nic.name: nic for nic in box.nics}
    for setting in made.first:
        nic, (topic, _, key) = nics[setting.port], setting.name.partition(".")
        match topic:
            case "rings":
                assert int(setting.value) <= nic.rings[f"{key}-max"]
            case "channels":
                assert int(setting.value) <= min(nic.channels[f"{key}-max"], box.cpu.cores)
            case "features":
                assert key in nic.features.keys() - nic.fixed
            case _:
                assert key in nic.coalesce
    lro = {nic.name for nic in box.nics if nic.features.get("rx-lro") and "rx-lro" not in nic.fixed}
    assert {s.port for s in made.first if s == Setting(s.port, "features.rx-lro", "off")} >= lro


def test_lro_is_turned_off_though_no_profile_says_so() -> None:
    box = replayed("vmware-vmxnet3")
    for profile in SHELF:
        assert Setting("ens160", "features.rx-lro", "off") in tuning(profile, box).first


def test_what_a_port_cannot_do_is_named_and_not_tried() -> None:
    nic = Nic("p0", "veth", mtu_bytes=9000, features={"rx-lro": True, "rx-gro-hw": True}, fixed=frozenset({"rx-lro"}))
    made = tuning(named("mlx5", SHELF), Box("here", cpu=Cpu(cores=4), nics=(nic,)))
    assert [str(unfit) for unfit in made.unfit] == [
        "p0: features.rx-lro: is on, and the driver cannot turn it off",
        "p0: channels.combined: the driver has none to set",
        "p0: rings.rx: the driver has none to set",
        "p0: rings.tx: the driver has none to set",
    ]
    assert made.first == (Setting("p0", "features.rx-gro-hw", "off"),)
    assert tuning(named("apu2", SHELF), Box("here", nics=(replace(nic, mtu_bytes=9217),))).unfit[-1].name == "mtu"


def test_the_mtu_is_measured_at_its_edge() -> None:
    igb, nic = named("igb", SHELF), Nic("p0")
    told = [
        [u.name for u in tuning(igb, Box("here", nics=(replace(nic, mtu_bytes=size),))).unfit if u.name == "mtu"]
        for size in (9216, 9217)
    ]
    assert told == [[], ["mtu"]]


def test_one_cpu_needs_no_spreading() -> None:
    nic = Nic("p0", bus="0000:01:00.0", tx_queues=4)
    assert tuning(named("ixgbe", SHELF), Box("here", cpu=Cpu(cores=1), nics=(nic,))).last == ()
    assert [s.name for s in tuning(named("ixgbe", SHELF), Box("here", cpu=Cpu(cores=2), nics=(nic,))).last] == [
        "xps",
        "irq",
    ]


def test_queues_that_are_yet_to_be_made_are_spread_too() -> None:
    nic = Nic("p0", tx_queues=1, channels={"combined": 1, "combined-max": 8})
    box = Box("here", cpu=Cpu(cores=4), nics=(nic,))
    after = replace(box, nics=(replace(nic, tx_queues=4, channels={"combined": 4, "combined-max": 8}),))
    assert tuning(named("ixgbe", SHELF), box).last == (Setting("p0", "xps", "each"),)
    assert tuning(named("ixgbe", SHELF), box).last == tuning(named("ixgbe", SHELF), after).last


class TestScores:
    def test_all_criteria_that_are_given_must_fit(self) -> None:
        apu = replayed("pcengines-apu2")
        other = replace(apu, firmware=replace(apu.firmware, vendor="ACME"))
        assert match(other, SHELF)[0].name == "igb"
        (score,) = (score for score in scores(other, SHELF) if score.profile.name == "apu2")
        assert not score.fits
        assert "vendor is not: ACME" in score.why()

    def test_a_port_of_another_make_is_not_covered(self) -> None:
        box = replayed("server-ixgbe")
        assert match(replace(box, nics=(*box.nics, Nic("x", "igb"))), SHELF)[0].name == "generic"

    def test_no_ports_no_driver_fits(self) -> None:
        assert match(Box("here"), SHELF)[0].name == "generic"
        assert match(Box("here"), SHELF)[1] == "no ports: no other profile is for this box"

    def test_of_equals_the_narrower_one(self) -> None:
        igb, ice = named("igb", SHELF), named("ice", SHELF)
        broad = replace(ice, name="a-broad", match=replace(ice.match, drivers=frozenset({"igb", "ice"})))
        box = replayed("protectli-fw4b")
        assert match(box, (named("generic", SHELF), broad, igb))[0] is igb

    def test_the_generic_profile_must_exist(self) -> None:
        with pytest.raises(ProfileError, match="profile generic: is missing"):
            match(Box("here"), (named("igb", SHELF),))

    def test_by_name(self) -> None:
        with pytest.raises(ProfileError, match="profile virtoi: is unknown; known are appliance-1u, apu2"):
            named("virtoi", SHELF)

    @given(st.permutations(SHELF), st.sampled_from(sorted(FILES)))
    def test_the_order_on_the_shelf_does_not_matter(self, shelf: list[Profile], file: str) -> None:
        assert match(replayed(file), shelf)[0].name == EXPECTED[file][0]


class TestReplay:
    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("{}", '"format": 1 is missing'),
            ('{"format": 2, "source": "x"}', '"format": 1 is missing'),
            ("[]", "is not a file of facts"),
            ('{"format": 1}', "source"),
            ('{"format": 1, "source": "x", "disk": 1}', "disk"),
            ('{"format": 1, "source": "x", "nics": [{"name": "p0", "speed": 1}]}', "nic: .* is not a table of"),
            ('{"format": 1, "source": "x", "cpu": 4}', "cpu: 4 is not a table of"),
            ("{", "Expecting property name"),
        ],
    )
    def test_what_is_not_a_file_of_facts(self, text: str, error: str) -> None:
        with pytest.raises(FactsError, match=error):
            from_json(text)

    def test_only_the_ports_of_the_bridge_by_name_or_mac(self) -> None:
        box = Box("here", Firmware(), nics=(Nic("a", "igb", "00:00:5e:00:53:0a"), Nic("b", "ice", "00:00:5e:00:53:0b")))
        assert [nic.name for nic in box.only(["00:00:5E:00:53:0B", "a", "c"]).nics] == ["b", "a", "c"]
        assert box.only(["c"]).nics[0].driver is None
