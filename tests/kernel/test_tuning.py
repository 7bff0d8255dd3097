"""The settings of a hardware profile, on ports that a namespace can have: made, made again, undone.

::

    sysfs of the namespace ─┐
    p0 ═ veth, n queues ═ q0│   before ── apply ── apply ── revert
    p1 ═ veth, 1 queue  ═ q1│      │        │        └ no step │
                            │      └────────┼───── equal ──────┘
                            └ what p0 has is set; what p1 lacks is refused by name, and leaves no trace
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from pyroute2 import IPRoute

from bridge.hands import Hands
from bridge.host import Host, Refused
from bridge.lane import Wanted
from bridge.ledger import Ledger
from bridge.links import Links
from bridge.steps import SetNic, SetSysctl
from bridge.sysctls import write_sysctl
from hwprofiles import facts
from hwprofiles.box import to_json
from hwprofiles.match import named
from hwprofiles.nic import Nics
from hwprofiles.profile import Profile, Spread
from hwprofiles.shelf import profiles
from hwprofiles.tuning import tuning
from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.snapshot import settled_difference, snapshot
from tests import unshown

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

T = TypeVar("T")
CPUS = os.cpu_count() or 1
MS_REC, MS_PRIVATE, CLONE_NEWNS = 0x4000, 1 << 18, 0x20000
PORTS = ("p0", "p1")


@pytest.fixture
def namespace() -> Iterator[str]:
    prefix, _, lock = namespaces.claim()
    try:
        name = f"{prefix}-tuned"
        namespaces.make(name, {})

        def links() -> None:
            with IPRoute() as ip:
                ip.link("add", ifname="p0", kind="veth", peer="q0")  # as many queues as CPUs, one of them in use
                ip.link("add", ifname="p1", kind="veth", peer="q1", num_tx_queues=1, num_rx_queues=1)
                for link in ("q0", "q1", *PORTS):
                    ip.link("set", index=ip.link_lookup(ifname=link)[0], state="up")

        namespaces.inside(name, links)
        yield name
    finally:
        namespaces.release(prefix, lock)


def with_sysfs(work: Callable[[], T]) -> Callable[[], T]:
    """In this thread alone, sysfs is that of its network namespace."""

    def within() -> T:
        libc = ctypes.CDLL(None, use_errno=True)
        for done in (
            libc.unshare(CLONE_NEWNS),
            libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
            libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None),
        ):
            assert done == 0, os.strerror(ctypes.get_errno())
        return work()

    return within


TUNED = replace(
    named("generic", profiles()),
    channels={"rx": 2, "tx": 2},
    features={"rx-gro": True, "tx-tcp-segmentation": False},
    rps=Spread.ALL,
    xps=Spread.EACH,
    irq=Spread.EACH,
)


def wanted(profile: Profile) -> Wanted:
    made = tuning(profile, facts.box(PORTS))
    first, last = (tuple(SetNic(s.port, s.name, s.value) for s in part) for part in (made.first, made.last))
    return Wanted("br0", PORTS, tuned_first=first, tuned_last=last, sysctls_at_least={"net.core.somaxconn": 9_999})


def applied(ledger: Path, profile: Profile, nics: Nics | None = None) -> tuple[list[str], list[Refused]]:
    """The steps that were taken, and what was refused."""
    taken: list[str] = []
    with Links() as links:
        host = Host(links, Ledger(ledger), nics)
        refused = host.up(host.tuning(wanted(profile)), lambda step: taken.append(str(step)))
    return taken, refused


def reverted(ledger: Path) -> list[str]:
    with Links() as links:
        return Host(links, Ledger(ledger)).down()


def hardware() -> list[str | None]:
    """All that a profile can set, and what the kernel says of it besides."""
    nics = Nics()
    masks = [nics.value(port, name) for port in PORTS for name in ("rps", "xps", "irq")]
    return [to_json(facts.box(PORTS)), *masks]


def test_apply_is_idempotent_and_revert_gives_back_all(namespace: str, tmp_path: Path) -> None:
    ledger, before = tmp_path / "ledger.jsonl", snapshot(namespace)

    def there_and_back() -> None:
        was = hardware()
        taken, refused = applied(ledger, TUNED)
        assert refused == []
        assert {
            "nic     p0: channels.rx = 2",
            "nic     p0: features.rx-gro = on",
            "nic     p0: rps = all",
            "nic     p0: xps = each",
            "sysctl  net.core.somaxconn = 9999",
        } <= {*taken}
        nics = Nics()
        assert nics.value("p0", "rps") == " ".join([f"{(1 << CPUS) - 1:x}"] * 2)
        assert nics.value("p0", "xps") == f"1 {1 << 1 % CPUS:x}"
        assert nics.value("p1", "features.tx-tcp-segmentation") == "off"
        assert hardware() != was
        assert applied(ledger, TUNED) == ([], [])
        assert reverted(ledger) == []
        assert hardware() == was

    unshown.CPUS.skip()
    namespaces.inside(namespace, with_sysfs(there_and_back))
    assert settled_difference(namespace, before) == []
    assert not ledger.exists()


def test_another_profile_takes_the_place_of_the_last(namespace: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"

    def one_then_the_other() -> None:
        was = hardware()
        applied(ledger, TUNED)
        applied(ledger, replace(TUNED, channels={}, features={"rx-gro": True}, xps=Spread.KEEP))
        nics = Nics()
        assert (nics.value("p0", "channels.rx"), nics.value("p0", "features.rx-gro")) == ("1", "on")
        assert nics.value("p0", "features.tx-tcp-segmentation") == "on"
        assert reverted(ledger) == []
        assert hardware() == was

    namespaces.inside(namespace, with_sysfs(one_then_the_other))


def test_what_the_kernel_refuses_is_a_warning_and_leaves_no_entry(namespace: str, tmp_path: Path) -> None:
    """No rings, no such feature, more queues than there are, one queue, no interrupts, no port."""
    ledger = tmp_path / "ledger.jsonl"
    steps = [
        SetNic("p0", "rings.rx", "256"),
        SetNic("p0", "channels.rx", "64"),
        SetNic("p0", "features.rx-lro", "on"),
        SetNic("p1", "xps", "each"),
        SetNic("p0", "irq", "each"),
        SetNic("p0", "features.rx-gro", "on"),
        SetNic("p9", "features.rx-gro", "on"),
    ]

    def refused() -> list[str]:
        was = hardware()
        with Links() as links:
            host = Host(links, Ledger(ledger))
            found = [str(refusal) for refusal in host.up(steps)]
            assert [*Ledger(ledger).entries] == ["SetNic p0 features.rx-gro"]
            assert host.down() == []
        assert hardware() == was
        return found

    assert namespaces.inside(namespace, with_sysfs(refused)) == [
        "p0: rings.rx = 256: refused: the port has none",
        "p0: channels.rx = 64: refused: Invalid argument",
        "p0: features.rx-lro = on: refused: the port has none",
        "p1: xps = each: refused: the port has none",
        "p0: irq = each: refused: the port has none",
        "p9: features.rx-gro = on: refused: the port has none",
    ]


def test_a_port_that_is_gone_needs_no_undoing(namespace: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"

    def pulled_out() -> None:
        applied(ledger, TUNED)
        with IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname="p0")[0])
        assert reverted(ledger) == []
        assert not ledger.exists()

    namespaces.inside(namespace, with_sysfs(pulled_out))


def test_sysfs_of_another_namespace_is_not_touched(namespace: str) -> None:
    """Without its own sysfs a port has no queues to set: never those of a namesake elsewhere."""

    def foreign() -> tuple[str | None, str | None]:
        nics = Nics()
        with IPRoute() as ip:
            ip.link("add", ifname="eth0", kind="veth", peer="eth1")
        return nics.value("p0", "rps"), nics.value("eth0", "rps")

    assert namespaces.inside(namespace, foreign) == (None, None)


def test_a_revert_keeps_to_what_profiles_ask_for(namespace: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"

    def only_the_nics() -> list[str]:
        with Links() as links:
            host = Host(links, Ledger(ledger))
            host.up([SetSysctl("net.ipv4.ip_forward", "1"), SetNic("p0", "features.rx-gro", "on")])
            assert host.down(among=lambda undo: isinstance(undo, SetNic)) == []
            left = [*Ledger(ledger).entries]
            host.down()
        return left

    assert namespaces.inside(namespace, only_the_nics) == ["SetSysctl net.ipv4.ip_forward"]


def test_how_ipv6_makes_its_address_is_asked_without_reading_the_file(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read of that file holds a processor for as long as anybody holds the lock of the links."""
    read: list[str] = []
    monkeypatch.setattr("bridge.hands.read_sysctl", lambda name: read.append(name))

    def seen() -> list[bool]:
        with IPRoute() as ip, Links() as links:
            ip.link("add", ifname="p2.5", kind="veth", peer="q2")
            hands, found = Hands(links, Nics()), []
            for link, mode in [("p0", "0"), ("p0", "1"), ("p2/5", "1"), ("p2/5", "0")]:
                name = f"net.ipv6.conf.{link}.addr_gen_mode"
                write_sysctl(name, mode)
                held = [hands.holds(SetSysctl(name, value)) for value in ("0", "1")]
                assert hands.inverse(SetSysctl(name, "7")) == SetSysctl(name, mode)
                found.append(held == [mode == "0", mode == "1"])
        return found

    assert namespaces.inside(namespace, seen) == [True] * 4
    assert read == []
    assert not namespaces.inside(namespace, lambda: Hands(Links(), Nics()).holds(SetSysctl("net.ipv4.ip_forward", "0")))
    assert read == ["net.ipv4.ip_forward"]  # every other one


