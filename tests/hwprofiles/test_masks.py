"""Masks of CPUs, on a sysfs of files: which queue and which interrupt gets which CPU.

::

    msi_irqs/ 24 25 26 27  →  /proc/irq/24/enp1s0   /25/enp1s0-TxRx-0   /26/enp1s0-TxRx-1   (27 not in use)
                               serves no queue       queue 0             queue 1
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hwprofiles import nic, sysfs
from hwprofiles.nic import Nics

CPUS = 4


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A port with two queues of receiving, as a driver with a vector each has it."""
    device, irq = tmp_path / "0000:01:00.0", tmp_path / "irq"
    place = device / "net" / "enp1s0"
    (device / "msi_irqs").mkdir(parents=True)
    for number, action in ((24, "enp1s0"), (25, "enp1s0-TxRx-0"), (26, "enp1s0-TxRx-1"), (27, None)):
        (device / "msi_irqs" / str(number)).touch()
        (irq / str(number) / (action or "")).mkdir(parents=True)
        (irq / str(number) / "smp_affinity").write_text("f\n")
    for number in (0, 1):
        (place / "queues" / f"rx-{number}").mkdir(parents=True)
        (place / "queues" / f"rx-{number}" / "rps_cpus").write_text("0\n")
    (place / "device").symlink_to(device)
    monkeypatch.setattr(sysfs, "place", lambda name: place if name == "enp1s0" else None)
    monkeypatch.setattr(sysfs, "IRQ", irq)
    monkeypatch.setattr("os.cpu_count", lambda: CPUS)
    return irq


def masks(irq: Path) -> list[str]:
    return [(irq / str(number) / "smp_affinity").read_text().strip() for number in (24, 25, 26, 27)]


def test_each_queue_has_its_cpu_and_nothing_else_is_moved(port: Path) -> None:
    nics = Nics()
    assert nics.value("enp1s0", "irq") == "f f"
    assert not nics.holds("enp1s0", "irq", "each")
    nics.set("enp1s0", "irq", "each")
    assert masks(port) == ["f", "00000001", "00000002", "f"]
    assert nics.holds("enp1s0", "irq", "each")
    nics.set("enp1s0", "irq", "f f")
    assert nics.value("enp1s0", "irq") == "f f"


def test_all_cpus_for_every_queue(port: Path) -> None:
    nics = Nics()
    nics.set("enp1s0", "rps", "all")
    assert nics.value("enp1s0", "rps") == "f f"
    nics.set("enp1s0", "rps", "0 0")
    assert nics.value("enp1s0", "rps") == "0 0"


def test_more_cpus_than_a_word_has_bits(port: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 40)
    nics = Nics()
    nics.set("enp1s0", "rps", "all")
    assert (port.parent / "0000:01:00.0/net/enp1s0/queues/rx-0/rps_cpus").read_text() == "000000ff,ffffffff"
    assert nics.holds("enp1s0", "rps", "all")


def test_a_port_of_elsewhere_has_none(port: Path) -> None:
    nics = Nics()
    assert nics.value("enp2s0", "rps") is None
    with pytest.raises(OSError, match="the port has none"):
        nics.set("enp2s0", "irq", "each")


@pytest.mark.parametrize(
    ("action", "queue"),
    [
        ("enp1s0-TxRx-3", 3),  # igb, igc, ixgbe; i40e and ice with a word before it
        ("i40e-eno1np0-TxRx-12", 12),
        ("virtio2-input.0", 0),
        ("virtio2-output.1", 1),
        ("mlx5_comp3@pci:0000:5e:00.0", 3),
        ("ens192-rxtx-2", 2),  # vmxnet3
        ("eno1-rx-0", 0),  # e1000e
        ("enp1s0", None),  # link changes and mail boxes
        ("virtio2-config", None),
        ("mlx5_async0@pci:0000:5e:00.0", None),
    ],
)
def test_the_names_that_drivers_give_their_vectors(action: str, queue: int | None) -> None:
    matched = sysfs.queue_of(action)
    assert matched == queue


def test_masks_are_grouped_as_the_kernel_reads_them() -> None:
    assert [nic.grouped(mask) for mask in (0, 1, 1 << 31, 1 << 32)] == [
        "00000000",
        "00000001",
        "80000000",
        "00000001,00000000",
    ]
