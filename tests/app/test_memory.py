"""What the service may take of the memory: what its sessions are reckoned at, not the whole box; and who says so."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprofiles.profile import Profile
from hwprofiles.shelf import profiles
from smtp_intercept.app import config, memory
from smtp_intercept.app.memory import KIB, MIB, Bounds, administrators, bind, reckoned, unit_of

TEXT = '[bridge]\nports = ["p0", "p1"]\n'
UNIT = "0::/system.slice/tollbridge.service\n"
PROFILES = profiles()


def effective(profile: Profile, more: str = "") -> config.Config:
    made = config.parse(TEXT + more, Path("t.toml"))
    return config.parse(config.effective(made, profile), Path("t.toml"))


def of(profile: Profile, memory_mib: int, cores: int = 2, more: str = "", *, mta: bool = False) -> Bounds:
    fitted = profile.fitted(memory_mib, cores)
    return reckoned(effective(fitted, more), fitted, memory_mib, mta=mta)


@given(st.sampled_from(PROFILES), st.integers(1024, 1 << 18), st.integers(1, 64), st.booleans())
def test_it_is_room_for_all_places_and_never_the_whole_box(profile: Profile, mib: int, cores: int, mta: bool) -> None:
    fitted, bounds = profile.fitted(mib, cores), of(profile, mib, cores, mta=mta)
    places = fitted.limits.sessions * fitted.per_session_kib * KIB
    processes = (2 + fitted.workers + fitted.queues) * memory.PROCESS_BYTES
    assert places + (processes if cores <= 4 or mib >= 4096 else 0) < bounds.high < bounds.most
    assert bounds.most <= mib * MIB * memory.MOST_PERCENT // 100
    assert bounds.high <= mib * MIB * memory.HIGH_PERCENT // 100


def test_it_follows_what_is_in_force() -> None:
    (generic,) = (each for each in PROFILES if each.name == "generic")
    usual = of(generic, 8192)
    assert (usual.high >> 20, usual.most >> 20) == (1037, 1296)  # docs/hardware.md
    assert of(generic, 65536) == usual
    assert of(generic, 8192, more="[limits]\nsessions = 2000\n").high == usual.high - 2 * 8000 * 40 * KIB
    held = 10_000 * 16 * KIB + 100 * MIB
    assert of(generic, 8192, more=f"[limits]\nheld_bytes = {held}\n").high == usual.high + 200 * MIB
    assert of(generic, 8192, more="[interceptor]\nworkers = 3\n").high == usual.high + 2 * memory.PROCESS_BYTES
    assert of(generic, 8192, more="[diverter]\nqueues = 2\n").high == usual.high + memory.PROCESS_BYTES
    assert of(generic, 8192, mta=True).high == usual.high + memory.MTA_BYTES + 2 * 10_000 * 40 * KIB
    assert of(generic, 1024) == Bounds(1024 * MIB * 60 // 100, 1024 * MIB * 75 // 100)


@pytest.mark.parametrize(
    ("cgroups", "pid", "unit"),
    [
        (UNIT, "7", "tollbridge.service"),
        (f"3:cpu:/\n1:name=systemd:{UNIT.split(':')[-1]}", "7", "tollbridge.service"),
        (UNIT, "8", ""),  # a child of the unit's main process, or a shell in its control group
        (UNIT, None, ""),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/editor.service\n", "7", ""),
        ("0::/user.slice/user-0.slice/session-2.scope\n", "7", ""),
        ("", "7", ""),
    ],
)
def test_only_the_main_process_of_a_unit_is_bound(cgroups: str, pid: str | None, unit: str) -> None:
    assert unit_of(cgroups, {} if pid is None else {"SYSTEMD_EXEC_PID": pid}, 7) == unit


@pytest.mark.parametrize(
    ("path", "text", "theirs"),
    [
        ("/etc/systemd/system/tollbridge.service.d/override.conf", "[Service]\nMemoryMax=2G\n", True),
        ("/etc/systemd/system/service.d/all.conf", "[Service]\n  MemoryHigh = 50%\n", True),
        ("/etc/systemd/system.control/tollbridge.service.d/50-MemoryMax.conf", "[Service]\nMemoryMax=9\n", True),
        ("/etc/systemd/system/tollbridge.service.d/override.conf", "[Service]\n#MemoryMax=2G\nMemoryLow=1\n", False),
        ("/run/systemd/system.control/tollbridge.service.d/50-MemoryMax.conf", "[Service]\nMemoryMax=9\n", False),
    ],
)
def test_an_administrators_word_stands(path: str, text: str, theirs: bool) -> None:
    assert administrators([("/x.conf", "[Service]\n"), (path, text)]) == (path if theirs else "")


@pytest.fixture
def main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "unit_of", lambda *_: "tollbridge.service")


@pytest.mark.parametrize("failure", [FileNotFoundError(2, "none"), subprocess.TimeoutExpired("systemctl", 5)])
@pytest.mark.usefixtures("main_process")
def test_who_cannot_be_told_is_no_reason_to_stop(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: str) -> str:
        raise failure

    monkeypatch.setattr(memory, "_systemctl", refuse)
    bind(Bounds(1, 2))
    assert "the unit's own bounds hold" in caplog.text


def test_the_units_percents_are_the_reckonings() -> None:
    unit = (Path(memory.__file__).parent / "packaging/files/tollbridge.service").read_text(encoding="utf-8")
    assert f"\nMemoryHigh={memory.HIGH_PERCENT}%\nMemoryMax={memory.MOST_PERCENT}%\n" in unit