def test_the_check_can_fail(namespace: str) -> None:
    """What these tests compare shows each kind of setting that was forgotten."""

    def seen() -> list[bool]:
        found, nics = [], Nics()
        for name, value in (("channels.tx", str(CPUS)), ("features.rx-gro", "on"), ("rps", "all"), ("xps", "all")):
            was = hardware()
            nics.set("p0", name, value)
            found.append(hardware() != was)
        return found

    unshown.CPUS.skip()
    assert namespaces.inside(namespace, with_sysfs(seen)) == [True] * 4


def test_a_profile_for_other_hardware_warns_and_the_bridge_is_made() -> None:
    """`up` with a profile that asks veths for rings: it says so, works, is idempotent, and `down` gives all back."""
    with Lab() as lab:
        gateway = lab.gateway
        gateway.configure({"bridge": {"profile": "igb"}})
        before = snapshot(gateway.namespace)
        up = gateway.tollbridge("up")
        assert "tollbridge: warning: p0: rings.rx: the driver has none to set" in up.stderr
        assert [line for line in gateway.tollbridge("up").stdout.splitlines() if line.startswith("  ")] == []
        gateway.tollbridge("hw", "revert")
        assert "tollbridge: warning: p1: channels.combined" in gateway.tollbridge("hw", "apply").stderr
        gateway.tollbridge("down")
        assert settled_difference(gateway.namespace, before) == []


def test_the_commands_make_and_undo_the_settings() -> None:
    unshown.CPUS.skip()
    with Lab() as lab:
        gateway = lab.gateway
        gateway.configure({"bridge": {"profile": "xen"}})

        def masks() -> str:
            files = [f"/sys/class/net/{port}/queues/rx-0/rps_cpus" for port in PORTS]
            return gateway.room.run(["cat", *files]).stdout

        was = masks()
        assert "+ nic     p0: rps = all" in gateway.tollbridge("hw", "plan").stdout
        assert masks() == was
        gateway.tollbridge("hw", "apply")
        applied_masks = masks()
        assert applied_masks != was
        assert "= nic     p0: rps = all" in gateway.tollbridge("hw", "plan").stdout
        gateway.tollbridge("hw", "revert")
        assert masks() == was
        gateway.tollbridge("up")
        assert masks() == applied_masks
        gateway.tollbridge("down")
        assert masks() == was
