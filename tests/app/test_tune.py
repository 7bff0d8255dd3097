"""What `hw tune` tries, and when figures speak for a change: real ones are noisy, and luck must not be proposed.

A round measures everything once, seconds a message::

    as it is   as it is, again   interceptor.workers = 2      speed as a share of "as it is"
      1.0            1.1                 0.5                        1, 0.91, 2.0
"""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from hwprofiles import profile
from hwprofiles.box import Box, Cpu, Firmware, Nic
from hwprofiles.shelf import profile_text
from smtp_intercept.app import tune
from smtp_intercept.app.lab.figures import Figures, Measurement
from smtp_intercept.app.lab.proposal import (
    AGAIN,
    BASE,
    LEAST_GAIN,
    TOGETHER,
    Change,
    best,
    changed,
    changes,
    judged,
    noise,
)

TWO, FOUR, QUEUES = Change("interceptor.workers", 2), Change("interceptor.workers", 4), Change("diverter.queues", 2)
ONE_OF_EACH = {"interceptor.workers": 1, "diverter.queues": 1}
NIC = Nic(
    name="p0", driver="igb", mac="", bus="0000:01:00.0", pci="", subsystem="", node=None, mtu_bytes=1500, rx_queues=1,
    tx_queues=1, rings={"rx": 256, "rx-max": 1024, "tx": 256, "tx-max": 512},
    channels={"combined": 1, "combined-max": 8}, coalesce={"rx-usecs": 3},
    features={"rx-gro": True, "tx-tcp-segmentation": True}, fixed=frozenset({"tx-tcp-segmentation"}),
)  # fmt: skip
SECONDS = st.floats(0.5, 2.0)
GENERIC = tomllib.loads(profile_text("generic"))


def figures(**loads: dict[str, list[float]]) -> Figures:
    """``new={"as it is": [1.0, …]}``: the seconds of each round."""
    return Figures(
        Measurement(label, load, number, value, {})
        for load, values in loads.items()
        for label, rounds in values.items()
        for number, value in enumerate(rounds, 1)
    )


@pytest.mark.parametrize(
    ("cores", "only", "tried"),
    [
        (1, [], []),
        (2, [], ["interceptor.workers = 2", "diverter.queues = 2"]),
        (3, ["interceptor"], ["interceptor.workers = 2", "interceptor.workers = 3"]),
        (8, ["diverter.queues"], ["diverter.queues = 2", "diverter.queues = 4"]),
        (64, ["interceptor"], [f"interceptor.workers = {n}" for n in (2, 4, 8, 16)]),
        (8, ["rings"], []),
    ],
)
def test_workers_and_queues_up_to_the_cpus(cores: int, only: list[str], tried: list[str]) -> None:
    assert [str(change) for change in changes(ONE_OF_EACH, cores, (), only)] == tried


def test_of_ports_only_what_all_of_them_have_and_do_not_have_already() -> None:
    less = replace(NIC, name="p1", rings={**NIC.rings, "tx-max": 128}, coalesce={})
    tried = [
        str(change) for change in changes(ONE_OF_EACH, 4, [NIC, less], ["rings", "channels", "coalesce", "features"])
    ]
    assert tried == ["channels.combined = 2", "channels.combined = 4", "rings.rx = 1024", "features.rx-gro = false"]
    alone = [str(change) for change in changes(ONE_OF_EACH, 4, [NIC], ["coalesce"])]
    assert alone == [f"coalesce.rx-usecs = {n}" for n in (0, 30, 100)]


@settings(deadline=None)
@given(st.integers(1, 128), st.integers(1, 16), st.integers(1, 4))
def test_what_is_in_force_is_never_tried_and_nothing_beyond_the_schema(cores: int, workers: int, queues: int) -> None:
    base = {"interceptor.workers": workers, "diverter.queues": queues}
    for change in changes(base, cores, [NIC]):
        assert base.get(change.key) != change.value
        profile.read("tried", tomli_w.dumps(changed(GENERIC, [change])))


@settings(deadline=None)
@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=5, max_size=9), st.data())
def test_what_slows_a_whole_round_changes_no_judgement(
    rounds: list[tuple[float, float, float]], data: st.DataObject
) -> None:
    slower = [data.draw(st.sampled_from([0.25, 1.0, 2.0, 8.0])) for _ in rounds]
    labels = (BASE, AGAIN, str(TWO))
    one = figures(new={label: [each[n] for each in rounds] for n, label in enumerate(labels)})
    other = figures(
        new={label: [each[n] * k for each, k in zip(rounds, slower, strict=True)] for n, label in enumerate(labels)}
    )
    assert judged(one, str(TWO)).gains is judged(other, str(TWO)).gains


