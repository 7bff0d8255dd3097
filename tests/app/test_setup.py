"""`tollbridge setup` as somebody meets it, at the keyboard and by a script.

::

    ports found, with link state ─▶ six answers ─▶ the sample with them in force, all else a comment ─▶ up --confirm?
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from hwprofiles.case import Case
from smtp_intercept.app import cli, presets, setup
from smtp_intercept.app.config import load, parse, sample, warnings
from smtp_intercept.app.ports import Port, default_links, proposed
from smtp_intercept.app.presets import PRESETS
from smtp_intercept.app.template import filled

PORTS = (
    Port("enp1s0", "02:00:00:00:00:01", "igb", True),
    Port("enp2s0", "02:00:00:00:00:02", "igb", True),
    Port("enp3s0", "02:00:00:00:00:03", "igb", None),
    Port("mgmt0", "02:00:00:00:00:04", "igb", True, addresses=("198.51.100.2/24",)),
)
ANSWERS = {
    "ports": ["enp1s0", "enp2s0"],
    "management": ["198.51.100.2/24"],
    "gateway": "198.51.100.1",
    "domain": "example.com",
    "servers": ["192.0.2.20"],
    "handler": "proxy",
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(setup, "found", lambda: (PORTS, Case()))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path / "etc" / "tollbridge.toml"


APU = Case("apu2", {"LAN1": "enp1s0", "LAN2": "enp2s0", "LAN3": "enp3s0"}, pairs=(("enp2s0", "enp3s0"),))


@pytest.mark.parametrize(
    ("case", "changes", "pair"),
    [
        # the first two with a link
        (Case(), {}, ("enp1s0", "enp2s0")),
        # those of the profile, link or not
        (APU, {}, ("enp2s0", "enp3s0")),
        # never one that the box is reached by, whatever the profile says
        (APU, {"enp2s0": {"uses": ("carries the default route",)}}, ("enp1s0", "enp3s0")),
        (APU, {"enp3s0": {"addresses": ("192.0.2.1/24",)}}, ("enp1s0", "enp2s0")),
        (APU, {"enp3s0": {"master": "bond0"}}, ("enp1s0", "enp2s0")),
        (Case(), {"enp1s0": {"uses": ("for management, as the hardware profile has it",)}}, ("enp2s0", "enp3s0")),
        # no two are left
        (Case(), {"enp1s0": {"master": "x"}, "enp2s0": {"uses": ("below enp2s0.7",)}}, ()),
    ],
)
def test_what_is_proposed(case: Case, changes: dict[str, dict[str, Any]], pair: tuple[str, ...]) -> None:
    assert proposed(tuple(replace(port, **changes.get(port.name, {})) for port in PORTS), case) == pair


def test_a_port_is_shown_with_its_label_and_what_it_is_for() -> None:
    port = replace(PORTS[0], label="LAN1", uses=("carries the default route",))
    assert str(port) == "LAN1     enp1s0       02:00:00:00:00:01  link     igb  carries the default route"


def test_links_of_default_routes() -> None:
    """As the kernel writes them: fib_route_seq_show() and rt6_info_route()."""
    route4 = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    zero = "0" * 32
    route6 = (
        f"{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth2\n"
        f"{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        f"20010db8000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth3\n"
    )
    assert default_links(route4, route6) == {"eth0", "eth2"}
    assert default_links("", "") == frozenset()


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    left: Iterator[str] = iter(lines)

    def answer(prompt: str) -> str:
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)


def run(path: Path, *words: str) -> int:
    return cli.main(["--config", str(path), "setup", *words])


def test_at_the_keyboard(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty line takes the default: the two free ports with a link."""
    typed(monkeypatch, "", "-", "-", "example.com", "192.0.2.20, 2001:db8::/64", "", "n")
    assert run(path) == 0
    config = load(path)
    assert config.bridge.ports == ("enp1s0", "enp2s0")
    assert (config.bridge.management, config.bridge.gateway) == ((), ())
    (protected,) = config.protected
    assert (protected.domain, len(protected.servers), protected.handler) == ("example.com", 2, "proxy")
    said = capsys.readouterr().out
    assert "enp3s0       02:00:00:00:00:03  down" in said
    assert "carries 198.51.100.2/24" in said
    assert "next: tollbridge check; tollbridge up --confirm 120" in said


