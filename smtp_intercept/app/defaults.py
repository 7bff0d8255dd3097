"""Where the command's files lie unless it is told otherwise. Data only."""

from __future__ import annotations

from pathlib import Path

CONFIG = Path("/etc/tollbridge/tollbridge.toml")
RUN_DIR = Path("/run/tollbridge")
STATE_DIR = Path("/var/lib/tollbridge")
HELD = STATE_DIR / "held"
SPOOL = Path("/var/spool/tollbridge")
