"""One loop, and the filter with the genuine libmilter, for each module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.smtp.conftest import run
from tests.tools import data, libraries

__all__ = ["run"]
PROGRAM = Path(__file__).with_name("program.py")


@dataclass(frozen=True)
class PyMilter:
    """The program at work, on a Unix socket."""

    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return str(self.directory / "socket")

    def order(self, say: dict[str, Any] | None = None, edit: list[list[Any]] | None = None) -> None:
        (self.directory / "new").write_text(json.dumps({"say": say or {}, "edit": edit or []}))
        (self.directory / "new").rename(self.directory / "orders")
        (self.directory / "heard").unlink(missing_ok=True)

    def heard(self) -> list[Any]:
        found: list[Any] = json.loads((self.directory / "heard").read_text())
        return found


@pytest.fixture(scope="module")
def pymilter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PyMilter]:
    directory = tmp_path_factory.mktemp("pymilter")
    packages = data("usr/lib/python3/dist-packages/Milter")[0].parent
    environment = {**os.environ, **libraries(), "PYTHONPATH": str(packages)}
    words = ["/usr/bin/python3", str(PROGRAM), str(directory / "socket"), str(directory / "orders")]
    process = subprocess.Popen(words, env=environment, stdout=sys.stderr)
    it = PyMilter(directory, process)
    it.order()
    deadline_at = time.monotonic() + 60
    while not (directory / "socket").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline_at
        time.sleep(0.02)
    yield it
    process.kill()
    process.wait()
