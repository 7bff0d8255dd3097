"""Every key that a hardware profile may have changes something that the product does; else it would be a lie.

::

    a profile with every key ── one key changed ── what comes of it, by the product's own functions ── is another thing
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from hwprofiles.box import Box, Cpu, Firmware, Nic
from hwprofiles.case import case
from hwprofiles.match import scores
from hwprofiles.profile import Profile, read
from hwprofiles.schema import FEATURES
from smtp_intercept.app import config as configuration
from smtp_intercept.app import wanted
from smtp_intercept.app.relays import relays
from tests.hwprofiles.keys import BOUNDS, TABLES

NAME = "generic"  # one that may be named
ROOT = Path(__file__).parents[2]
# Keys that a process reads for itself, and where.
READ_IN = {"diverter.queue_length": "smtp_intercept/app/diverter.py"}
SHOWN = ("description", "sources")  # by `hw show`
FEW_MIB, PLENTY_MIB = 10, 1 << 20  # for fewer sessions than BASE has, and for more

NICS = tuple(
    Nic(
        name=f"eth{n}",
        driver="igb",
        mac=f"00:00:5e:00:53:0{4 - n}",
        bus=f"0000:0{n}:00.0",
        pci="8086:157b",
        subsystem="1374:03d8",
        mtu_bytes=2_000,
        tx_queues=4,
        rings={"rx-max": 4096, "tx-max": 4096},
        channels={"combined-max": 8, "rx-max": 8, "tx-max": 8},
        coalesce=dict.fromkeys((key.split(".")[1] for key in BOUNDS if key.startswith("coalesce.")), 0),
        features=dict.fromkeys(FEATURES, True),
    )
    for n in range(4)
)
BOX = Box("here", Firmware("PC Engines", "apu2", "apu2"), Cpu(cores=8), PLENTY_MIB, NICS)
CONFIG = configuration.parse('[bridge]\nports = ["eth0", "eth1", "eth2", "eth3"]\nprofile = "generic"\n')
LABELS = ["A", "B", "C", "D"]
BASE: dict[str, Any] = {
    "description": "x",
    "sources": ["x"],
    "match": {
        "vendor": ["PC*"],
        "product": ["apu*"],
        "board": ["apu*"],
        "pci": ["8086:*"],
        "subsystem": ["1374:*"],
        "drivers": ["igb"],
    },
    "ports": {"order": "bus", "labels": LABELS, "management": "A", "pairs": [["C", "D"]]},
    "bypass": {"kind": "gpio", "driven_by": "/line", "pairs": [["A", "B"]], "watchdog_ms": 3_000},
    "features": dict.fromkeys(FEATURES, True),
    "affinity": dict.fromkeys(("rps", "xps", "irq"), "keep"),
}
for _key, (_low, _high) in BOUNDS.items():
    BASE.setdefault(_key.split(".")[0], {}).setdefault(_key.split(".")[1], max(_low, min(_high, 2)))
BASE["limits"]["sessions"] = 1_000
OTHER: dict[str, Any] = {
    "ports.order": "mac",
    "ports.labels": ["B", "A", "C", "D"],
    "ports.paths": ["0000:03:00.0", "0000:02:00.0", "0000:01:00.0", "0000:00:00.0"],
    "ports.management": "B",
    "ports.pairs": [["A", "B"]],
    "bypass.kind": "lanner",
    "bypass.driven_by": "/other",
    "bypass.pairs": [["C", "D"]],
    **{f"match.{key}": ["no*"] for key in TABLES["match"]},
    **{f"features.{key}": False for key in FEATURES},
    **{f"affinity.{key}": "each" for key in TABLES["affinity"]},
    "mtu.max_bytes": 9_000,
}
SILICOM = {"bypass.watchdog_ms"}  # a line of GPIO has no watchdog


def keys() -> Iterator[str]:
    yield from (f"{table}.{key}" for table, known in sorted(TABLES.items()) for key in sorted(known))


def with_it(key: str, value: Any, base: dict[str, Any]) -> Profile:
    table, _, name = key.partition(".")
    raw = copy.deepcopy(base)
    raw[table][name] = value
    return read(NAME, tomli_w.dumps(raw))


def base_for(key: str) -> dict[str, Any]:
    raw = copy.deepcopy(BASE)
    raw["ports"].pop("paths", None)
    if key == "ports.paths":
        raw["ports"] |= {"order": "path", "paths": list(reversed(OTHER[key]))}
    if key in SILICOM:
        raw["bypass"]["kind"] = "silicom"
    return raw


def value_of(key: str, base: dict[str, Any]) -> Any:
    """Another that the schema allows."""
    if key in OTHER:
        return OTHER[key]
    table, _, name = key.partition(".")
    low, high = BOUNDS[key]
    return next(value for value in (low + 1, low, high) if value != base[table][name])


Outcome = Callable[[Profile], list[str]]


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """What the product makes of a profile: the choice of it, the steps, the limits, the labels, the relays."""

    def of(profile: Profile) -> list[str]:
        found = []
        for memory_mib in (FEW_MIB, PLENTY_MIB):
            box = replace(BOX, memory_mib=memory_mib)
            monkeypatch.setattr(wanted, "profiles", lambda: (profile,))
            monkeypatch.setattr("smtp_intercept.app.wanted.seen.box", lambda ports, box=box: box)
            monkeypatch.setattr(os, "access", lambda *_: True)  # net.core is read-only in some containers
            fit = wanted.fit(CONFIG)
            here = case(fit.profile, box)
            effective = configuration.effective(CONFIG, fit.profile)
            found += [repr(wanted.tuned(CONFIG, fit, "")), repr(fit.tuning.unfit), effective, repr(here)]
            found += [repr(relays(CONFIG, fit.profile, here)), repr(scores(box, (profile,))[0].answers)]
        return found

    return of


@pytest.mark.parametrize("key", [*keys()])
def test_a_key_that_changes_nothing_is_not_one(key: str, outcome: Outcome) -> None:
    base = base_for(key)
    was = read(NAME, tomli_w.dumps(base))
    changed = with_it(key, value_of(key, base), base)
    assert changed != was, "the key is read at all"
    if key in READ_IN:
        assert f").{key.partition('.')[2]}" in (ROOT / READ_IN[key]).read_text()
    else:
        assert outcome(changed) != outcome(was)


def test_the_rest_is_shown() -> None:
    assert BASE.keys() - TABLES.keys() == {*SHOWN}


def test_this_test_can_fail(outcome: Outcome) -> None:
    """Keys without effect: words, and a number of sessions that the memory has no room for either way."""
    profile = read(NAME, tomli_w.dumps(base_for("")))
    assert outcome(profile) == outcome(replace(profile, description="y")) == outcome(replace(profile, queue_length=77))
