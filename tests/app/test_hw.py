"""`tollbridge hw` of boxes in files: what it prints, for people and for machines.

::

    hw facts > box.json ── elsewhere, later ── hw detect --facts box.json
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwprofiles.box import from_json
from hwprofiles.shelf import profiles
from smtp_intercept.app import cli

FACTS = Path(__file__).parents[1] / "hwprofiles" / "facts"
NOWHERE = ["--config", "/nonexistent/tollbridge.toml"]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main([*NOWHERE, "hw", *words]) == 0
    return capsys.readouterr().out


def test_facts_are_json_where_nobody_is_looking(capsys: pytest.CaptureFixture[str]) -> None:
    box = from_json(said(capsys, "facts"))
    assert box.source.startswith("captured from a machine with Linux ")
    assert said(capsys, "facts", "--json").startswith("{")


def test_facts_are_a_table_where_somebody_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = said(capsys, "facts", "--facts", str(FACTS / "pcengines-apu2.json")).splitlines()
    assert lines[:3] == [
        "firmware   PC Engines / apu2 / apu2",
        "cpu        AMD GX-412TC SOC, 4 CPUs on 1 node(s), 2048 KiB of cache",
        "memory     4096 MiB",
    ]
    assert lines[3].startswith(
        "enp1s0     igb 0000:01:00.0 8086:157b 00:00:5e:00:53:01, 4 rx queue(s), rings 256 of 4096"
    )


def test_detect_says_why_and_what_the_case_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "detect", "--facts", str(FACTS / "pcengines-apu2.json"))
    assert text.startswith("apu2: A PC Engines APU board\n  enp1s0 is igb, ")
    assert "   76  apu2             product:yes vendor:yes drivers:yes" in text
    assert "    -  igc              drivers:no" in text
    assert "ports on the case: LAN1 is enp1s0, LAN2 is enp2s0, LAN3 is enp3s0" in text
    assert "for the bridge: LAN2-LAN3; for management: LAN1" in text


def test_detect_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    page = json.loads(said(capsys, "detect", "--json", "--facts", str(FACTS / "server-ice.json")))
    assert page["profile"] == "ice"
    assert page["scores"]["ice"] == {"fits": True, "points": 4}
    assert page["scores"].keys() == {profile.name for profile in profiles()}


@pytest.mark.parametrize("name", [profile.name for profile in profiles()])
def test_show_names_sources(capsys: pytest.CaptureFixture[str], name: str) -> None:
    text = said(capsys, "show", name)
    assert text.startswith(f"{name}: ")
    assert "  source: " in text


def test_show_of_the_box_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "show", "--facts", str(FACTS / "xen-domu.json")).startswith("xen: ")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["show", "no-such"], "profile no-such: is unknown; known are appliance-1u, apu2"),
        (["detect", "--facts", "/nonexistent"], "--facts /nonexistent: "),
        (["facts", "--facts", __file__], "Extra data: line 1"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], error: str) -> None:
    assert cli.main([*NOWHERE, "hw", *words]) == 1
    assert error in capsys.readouterr().err


def test_changes_need_root(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for verb in ("plan", "apply", "revert"):
        assert cli.main([*NOWHERE, "hw", verb]) == 1
        assert f"tollbridge hw {verb} needs root: sudo tollbridge hw {verb}" in capsys.readouterr().err
