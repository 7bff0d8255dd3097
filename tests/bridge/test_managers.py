"""What network managers are told of our links, and what ifupdown does with the ports; with networkd itself:
tests/packaging."""

from __future__ import annotations

import configparser
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import ifupdown
from bridge.lane import Wanted
from bridge.managers import MANAGERS, told, untold
from bridge.plan import make_plan
from bridge.steps import Unmanage, key
from tests.bridge.test_plan import LINKS, PRESENT
from tests.unshown import NOT_ROOT

WANTED = Wanted("br0", ("p0", "p1"))
OURS = "smtp0 smtp0w0 smtp0l0 smtp0w1 smtp0l1"


def told_by(steps: tuple[object, ...]) -> list[object]:
    return [step for step in steps if isinstance(step, Unmanage)]


def test_each_manager_is_told_first_of_all() -> None:
    steps = make_plan(WANTED, replace(PRESENT, managers=("networkd", "NetworkManager"))).steps
    assert steps[:2] == (Unmanage("networkd", f"br0 p0 p1 {OURS}"), Unmanage("NetworkManager", f"br0 p0 p1 {OURS}"))
    assert told_by(steps[2:]) == []
    assert told_by(make_plan(WANTED, PRESENT).steps) == []


def test_an_adopted_bridge_stays_its_managers() -> None:
    links = {name: replace(link, master="br0") if name in ("p0", "p1") else link for name, link in LINKS.items()}
    links["br0"] = replace(LINKS["p0"], name="br0", kind="bridge")
    present = replace(PRESENT, links=links, managers=("networkd",))
    assert told_by(make_plan(replace(WANTED, adopt=True), present).steps) == [Unmanage("networkd", OURS)]


def test_other_ports_take_the_place_of_the_last() -> None:
    assert key(Unmanage("networkd", "br0 p0")) == key(Unmanage("networkd", "br0 p1"))
    assert key(Unmanage("networkd", "br0")) != key(Unmanage("NetworkManager", "br0"))


def ini(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def test_what_the_files_say() -> None:
    texts = {path: ini(text(["br0", "p0"])) for m in MANAGERS.values() for path, text in m.files.items()}
    assert texts == {
        "systemd/network/00-00-tollbridge.network": {"Match": {"Name": "br0 p0"}, "Link": {"Unmanaged": "yes"}},
        "systemd/networkd.conf.d/tollbridge.conf": {
            "Network": {"ManageForeignRoutes": "no", "ManageForeignRoutingPolicyRules": "no"}
        },
        "NetworkManager/conf.d/tollbridge.conf": {
            "device-tollbridge": {"match-device": "interface-name:=br0,interface-name:=p0", "managed": "0"}
        },
    }


@pytest.mark.parametrize("name", MANAGERS)
def test_told_is_every_file_with_these_links(name: str, tmp_path: Path) -> None:
    assert untold(name, tmp_path)
    for path, text in MANAGERS[name].files.items():
        assert not told(name, ["br0", "p0"], tmp_path)
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text(["br0", "p0"]))
        assert not untold(name, tmp_path)
    assert told(name, ["br0", "p0"], tmp_path)
    assert not told(name, ["br0", "p1"], tmp_path)


@NOT_ROOT.mark
def test_none_where_systemd_is_not() -> None:
    """As in a container: nothing is in /run."""
    asked = f"mount -t tmpfs none /run && {sys.executable} -c 'from bridge.managers import present; print(present())'"
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", asked]
    assert subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout == "()\n"


INTERFACES = """\
source /etc/network/interfaces.d/*
auto lo p0
iface lo inet loopback
iface p0 inet dhcp
    metric 100
  iface p1 inet6 manual
# iface p1 inet dhcp
iface p10 inet static
iface p1
"""


def test_ifupdown(tmp_path: Path) -> None:
    (tmp_path / "interfaces").write_text(INTERFACES)
    (tmp_path / "interfaces.d").mkdir()
    (tmp_path / "interfaces.d/p1").write_text("iface p1 inet static\n")
    files = (tmp_path / "interfaces", tmp_path / "interfaces.d", tmp_path / "nothing")
    found = ifupdown.conflicts(["p0", "p1"], files)
    assert [line.split(":")[1] for line in found] == ["4", "1"]
    assert found[0].endswith(": ifupdown configures p0, a port of the bridge; write: iface p0 inet manual")
