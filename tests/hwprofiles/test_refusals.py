"""Hardware that says no, by a driver that is none: what is refused is named, and the ledger knows what was done.

::

    Host ── Nics ── a driver of our own: values, and what it refuses with which words
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from bridge.host import Host, StepError
from bridge.ledger import Ledger
from bridge.links import Links
from bridge.steps import SetNic, from_json, key, to_json
from hwprofiles.ethtool import CHANNELS, COALESCE, RINGS, Topic
from hwprofiles.nic import Nics

BUSY = NetlinkError(errno.EBUSY, "Device or resource busy")
NAMES = {id(RINGS): "rings", id(CHANNELS): "channels", id(COALESCE): "coalesce"}


@dataclass
class Card:
    """One port, p0. ``refuses``: setting → the error; ``silent``: settings that it takes and does not make."""

    values: dict[str, int]
    on: dict[str, bool] = field(default_factory=dict)
    refuses: Mapping[str, Exception] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    told: list[str] = field(default_factory=list)

    def numbers(self, port: str, topic: Topic) -> dict[str, int]:
        self._is_here(port)
        prefix = f"{NAMES[id(topic)]}."
        return {name.removeprefix(prefix): v for name, v in self.values.items() if name.startswith(prefix)}

    def set_number(self, port: str, topic: Topic, name: str, value: int) -> None:
        if self._takes(port, f"{NAMES[id(topic)]}.{name}", str(value)):
            self.values[f"{NAMES[id(topic)]}.{name}"] = value

    def features(self, port: str) -> tuple[dict[str, bool], frozenset[str]]:
        self._is_here(port)
        return dict(self.on), frozenset()

    def set_feature(self, port: str, name: str, on: bool) -> None:
        if self._takes(port, f"features.{name}", "on" if on else "off"):
            self.on[name] = on

    def close(self) -> None:
        self.told.append("closed")

    def _is_here(self, port: str) -> None:
        if port != "p0":
            raise NetlinkError(errno.ENODEV, "No such device")

    def _takes(self, port: str, setting: str, value: str) -> bool:
        self._is_here(port)
        self.told.append(f"{setting} = {value}")
        if setting in self.refuses:
            raise self.refuses[setting]
        return setting not in self.silent


@pytest.fixture
def links() -> Iterator[Links]:
    with Links() as opened:
        yield opened


def box(links: Links, path: Path, card: Card) -> Host:
    return Host(links, Ledger(path / "ledger.jsonl"), Nics(card))


RING = SetNic("p0", "rings.rx", "2048")
LRO = SetNic("p0", "features.rx-lro", "off")
USECS = SetNic("p0", "coalesce.rx-usecs", "3")


def test_what_is_taken_is_undone_newest_first(links: Links, tmp_path: Path) -> None:
    card = Card({"rings.rx": 256, "coalesce.rx-usecs": 50}, {"rx-lro": True})
    host = box(links, tmp_path, card)
    assert host.up([RING, LRO, USECS]) == []
    assert host.up([RING, LRO, USECS]) == []
    assert host.down() == []
    assert card.told == [
        *("rings.rx = 2048", "features.rx-lro = off", "coalesce.rx-usecs = 3"),
        *("coalesce.rx-usecs = 50", "features.rx-lro = on", "rings.rx = 256"),
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BUSY, "Device or resource busy"),
        (NetlinkError(errno.EOPNOTSUPP, "the driver does not change it"), "the driver does not change it"),
        (OSError(errno.EIO, "Input/output error", "/proc/irq/9/smp_affinity"), "Input/output error"),
    ],
)
def test_a_refusal_is_named_leaves_no_entry_and_stops_nothing(
    links: Links, tmp_path: Path, error: Exception, words: str
) -> None:
    card = Card({"rings.rx": 256, "coalesce.rx-usecs": 50}, {"rx-lro": True}, refuses={"rings.rx": error})
    host = box(links, tmp_path, card)
    assert [str(refused) for refused in host.up([RING, LRO, USECS])] == [f"p0: rings.rx = 2048: refused: {words}"]
    assert [*Ledger(tmp_path / "ledger.jsonl").entries] == [key(LRO), key(USECS)]
    assert host.down() == []
    assert (card.values, card.on) == ({"rings.rx": 256, "coalesce.rx-usecs": 50}, {"rx-lro": True})


def test_what_was_taken_before_keeps_its_entry_when_it_is_refused_later(links: Links, tmp_path: Path) -> None:
    """Another profile asks for more and is refused: `down` still knows the value from before the first."""
    card = Card({"rings.rx": 256})
    host = box(links, tmp_path, card)
    host.up([RING])
    card.refuses = {"rings.rx": BUSY}
    assert len(host.up([SetNic("p0", "rings.rx", "4096")])) == 1
    card.refuses = {}
    assert host.down() == []
    assert card.values == {"rings.rx": 256}


def test_a_card_that_will_not_go_back_is_a_failure_and_is_kept(links: Links, tmp_path: Path) -> None:
    """A refusal on the way up costs speed; on the way down the host is not as it was, and that is said."""
    card = Card({"rings.rx": 256})
    host = box(links, tmp_path, card)
    host.up([RING])
    card.refuses = {"rings.rx": BUSY}
    assert len(host.down()) == 1
    assert [*Ledger(tmp_path / "ledger.jsonl").entries] == [key(RING)]
    with pytest.raises(StepError, match=r"rings\.rx = 256"):
        host.up([])


def test_a_card_that_says_yes_and_does_nothing_is_asked_again(links: Links, tmp_path: Path) -> None:
    card = Card({"rings.rx": 256}, silent=frozenset({"rings.rx"}))
    host = box(links, tmp_path, card)
    assert host.up([RING]) == host.up([RING]) == []
    assert card.told == ["rings.rx = 2048"] * 2
    assert host.down() == []


def test_a_port_or_a_setting_that_is_not_there(links: Links, tmp_path: Path) -> None:
    host = box(links, tmp_path, Card({}))
    steps = [RING, LRO, SetNic("p1", "rings.rx", "64"), SetNic("p0", "rps", "all"), SetNic("p0", "irq", "each")]
    assert {refused.reason for refused in host.up(steps)} == {"the port has none"}
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_setting_survives_the_ledger() -> None:
    assert from_json(to_json(RING)) == RING
    assert key(RING) == key(SetNic("p0", "rings.rx", "64")) != key(SetNic("p0", "rings.tx", "2048"))


def test_what_is_opened_is_closed() -> None:
    card = Card({})
    with Nics(card):
        pass
    assert card.told == ["closed"]
