"""What is printed on the case of each box in a file of facts, and what somebody means who names ports by it.

::

    facts ── profile ── labels in the order of the bus, of the MACs, or by path ── pairs for a bridge, management
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hwprofiles.box import Box, Nic, from_json
from hwprofiles.case import Case, LabelError, case, case_of, default_pair, resolved
from hwprofiles.match import match, named
from hwprofiles.profile import Order, Ports
from hwprofiles.shelf import profiles

SHELF = profiles()
FILES = {path.stem: path for path in sorted((Path(__file__).parent / "facts").glob("*.json"))}
# file → (labels in their order, pairs, management); a box whose case says nothing is not here
PRINTED: dict[str, tuple[str, tuple[tuple[str, str], ...], str]] = {
    "fortimail-1u": (  # counted by MAC, which here is the reverse of the bus
        "port1=eth5 port2=eth4 port3=eth3 port4=eth2 port5=eth1 port6=eth0",
        (("eth4", "eth3"), ("eth2", "eth1")),
        "eth5",
    ),
    "lanner-nca4210": (  # six ports, five labels
        "MGMT=enp1s0 LAN1=enp2s0 LAN2=enp3s0 LAN3=enp4s0 LAN4=enp5s0",
        (("enp2s0", "enp3s0"), ("enp4s0", "enp5s0")),
        "enp1s0",
    ),
    "pcengines-apu2": ("LAN1=enp1s0 LAN2=enp2s0 LAN3=enp3s0", (("enp2s0", "enp3s0"),), "enp1s0"),  # no LAN4 in this one
    "raspberry-cm4": ("second=eth1 onboard=eth0", (("eth1", "eth0"),), ""),
    "silicom-pe2g4bpi35": (
        "port1=ens1f0 port2=ens1f1 port3=ens1f2 port4=ens1f3",
        (("ens1f0", "ens1f1"), ("ens1f2", "ens1f3")),
        "",
    ),
}


def replayed(file: str) -> Box:
    return from_json(FILES[file].read_text(encoding="utf-8"))


def present(box: Box) -> set[str]:
    return {name for nic in box.nics for name in (nic.name, nic.mac)}


def meant(box: Box, *names: str) -> tuple[str, ...]:
    return resolved(names, present(box), box, SHELF)


@pytest.mark.parametrize("file", FILES)
def test_the_labels_pairs_and_management_port_of_a_box(file: str) -> None:
    printed, pairs, management = PRINTED.get(file, ("", (), ""))
    here = case_of(replayed(file), SHELF)
    assert " ".join(f"{label}={link}" for label, link in here.links.items()) == printed
    assert (here.pairs, here.management, here.ambiguous) == (pairs, management, {})
    assert here.profile == match(replayed(file), SHELF)[0].name


@pytest.mark.parametrize("file", FILES)
def test_each_label_means_its_port_whatever_the_order_of_the_facts(file: str) -> None:
    box = replayed(file)
    shuffled = replace(box, nics=tuple(reversed(box.nics)))
    for label, link in case_of(box, SHELF).links.items():
        assert case_of(shuffled, SHELF).link(label) == link
        others = [nic.name for nic in box.nics if nic.name != link]
        assert meant(box, label, others[0]) == (link, others[0])
        assert case_of(box, SHELF).titled(link) == f"{link} ({label})"


@pytest.mark.parametrize("file", FILES)
def test_the_pair_of_a_box_or_that_it_has_none(file: str) -> None:
    box = replayed(file)
    if file in PRINTED:
        assert default_pair(box, SHELF) == PRINTED[file][1][0]
    else:
        with pytest.raises(LabelError, match="has no pair of ports for a bridge"):
            default_pair(box, SHELF)


class TestWhoMeansWhat:
    def test_a_link_wins_over_a_label(self) -> None:
        box = replayed("pcengines-apu2")
        assert meant(box, "LAN1", "LAN2") == ("enp1s0", "enp2s0")
        called = replace(box, nics=(*box.nics[:2], replace(box.nics[2], name="LAN1")))
        assert meant(called, "LAN1", "LAN2") == ("LAN1", "enp2s0")

    def test_macs_and_links_and_labels_may_stand_together(self) -> None:
        box = replayed("pcengines-apu2")
        assert meant(box, "00:00:5e:00:53:01", "LAN3") == ("00:00:5e:00:53:01", "enp3s0")
        assert meant(box, "enp1s0", "enp3s0") == ("enp1s0", "enp3s0")

    @pytest.mark.parametrize(
        ("file", "names", "error"),
        [
            (
                "pcengines-apu2",
                ("LAN1", "LAN9"),
                "'LAN9' is no label of profile apu2, which has LAN1 (enp1s0), LAN2 (enp2s0), LAN3 (enp3s0)",
            ),
            ("pcengines-apu2", ("LAN2", "LAN4"), "'LAN4' is no label of profile apu2"),  # this model has three ports
            (
                "lanner-nca4210",
                ("port2", "port3"),
                "'port2' is no label of profile lanner-bypass, which has MGMT (enp1",
            ),
            ("server-ice", ("LAN1", "LAN2"), "'LAN1' is no label of profile ice, which has none here"),
        ],
    )
    def test_what_is_no_label_names_those_that_are(self, file: str, names: tuple[str, ...], error: str) -> None:
        with pytest.raises(LabelError) as caught:
            meant(replayed(file), *names)
        assert str(caught.value).startswith(error)

    def test_a_profile_that_is_named_is_not_doubted(self) -> None:
        box = replayed("server-ixgbe")
        silicom, appliance = (named(name, SHELF) for name in ("silicom-bypass", "appliance-1u"))
        assert resolved(("port2", "port1"), present(box), box, SHELF, appliance) == ("eno4", "eno3")
        with pytest.raises(LabelError, match="'port1' is no label of profile silicom-bypass, which has none here"):
            resolved(("port1", "port2"), present(box), box, SHELF, silicom)  # none of its ports is on such a card


def four(*buses: str, macs: str = "1234", driver: str = "igb") -> Box:
    nics = (
        Nic(f"eth{n}", driver, mac=f"00:00:5e:00:53:0{mac}", bus=bus)
        for n, (bus, mac) in enumerate(zip(buses, macs, strict=True))
    )
    return Box("here", nics=tuple(nics))


class TestOrders:
    def test_ports_with_one_bus_address_cannot_be_told_apart(self) -> None:
        box = four("0000:01:00.0", "0000:02:00.0", "0000:02:00.0", "0000:03:00.0")
        here = case(named("apu2", SHELF), box)
        assert here.links == {"LAN1": "eth0", "LAN4": "eth3"}
        assert here.pairs == ()
        with pytest.raises(LabelError, match="'LAN2' may be eth1 or eth2: they cannot be told apart"):
            here.link("LAN2")

    def test_nor_can_ports_with_one_mac(self) -> None:
        here = case(named("appliance-1u", SHELF), four("a", "b", "c", "d", macs="2112"))
        assert here.links == {}
        assert here.ambiguous["port1"] == ("eth1", "eth2")
        assert here.management == ""

    def test_each_label_by_the_path_that_the_profile_gives(self) -> None:
        ports = Ports(Order.PATH, ("A", "B", "C"), ("0000:03:00.0", "0000:01:00.0", "0000:09:00.0"))
        here = case(
            replace(named("apu2", SHELF), ports=ports), four("0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "x")
        )
        assert here.links == {"A": "eth2", "B": "eth0"}

    def test_a_card_of_another_make_shifts_no_label(self) -> None:
        """A wireless card in an APU, the ports of the board beside a bypass card."""
        apu = replayed("pcengines-apu2")
        wireless = Nic("wlan0", "ath10k_pci", "00:00:5e:00:53:0f", "0000:00:09.0")
        both = replace(apu, nics=(wireless, *apu.nics))
        assert case_of(both, SHELF) == case_of(apu, SHELF)
        assert meant(both, "LAN2", "LAN3") == ("enp2s0", "enp3s0")
        card = replayed("silicom-pe2g4bpi35")
        board = Nic("eno1", "tg3", "00:00:5e:00:53:0e", "0000:00:1f.6")
        assert case_of(replace(card, nics=(board, *card.nics)), SHELF).links["port1"] == "ens1f0"

    def test_a_virtual_link_is_on_no_case(self) -> None:
        apu = replayed("pcengines-apu2")
        assert case_of(replace(apu, nics=(Nic("br0", "bridge"), *apu.nics)), SHELF) == case_of(apu, SHELF)

    def test_a_box_without_ports(self) -> None:
        assert case_of(Box("here"), SHELF) == Case("generic")
