"""Which of the daemon's processes have ended though its page still has them: seen before any heart-beat stops."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_PROC = Path("/proc")
_SEEN_BY_ALL = _PROC / "1"  # hidepid= and ProtectProc= hide from others what lives
_DEAD = frozenset("ZXx")  # proc_pid_stat(5): killed, and not yet waited for


def ended(processes: Mapping[str, int]) -> list[str]:
    """Names of kinds of which no process lives; nobody's where this process may not see others'."""
    if os.geteuid() and not _SEEN_BY_ALL.exists():
        return []
    alive: dict[str, bool] = {}
    for name, pid in processes.items():
        kind = name.partition("-")[0]
        alive[kind] = alive.get(kind, False) or lives(pid)
    return [kind for kind, one_does in alive.items() if not one_does]


def lives(pid: int) -> bool:
    """Runs; a zombie, which waits for its parent to look, does not."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(") ")[2][:1] not in _DEAD
