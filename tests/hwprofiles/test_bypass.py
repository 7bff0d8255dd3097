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

from hwprofiles.bypass import DRIVEN, Relay, Silicom, Simulated, Wiring, relay_of
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
        joined.append(relay.joined())
    return relay, joined


def test_the_heartbeat_follows_the_switch() -> None:
    relay, joined = kept([(0.0, True), (0.9, True), (1.0, True), (2.0, True), (2.1, False), (9.0, False), (9.1, True)])
    assert relay.told == [Act.ARM, Act.BEAT, Act.BEAT, Act.BYPASS, Act.ARM]
    assert joined == [False, False, False, False, True, True, False]
    relay.now = 12.0
    assert not relay.joined()
    relay.now = 12.1
    assert relay.joined(), "silence joins them"


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


def test_a_relay_that_says_it_is_joined_is_armed_anew() -> None:
    """Its watchdog ran out although we were in time, or somebody else told it."""
    keeper, act = keep(Keeper(WATCHDOG_MS), alive=True, now=0.0, joined=True)
    assert act is Act.ARM
    keeper, act = keep(keeper, alive=True, now=0.5, joined=False)
    assert act is None
    assert keep(keeper, alive=True, now=0.6, joined=True)[1] is Act.ARM


def test_ports_that_somebody_left_apart_are_joined_when_the_box_does_not() -> None:
    assert keep(Keeper(WATCHDOG_MS), alive=False, now=0.0, joined=False)[1] is Act.BYPASS
    assert keep(Keeper(WATCHDOG_MS), alive=False, now=0.0, joined=True)[1] is None


def test_without_a_watchdog_there_is_no_beat() -> None:
    keeper, act = keep(Keeper(0), alive=True, now=0.0)
    assert act is Act.ARM
    assert [keep(keeper, alive=True, now=now, joined=False)[1] for now in (0.1, 1.0, 1e6)] == [None] * 3
    assert keep(keeper, alive=False, now=1.0)[1] is Act.BYPASS


# As bpctl_util answers: the second port of a pair is a slave, whatever it is asked.
SCRIPT = """#!/bin/sh
if [ "$1" = ens1f1 ]; then
    echo "The interface is a slave interface or doesn't support Bypass."
    exit {exit}
fi
echo "$@" >> {log}
case "$2 $3" in
    "set_bypass on") echo "" > {state} ;;
    "set_bypass off") echo non- > {state} ;;
    "get_bypass ") echo "The interface is in the $(cat {state})Bypass mode." ;;
    *) echo "completed successfully." ;;
esac
"""


@pytest.fixture(params=[0, 1], ids=lambda status: f"exit {status}")
def tool(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    program = tmp_path / "bpctl_util"
    (tmp_path / "state").write_text("")
    program.write_text(SCRIPT.format(log=tmp_path / "log", state=tmp_path / "state", exit=request.param))
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("ports", [("ens1f0", "ens1f1"), ("ens1f1", "ens1f0")])
def test_silicom_is_told_by_its_own_program_on_the_port_that_controls(tool: Path, ports: tuple[str, str]) -> None:
    relay: Relay = relay_of(Wiring(ports, "silicom", str(tool), WATCHDOG_MS))
    assert relay.joined() is True
    states = []
    for act in Act:
        relay.tell(act)
        states.append(relay.joined())
    assert states == [False, False, True, False]
    said = tool.with_name("log").read_text().splitlines()
    assert [line.removeprefix("ens1f0 ") for line in said if not line.endswith("get_bypass")] == [
        *("set_bypass_wd 3000", "set_bypass off"),
        "reset_bypass_wd",
        *("set_bypass on", "set_bypass_wd 0"),
        *("set_bypass off", "set_bypass_wd 0"),
    ]


def test_a_program_that_is_missing_or_refuses_says_so(tool: Path) -> None:
    ports = ("ens1f0", "ens1f1")
    with pytest.raises(OSError, match="it comes with the card's driver"):
        Silicom(ports, WATCHDOG_MS, str(tool.with_name("none"))).tell(Act.BEAT)
    for answer in ("echo not a bypass device >&2; exit 1", "echo The interface doesn\\'t support Bypass.; exit 0"):
        tool.write_text(f"#!/bin/sh\n{answer}\n")
        with pytest.raises(OSError, match=r"reset_bypass_wd: .*(bypass|support)"):
            Silicom(ports, WATCHDOG_MS, str(tool)).tell(Act.BEAT)


def test_a_card_that_says_yes_and_stays_joined_is_not_armed(tool: Path) -> None:
    tool.write_text("#!/bin/sh\necho The interface is in the Bypass mode.\n")
    with pytest.raises(OSError, match="still joined"):
        Silicom(("ens1f0", "ens1f1"), WATCHDOG_MS, str(tool)).tell(Act.ARM)


@pytest.mark.parametrize("apart", [0, 1])
def test_a_line_of_gpio(tmp_path: Path, apart: int) -> None:
    line = tmp_path / "value"
    line.write_text(f"{1 - apart}\n")
    relay = relay_of(Wiring(("p0", "p1"), "gpio", str(line), apart=apart))
    assert (relay.watchdog_ms, relay.joined()) == (0, True)
    values = []
    for act in (Act.ARM, Act.BEAT, Act.BYPASS, Act.RELEASE):
        relay.tell(act)
        values.append((line.read_text(), relay.joined()))
    kept, joins = (str(apart), False), (str(1 - apart), True)
    assert values == [kept, kept, joins, kept]
    line.write_text("?")
    assert relay.joined() is None


def test_every_kind_that_is_driven_has_a_driver() -> None:
    assert [relay_of(Wiring(("p0", "p1"), kind, "/dev/null", 3_000)).watchdog_ms for kind in DRIVEN] == [3_000, 0]
    with pytest.raises(KeyError):
        relay_of(Wiring(("p0", "p1"), "lanner"))
