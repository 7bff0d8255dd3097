"""A configuration's text, from the file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from smtp_intercept.app import given
from smtp_intercept.app.defaults import SPOOL
from smtp_intercept.app.given import GivenError
from smtp_intercept.app.mistakes import ConfigError, ConfigErrors

MAX_FILE_BYTES = 1 << 20  # thousands of protected domains; more is the wrong file


def read(path: Path) -> str:
    """The file's text. Raises `ConfigErrors` if it has none."""
    try:
        return given.text(path, MAX_FILE_BYTES)
    except GivenError as error:
        remedy = error.remedy or "create it, or name another with --config"
        raise whole_file(path, error.reason, remedy, error.line) from None


def spool_in(path: Path) -> Path | None:
    """Where that file has the queue, for who needs nothing else of it, whatever else is in it. None if it cannot
    be told; `ConfigErrors` as `read`."""
    try:
        mta = tomllib.loads(read(path)).get("mta", {})
        found = mta.get("spool", str(SPOOL)) if isinstance(mta, dict) else None
    except (ValueError, RecursionError):
        return None
    return Path(found) if isinstance(found, str) and Path(found).is_absolute() else None


def whole_file(path: Path, reason: str, remedy: str, line: int | None = None) -> ConfigErrors:
    """A mistake that is the whole file's."""
    return ConfigErrors([ConfigError("", reason, remedy, line, path)])
