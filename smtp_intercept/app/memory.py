"""How much memory the service may take: reckoned from profile and limits in force, told to systemd at each start.

What an administrator has set by a drop-in of the unit's stays. Where it cannot be told, the unit's own percents hold.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hwprofiles.profile import Profile
from smtp_intercept.accounts import LEAST_OF_SESSION
from smtp_intercept.app.config import Config, budget, queues, workers

KIB, MIB = 1 << 10, 1 << 20
# docs/soak.md has what each was seen to take; libraries that they share count once.
PROCESS_BYTES, MTA_BYTES, KERNEL_BYTES = 48 * MIB, 96 * MIB, 64 * MIB
SUPERVISOR_AND_RESOLVER = 2
# Of the box: never more, whatever the reckoning says. The unit file has the same (tests/packaging/test_package.py).
HIGH_PERCENT, MOST_PERCENT = 60, 75
SYSTEMCTL_S = 5.0
OURS = "/run/systemd/system.control/"  # where set-property --runtime writes
_SET = re.compile(r"^\s*Memory(High|Max)\s*=", re.MULTILINE)
_LOG = logging.getLogger("tollbridge")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Octets: beyond the first the service is slowed down and its caches shrink, beyond the second it is ended."""

    high: int
    most: int


def reckoned(config: Config, profile: Profile, memory_mib: int, *, mta: bool) -> Bounds:
    """``config`` is the effective one. Processes, and twice what their sessions are reckoned at: the other half is for
    sockets whose peers move large mail."""
    places = config.limits.sessions or profile.limits.sessions
    held = budget(config).held_bytes - places * LEAST_OF_SESSION
    sessions = (places * profile.per_session_kib * KIB + max(0, held)) * (1 + mta)
    processes = SUPERVISOR_AND_RESOLVER + workers(config, profile) + queues(config, profile)
    processes += (config.tracking.index is not None) + (config.metrics.listen is not None)
    wanted = KERNEL_BYTES + processes * PROCESS_BYTES + mta * MTA_BYTES + 2 * sessions
    memory = memory_mib * MIB
    return Bounds(min(wanted, memory * HIGH_PERCENT // 100), min(wanted * 5 // 4, memory * MOST_PERCENT // 100))


def unit_of(cgroups: str, environment: Mapping[str, str], pid: int) -> str:
    """The system's unit whose main process this is, by /proc/self/cgroup; "" if it is none's (systemd.exec(5))."""
    if environment.get("SYSTEMD_EXEC_PID") != str(pid):
        return ""
    paths = [line.split(":", 2)[-1] for line in cgroups.splitlines()]
    named = [path.rpartition("/")[2] for path in paths if path.endswith(".service") and "/user.slice/" not in path]
    return named[0] if named else ""


def administrators(drop_ins: Iterable[tuple[str, str]]) -> str:
    """The path of the first of the unit's drop-ins, each its path and its text, that is not ours and sets a bound."""
    return next((path for path, text in drop_ins if not path.startswith(OURS) and _SET.search(text)), "")


def bind(bounds: Bounds) -> None:
    """Tells systemd, if that has started this process: until the next boot, in the place of what the unit file has."""
    unit = unit_of(Path("/proc/self/cgroup").read_text(encoding="utf-8"), os.environ, os.getpid())
    if not unit:
        return
    try:
        said = _systemctl("show", "--property=DropInPaths", "--value", unit)
        if path := administrators((path, Path(path).read_text(encoding="utf-8")) for path in said.split()):
            _LOG.info("memory: %s decides how much", path)
            return
        _systemctl("--runtime", "set-property", unit, f"MemoryHigh={bounds.high}", f"MemoryMax={bounds.most}")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip()
        _LOG.warning("memory: the unit's own bounds hold, for systemd cannot be told others: %s", why)
        return
    _LOG.info("memory: %s is bounded to %d MiB, slowed down from %d MiB", unit, bounds.most >> 20, bounds.high >> 20)


def _systemctl(*words: str) -> str:
    done = subprocess.run(  # noqa: S603 - no shell
        ["systemctl", "--no-ask-password", *words],  # noqa: S607 - of PATH, which the unit sets
        check=True,
        capture_output=True,
        text=True,
        timeout=SYSTEMCTL_S,
    )
    return done.stdout
