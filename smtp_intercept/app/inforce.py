"""The texts that are in force, as they were when `up` and `run` read them, beside the file as it is now."""

from __future__ import annotations

from pathlib import Path

from smtp_intercept.app.mistakes import ConfigErrors
from smtp_intercept.app.reading import read
from smtp_intercept.app.rundir import RunDir


def running(run_dir: RunDir) -> str | None:
    """What the running daemon was started with; None where none runs, or only root may know."""
    return _text(run_dir.running) if run_dir.holder("run") else None


def of_run(run_dir: RunDir, file: Path) -> list[str]:
    """What is in the file and not in force, in words; nothing where no daemon runs."""
    text = running(run_dir)
    return [] if text is None else _against(file, text)


def of_up(run_dir: RunDir, file: Path) -> list[str]:
    """The same of what `up` made, as far as the file says it."""
    text = _text(run_dir.made)
    return [] if text is None else _against(file, text, up=True)


def _against(file: Path, text: str, *, up: bool = False) -> list[str]:
    try:
        now = read(file)
    except ConfigErrors:
        return ["it cannot be read now (tollbridge check)"]
    if now == text:
        return []
    from smtp_intercept.app.drift import OF_UP, differences  # reads both as configurations: most of a second

    return differences(now, text, OF_UP) if up else differences(now, text)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
