"""The administrator's own profiles: over those of the package by name, beside them otherwise, and as strictly read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwprofiles import shelf
from hwprofiles.match import named


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(shelf, "LOCAL", tmp_path)
    shelf._all.cache_clear()
    yield tmp_path
    shelf._all.cache_clear()


def test_one_of_the_same_name_goes_over_the_packages(local: Path) -> None:
    text = shelf.profile_text("generic")
    (local / "generic.toml").write_text(text.replace("workers = 4", "workers = 7"))
    (local / "ours.toml").write_text(text.replace("workers = 4", "workers = 9"))
    (local / "notes.txt").write_text("no profile")
    shelf._all.cache_clear()
    every = shelf.profiles()
    assert (named("generic", every).workers, named("ours", every).workers) == (7, 9)
    assert len(every) == len({profile.name for profile in every})


@pytest.mark.parametrize("content", [b"workers = ", b"\xff", b"[interceptor]\nworkers = 3\n"])
def test_one_that_is_not_whole_is_told_of_and_not_used(
    local: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("generic.toml", "mine.toml"):
        (local / name).write_bytes(content)
    every = shelf.profiles()
    assert named("generic", every).workers == 4
    assert "mine" not in {profile.name for profile in every}
    assert [record.args for record in caplog.records if f"{local}/mine.toml is not used" in record.getMessage()]


def test_without_the_directory_there_are_the_packages(local: Path) -> None:
    local.rmdir()
    assert named("generic", shelf.profiles()).workers == 4
