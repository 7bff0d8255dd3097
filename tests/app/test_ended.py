"""Who has ended is known by the process itself, also while nobody has waited for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from smtp_intercept.app import ended


def test_of_each_kind_one_that_lives_is_enough() -> None:
    with subprocess.Popen(["sleep", "60"]) as killed:
        killed.kill()
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # a zombie
        here = os.getpid()
        processes = {"supervisor": here, "diverter-1": killed.pid, "diverter-2": here, "interceptor": killed.pid}
        assert ended.ended(processes) == ["interceptor"]
    assert ended.ended({"interceptor": killed.pid}) == ["interceptor"], "nobody's any more"
    assert ended.ended({}) == []


def test_who_may_not_see_others_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ended, "_SEEN_BY_ALL", tmp_path / "1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ended.ended({"interceptor": 1 << 30}) == []