def test_what_cannot_be_is_asked_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "enp1s0", "enp1s0 enp3s0", "", "", "", "example.com", "192.0.2.20", "mda", "mta", "")
    assert run(path) == 0
    assert load(path).bridge.ports == ("enp1s0", "enp3s0")
    assert load(path).protected[0].handler == "mta"


def test_for_machines(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch)
    answers = tmp_path / "answers.toml"
    answers.write_text('domain = "example.com"\nservers = ["192.0.2.20"]\nmanagement = ["198.51.100.2/24"]\n')
    assert run(path, "--answers", str(answers), "--yes") == 0
    assert str(load(path).bridge.management[0]) == "198.51.100.2/24"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("", "domain: has no default; give it in --answers FILE"),
        ("domian = 1", "domian: not asked; known are ports, management"),
        ("domain = ", "Invalid value"),
        ('domain = "example.com"\nservers = ["not a server"]', "protected[0].servers"),
    ],
)
def test_a_machine_hears_what_is_wrong_and_nothing_is_written(
    path: Path, tmp_path: Path, answers: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answers.toml"
    file.write_text(answers)
    assert run(path, "--answers", str(file), "--yes") == 1
    assert said in capsys.readouterr().err
    assert not path.exists()


def test_what_is_there_is_not_overwritten_unasked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    for answer in ("", "n", "no"):
        typed(monkeypatch, answer)
        assert run(path) == 1
    typed(monkeypatch)
    assert run(path) == 1, "nobody at the keyboard"
    assert path.read_text() == "mine"
    typed(monkeypatch, "y", "", "", "", "example.com", "192.0.2.20", "", "")
    assert run(path) == 0
    assert path.with_name("tollbridge.toml.old").read_text() == "mine"


def test_the_file_says_all_and_sets_only_what_was_answered() -> None:
    text = filled(sample(), ANSWERS)
    assert {table: tomllib.loads(text)[table] for table in ("bridge",)} == {
        "bridge": {key: ANSWERS[key] for key in ("ports", "management", "gateway")}
    }
    assert tomllib.loads(text).keys() == {"bridge", "protected"}
    assert len(text.splitlines()) == len(sample().splitlines())
    assert "#drain_s = 30 " in text
    assert parse(text)


def test_uncommented_it_is_the_sample_again() -> None:
    """Each key that was not answered comes back by taking its # away."""
    text = filled(sample(), dict.fromkeys(ANSWERS))
    assert tomllib.loads(text) == {}
    lines = [line.removeprefix("#") if not line.startswith("# ") else line for line in text.splitlines()]
    assert tomllib.loads("\n".join(lines)) == tomllib.loads(sample())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_with_answers(name: str, path: Path, tmp_path: Path) -> None:
    """All that is asked is in force, all else as it is shipped; and what is shipped is sound."""
    assert parse(presets.text(name)).rule
    assert not [warning for warning in warnings(parse(presets.text(name))) if warning.startswith("rule")]
    answers = tmp_path / "answers.toml"
    said: dict[str, Any] = {"ports": ["eth7", "eth8"], "management": ["192.0.2.2/24"]}
    said |= {} if name == "isp-outbound" else {"domain": "example.org", "servers": ["192.0.2.30"]}
    answers.write_text(tomli_w.dumps(said))
    assert run(path, "--answers", str(answers), "--preset", name, "--yes") == 0
    written, shipped = parse(path.read_text()), parse(presets.text(name))
    assert written.bridge.ports == ("eth7", "eth8")
    assert [str(each) for each in written.bridge.management] == said["management"]
    assert [(each.domain, each.servers) for each in written.protected] == (
        [("example.org", ("192.0.2.30",))] if shipped.protected else []
    )
    assert (written.rule, written.pickup, written.intercept) == (shipped.rule, shipped.pickup, shipped.intercept)


def test_a_preset_that_there_is_not(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(path, "--preset", "what", "--yes")
    assert "protect-servers" in capsys.readouterr().err
