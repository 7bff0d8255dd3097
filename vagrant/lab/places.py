"""Where the lab's files are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
VAGRANT = ROOT / "vagrant"
KEPT = ROOT / ".tools" / "lab"  # boxes, packages, logs: what outlives the machines
INTERFACE = KEPT / "machines.json"
# Sockets have short names. Of the user alone: who can write to a monitor has the machine.
RUN = Path(os.environ.get("XDG_RUNTIME_DIR", "/run") if os.geteuid() else "/run") / "tollbridge-vms"
# This program again, whatever the caller's directory.
COMMAND = ("env", "-C", str(ROOT), sys.executable, "-m", "vagrant.lab")


def make_run() -> None:
    RUN.mkdir(mode=0o700, exist_ok=True)
    KEPT.mkdir(parents=True, exist_ok=True)
