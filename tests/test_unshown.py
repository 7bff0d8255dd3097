"""A skip that nobody claims, or that is not true here, fails; the others are told, also of several workers and runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unshown import CLAIMS, DOT1Q, NO_DOT1Q

ROOT = Path(__file__).parents[1]
TRUE, FALSE = (DOT1Q, NO_DOT1Q) if DOT1Q.lacking() else (NO_DOT1Q, DOT1Q)
SOURCE = f"""
import pytest
from tests.unshown import DOT1Q, NO_DOT1Q

def test_passes(): pass

@pytest.mark.parametrize("n", [1, 2])
def test_claimed(n): (DOT1Q.skip(), NO_DOT1Q.skip())

@DOT1Q.mark
@NO_DOT1Q.mark
def test_marked(): raise AssertionError

def test_false(): pytest.skip({FALSE.reason!r})

def test_unclaimed(): pytest.skip("it is Tuesday")

@pytest.fixture
def absent(): pytest.skip("nobody at home")

def test_by_a_fixture(absent): pass
"""


def run(directory: Path, *words: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir"]
    options = ["-m", "not vm", "--unshown", str(directory / "unshown"), str(directory)]
    done = subprocess.run(
        [*command, str(directory), *words, *options], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return done.stdout


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "several"])
def test_a_skip_is_a_claim(tmp_path: Path, workers: list[str]) -> None:
    (tmp_path / "test_some.py").write_text(SOURCE)
    (tmp_path / "unshown").write_text("1 test: said by an earlier run\n")
    said = run(tmp_path, *workers)
    assert re.search(r"\b3 failed, 1 passed, 3 skipped\b|\b2 failed, 1 passed, 3 skipped, 1 error\b", said), said
    for test in ("test_false", "test_unclaimed", "test_by_a_fixture"):
        assert re.search(rf"(FAILED|ERROR) \S*::{test}\b", said), said
    assert (
        "was skipped: it is Tuesday\nA skip is a claim about the machine, and this one is not in tests/unshown.py"
        in said
    )
    told = (tmp_path / "unshown").read_text()
    assert told.splitlines() == [
        "1 test: said by an earlier run",
        f"3 tests: {TRUE.reason}; {TRUE.elsewhere}",
        "another command's: the lab of virtual machines: make lab-test",
    ]
    assert said.rstrip("\n").split("\n")[-4:-1] == told.splitlines(), said


def test_nor_is_a_whole_module_skipped(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text("import pytest\npytest.importorskip('no_such_module', reason='not there')\n")
    assert re.search(r"ERROR \S*test_some\.py", said := run(tmp_path)), said


def test_every_claim_has_words_of_its_own() -> None:
    assert len({claim.reason for claim in CLAIMS}) == len(CLAIMS) > 5
