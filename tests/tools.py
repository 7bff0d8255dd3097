"""Programs and data that only the tests use, installed or unpacked by `make` in .tools/. Starts nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

# TOLLBRIDGE_TOOLS: a folder of one's own, to try packages that the Makefile does not name.
TOOLS = Path(os.environ.get("TOLLBRIDGE_TOOLS") or Path(__file__).parents[1] / ".tools").resolve()
BINARIES = ("usr/sbin", "usr/bin", "usr/lib/postfix/sbin")


def program(name: str) -> tuple[str, dict[str, str]]:
    """The program's path, and what its environment needs beyond ours; skips the test if it is not there."""
    places = [os.environ.get("PATH", ""), "/usr/sbin", *(str(TOOLS / place) for place in BINARIES)]
    if (found := shutil.which(name, path=os.pathsep.join(places))) is None:
        pytest.skip(f"{name} is neither installed nor unpacked in .tools/: make tools")
    libraries = [TOOLS / "usr/lib/postfix", *(TOOLS / "usr/lib").glob("*-linux-gnu")]
    perl = [TOOLS / "usr/share/perl5", *(TOOLS / "usr/lib").glob("*/perl5/*")]
    return found, {"LD_LIBRARY_PATH": _joined(libraries), "PERL5LIB": _joined(perl)}


def data(pattern: str) -> list[Path]:
    """The files below .tools/ or / that match, e.g. ``usr/lib/python3*/test/test_email/data/*``; skips if none does."""
    for root in (TOOLS, Path("/")):
        if found := sorted(root.glob(pattern)):
            return found
    pytest.skip(f"no {pattern}, neither installed nor unpacked in .tools/: make tools")


def _joined(paths: list[Path]) -> str:
    return os.pathsep.join(map(str, paths))
