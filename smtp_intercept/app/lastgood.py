"""The last configuration that mail was inspected with: kept on disk, and at boot used in place of one that is broken.

A typo before a reboot does not turn inspection off, or cut the wire, until somebody looks. Only the units ask for it:
what a person types is obeyed or refused.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from bridge.plan import PlanError
from hwprofiles.profile import ProfileError
from smtp_intercept.app import streams
from smtp_intercept.app.mistakes import ConfigErrors, RefusedError
from smtp_intercept.app.reading import read
from smtp_intercept.app.rundir import RunDir, write_json

FILE = "last-good.toml"
# What a file can be that `check` or `plan` would have told of.
BROKEN = (ConfigErrors, PlanError, ProfileError, RefusedError)
_T = TypeVar("_T")


def path(state_dir: Path) -> Path:
    """Where it is kept."""
    return state_dir / FILE


def keep(state_dir: Path, text: str) -> None:
    """Root's alone, whole or not at all, also after a power cut. Raises OSError."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path(state_dir).with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path(state_dir))


def kept(state_dir: Path) -> str | None:
    """Its text; None if there is none that can be read."""
    try:
        return path(state_dir).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def or_last_good(verb: Callable[[argparse.Namespace], _T], arguments: argparse.Namespace) -> _T:
    """The verb with the configuration; if that is broken with the last good one, and said so. Raises what the verb
    raises; what is wrong with the file if no other is kept."""
    run_dir = RunDir(arguments.run_dir)
    run_dir.instead.unlink(missing_ok=True)
    try:
        return verb(arguments)
    except BROKEN as error:
        if kept(arguments.state_dir) in (None, _text(arguments.config)):
            raise
        _say(arguments, run_dir, str(error))
        return verb(argparse.Namespace(**{**vars(arguments), "config": path(arguments.state_dir), "instead": True}))


def _say(arguments: argparse.Namespace, run_dir: RunDir, why: str) -> None:
    good = path(arguments.state_dir)
    kept_at = good.stat().st_mtime
    told = {"config": str(arguments.config), "why": why, "in_force": str(good), "kept_at": kept_at}
    with suppress(OSError):  # a full disk is no reason to leave the wire cut
        run_dir.make()
        write_json(run_dir.instead, told)
    streams.tell(why)
    when = time.strftime("%F %T", time.localtime(kept_at))
    print(
        f"tollbridge: {arguments.config} IS NOT IN FORCE: using {good}, the last good one, of {when}", file=sys.stderr
    )


def _text(config: Path) -> str | None:
    try:
        return read(config)
    except ConfigErrors:
        return None
