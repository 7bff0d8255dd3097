"""Programs that only the tests use, installed or unpacked by `make` in .tools/. Starts nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / ".tools"


def program(name: str) -> tuple[str, dict[str, str]]:
    """The program's path, and what its environment needs beyond ours; skips the test if it is not there."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", str(TOOLS / "usr/sbin"), str(TOOLS / "usr/bin")])
    if (found := shutil.which(name, path=path)) is None:
        pytest.skip(f"{name} is neither installed nor unpacked in .tools/: make tools")
    libraries = [TOOLS / "usr/lib/postfix", *(TOOLS / "usr/lib").glob("*-linux-gnu")]
    return found, {"LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}
