"""Which relays a box has kept, by its profile or its configuration; and what `check` says of ports and relays.

::

    [[bypass]], else the profile's pairs by label ── both ports in the bridge? a driver? ── kept, or missed and why
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hwprofiles.box import from_json
from hwprofiles.bypass import Wiring
from hwprofiles.case import case
from hwprofiles.match import match
from hwprofiles.profile import Bypass
from hwprofiles.shelf import profiles
from smtp_intercept.app import cli, relays
from smtp_intercept.app.config import parse
from smtp_intercept.app.relays import Relays
from smtp_intercept.app.rundir import RunDir

FACTS = Path(__file__).parents[1] / "hwprofiles" / "facts"
SILICOM = [Wiring(pair, "silicom", "", 3_000) for pair in (("ens1f0", "ens1f1"), ("ens1f2", "ens1f3"))]
LANNER = "is left as it is: Tollbridge cannot drive the vendor's LAN bypass driver over SMBus"


def kept(file: str, text: str) -> Relays:
    box = from_json((FACTS / f"{file}.json").read_text(encoding="utf-8"))
    profile, _ = match(box, profiles())
    return relays.relays(parse(f"[bridge]\n{text}\n"), profile, case(profile, box))


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("silicom-pe2g4bpi35", 'ports = ["ens1f0", "ens1f1"]', Relays((SILICOM[0],))),
        ("silicom-pe2g4bpi35", 'ports = ["ens1f3", "ens1f2", "ens1f1", "ens1f0"]', Relays(tuple(SILICOM))),
        (
            "silicom-pe2g4bpi35",
            'ports = ["ens1f0", "ens1f1", "ens1f2"]',
            Relays((SILICOM[0],), ("relay port3-port4: one of its ports is not in the bridge: it is left as it is",)),
        ),
        ("silicom-pe2g4bpi35", 'ports = ["ens1f0", "ens1f1"]\nbypass = "off"', Relays()),
        ("silicom-pe2g4bpi35", 'ports = ["eno1", "eno2"]', Relays()),
        ("lanner-nca4210", 'ports = ["enp2s0", "enp3s0"]', Relays((), (f"relay LAN1-LAN2: {LANNER}",))),
        ("server-ice", 'ports = ["ens1f0", "ens1f1"]', Relays()),
        # the configuration's take the place of the profile's
        (
            "lanner-nca4210",
            'ports = ["enp2s0", "enp3s0"]\n[[bypass]]\nports = ["enp3s0", "enp2s0"]\nkind = "gpio"\n'
            'driven_by = "/sys/class/gpio/gpio17/value"\napart = 0',
            Relays((Wiring(("enp3s0", "enp2s0"), "gpio", "/sys/class/gpio/gpio17/value", 0, 0),)),
        ),
        (
            "silicom-pe2g4bpi35",
            'ports = ["ens1f0", "ens1f1"]\n[[bypass]]\nports = ["ens1f0", "ens1f1"]\nkind = "silicom"\n'
            'driven_by = "/opt/bpctl_util"\nwatchdog_ms = 5000',
            Relays((Wiring(("ens1f0", "ens1f1"), "silicom", "/opt/bpctl_util", 5_000),)),
        ),
    ],
)
def test_which_relays_are_kept(file: str, text: str, expected: Relays) -> None:
    assert kept(file, text) == expected


def test_a_profile_may_name_a_line() -> None:
    box = from_json((FACTS / "raspberry-cm4.json").read_text(encoding="utf-8"))
    profile, _ = match(box, profiles())
    wired = replace(profile, bypass=Bypass("gpio", "/line", (("second", "onboard"),), 3_000))
    config = parse('[bridge]\nports = ["eth0", "eth1"]')
    expected = Wiring(("eth1", "eth0"), "gpio", "/line", 0)
    assert relays.relays(config, wired, case(wired, box)).wirings == (expected,)


class TestBefore:
    """What a relay was is written down once, and given back once."""

    @pytest.fixture
    def run_dir(self, tmp_path: Path) -> RunDir:
        return RunDir(tmp_path)

    @pytest.fixture
    def line(self, tmp_path: Path) -> Wiring:
        (tmp_path / "value").write_text("1")
        return Wiring(("p0", "p1"), "gpio", str(tmp_path / "value"))

    @pytest.mark.parametrize(("was", "after"), [("0", "0"), ("1", "1"), ("?", "0")])
    def test_as_it_was_and_joined_where_nobody_knows(self, run_dir: RunDir, line: Wiring, was: str, after: str) -> None:
        value = Path(line.driven_by)
        value.write_text(was)
        assert relays.remember(run_dir, [line]) == []
        value.write_text("1")
        assert relays.remember(run_dir, [line]) == [], "the first one recorded is kept"
        value.write_text("1" if after == "0" else "0")
        assert relays.give_back(run_dir) == []
        assert value.read_text() == after
        value.write_text("x")
        assert relays.give_back(run_dir) == []
        assert value.read_text() == "x", "nothing is given back twice"

    def test_what_is_not_wanted_any_more_is_given_back(self, run_dir: RunDir, line: Wiring) -> None:
        relays.remember(run_dir, [line])
        Path(line.driven_by).write_text("0")
        relays.remember(run_dir, [])
        assert Path(line.driven_by).read_text() == "1"
        assert not run_dir.relays_before.exists()

    def test_what_cannot_be_given_back_is_said_and_kept(self, run_dir: RunDir, line: Wiring) -> None:
        relays.remember(run_dir, [line])
        Path(line.driven_by).unlink()
        Path(line.driven_by).mkdir()
        (failure,) = relays.give_back(run_dir)
        assert failure.startswith("relay p0-p1: cannot be given back as it was: [Errno 21]")
        assert relays.page(run_dir) == [
            {"ports": ["p0", "p1"], "kind": "gpio", "state": "unknown", "why": "nobody keeps it: tollbridge up"}
        ]
        Path(line.driven_by).rmdir()
        assert relays.give_back(run_dir) == []


def test_check_shows_labels_and_relays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    box = from_json((FACTS / "silicom-pe2g4bpi35.json").read_text(encoding="utf-8"))
    monkeypatch.setattr("hwprofiles.facts.box", lambda ports=None: box if ports is None else box.only(ports))
    monkeypatch.setattr("smtp_intercept.app.naming.present", dict)
    path = tmp_path / "x.toml"
    path.write_text('[bridge]\nports = ["port2", "port1", "port3"]\n')
    assert cli.main(["--config", str(path), "check"]) == 1  # no such ports here
    said = capsys.readouterr()
    assert "# ports as on the case: ens1f1 (port2), ens1f0 (port1), ens1f2 (port3)" in said.out
    assert "# bypass relay ens1f0-ens1f1: silicom" in said.out
    assert "tollbridge: warning: relay port3-port4: one of its ports is not in the bridge" in said.err
