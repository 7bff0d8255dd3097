"""Where the command line looks: the host's network namespace, and the room that the wire has for itself.

Set once, by the run directory that the command is about. Reads only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from smtp_intercept.app.defaults import RUN_DIR
from smtp_intercept.app.rundir import RunDir

if TYPE_CHECKING:
    from bridge.namespace import Namespace

_T = TypeVar("_T")
_here = RunDir(RUN_DIR)


def look_at(run_dir: Path) -> None:
    """What that one's gateway has a room for is a part of this box."""
    global _here
    _here = RunDir(run_dir)


def room(run_dir: RunDir | None = None) -> str:
    """The name of the room that the wire lives in now; "" if it is in the host, or there is none."""
    if not (ledger := (run_dir or _here).ledger).exists():
        return ""
    from bridge.ledger import Ledger  # not before it is needed: every word of the command says where it looks

    return Ledger(ledger).room


def identity() -> list[int]:
    """Of the room, the same while it is the same; empty if there is none."""
    if (found := _opened()) is None:
        return []
    try:
        return [*found.identity]
    finally:
        found.close()


def _opened(run_dir: RunDir | None = None) -> Namespace | None:
    """None also for who may not look in. Where its name was lost, its daemon still has it."""
    try:
        if not (name := room(run_dir)):
            return None
        from bridge.namespace import Namespace

        return Namespace.named(name) or Namespace.of((run_dir or _here).holder("run"))
    except PermissionError:
        return None


@contextmanager
def inside(run_dir: RunDir | None = None) -> Iterator[bool]:
    """The process is where the wire is while the context lasts; False where that is the host. Not for sysfs: `ask`."""
    if (found := _opened(run_dir)) is None:
        yield False
        return
    try:
        with found.entered():
            yield True
    finally:
        found.close()


def ask(work: Callable[[], _T]) -> _T | None:
    """What ``work`` returns in the room, sysfs and all; None if there is none, or none that may be entered."""
    if (found := _opened()) is None:
        return None
    try:
        return found.ask(work)
    except PermissionError:
        return None
    finally:
        found.close()
