"""What `up` or `down` began on this host and did not end: a mark on disk from before the first step until after the
last, so that `status` tells of what is half made, and how it is mended.

A first `up` that does not end takes its steps back itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bridge.host import Host
from bridge.steps import Step
from smtp_intercept.app import streams
from smtp_intercept.app.rundir import RunDir, write_json
from smtp_intercept.app.signals import Interrupted
from smtp_intercept.app.wanted import is_tuning


class LeftoverError(Exception):
    """What was begun could neither be ended nor be taken back whole."""


@dataclass(frozen=True, slots=True)
class Begun:
    """``first``: the host had no bridge of ours, and shall have none if this does not end."""

    first: bool


@contextmanager
def change(run_dir: RunDir, verb: str, host: Host) -> Iterator[Begun]:
    """Whatever ends the steps early. Raises OSError, with nothing done, if it cannot be marked."""
    before = host.undoing
    begun = Begun(first=all(map(is_tuning, before)))
    begin(run_dir, verb)
    try:
        yield begun
    except BaseException as error:
        if begun.first:
            _take_back(run_dir, host, before, error)
        raise
    end(run_dir)


def _take_back(run_dir: RunDir, host: Host, before: frozenset[Step], error: BaseException) -> None:
    if isinstance(error, Interrupted):
        streams.tell(f"{error}: undoing")
    run_dir.pending.unlink(missing_ok=True)
    failures = host.down(among=lambda undo: undo not in before)
    if not failures:
        end(run_dir)
        return
    left = "not all could be taken back; tollbridge down tries again"
    raise LeftoverError("\n".join([str(error), *failures, left])) from error


def begin(run_dir: RunDir, verb: str) -> None:
    run_dir.make()
    write_json(run_dir.unfinished, {"verb": verb, "at": time.time()})


def end(run_dir: RunDir) -> None:
    run_dir.unfinished.unlink(missing_ok=True)
