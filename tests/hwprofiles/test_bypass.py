"""Bypass relays: apart while mail is inspected, joined when it is not, or when nobody says anything.

::

    alive   ──yes──yes──yes──no───────yes──(silence)──────
    told      ARM  BEAT BEAT BYPASS   ARM
    ports     apart             joined apart        joined, by the watchdog
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprofiles.bypass import Gpio, Relay, Silicom, Simulated
from hwprofiles.relay import Act, Keeper, keep

WATCHDOG_MS = 3_000


def kept(moments: list[tuple[float, bool]]) -> tuple[Simulated, list[bool]]:
    """The relay, and at each moment whether its ports were joined after it had been told."""
    relay, keeper, joined = Simulated(WATCHDOG_MS), Keeper(WATCHDOG_MS), []
    for now, alive in moments:
        relay.now = now
        keeper, act = keep(keeper, alive=alive, now=now)
        if act is not None:
            relay.tell(act)
        joined.append(relay.joined)
    return relay, joined


def test_the_heartbeat_follows_the_switch() -> None:
    relay, joined = kept([(0.0, True), (0.9, True), (1.0, True), (2.0, True), (2.1, False), (9.0, False), (9.1, True)])
    assert relay.told == [Act.ARM, Act.BEAT, Act.BEAT, Act.BYPASS, Act.ARM]
    assert joined == [False, False, False, False, True, True, False]
    relay.now = 12.0
    assert not relay.joined
    relay.now = 12.1
    assert relay.joined, "silence joins them"


def test_who_was_late_arms_anew() -> None:
    relay, joined = kept([(0.0, True), (2.9, True), (5.9, True)])
    assert relay.told == [Act.ARM, Act.BEAT, Act.ARM]
    assert joined == [False] * 3


# Sixteenths of a second, which add up exactly: at the edge the two must not differ by a rounding.
@given(st.lists(st.tuples(st.integers(0, 64).map(lambda n: n / 16), st.booleans()), min_size=1))
def test_apart_if_and_only_if_alive(steps: list[tuple[float, bool]]) -> None:
    now, moments = 0.0, []
    for after, alive in steps:
        now += after
        moments.append((now, alive))
    assert kept(moments)[1] == [not alive for _, alive in moments]


SCRIPT = """#!/bin/sh
echo "$@" >> {log}
"""


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    program = tmp_path / "bpctl_util"
    program.write_text(SCRIPT.format(log=tmp_path / "log"))
    program.chmod(0o755)
    return program


def test_silicom_is_told_by_its_own_program(tool: Path) -> None:
    relay: Relay = Silicom("ens1f0", WATCHDOG_MS, str(tool))
    for act in (Act.ARM, Act.BEAT, Act.BYPASS):
        relay.tell(act)
    assert tool.with_name("log").read_text().splitlines() == [
        "ens1f0 set_bypass_wd 3000",
        "ens1f0 set_bypass off",
        "ens1f0 reset_bypass_wd",
        "ens1f0 set_bypass on",
        "ens1f0 set_bypass_wd 0",
    ]


def test_a_program_that_is_missing_or_refuses_says_so(tool: Path) -> None:
    with pytest.raises(OSError, match="it comes with the card's driver"):
        Silicom("ens1f0", WATCHDOG_MS, str(tool.with_name("none"))).tell(Act.BEAT)
    tool.write_text("#!/bin/sh\necho not a bypass device >&2\nexit 1\n")
    with pytest.raises(OSError, match="reset_bypass_wd: not a bypass device"):
        Silicom("ens1f0", WATCHDOG_MS, str(tool)).tell(Act.BEAT)


def test_a_line_of_gpio(tmp_path: Path) -> None:
    line = tmp_path / "value"
    line.write_text("0")
    relay: Relay = Gpio(line)
    values = []
    for act in (Act.ARM, Act.BEAT, Act.BYPASS):
        relay.tell(act)
        values.append(line.read_text())
    assert values == ["1", "1", "0"]
