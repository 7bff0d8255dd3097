"""The configuration with every port by the name of its link, on boxes replayed from files of facts.

::

    ports = ["LAN2", "LAN3"] ── facts ── profile ── ports = ["enp2s0", "enp3s0"], in every table that names them
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hwprofiles.box import Box, from_json
from smtp_intercept.app import boot, naming
from smtp_intercept.app.config import ConfigErrors, load

FACTS = Path(__file__).parents[1] / "hwprofiles" / "facts"
EVERYWHERE = """
[[bypass]]
ports = ["LAN2", "LAN3"]
kind = "silicom"
[intercept.port.LAN2]
incoming = "proxy"
[pickup.port.LAN3]
outgoing = "intercept"
[[pickup.rule]]
port = "LAN2"
action = "pass"
[mta]
relay_from_ports = ["LAN3"]
"""
On = Callable[[str], Box]


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> On:
    """This machine is the box of that file."""

    def be(file: str) -> Box:
        box = from_json((FACTS / f"{file}.json").read_text(encoding="utf-8"))
        names = {name: nic.name for nic in box.nics for name in (nic.name, nic.mac)}
        monkeypatch.setattr("smtp_intercept.app.naming.seen.box", lambda: box)
        monkeypatch.setattr(naming, "present", lambda: names)
        return box

    return be


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return path


def ports(tmp_path: Path, value: str) -> tuple[str, ...]:
    return naming.load(written(tmp_path, f"[bridge]\nports = {value}\n")).bridge.ports


@pytest.mark.parametrize("value", ['["LAN2", "LAN3"]', '"profile"'])
def test_labels_are_links_in_every_table(tmp_path: Path, on: On, value: str) -> None:
    on("pcengines-apu2")
    config = naming.load(written(tmp_path, f"[bridge]\nports = {value}\n{EVERYWHERE}"))
    assert config.bridge.ports == config.bypass[0].ports == ("enp2s0", "enp3s0")
    assert (*config.intercept.port, *config.pickup.port) == ("enp2s0", "enp3s0")
    assert (config.pickup.rule[0].port, config.mta.relay_from_ports) == ("enp2s0", ("enp3s0",))


@pytest.mark.parametrize(
    ("file", "value", "links"),
    [
        ("fortimail-1u", '["port2", "port3"]', ("eth4", "eth3")),
        ("fortimail-1u", '"profile"', ("eth4", "eth3")),
        ("lanner-nca4210", '["LAN3", "LAN4", "LAN1", "LAN2"]', ("enp4s0", "enp5s0", "enp2s0", "enp3s0")),
        ("lanner-nca4210", '["LAN1", "enp3s0"]', ("enp2s0", "enp3s0")),
        ("raspberry-cm4", '"profile"', ("eth1", "eth0")),
        ("server-ice", '["ens1f0", "00:00:5E:00:53:02"]', ("ens1f0", "ens1f1")),
        ("server-ice", '["p0", "p1"]', ("p0", "p1")),  # of another box, or not here yet: whoever needs them says so
    ],
)
def test_what_ports_mean(tmp_path: Path, on: On, file: str, value: str, links: tuple[str, ...]) -> None:
    on(file)
    assert ports(tmp_path, value) == links


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        (
            "pcengines-apu2",
            'ports = ["LAN2", "LAN9"]',
            "2: bridge.ports: there is no such link, and 'LAN9' is no label of profile apu2, which has LAN1 (enp1s0), "
            "LAN2 (enp2s0), LAN3 (enp3s0); name links or labels; here are enp1s0 (LAN1), enp2s0 (LAN2), enp3s0 (LAN3)",
        ),
        (
            "server-ice",
            'ports = "profile"',
            "2: bridge.ports: profile ice has no pair of ports for a bridge on this box; name links or labels; here are"
            " ens1f0, ens1f1",
        ),
        ("pcengines-apu2", 'ports = ["LAN2", "enp2s0"]', "2: bridge.ports[1]: 'enp2s0' is named twice; name each"),
        (
            "pcengines-apu2",
            'ports = "profile"\n[pickup.port.LAN1]\nlocal = "drop"',
            "3: pickup.port.enp1s0: is not a port of the bridge; name one of bridge.ports: enp2s0, enp3s0",
        ),
        (
            "pcengines-apu2",
            'ports = "profile"\n[pickup.port.LAN2]\nlocal = "drop"\n[pickup.port.enp2s0]\nlocal = "drop"',
            "5: pickup.port.enp2s0: is enp2s0, which has a table already; write one of them",
        ),
        (
            "server-ice",
            'ports = ["LAN1", "LAN2"]\nprofile = "apu2"',
            None,  # that profile counts no port here: as on any box without labels
        ),
    ],
)
def test_mistakes_have_their_line_and_name_what_there_is(
    tmp_path: Path, on: On, file: str, text: str, error: str | None
) -> None:
    on(file)
    path = written(tmp_path, f"[bridge]\n{text}\n")
    if error is None:
        assert naming.load(path) == load(path)
        return
    with pytest.raises(ConfigErrors) as caught:
        naming.load(path)
    told = caught.value.errors[0]
    assert str(told).removeprefix(f"{path}:").startswith(error)


def test_at_boot_a_label_is_believed_once_the_ports_have_settled(
    tmp_path: Path, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first port of the case comes late: until then LAN2 would be what LAN3 is."""
    whole = on("pcengines-apu2")
    clock = [0.0]
    late = Box(whole.source, whole.firmware, whole.cpu, whole.memory_mib, whole.nics[1:])

    def here() -> Box:
        return whole if clock[0] >= 2.0 else late

    monkeypatch.setattr("smtp_intercept.app.naming.seen.box", here)
    monkeypatch.setattr(naming, "present", lambda: {nic.name: nic.name for nic in here().nics})
    monkeypatch.setattr(boot, "UDEV_QUEUE", tmp_path / "queue")
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    path = written(tmp_path, '[bridge]\nports = ["LAN1", "LAN2"]\n')
    assert boot.wait_for(path, boot.PORTS_S).bridge.ports == ("enp1s0", "enp2s0")
    assert 2.0 + boot.SETTLED_S <= clock[0] < 2.0 + 2 * boot.SETTLED_S
    (tmp_path / "queue").touch()
    assert boot.wait_for(path, boot.PORTS_S).bridge.ports == ("enp1s0", "enp2s0"), "udev never ends: as late as may be"
    assert clock[0] > boot.PORTS_S