@settings(deadline=None)
@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=5, max_size=9), st.floats(-1.0, 1.0))
def test_a_gain_within_the_noise_is_never_proposed(rounds: list[tuple[float, float]], share: float) -> None:
    """As far apart from itself as the same may be."""
    same = {BASE: [one for one, _ in rounds], AGAIN: [other for _, other in rounds]}
    least = noise(figures(new=same), "new")
    faster = [one / max(1 + share * least, 0.01) for one, _ in rounds]
    assert best(figures(new={**same, str(TWO): faster}), [TWO]) == []


@settings(deadline=None)
@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=5, max_size=9), st.floats(1.01, 3.0))
def test_a_gain_beyond_it_in_every_round_is(rounds: list[tuple[float, float]], more: float) -> None:
    same = {BASE: [one for one, _ in rounds], AGAIN: [other for _, other in rounds]}
    gain = 1 + more * noise(figures(new=same), "new")
    assert best(figures(new={**same, str(TWO): [one / gain for one, _ in rounds]}), [TWO]) == [TWO]


ALIKE = {BASE: [1.0] * 5, AGAIN: [1.0] * 5}


@pytest.mark.parametrize(
    ("new", "big", "gains"),
    [
        ([1.0] * 5, [1.0] * 5, False),
        ([0.5] * 5, [1.0] * 5, True),
        ([0.5] * 5, [1.0 / (1 - LEAST_GAIN) - 0.001] * 5, True),
        ([0.5] * 5, [1.1] * 5, False),  # another load pays for it
        ([0.5, 0.5, 0.5, 0.5, 1.5], [1.0] * 5, True),
        ([0.5, 0.5, 0.5, 1.5, 1.5], [1.0] * 5, False),  # in two rounds of five it was slower
    ],
)
def test_the_table_of_judgements(new: list[float], big: list[float], gains: bool) -> None:
    seen = figures(new={**ALIKE, str(TWO): new}, big={**ALIKE, str(TWO): big})
    assert judged(seen, str(TWO)).gains is gains


def test_of_each_key_the_best_and_of_keys_all() -> None:
    seen = figures(new={**ALIKE, str(TWO): [0.6] * 5, str(FOUR): [0.5] * 5, str(QUEUES): [0.9] * 5})
    assert best(seen, [TWO, FOUR, QUEUES]) == [FOUR, QUEUES]


def test_a_proposal_is_a_whole_profile() -> None:
    whole = changed(tomllib.loads(profile_text("igb")), [FOUR, QUEUES, Change("rings.rx", 1024)])
    read = profile.read("igb", tomli_w.dumps(whole))
    assert (read.workers, read.queues, read.rings["rx"]) == (4, 2, 1024)
    assert read.match == profile.read("igb", profile_text("igb")).match


def outcome(*proposed: Change) -> tune.Outcome:
    both = figures(new={**ALIKE, **{str(change): [0.5] * 5 for change in proposed}, TOGETHER: [0.5] * 5})
    return tune.Outcome(both, both, proposed, proposed, [])


def subject() -> tune.Subject:
    box = Box("here", Firmware("PC Engines", "apu2"), Cpu(cores=4), 4096, (NIC,))
    return tune.Subject(box, profile.read("generic", profile_text("generic")), ONE_OF_EACH, {}, [])


@pytest.mark.parametrize("rings", [True, False])
def test_each_proposal_goes_to_where_it_counts(rings: bool) -> None:
    """A profile's workers are no more than the CPUs allow; the configuration's are taken as they are."""
    proposed = outcome(FOUR, QUEUES, *([Change("rings.rx", 1024)] if rings else []))
    assert tomllib.loads(tune._settings(proposed)) == {"interceptor": {"workers": 4}, "diverter": {"queues": 2}}
    text = tune._profile(subject(), proposed)
    assert bool(text) is rings
    if rings:
        read = profile.read("generic", text)
        assert (read.workers, read.rings) == (profile.read("generic", profile_text("generic")).workers, {"rx": 1024})
        assert "# rings.rx = 1024: new 2.00 ± 0.03" in text


def test_without_a_gain_nothing_is_proposed_and_the_noise_is_told() -> None:
    none = outcome()
    assert (tune._settings(none), tune._profile(subject(), none)) == ("", "")
    assert [*tune._verdict(none)] == [
        "no change proposed: no gain beyond what the same differs from itself (new 3%)",
    ]
